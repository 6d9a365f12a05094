//! A request that turns into a WebSocket, over a real connection.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::*;
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest, http::HeaderValue},
};

async fn connect(server: &Server) -> (WebSocketStream<TcpStream>, Option<HeaderValue>) {
    let url = format!("ws://{}/shop/socket", server.address);
    let mut request = url.into_client_request().unwrap();
    let offered = HeaderValue::from_static("base64, binary");
    request.headers_mut().insert("sec-websocket-protocol", offered);
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (socket, answer) = within("the handshake", client_async(request, stream)).await.unwrap();
    (socket, answer.headers().get("sec-websocket-protocol").cloned())
}

/// The next bytes that come, of whatever messages.
async fn bytes(socket: &mut WebSocketStream<TcpStream>, count: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < count {
        match within("a message", socket.next()).await.expect("it ended").unwrap() {
            Message::Binary(b) => all.extend_from_slice(&b),
            other => panic!("{other:?}"),
        }
    }
    all
}

#[tokio::test]
async fn bytes_go_both_ways_until_either_side_ends() {
    let server = Server::start().await;
    let (mut socket, protocol) = connect(&server).await;
    assert_eq!(protocol.unwrap(), "binary");
    assert_eq!(bytes(&mut socket, 5).await, b"hello");
    socket.send(Message::binary(b"\x00\xff".to_vec())).await.unwrap();
    assert_eq!(bytes(&mut socket, 4).await, b"\x00\xff\x00\xff");
    socket.send(Message::text("ab")).await.unwrap();
    assert_eq!(bytes(&mut socket, 4).await, b"abab");
    socket.send(Message::Ping(b"x".to_vec().into())).await.unwrap();
    assert!(matches!(
        within("the answer to a ping", socket.next()).await.unwrap().unwrap(),
        Message::Pong(_)
    ));
    // The other end goes: the client is told.
    socket.send(Message::text("end")).await.unwrap();
    assert!(matches!(
        within("the end", socket.next()).await.unwrap().unwrap(),
        Message::Close(_)
    ));
    // The client goes; the listener serves others.
    let (mut other, _) = connect(&server).await;
    assert_eq!(bytes(&mut other, 5).await, b"hello");
    other.close(None).await.unwrap();
    assert_eq!(server.get("/shop/ping").await.status, 200);
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_it() {
    let server = Server::start().await;
    let (mut socket, _) = connect(&server).await;
    assert_eq!(bytes(&mut socket, 5).await, b"hello");
    // It may end while the message is still on its way.
    let _ = socket.send(Message::binary(vec![7; 1 << 20])).await;
    let ended = loop {
        match within("the end", socket.next()).await {
            None | Some(Err(_) | Ok(Message::Close(_))) => break true,
            Some(Ok(_)) => {}
        }
    };
    assert!(ended);
}

#[tokio::test]
async fn what_is_no_opening_handshake_is_refused() {
    let server = Server::start().await;
    let good = "connection: keep-alive, Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                sec-websocket-key: x3JJHMbDL1EzLkh9GBhXDw==\r\n";
    for (bad, reason) in [
        ("", "does not ask"),
        ("connection: Upgrade\r\nupgrade: h2c\r\n", "does not ask"),
        (&good.replace(": 13", ": 8"), "Version must be 13"),
        (&good.replace("x3JJ", ""), "Key is missing"),
    ] {
        let answer = server.ask("GET", "/shop/socket", bad, b"").await;
        assert_eq!(answer.status, 400, "{bad}");
        assert!(answer.text().contains(reason), "{bad}: {}", answer.text());
    }
    // In memory there is no connection that could be turned into one.
    let mut request = http::Request::builder().uri("/shop/socket");
    for line in good.lines() {
        let (name, value) = line.split_once(": ").unwrap();
        request = request.header(name, value);
    }
    let answer = server.gateway.call(request.body(::bytes::Bytes::new()).unwrap()).await;
    assert_eq!(answer.status(), 400);
}
