//! How long a console's address is good. By itself, for it moves the clock of the process.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::*;
use maru_compute_model as m;
use serde_json::{Value, json};

fn remote(protocol: &str, kind: &str) -> Value {
    json!({"remote_console": {"protocol": protocol, "type": kind}})
}

/// The token in an address.
fn token(url: &Value) -> String {
    let url = url.as_str().unwrap().replace("%3D", "=");
    url.split_once("token=").unwrap().1.to_owned()
}

fn tokens(c: &Cloud) -> usize {
    c.store.snapshot().list::<m::ConsoleToken>().count()
}

/// Without a token of the cloud's: status and text.
async fn plain(c: &Cloud, path: &str) -> (u16, String) {
    let answer = c.send("", NEW, "GET", path, bytes::Bytes::new()).await;
    (answer.status, answer.body.to_string())
}

#[tokio::test]
async fn an_address_opens_for_ten_minutes_and_goes_with_its_server() {
    let c = cloud().await;
    let server = c.create(A, json!({"networks": "none"})).await;
    c.settle().await;
    let path = format!("/servers/{server}/remote-consoles");
    let made = c.want(200, A, "POST", &path, remote("vnc", "novnc")).await;
    let url = &made["remote_console"]["url"];
    let open = |token: &str| format!("/compute/console?token={token}");
    // In memory no connection can turn into one; a good token gets that far, a bad one does not.
    let (status, text) = plain(&c, &open(&token(url))).await;
    assert!(status == 400 && text.contains("WebSocket"), "{status} {text}");
    for bad in ["", "x", &"0".repeat(64)] {
        let (status, text) = plain(&c, &open(bad)).await;
        assert!(status == 404 && text.contains("expired"), "{status} {text}");
    }
    let id = c
        .store
        .snapshot()
        .list::<m::ConsoleToken>()
        .next()
        .unwrap()
        .id
        .to_string();
    assert_eq!(plain(&c, &open(&id)).await.0, 404, "its hash opens nothing");
    // Twenty a server: the oldest give way.
    for _ in 0..25 {
        c.want(200, A, "POST", &path, remote("serial", "serial")).await;
    }
    assert_eq!(tokens(&c), 20);
    assert_eq!(plain(&c, &open(&token(url))).await.0, 404);
    let last = c.want(200, A, "POST", &path, remote("vnc", "novnc")).await;
    let last = token(&last["remote_console"]["url"]);
    maru_base::time::advance(9 * 60);
    assert_eq!(plain(&c, &open(&last)).await.0, 400);
    maru_base::time::advance(61);
    assert_eq!(plain(&c, &open(&last)).await.0, 404);
    // Those that are over go with the next, the rest with the server.
    c.want(200, A, "POST", &path, remote("vnc", "novnc")).await;
    assert_eq!(tokens(&c), 1);
    c.want(204, A, "DELETE", &format!("/servers/{server}"), Value::Null)
        .await;
    c.settle().await;
    assert_eq!(tokens(&c), 0);
}
