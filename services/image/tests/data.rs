//! Image data: upload, download, parts, limits, and uploads that get in each other's way.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::*;
use maru_http::{Limits, Pace};
use maru_image::{Inspected, Inspector, Settings};
use maru_image_model::ImageStatus;
use serde_json::{Value, json};
use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
};

#[tokio::test]
async fn what_goes_in_comes_out() {
    let c = cloud().await;
    let data: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let image = c.queued(A, json!({})).await;
    assert_eq!(c.download(A, &image, &[]).await.status, 204, "no data yet");
    assert_eq!(c.upload(A, &image, data.clone()).await.status, 204);
    let shown = c.get(A, &format!("/v2/images/{image}")).await;
    for (key, value) in [
        ("status", json!("active")),
        ("size", json!(3_000_000)),
        ("virtual_size", json!(3_000_000)),
        ("checksum", json!(hash("md5sum", &data))),
        ("os_hash_algo", json!("sha512")),
        ("os_hash_value", json!(hash("sha512sum", &data))),
    ] {
        assert_eq!(shown[key], value, "{key}");
    }
    let whole = c.download(A, &image, &[]).await;
    assert_eq!((whole.status, whole.body.len()), (200, data.len()));
    assert!(whole.body == data);
    assert_eq!(whole.header("content-type"), Some(OCTETS));
    assert_eq!(whole.header("content-length"), Some("3000000"));
    assert_eq!(whole.header("content-md5"), shown["checksum"].as_str());
    let head = c
        .want(200, A, "HEAD", &format!("/v2/images/{image}/file"), Value::Null)
        .await;
    assert_eq!((head.body.len(), head.header("content-length")), (0, Some("3000000")));
    let twice = c.upload(A, &image, "more").await;
    assert_eq!(twice.status, 409);
    assert!(twice.text().contains("active to saving"), "{}", twice.text());
    c.audit().await;
}

/// What the usual tool says.
fn hash(tool: &str, data: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), data).unwrap();
    let output = std::process::Command::new(tool).arg(file.path()).output().unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn parts() {
    let c = cloud().await;
    let image = c.active(A, json!({}), b"0123456789").await;
    for (name, text, part, range) in [
        ("range", "bytes=0-4", "01234", "bytes 0-4/10"),
        ("range", "bytes=8-", "89", "bytes 8-9/10"),
        ("range", "bytes=-3", "789", "bytes 7-9/10"),
        ("range", "bytes=-30", "0123456789", "bytes 0-9/10"),
        ("range", "bytes=5-500", "56789", "bytes 5-9/10"),
        ("content-range", "bytes 2-4/10", "234", "bytes 2-4/10"),
        ("content-range", "bytes 2-4/*", "234", "bytes 2-4/10"),
    ] {
        let answer = c.download(A, &image, &[(name, text)]).await;
        assert_eq!((answer.status, answer.text().as_str()), (206, part), "{text}");
        assert_eq!(answer.header("content-range"), Some(range));
        assert_eq!(answer.header("content-length"), Some(&*part.len().to_string()));
        assert!(answer.header("content-md5").is_some());
    }
    for (name, text, status) in [
        ("range", "bytes=10-", 416),
        ("range", "bytes=5-2", 416),
        ("range", "pages=1-2", 416),
        ("range", "bytes=0-1,4-5", 400),
        ("content-range", "bytes 4-10/*", 416),
        ("content-range", "x", 416),
    ] {
        let answer = c.download(A, &image, &[(name, text)]).await;
        assert_eq!(answer.status, status, "{text}");
        assert!(answer.text().contains("range"), "{}", answer.text());
    }
    let empty = c.active(A, json!({}), b"").await;
    let answer = c.download(A, &empty, &[]).await;
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("0")));
    assert_eq!(c.download(A, &empty, &[("range", "bytes=0-")]).await.status, 416);
}

#[tokio::test]
async fn what_an_upload_needs() {
    let c = cloud().await;
    let image = c.queued(A, json!({})).await;
    let path = format!("/v2/images/{image}/file");
    for kind in ["application/json", "text/plain", ""] {
        let answer = c.send(A, "PUT", &path, &[("content-type", kind)], "data").await;
        assert_eq!(answer.status, 415, "{kind}");
        assert!(answer.text().contains(OCTETS));
    }
    assert_eq!(c.send(A, "PUT", &path, &[], "data").await.status, 415);
    assert_eq!(c.upload(A, "nothing", "data").await.status, 404);
    assert_eq!(c.upload("aaa:reader", &image, "data").await.status, 403);
    c.want(405, A, "POST", &path, Value::Null).await;
    for missing in ["disk_format", "container_format"] {
        let bare = id(&c
            .make(
                A,
                json!({"disk_format": "raw", "container_format": "bare", missing: null}),
            )
            .await);
        let answer = c.upload(A, &bare, "data").await;
        assert_eq!(answer.status, 400);
        assert!(answer.text().contains(missing), "{}", answer.text());
        assert_eq!(c.status(&bare).await, "queued");
    }
    assert_eq!(c.status(&image).await, "queued");
    c.audit().await;
}

#[tokio::test]
async fn too_much_is_refused_announced_or_not() {
    let settings = Settings {
        image_size: 1_000,
        project_bytes: Some(1_500),
        ..Settings::default()
    };
    let c = cloud_with(settings, Arc::new(Look)).await;
    let fill = c.active(A, json!({"name": "fill"}), &[1; 1_000]).await;
    for (bytes, words) in [(1_001, "at most 1000 bytes"), (501, "storage quota")] {
        for announced in [true, false] {
            let image = c.queued(A, json!({})).await;
            let path = format!("/v2/images/{image}/file");
            let length = bytes.to_string();
            let mut headers = vec![("content-type", OCTETS)];
            if announced {
                headers.push(("content-length", length.as_str()));
            }
            let answer = c.send(A, "PUT", &path, &headers, vec![2; bytes]).await;
            assert_eq!(answer.status, 413, "{bytes} {announced}: {}", answer.text());
            assert!(answer.text().contains(words), "{}", answer.text());
            assert_eq!(c.status(&image).await, "queued");
        }
    }
    // Of many uploads at once no more than fit; what did not fit fits when room was made.
    let mut images = Vec::new();
    for _ in 0..4 {
        images.push(c.queued(A, json!({})).await);
    }
    let uploads = images
        .iter()
        .enumerate()
        .map(|(n, image)| c.upload(A, image, vec![n as u8; 400]));
    let answers = futures_util::future::join_all(uploads).await;
    assert_eq!(answers.iter().filter(|a| a.status == 204).count(), 1);
    assert_eq!(answers.iter().filter(|a| a.status == 413).count(), 3);
    c.audit().await;
    c.want(204, A, "DELETE", &format!("/v2/images/{fill}"), Value::Null)
        .await;
    let at = answers.iter().position(|a| a.status == 413).unwrap();
    assert_eq!(c.upload(A, &images[at], vec![9; 400]).await.status, 204);
    assert_eq!(
        c.get(A, "/v2/info/usage").await["usage"]["image_size_total"]["usage"],
        0
    );
    // Another project has room of its own.
    c.active(B, json!({}), &[1; 1_000]).await;
    c.audit().await;
}

#[tokio::test]
async fn equal_bytes_are_kept_once_and_go_with_their_last_name() {
    let c = cloud().await;
    let one = c.active(A, json!({}), b"same").await;
    let two = c.active(B, json!({}), b"same").await;
    assert_eq!(c.files().await, 1);
    c.want(204, A, "DELETE", &format!("/v2/images/{one}"), Value::Null)
        .await;
    assert_eq!(c.download(B, &two, &[]).await.body, "same");
    c.want(204, B, "DELETE", &format!("/v2/images/{two}"), Value::Null)
        .await;
    assert_eq!(c.files().await, 0);
    c.audit().await;
}

#[tokio::test]
async fn uploads_and_deletions_of_equal_bytes_at_once_lose_none() {
    let c = Arc::new(cloud().await);
    let round = |n: usize| {
        let c = Arc::clone(&c);
        tokio::spawn(async move {
            let token = [A, B, C][n % 3];
            for turn in 0..6 {
                let image = c
                    .active(token, json!({}), format!("same {}", turn % 2).as_bytes())
                    .await;
                assert_eq!(c.download(token, &image, &[]).await.status, 200);
                if turn % 3 != 0 {
                    c.want(204, token, "DELETE", &format!("/v2/images/{image}"), Value::Null)
                        .await;
                }
            }
        })
    };
    for done in futures_util::future::join_all((0..9).map(round)).await {
        done.unwrap();
    }
    c.audit().await;
}

#[tokio::test]
async fn of_many_uploads_to_one_image_one_wins() {
    let c = cloud().await;
    let image = c.queued(A, json!({})).await;
    let uploads = (0..8_u8).map(|n| c.upload(A, &image, vec![n; 10_000]));
    let answers = futures_util::future::join_all(uploads).await;
    let winners: Vec<usize> = (0..8).filter(|n| answers[*n].status == 204).collect();
    assert_eq!(winners.len(), 1);
    assert!(answers.iter().all(|a| matches!(a.status, 204 | 409)));
    let winner = u8::try_from(winners[0]).unwrap();
    assert!(c.download(A, &image, &[]).await.body.iter().all(|b| *b == winner));
    c.audit().await;
}

/// An inspector that waits to be let go on.
struct Gate(Arc<Semaphore>);

#[async_trait::async_trait]
impl Inspector for Gate {
    async fn inspect(&self, file: &Path, declared: &str) -> maru_base::Result<Inspected> {
        self.0.acquire().await.unwrap().forget();
        Look.inspect(file, declared).await
    }
}

#[tokio::test]
async fn an_image_that_is_deleted_during_its_upload_is_gone() {
    let gate = Arc::new(Semaphore::new(0));
    let c = cloud_with(Settings::default(), Arc::new(Gate(Arc::clone(&gate)))).await;
    let image = c.queued(A, json!({})).await;
    let path = format!("/v2/images/{image}");
    let deleting = async {
        c.until(&image, ImageStatus::Saving).await;
        // While data comes in, nothing that decides how it is read can be changed, and no data can be had.
        c.patch(
            403,
            A,
            &image,
            json!([{"op": "replace", "path": "/disk_format", "value": "qcow2"}]),
        )
        .await;
        assert_eq!(c.download(A, &image, &[]).await.status, 204);
        assert_eq!(c.upload(A, &image, "other").await.status, 409);
        c.want(403, A, "POST", &format!("{path}/actions/deactivate"), Value::Null)
            .await;
        assert_eq!(
            c.get(A, "/v2/info/usage").await["usage"]["image_count_uploading"]["usage"],
            1
        );
        c.want(204, A, "DELETE", &path, Value::Null).await;
        gate.add_permits(1);
    };
    let (uploaded, ()) = tokio::join!(c.upload(A, &image, "data"), deleting);
    assert_eq!(uploaded.status, 410, "{}", uploaded.text());
    c.audit().await;
}

/// A connection that has sent the head of an upload and some of its bytes.
async fn half(address: SocketAddr, image: &str, length: &str, sent: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "PUT /image/v2/images/{image}/file HTTP/1.1\r\nhost: maru\r\nx-auth-token: {A}\r\ncontent-type: {OCTETS}\r\n{length}\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(sent).await.unwrap();
    socket
}

#[tokio::test]
async fn a_client_that_goes_away_half_way_leaves_nothing_stuck() {
    for (length, sent) in [
        ("content-length: 2000000", vec![7; 900_000]),
        ("content-length: 2000000", vec![]),
        (
            "transfer-encoding: chunked",
            [b"40000\r\n".to_vec(), vec![7; 0x40000], b"\r\n".to_vec()].concat(),
        ),
        ("transfer-encoding: chunked", b"zzz\r\n".to_vec()),
    ] {
        for reset in [false, true] {
            let c = cloud().await;
            let image = c.queued(A, json!({})).await;
            let (address, stop, serving) = c.listen().await;
            let socket = half(address, &image, length, &sent).await;
            // A wrong chunk is refused as soon as it is read.
            if sent != b"zzz\r\n" {
                c.until(&image, ImageStatus::Saving).await;
            }
            if reset {
                socket.set_zero_linger().unwrap();
            }
            drop(socket);
            c.until(&image, ImageStatus::Queued).await;
            stop.send(true).unwrap();
            serving.await.unwrap();
            c.audit().await;
            assert_eq!(c.upload(A, &image, "whole").await.status, 204);
        }
    }
}

#[tokio::test]
async fn a_refused_upload_over_a_socket_is_answered_and_the_next_one_works() {
    let c = cloud().await;
    let image = c.declared(A, "qcow2", json!({})).await;
    let (address, stop, serving) = c.listen().await;
    let mut socket = half(address, &image, "content-length: 600000", &[0; 600_000]).await;
    let mut answer = vec![0; 2_000];
    let n = socket.read(&mut answer).await.unwrap();
    let text = String::from_utf8_lossy(&answer[..n]).into_owned();
    assert!(text.starts_with("HTTP/1.1 400"), "{text}");
    assert!(text.contains("declared as qcow2 but its contents are raw"), "{text}");
    drop(socket);
    stop.send(true).unwrap();
    serving.await.unwrap();
    assert_eq!(c.status(&image).await, "queued");
    let good = maru_block::qcow2::empty(1 << 30, None).unwrap();
    assert_eq!(c.upload(A, &image, good).await.status, 204);
    assert_eq!(c.get(A, &format!("/v2/images/{image}")).await["virtual_size"], 1 << 30);
    c.audit().await;
}

/// The end of a connection that the server cuts must not pass for the end of the data.
#[tokio::test]
async fn an_upload_that_is_cut_when_the_server_stops_is_not_taken_for_whole() {
    for length in ["content-length: 2000000", "transfer-encoding: chunked"] {
        let c = cloud().await;
        let image = c.queued(A, json!({})).await;
        let drain = Duration::from_millis(50);
        let (address, stop, serving) = c
            .listen_with(Limits {
                drain,
                ..Limits::default()
            })
            .await;
        let chunk = [b"40000\r\n".to_vec(), vec![7; 0x40000], b"\r\n".to_vec()].concat();
        let _socket = half(address, &image, length, &chunk).await;
        c.until(&image, ImageStatus::Saving).await;
        stop.send(true).unwrap();
        serving.await.unwrap();
        let id = maru_image_model::ImageId::from(image.as_str());
        let ended = c
            .store
            .until(|s| s.get::<maru_image_model::Image>(&id).unwrap().status != ImageStatus::Saving);
        tokio::time::timeout(Duration::from_secs(20), ended).await.unwrap();
        assert_eq!(c.status(&image).await, "queued", "{length}");
    }
}

#[tokio::test]
async fn an_upload_that_comes_too_slowly_is_told_so() {
    let c = cloud().await;
    let image = c.queued(A, json!({})).await;
    let pace = Pace {
        grace: Duration::from_millis(50),
        bytes_per_second: 1 << 30,
    };
    let (address, stop, serving) = c
        .listen_with(Limits {
            pace,
            ..Limits::default()
        })
        .await;
    let mut socket = half(address, &image, "content-length: 600000", b"and then nothing").await;
    let mut answer = Vec::new();
    let reading = socket.read_to_end(&mut answer);
    tokio::time::timeout(Duration::from_secs(20), reading)
        .await
        .unwrap()
        .unwrap();
    let text = String::from_utf8_lossy(&answer);
    assert!(
        text.starts_with("HTTP/1.1 408") && text.contains("too slowly"),
        "{text}"
    );
    stop.send(true).unwrap();
    serving.await.unwrap();
    c.audit().await;
}
