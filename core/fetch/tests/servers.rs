//! Real servers on loopback: what is allowed is fetched, and what a server does then changes nothing about who may be asked.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use futures_util::StreamExt;
use maru_fetch::{Allow, Fetcher};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// A server that answers every request with this head and body; gives its address and what it was asked last.
async fn server(head: String, body: &'static [u8]) -> (String, tokio::sync::watch::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (tell, told) = tokio::sync::watch::channel(String::new());
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if tcp.read(&mut byte).await.unwrap_or(0) == 0 {
                    break;
                }
                asked.push(byte[0]);
            }
            tell.send_replace(String::from_utf8_lossy(&asked).into_owned());
            let _ = tcp.write_all(head.as_bytes()).await;
            let _ = tcp.write_all(body).await;
            let _ = tcp.shutdown().await;
        }
    });
    (address, told)
}

fn fetcher(allowed: &[&str]) -> Fetcher {
    Fetcher::new(Allow::parse(allowed).unwrap())
}

async fn whole(fetched: maru_fetch::Fetched) -> std::io::Result<Vec<u8>> {
    let mut body = fetched.body;
    let mut all = Vec::new();
    while let Some(chunk) = body.next().await {
        all.extend_from_slice(&chunk?);
    }
    Ok(all)
}

#[tokio::test]
async fn what_is_allowed_is_fetched_and_nothing_of_the_caller_is_sent() {
    let (address, asked) = server("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_owned(), b"hello").await;
    let fetched = fetcher(&[&address])
        .get(&format!("http://{address}/a?b=c"))
        .await
        .unwrap();
    assert_eq!(fetched.length, Some(5));
    assert_eq!(whole(fetched).await.unwrap(), b"hello");
    let asked = asked.borrow().to_ascii_lowercase();
    assert!(asked.starts_with("get /a?b=c http/1.1"), "{asked}");
    for word in ["x-auth-token", "authorization", "cookie"] {
        assert!(!asked.contains(word), "{asked}");
    }
    let refusal = fetcher(&[]).get(&format!("http://{address}/")).await.unwrap_err();
    assert!(refusal.to_string().contains("does not pass filtering"), "{refusal}");
}

#[tokio::test]
async fn b1_a_redirect_is_checked_like_a_url_of_its_own() {
    let (inside, asked) = server("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n".to_owned(), b"secret").await;
    for to in [
        format!("http://{inside}/"),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "http://[::ffff:127.0.0.1]/".to_owned(),
        "file:///etc/passwd".to_owned(),
    ] {
        let (front, _) = server(
            format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"),
            b"",
        )
        .await;
        let refusal = fetcher(&[&front]).get(&format!("http://{front}/")).await.unwrap_err();
        assert!(
            refusal.to_string().contains("does not pass filtering"),
            "{to}: {refusal}"
        );
        assert_eq!(*asked.borrow(), "", "{to}: it was asked");
    }
    // What is allowed too is followed.
    let (front, _) = server(
        format!("HTTP/1.1 307 Temporary Redirect\r\nLocation: http://{inside}/x\r\nContent-Length: 0\r\n\r\n"),
        b"",
    )
    .await;
    let fetched = fetcher(&[&front, &inside])
        .get(&format!("http://{front}/"))
        .await
        .unwrap();
    assert_eq!(whole(fetched).await.unwrap(), b"secret");
}

#[tokio::test]
async fn b1_a_name_that_resolves_inside_is_refused() {
    let refusal = fetcher(&[]).get("http://localhost/").await.unwrap_err();
    assert!(refusal.to_string().contains("not a public address"), "{refusal}");
}

#[tokio::test]
async fn what_a_server_does_wrong_is_said() {
    let (round, _) = server(
        "HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n".to_owned(),
        b"",
    )
    .await;
    let refusal = fetcher(&[&round]).get(&format!("http://{round}/")).await.unwrap_err();
    assert!(refusal.to_string().contains("more than 5 times"), "{refusal}");
    let (gone, _) = server("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(), b"").await;
    let refusal = fetcher(&[&gone]).get(&format!("http://{gone}/")).await.unwrap_err();
    assert!(refusal.to_string().contains("404"), "{refusal}");
    // Bytes that end early are an error, not a shorter image.
    let (short, _) = server("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n".to_owned(), b"hello").await;
    let fetched = fetcher(&[&short]).get(&format!("http://{short}/")).await.unwrap();
    assert!(whole(fetched).await.is_err());
    let free = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let refusal = fetcher(&[&free]).get(&format!("http://{free}/")).await.unwrap_err();
    assert!(refusal.to_string().contains("no connection"), "{refusal}");
}
