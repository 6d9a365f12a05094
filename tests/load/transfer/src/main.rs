//! Image upload and download rates over loopback, through the real socket server, beside what the machine does by itself:
//!
//! - download beside `sendfile` of the same file to a socket, read by the same client;
//! - upload beside `cat file | tee >(md5sum) >(sha512sum) > copy`, which ends when both sums are known; and beside the
//!   same with the copy on the disk, as an upload's answer promises.
//!
//! One JSON object a line: name, value, unit; where there is one, promise and holds. Each figure is the median of
//! alternating rounds; a ratio is the median of the rounds' ratios.
//!
//! `maru-load-transfer [MEBIBYTES] [ROUNDS] [FOLDER]`: 512 MiB, 5 rounds, in the temporary folder.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use bytes::Bytes;
use http_body_util::BodyExt;
use maru_auth::{Caller, NoAudit, Policy, Scope, TokenVerifier};
use maru_base::{DomainId, Error, ProjectId, Result, UserId};
use maru_blob::DirBlobs;
use maru_http::{Gateway, Listener};
use maru_image::{App, Inspected, Inspector, POLICY, service};
use maru_store::{Registry, Store};
use std::{
    fs::File,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

struct Anyone;

#[async_trait::async_trait]
impl TokenVerifier for Anyone {
    async fn verify(&self, _: &str) -> Result<Arc<Caller>> {
        Ok(Arc::new(Caller {
            user_id: UserId::from("u"),
            user_name: "u".to_owned(),
            user_domain_id: DomainId::from("default"),
            scope: Scope::Project(ProjectId::from("p")),
            project_domain_id: None,
            project_name: None,
            roles: ["member", "reader"].map(ToOwned::to_owned).to_vec(),
            methods: Vec::new(),
            audit_ids: Vec::new(),
            expires_at: maru_base::time::now() + jiff::SignedDuration::from_hours(1),
        }))
    }
}

/// The node's parser without its sandbox, whose cost does not grow with the image.
struct Look;

#[async_trait::async_trait]
impl Inspector for Look {
    async fn inspect(&self, file: &Path, declared: &str) -> Result<Inspected> {
        let found = maru_block::inspect(&mut File::open(file).unwrap()).unwrap();
        let proven = maru_block::check_claim(declared, &found).map_err(Error::bad_request)?;
        Ok(Inspected {
            proven_format: proven.format,
            virtual_size: Some(proven.virtual_size),
        })
    }
}

async fn gateway(folder: &Path) -> Arc<Gateway> {
    let mut registry = Registry::new();
    maru_image_model::register(&mut registry);
    let blobs = DirBlobs::open(folder.join("blobs"), "here").await.unwrap();
    let app = App::new(Store::in_memory(registry), Arc::new(blobs), Arc::new(Look));
    let policy = Arc::new(Policy::build(&[POLICY], None).unwrap());
    let service = service(Arc::new(app));
    Arc::new(Gateway::new(vec![service], Arc::new(Anyone), policy, Arc::new(NoAudit)).unwrap())
}

/// The id of a new raw image.
async fn image(gateway: &Gateway) -> String {
    let body = Bytes::from_static(br#"{"disk_format": "raw", "container_format": "bare"}"#);
    let request = http::Request::post("http://maru/image/v2/images").header("x-auth-token", "t");
    let answer = gateway.call(request.body(body).unwrap()).await;
    assert_eq!(answer.status(), 201);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let image: serde_json::Value = serde_json::from_slice(&body).unwrap();
    image["id"].as_str().unwrap().to_owned()
}

async fn delete(gateway: &Gateway, id: &str) {
    let request = http::Request::delete(format!("http://maru/image/v2/images/{id}")).header("x-auth-token", "t");
    assert_eq!(gateway.call(request.body(Bytes::new()).unwrap()).await.status(), 204);
}

fn send_file(to: &TcpStream, file: &File, size: u64) {
    let mut at = 0;
    while at < size {
        let n = usize::try_from((size - at).min(1 << 30)).unwrap();
        assert!(rustix::fs::sendfile(to, file, Some(&mut at), n).unwrap() > 0);
    }
}

/// Reads an answer's head and throws its body away; gives the head.
fn swallow(socket: &mut TcpStream, size: u64) -> String {
    let mut buffer = vec![0; 1 << 20];
    let mut head = Vec::new();
    let mut left = size;
    loop {
        let n = socket.read(&mut buffer).unwrap();
        assert!(n > 0, "{}", String::from_utf8_lossy(&head));
        head.extend_from_slice(&buffer[..n]);
        if let Some(end) = head.windows(4).position(|w| w == b"\r\n\r\n") {
            left = left.saturating_sub((head.len() - end - 4) as u64);
            head.truncate(end);
            break;
        }
    }
    while left > 0 {
        let n = socket.read(&mut buffer).unwrap();
        assert!(n > 0, "cut off, {left} bytes left");
        left = left.saturating_sub(n as u64);
    }
    String::from_utf8(head).unwrap()
}

fn download(address: SocketAddr, id: &str, size: u64) -> Duration {
    let begun = Instant::now();
    let mut socket = TcpStream::connect(address).unwrap();
    write!(
        socket,
        "GET /image/v2/images/{id}/file HTTP/1.1\r\nhost: maru\r\nx-auth-token: t\r\n\r\n"
    )
    .unwrap();
    let head = swallow(&mut socket, size);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    begun.elapsed()
}

/// The same with a server that does nothing but `sendfile`.
fn plain_download(source: &Path, size: u64) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let file = File::open(source).unwrap();
    let serving = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        assert!(socket.read(&mut [0; 4096]).unwrap() > 0);
        socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        send_file(&socket, &file, size);
    });
    let begun = Instant::now();
    let mut socket = TcpStream::connect(address).unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    swallow(&mut socket, size);
    let took = begun.elapsed();
    serving.join().unwrap();
    took
}

fn upload(address: SocketAddr, id: &str, source: &Path, size: u64) -> Duration {
    let file = File::open(source).unwrap();
    let begun = Instant::now();
    let mut socket = TcpStream::connect(address).unwrap();
    write!(
        socket,
        "PUT /image/v2/images/{id}/file HTTP/1.1\r\nhost: maru\r\nx-auth-token: t\r\ncontent-length: {size}\r\n\
         content-type: application/octet-stream\r\n\r\n"
    )
    .unwrap();
    send_file(&socket, &file, size);
    let head = swallow(&mut socket, 0);
    assert!(head.starts_with("HTTP/1.1 204"), "{head}");
    begun.elapsed()
}

/// The shell's way; `end` is what comes after the sums.
fn plain_upload(folder: &Path, end: &str) -> Duration {
    let script = format!(
        "cd \"$1\" && rm -f m s copy && cat source | tee >(md5sum >m) >(sha512sum >s) >copy; \
         until [ -s m ] && [ -s s ]; do :; done; {end}"
    );
    let begun = Instant::now();
    let status = Command::new("bash").args(["-c", &script, "bash"]).arg(folder).status();
    assert!(status.unwrap().success());
    let took = begun.elapsed();
    std::fs::remove_file(folder.join("copy")).unwrap();
    took
}

/// Seconds of processor that this process has used: of the server and of the client.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    // Clock ticks of user and system, 100 a second.
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn figure(name: &str, value: f64, unit: &str, promise: Option<f64>) {
    let mut line = serde_json::json!({"name": name, "value": (value * 100.0).round() / 100.0, "unit": unit});
    if let Some(promise) = promise {
        line["promise"] = promise.into();
        line["holds"] = (value >= promise).into();
    }
    println!("{line}");
}

fn compare(name: &str, ours: &[Duration], theirs: &[Duration], plain: &str, size: u64, promise: Option<f64>) {
    let rate = |d: &Duration| size as f64 / d.as_secs_f64() / 1e6;
    let ratios = ours
        .iter()
        .zip(theirs)
        .map(|(o, t)| t.as_secs_f64() / o.as_secs_f64())
        .collect();
    figure(plain, median(theirs.iter().map(rate).collect()), "MB/s", None);
    figure(&format!("{name} beside {plain}"), median(ratios), "ratio", promise);
}

fn main() {
    let mut args = std::env::args().skip(1);
    let mebibytes: u64 = args.next().map_or(512, |n| n.parse().expect("how many MiB"));
    let rounds: usize = args.next().map_or(5, |n| n.parse().expect("how many rounds"));
    let parent = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::Builder::new()
        .prefix("maru-transfer-")
        .tempdir_in(parent)
        .unwrap();
    let size = mebibytes << 20;
    let source = folder.path().join("source");
    {
        let mut file = File::create(&source).unwrap();
        let mut block = vec![0; 1 << 20];
        for _ in 0..mebibytes {
            maru_base::random::fill(&mut block);
            file.write_all(&block).unwrap();
        }
        file.sync_all().unwrap();
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let gateway = runtime.block_on(gateway(folder.path()));
    let listener = runtime
        .block_on(Listener::bind("127.0.0.1:0".parse().unwrap(), None))
        .unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let serving = runtime.spawn(maru_http::serve(listener, Arc::clone(&gateway), stopped));

    let (mut ours, mut theirs, mut durable) = (Vec::new(), Vec::new(), Vec::new());
    let mut kept = String::new();
    for round in 0..rounds {
        theirs.push(plain_upload(folder.path(), ":"));
        let id = runtime.block_on(image(&gateway));
        ours.push(upload(address, &id, &source, size));
        durable.push(plain_upload(folder.path(), "sync copy"));
        if round + 1 == rounds {
            kept = id;
        } else {
            runtime.block_on(delete(&gateway, &id));
        }
    }
    let rate = |all: &[Duration]| median(all.iter().map(|d| size as f64 / d.as_secs_f64() / 1e6).collect());
    figure("image upload", rate(&ours), "MB/s", None);
    compare(
        "image upload",
        &ours,
        &theirs,
        "cat | tee md5sum sha512sum copy",
        size,
        Some(0.8),
    );
    compare(
        "image upload",
        &ours,
        &durable,
        "cat | tee md5sum sha512sum copy, synced",
        size,
        None,
    );

    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let (mut ours_cpu, mut theirs_cpu) = (0.0, 0.0);
    for _ in 0..=rounds {
        let begun = cpu();
        theirs.push(plain_download(&source, size));
        let between = cpu();
        ours.push(download(address, &kept, size));
        theirs_cpu += between - begun;
        ours_cpu += cpu() - between;
    }
    let moved = (rounds as f64 + 1.0) * size as f64 / 1e9;
    // The first round warmed the caches.
    let (ours, theirs) = (&ours[1..], &theirs[1..]);
    figure("image download", rate(ours), "MB/s", None);
    compare("image download", ours, theirs, "sendfile", size, Some(0.8));
    figure(
        "image download, processor of server and client",
        ours_cpu / moved,
        "s/GB",
        None,
    );
    figure(
        "sendfile, processor of server and client",
        theirs_cpu / moved,
        "s/GB",
        None,
    );

    stop.send(true).unwrap();
    runtime.block_on(serving).unwrap();
}
