//! Remote consoles: who gets an address, and what it opens.
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

/// Without a token of the cloud's: status and text.
async fn plain(c: &Cloud, path: &str) -> (u16, String) {
    let answer = c.send("", NEW, "GET", path, bytes::Bytes::new()).await;
    (answer.status, answer.body.to_string())
}

#[tokio::test]
async fn an_address_is_given_to_who_may_change_the_server() {
    let c = cloud().await;
    let server = c.create(A, json!({"networks": "none"})).await;
    let path = format!("/servers/{server}/remote-consoles");
    c.refused(409, A, "POST", &path, remote("vnc", "novnc")).await;
    c.settle().await;
    let made = c.want(200, A, "POST", &path, remote("vnc", "novnc")).await["remote_console"].clone();
    let url = made["url"].as_str().unwrap();
    assert!(
        url.contains("/console/novnc/vnc_lite.html?path=compute%2Fconsole%3Ftoken%3D"),
        "{url}"
    );
    let serial = c.want(200, A, "POST", &path, remote("serial", "serial")).await["remote_console"].clone();
    assert!(serial["url"].as_str().unwrap().starts_with("ws://"), "{serial}");
    c.want(403, READER, "POST", &path, remote("vnc", "novnc")).await;
    c.want(404, B, "POST", &path, remote("vnc", "novnc")).await;
    for (body, field) in [
        (remote("telnet", "novnc"), "protocol"),
        (remote("vnc", "serial"), "type"),
        (remote("spice", "spice-html5"), "Unavailable console type"),
        (json!({"remote_console": {"protocol": "vnc"}}), "type"),
    ] {
        let message = c.refused(400, A, "POST", &path, body).await;
        assert!(message.contains(field), "{message}");
    }
    c.refused_at(5, 404, A, "POST", &path, remote("vnc", "novnc")).await;
    // The names of before.
    let action = format!("/servers/{server}/action");
    let old = json!({"os-getVNCConsole": {"type": "novnc"}});
    let made = c.want_at(5, 200, A, "POST", &action, old.clone()).await["console"].clone();
    assert_eq!(made["type"], "novnc");
    c.refused_at(6, 404, A, "POST", &action, old).await;
    let spice = json!({"os-getSPICEConsole": {"type": "spice-html5"}});
    c.refused_at(5, 400, A, "POST", &action, spice).await;

    // What a token is for is an administrator's to ask.
    let of = |url: &Value| format!("/os-console-auth-tokens/{}", token(url));
    let told = c.get(ADMIN, &of(&made["url"])).await["console"].clone();
    assert_eq!(
        (&told["instance_uuid"], &told["host"]),
        (&json!(server), &json!("node1"))
    );
    c.want(403, A, "GET", &of(&made["url"]), Value::Null).await;
    c.want(404, ADMIN, "GET", "/os-console-auth-tokens/x", Value::Null)
        .await;
    // The store has what a token hashes to, not the token.
    let kept: Vec<String> = c
        .store
        .snapshot()
        .list::<m::ConsoleToken>()
        .map(|t| t.id.to_string())
        .collect();
    assert!(kept.iter().all(|id| id.len() == 64 && *id != token(&made["url"])));
}

#[tokio::test]
async fn files_of_novnc_are_served_and_no_others() {
    let c = cloud().await;
    for bad in [
        "..%2F..%2F..%2Fetc%2Fpasswd",
        "core%2F..%2F..%2Fx",
        ".htaccess",
        "core//rfb.js",
        "nothing.js",
        "core",
    ] {
        let (status, text) = plain(&c, &format!("/compute/console/novnc/{bad}")).await;
        assert_eq!(status, 404, "{bad}: {text}");
    }
}
