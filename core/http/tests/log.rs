//! The access log: the request's id and the client's own, if it is one; never a token, never a query.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;
use common::Server;
use serde_json::Value;
use std::{
    io::Write,
    sync::{Arc, Mutex},
};

/// Log lines of this process.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_access_log_names_requests_and_no_secrets() {
    let lines = Lines::default();
    let log = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(move || log.clone());
    tracing::subscriber::set_global_default(subscriber.finish()).unwrap();
    let server = Server::start().await;
    let good = "req-11111111-2222-3333-4444-55555555abcd";
    let mut asked = Vec::new();
    for (given, kept) in [
        (good, Some(good)),
        ("req-11111111-2222-3333-4444-55555555abcd ", Some(good)),
        ("req-1", None),
        ("req-11111111-2222-3333-4444-55555555abcg", None),
        ("req-11111111222233334444555555555555", None),
        ("11111111-2222-3333-4444-55555555abcd", None),
        ("req-11111111-2222-3333-4444-55555555abcd\" forged=\"1", None),
    ] {
        let headers = format!("X-Openstack-Request-ID: {given}\r\nX-Auth-Token: member-secret-token\r\n");
        let r = server
            .ask("GET", "/v3/secret?password=hidden-in-query", &headers, b"")
            .await;
        asked.push((r.header("x-openstack-request-id").unwrap().to_owned(), kept));
    }
    let r = server.get("/shop/panic").await;
    let broken = r.header("x-openstack-request-id").unwrap().to_owned();
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let of = |message: &str, id: &str| {
        lines
            .iter()
            .find(|l| l["fields"]["message"] == message && l["fields"]["request_id"] == id)
            .unwrap_or_else(|| panic!("no line '{message}' of {id} in:\n{text}"))
    };
    for (id, kept) in asked {
        let line = of("access", &id);
        assert_eq!(line["fields"]["global_request_id"].as_str(), kept, "{line}");
        assert_eq!(line["fields"]["path"], "/v3/secret");
        assert_eq!(line["fields"]["status"], 401);
        assert_eq!(line["fields"]["remote"], "127.0.0.1");
    }
    // H1: neither tokens nor what stands in queries.
    assert!(!text.contains("member-secret-token") && !text.contains("hidden-in-query"));
    // What a client may not see of a bug is here.
    let line = of("a handler panicked; this is a bug", &broken);
    assert!(
        line["fields"]["panic"].as_str().unwrap().contains("secret-detail"),
        "{line}"
    );
    assert!(
        line["fields"]["backtrace"].as_str().unwrap().contains("dispatch.rs"),
        "{line}"
    );
}
