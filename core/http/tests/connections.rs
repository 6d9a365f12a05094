//! Connections: bodies in every shape, clients that are slow, greedy, rude or gone, and the end of the listener.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;
use common::{Client, Server, short, until, within};
use maru_http::{Limits, Pace};
use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};
use tokio::{io::AsyncWriteExt, net::TcpStream};

const JSON: &str = "Content-Type: application/json\r\n";

#[tokio::test]
async fn a_body_over_its_limit_is_413_with_the_limit() {
    let server = Server::start().await;
    for (target, method) in [("/shop/bytes", "POST"), ("/shop/small-upload", "PUT")] {
        assert_eq!(server.ask(method, target, "", &[b'x'; 1_000]).await.status, 200);
        let r = server.ask(method, target, "", &[b'x'; 1_001]).await;
        assert_eq!(r.status, 413, "{target}");
        assert!(r.text().contains("1000"), "{}", r.text());
        // The announcement alone is enough.
        let mut client = server.connect().await;
        client
            .send(format!("{method} {target} HTTP/1.1\r\nHost: t\r\nContent-Length: 99999999999\r\n\r\n").as_bytes())
            .await;
        assert_eq!(client.answer(false).await.status, 413, "{target}");
        // And a length that is not announced is counted.
        let mut client = server.connect().await;
        client
            .send(format!("{method} {target} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n").as_bytes())
            .await;
        for _ in 0..3 {
            client.send(format!("190\r\n{}\r\n", "x".repeat(400)).as_bytes()).await;
        }
        assert_eq!(client.answer(false).await.status, 413, "{target}");
    }
}

/// G: a client that sends 100 MB where 1 MiB is taken reads its refusal, and the server has kept none of it.
#[tokio::test]
async fn a_hundred_megabytes_are_refused_and_the_client_reads_why() {
    let server = Server::start().await;
    for token in ["", "X-Auth-Token: member\r\n"] {
        let body = vec![b' '; 100_000_000];
        let begun = Instant::now();
        let r = server
            .ask("POST", "/shop/private-orders", &format!("{JSON}{token}"), &body)
            .await;
        assert_eq!(r.status, if token.is_empty() { 401 } else { 413 });
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}

#[tokio::test]
async fn heads_over_their_limits_are_431() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client
        .send(
            format!(
                "GET /shop/ping HTTP/1.1\r\nHost: t\r\nX-Long: {}\r\n\r\n",
                "x".repeat(200 << 10)
            )
            .as_bytes(),
        )
        .await;
    assert_eq!(client.answer(false).await.status, 431);
    let mut client = server.connect().await;
    client
        .send(
            format!(
                "GET /shop/ping HTTP/1.1\r\nHost: t\r\n{}\r\n",
                "X-Many: x\r\n".repeat(500)
            )
            .as_bytes(),
        )
        .await;
    assert_eq!(client.answer(false).await.status, 431);
    // A token of the largest size that a client sends is none of this.
    let r = server
        .ask(
            "GET",
            "/v3/secret",
            &format!("X-Auth-Token: {}\r\n", "x".repeat(16 << 10)),
            b"",
        )
        .await;
    assert_eq!(r.status, 401);
}

#[tokio::test]
async fn chunked_bodies_are_put_together() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let head = format!("POST /shop/orders HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n{JSON}\r\n");
    client.send(head.as_bytes()).await;
    for piece in ["{\"item\": {\"na", "me\": \"a\", ", "\"size\": 1}}"] {
        client
            .send(format!("{:x};ext=1\r\n{piece}\r\n", piece.len()).as_bytes())
            .await;
    }
    client.send(b"0\r\nTrailer: x\r\n\r\n").await;
    let r = client.answer(false).await;
    assert_eq!(r.status, 201);
    assert_eq!(r.json()["item"]["name"], "a");
    assert_eq!(client.ask("GET", "/shop/ping", "", b"").await.status, 200);
}

#[tokio::test]
async fn leave_to_send_is_given_only_where_the_body_is_wanted() {
    let server = Server::start().await;
    let body = br#"{"item": {"name": "a", "size": 1}}"#;
    let head = |token: &str, length: usize| {
        format!(
            "POST /shop/private-orders HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\n{token}{JSON}Content-Length: {length}\r\n\r\n"
        )
    };
    let mut client = server.connect().await;
    client
        .send(head("X-Auth-Token: member\r\n", body.len()).as_bytes())
        .await;
    assert_eq!(client.answer(false).await.status, 100);
    client.send(body).await;
    assert_eq!(client.answer(false).await.status, 201);
    for (token, length, status) in [("", body.len(), 401), ("X-Auth-Token: member\r\n", 2 << 20, 413)] {
        let mut client = server.connect().await;
        client.send(head(token, length).as_bytes()).await;
        assert_eq!(client.answer(false).await.status, status);
        assert_eq!(
            client.until_closed().await,
            b"",
            "the connection goes on although its body was never read"
        );
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let mut all = String::new();
    for n in 0..50 {
        all.push_str(&format!("GET /shop/items/{n} HTTP/1.1\r\nHost: t\r\n\r\n"));
        all.push_str("POST /shop/bytes HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc");
    }
    client.send(all.as_bytes()).await;
    for n in 0..50 {
        assert_eq!(client.answer(false).await.json()["id"], n.to_string());
        assert_eq!(client.answer(false).await.json()["bytes"], 3);
    }
}

/// Requests that two servers could read differently are refused or read once, and the connection is closed.
#[tokio::test]
async fn ambiguous_lengths_smuggle_nothing() {
    let server = Server::start().await;
    for framing in [
        "Content-Length: 3\r\nContent-Length: 40\r\n",
        "Content-Length: 3, 40\r\n",
        "Content-Length: +3\r\n",
        "Content-Length: 0x3\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Content-Length : 3\r\n",
    ] {
        let mut client = server.connect().await;
        client
            .send(
                format!(
                    "POST /shop/bytes HTTP/1.1\r\nHost: t\r\n{framing}\r\nabcGET /shop/items/smuggled HTTP/1.1\r\nHost: t\r\n\r\n"
                )
                .as_bytes(),
            )
            .await;
        let all = String::from_utf8_lossy(&client.until_closed().await).into_owned();
        assert!(!all.contains("smuggled"), "{framing}: {all}");
        assert!(all.is_empty() || all.starts_with("HTTP/1.1 400"), "{framing}: {all}");
    }
    // Both: chunked counts, and what follows is a request of its own only after the chunked body's end.
    let mut client = server.connect().await;
    client
        .send(b"POST /shop/bytes HTTP/1.1\r\nHost: t\r\nContent-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        .await;
    let r = client.answer(false).await;
    assert!(r.status == 400 || r.json()["bytes"] == 3, "{}", r.text());
}

#[tokio::test]
async fn bytes_that_are_not_http_end_their_connection_only() {
    let server = Server::with(short(), None).await;
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET\r\n\r\n",
        b"\0\0\0\0\0\0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        b"GET /shop/ping HTTP/9.9\r\n\r\n",
        b"GET /shop/ping HTTP/1.1\r\nBad Header: x\r\n\r\n",
        b"GET /shop/ping HTTP/1.1\r\nX: a\rb\r\n\r\n",
        b"GET /shop/\x00ping HTTP/1.1\r\n\r\n",
    ] {
        let mut client = server.connect().await;
        client.send(bytes).await;
        let all = client.until_closed().await;
        let text = String::from_utf8_lossy(&all);
        assert!(!text.starts_with("HTTP/1.1 2"), "{bytes:?} gave {text}");
    }
    assert_eq!(server.get("/shop/ping").await.status, 200);
}

/// Closed between these times.
async fn closes(client: &mut Client<TcpStream>, least: Duration, most: Duration) -> String {
    let begun = Instant::now();
    let all = client.until_closed().await;
    let took = begun.elapsed();
    assert!(took >= least && took <= most, "closed after {took:?}");
    String::from_utf8_lossy(&all).into_owned()
}

const SOON: Duration = Duration::from_secs(4);

#[tokio::test]
async fn silent_and_dribbling_heads_are_cut_off() {
    let server = Server::with(short(), None).await;
    // Says nothing at all.
    let mut client = server.connect().await;
    closes(&mut client, Duration::from_millis(250), SOON).await;
    // Begins as HTTP/2 would and goes no further.
    let mut client = server.connect().await;
    client.send(b"PRI * HT").await;
    closes(&mut client, Duration::from_millis(250), SOON).await;
    let mut client = server.connect().await;
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    closes(&mut client, Duration::from_millis(250), SOON).await;
    // A header line every few milliseconds, for ever.
    let client = server.connect().await;
    let (mut read, mut write) = client.stream.into_split();
    let dribble = tokio::spawn(async move {
        write.write_all(b"GET /shop/ping HTTP/1.1\r\n").await.ok();
        while write.write_all(b"X-A: b\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let begun = Instant::now();
    let mut all = Vec::new();
    within("the end", tokio::io::AsyncReadExt::read_to_end(&mut read, &mut all))
        .await
        .ok();
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert!(!all.starts_with(b"HTTP/1.1 2"));
    dribble.abort();
    until("no connection is left", || server.gateway.metrics().connections() == 0).await;
}

#[tokio::test]
async fn dribbling_bodies_are_408() {
    let server = Server::with(short(), None).await;
    for (method, target) in [("POST", "/shop/bytes"), ("PUT", "/shop/upload")] {
        let client = server.connect().await;
        let (read, mut write) = client.stream.into_split();
        let dribble = tokio::spawn(async move {
            let head = format!("{method} {target} HTTP/1.1\r\nHost: t\r\nContent-Length: 900\r\n\r\n");
            write.write_all(head.as_bytes()).await.ok();
            while write.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let begun = Instant::now();
        let mut client = Client::new(tokio::io::join(read, tokio::io::sink()));
        let r = client.answer(false).await;
        assert_eq!(r.status, 408, "{target}");
        assert!(r.text().contains("1000 bytes per second"), "{}", r.text());
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        client.until_closed().await;
        dribble.abort();
    }
    until("no connection is left", || server.gateway.metrics().connections() == 0).await;
}

/// A client that keeps the pace has as long as it needs.
#[tokio::test]
async fn a_steady_body_may_take_longer_than_the_grace() {
    let mut limits = short();
    limits.pace = Pace {
        grace: Duration::from_millis(200),
        bytes_per_second: 1_000,
    };
    let server = Server::with(limits, None).await;
    let mut client = server.connect().await;
    client
        .send(b"PUT /shop/upload HTTP/1.1\r\nHost: t\r\nContent-Length: 20000\r\n\r\n")
        .await;
    for _ in 0..10 {
        client.send(&[b'x'; 2_000]).await;
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    assert_eq!(client.answer(false).await.json()["bytes"], 20_000);
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_waiting_one_is_not() {
    let server = Server::with(short(), None).await;
    let mut client = server.connect().await;
    assert_eq!(client.ask("GET", "/shop/ping", "", b"").await.status, 200);
    let rest = closes(&mut client, Duration::from_millis(250), SOON).await;
    assert_eq!(rest, "");
    // A handler that takes longer than any of these deadlines is not idle.
    let mut client = server.connect().await;
    client.send(b"GET /shop/wait HTTP/1.1\r\nHost: t\r\n\r\n").await;
    until("the handler waits", || server.shop.waiting.load(Ordering::SeqCst) == 1).await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    server.shop.gate.add_permits(1);
    assert_eq!(client.answer(false).await.text(), "waited");
}

#[tokio::test]
async fn a_client_that_stops_reading_is_cut_off() {
    let server = Server::with(short(), None).await;
    let mut client = server.connect().await;
    client.send(b"GET /shop/download HTTP/1.1\r\nHost: t\r\n\r\n").await;
    until("the download is dropped", || {
        server.shop.dropped.load(Ordering::SeqCst) == 1
    })
    .await;
    assert!(
        server.shop.sent.load(Ordering::SeqCst) < 64 << 20,
        "it was buffered instead"
    );
    until("no connection is left", || server.gateway.metrics().connections() == 0).await;
}

#[tokio::test]
async fn a_client_that_goes_in_the_middle_costs_only_itself() {
    let server = Server::start().await;
    // In the middle of its upload.
    let mut client = server.connect().await;
    client
        .send(b"PUT /shop/upload HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n\r\nabc")
        .await;
    drop(client);
    until("the upload broke off", || {
        server.shop.broken.load(Ordering::SeqCst) == 1
    })
    .await;
    // In the middle of its download.
    let mut client = server.connect().await;
    client.send(b"GET /shop/download HTTP/1.1\r\nHost: t\r\n\r\n").await;
    until("the download runs", || server.shop.sent.load(Ordering::SeqCst) > 0).await;
    drop(client);
    until("the download is dropped", || {
        server.shop.dropped.load(Ordering::SeqCst) == 1
    })
    .await;
    until("no connection is left", || server.gateway.metrics().connections() == 0).await;
    assert_eq!(server.get("/shop/ping").await.status, 200);
}

/// A change whose client has gone is made to its end, and audited: hanging up hides nothing.
#[tokio::test]
async fn a_change_outlives_its_client_and_is_audited() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client
        .send(b"POST /shop/wait HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n")
        .await;
    until("the handler waits", || server.shop.waiting.load(Ordering::SeqCst) == 1).await;
    drop(client);
    until("the connection is gone", || server.gateway.metrics().connections() == 0).await;
    server.shop.gate.add_permits(1);
    until("the audit record", || {
        server
            .audit
            .0
            .lock()
            .unwrap()
            .iter()
            .any(|a| a.path == "/shop/wait" && a.status == 200)
    })
    .await;
    assert_eq!(server.shop.changes.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_panic_of_a_handler_is_500_with_the_request_id() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    for method in ["GET", "POST"] {
        let r = client.ask(method, "/shop/panic", "", b"").await;
        assert_eq!(r.status, 500);
        let id = r.header("x-openstack-request-id").unwrap().to_owned();
        let body = r.json();
        assert_eq!(body["computeFault"]["code"], 500);
        let message = body["computeFault"]["message"].as_str().unwrap();
        assert!(message.contains(&id), "{message}");
        // D6: no detail of ours reaches the client.
        assert!(
            !r.text().contains("secret-detail") && !r.text().contains(".rs"),
            "{}",
            r.text()
        );
    }
    let r = server.ask("POST", "/network/v2.0/panic", "", b"").await;
    assert_eq!(r.status, 500);
    assert_eq!(r.json()["NeutronError"]["type"], "HTTPInternalServerError");
    // The same connection and the process go on.
    assert_eq!(client.ask("GET", "/shop/ping", "", b"").await.status, 200);
    assert_eq!(server.gateway.metrics().panics(), 3);
    assert_eq!(
        server
            .audit
            .0
            .lock()
            .unwrap()
            .iter()
            .filter(|a| a.status == 500)
            .count(),
        2,
        "a change that panicked is audited as well"
    );
    // In the middle of a streamed answer all that is left is to cut it: no end is pretended.
    let mut client = server.connect().await;
    client.send(b"GET /shop/panic-midway HTTP/1.1\r\nHost: t\r\n\r\n").await;
    let all = String::from_utf8_lossy(&client.until_closed().await).into_owned();
    assert!(!all.contains("\r\n0\r\n\r\n"), "{all}");
    assert_eq!(server.get("/shop/ping").await.status, 200);
}

#[tokio::test]
async fn connections_are_bounded_and_later_ones_wait() {
    let server = Server::with(
        Limits {
            connections: 2,
            ..Limits::default()
        },
        None,
    )
    .await;
    let mut first = server.connect().await;
    let mut second = server.connect().await;
    assert_eq!(first.ask("GET", "/shop/ping", "", b"").await.status, 200);
    assert_eq!(second.ask("GET", "/shop/ping", "", b"").await.status, 200);
    let mut third = server.connect().await;
    third.send(b"GET /shop/items/third HTTP/1.1\r\nHost: t\r\n\r\n").await;
    // The others are served, the third is not looked at.
    for _ in 0..20 {
        assert_eq!(first.ask("GET", "/shop/ping", "", b"").await.status, 200);
        assert_eq!(server.gateway.metrics().connections(), 2);
    }
    drop(second);
    assert_eq!(third.answer(false).await.json()["id"], "third");
}

#[tokio::test]
async fn a_stop_finishes_what_runs_and_refuses_what_is_new() {
    let server = Server::start().await;
    let mut idle = server.connect().await;
    assert_eq!(idle.ask("GET", "/shop/ping", "", b"").await.status, 200);
    let mut running = server.connect().await;
    running.send(b"GET /shop/wait HTTP/1.1\r\nHost: t\r\n\r\n").await;
    until("the handler waits", || server.shop.waiting.load(Ordering::SeqCst) == 1).await;
    server.stop.send_replace(true);
    assert_eq!(within("the idle one ends", idle.until_closed()).await, b"");
    within("new connections are refused", async {
        while TcpStream::connect(server.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    assert!(!server.task.is_finished());
    server.shop.gate.add_permits(1);
    let r = running.answer(false).await;
    assert_eq!(r.text(), "waited");
    assert_eq!(running.until_closed().await, b"");
    within("the end", server.task).await.unwrap();
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever() {
    let server = Server::with(
        Limits {
            drain: Duration::from_millis(200),
            ..Limits::default()
        },
        None,
    )
    .await;
    let mut running = server.connect().await;
    running.send(b"GET /shop/wait HTTP/1.1\r\nHost: t\r\n\r\n").await;
    until("the handler waits", || server.shop.waiting.load(Ordering::SeqCst) == 1).await;
    server.stop.send_replace(true);
    within("the end", server.task).await.unwrap();
}
