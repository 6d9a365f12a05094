//! What a request may look like, and what is said to one that may not: over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;
use common::Server;
use serde_json::json;

const JSON: &str = "Content-Type: application/json\r\n";

#[tokio::test]
async fn head_is_get_without_its_bytes() {
    let server = Server::start().await;
    let get = server.get("/shop/items/x").await;
    let mut client = server.connect().await;
    let head = client.ask("HEAD", "/shop/items/x", "", b"").await;
    assert_eq!((get.status, head.status), (200, 200));
    assert_eq!(get.header("content-type"), head.header("content-type"));
    assert_eq!(head.header("content-length").unwrap(), get.body.len().to_string());
    // Were there bytes after the head, the next answer on this connection would begin with them.
    assert_eq!(client.ask("GET", "/shop/ping", "", b"").await.status, 200);
    let head = server.ask("HEAD", "/shop/nothing", "", b"").await;
    assert_eq!((head.status, head.body.len()), (404, 0));
}

#[tokio::test]
async fn paths_are_taken_as_they_are_and_parameters_decoded() {
    let server = Server::start().await;
    for (target, id) in [
        ("/shop/items/a%20b", "a b"),
        ("/shop/items/a%2Fb", "a/b"),
        ("/shop/items/%2e%2e", ".."),
        ("/shop/items/..", ".."),
        ("/shop/items/%ED%95%9C", "한"),
        ("/shop/items/a+b", "a+b"),
        ("/shop/items/x/", "x"),
        ("/shop/items/%252e", "%2e"),
    ] {
        let r = server.get(target).await;
        assert_eq!(r.status, 200, "{target}: {}", r.text());
        assert_eq!(r.json()["id"], id, "{target}");
        assert_eq!(r.json()["base"], "http://t:1/shop");
    }
    // Nothing is resolved: a path that leads elsewhere by `..` or `//` leads nowhere.
    for target in [
        "/shop/../identity/v3/ping",
        "/shop/items/../ping",
        "/shop/%2e%2e/identity/v3/ping",
        "//shop/ping",
        "/shop//ping",
        "/shop/items//x",
        "/shop/items/",
        "/shop/items/a/b",
        "/SHOP/ping",
        "/shop/ping;x=1",
        "/shop%2Fping",
        "/shopping",
    ] {
        let r = server.get(target).await;
        assert_eq!(r.status, 404, "{target}: {}", r.text());
    }
    let r = server.get("/shop/items/%ff").await;
    assert_eq!(r.status, 400);
    assert!(r.text().contains("UTF-8"), "{}", r.text());
    // A protected route is not reached by another spelling of its path without a token.
    for target in [
        "/v3/secret",
        "/identity/v3/secret",
        "/v3/secret/",
        "/identity/v3/secret//",
    ] {
        assert_eq!(server.get(target).await.status, 401, "{target}");
    }
}

#[tokio::test]
async fn queries_keep_repeated_keys_and_the_last_one_counts() {
    let server = Server::start().await;
    let r = server.get("/shop/items/x?a=1&b=%20+&a=2&c&&d==").await.json();
    assert_eq!(
        r["pairs"],
        json!([["a", "1"], ["b", "  "], ["a", "2"], ["c", ""], ["d", "="]])
    );
    assert_eq!(r["a"], "2");
    let r = server.get("/shop/items/x?a=%fe").await;
    assert_eq!(r.status, 400);
    assert!(r.text().contains("query"), "{}", r.text());
}

#[tokio::test]
async fn an_address_too_long_is_414_with_its_limits() {
    let server = Server::start().await;
    for target in [
        format!("/shop/items/{}", "x".repeat(9_000)),
        format!("/shop/items/x?a={}", "y".repeat(33_000)),
    ] {
        let r = server.get(&target).await;
        assert_eq!(r.status, 414);
        assert!(r.text().contains("8192") && r.text().contains("32768"), "{}", r.text());
    }
}

#[tokio::test]
async fn unknown_paths_speak_as_their_service_does() {
    let server = Server::start().await;
    let r = server.get("/shop/none").await;
    assert_eq!(r.json()["itemNotFound"]["code"], 404);
    let r = server.get("/network/none").await;
    assert_eq!(r.json()["NeutronError"]["type"], "HTTPNotFound");
    let r = server.get("/image/none").await;
    assert!(r.header("content-type").unwrap().starts_with("text/html"));
    assert!(r.text().contains("<title>404 Not Found</title>"));
    let r = server.get("/placement/none").await;
    let error = &r.json()["errors"][0];
    assert_eq!(error["status"], 404);
    assert_eq!(error["request_id"], r.header("x-openstack-request-id").unwrap());
    for target in ["/identity/none", "/none", "/"] {
        let r = server.get(target).await;
        assert_eq!(r.json()["error"]["code"], 404, "{target}");
        assert_eq!(r.json()["error"]["title"], "Not Found");
    }
    let r = server.get("/network/v2.0/legacy").await;
    assert_eq!(r.status, 409);
    assert_eq!(
        r.json(),
        json!({"NeutronError": {"type": "NotForSale", "message": "It is not for sale.", "detail": ""}})
    );
}

#[tokio::test]
async fn a_wrong_method_names_the_right_ones() {
    let server = Server::start().await;
    for method in ["PATCH", "OPTIONS", "FROBNICATE", "TRACE", "get"] {
        let r = server.ask(method, "/shop/items/x", "", b"").await;
        assert_eq!(r.status, 405, "{method}");
        assert_eq!(r.header("allow"), Some("DELETE, GET"), "{method}");
        assert_eq!(r.json()["badMethod"]["code"], 405);
    }
}

#[tokio::test]
async fn no_answer_opens_itself_to_other_origins() {
    let server = Server::start().await;
    let origin = "Origin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\n";
    for method in ["GET", "OPTIONS"] {
        let r = server.ask(method, "/shop/ping", origin, b"").await;
        let open: Vec<_> = r
            .headers
            .iter()
            .filter(|(n, _)| n.to_lowercase().starts_with("access-control"))
            .collect();
        assert!(open.is_empty(), "{open:?}");
    }
}

#[tokio::test]
async fn bad_json_is_400_and_names_the_field() {
    let server = Server::start().await;
    for (body, says) in [
        (&br#"{"item": {"name": "a", "size": -1}}"#[..], "item.size"),
        (br#"{"item": {"name": 7, "size": 1}}"#, "item.name"),
        (
            br#"{"item": {"name": "a", "size": 1, "tags": ["x", 2]}}"#,
            "item.tags[1]",
        ),
        (br#"{"item": {"name": "a", "size": 99999999999}}"#, "item.size"),
        (br#"{"item": {"name": "a", "size": 1, "colour": 1}}"#, "colour"),
        (br#"{"item": {"name": "a"}}"#, "size"),
        (br#"{"item": null}"#, "item"),
        (br#"{"item": {"name": "a", "size": 1}} x"#, "JSON"),
        (br#"{"item": {"name": "a", "size": 1}"#, "JSON"),
        (b"[]", "invalid"),
        (b"   ", "no body"),
        (b"{\"item\": {\"name\": \"\xff\xfe\", \"size\": 1}}", "UTF-8"),
    ] {
        let r = server.ask("POST", "/shop/orders", JSON, body).await;
        let text = r.text();
        assert_eq!(r.status, 400, "{} gave {text}", String::from_utf8_lossy(body));
        assert_eq!(r.json()["badRequest"]["code"], 400);
        assert!(
            text.contains(says),
            "{} gave {text}, without {says}",
            String::from_utf8_lossy(body)
        );
    }
    let r = server.ask("POST", "/shop/orders", JSON, b"").await;
    assert_eq!(r.status, 400);
    let good = br#"{"item": {"name": "a", "size": 1}}"#;
    assert_eq!(server.ask("POST", "/shop/orders", JSON, good).await.status, 201);
}

#[tokio::test]
async fn deep_json_is_refused_and_ends_no_stack() {
    let server = Server::start().await;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let n = 100_000;
        let body = format!("{}1{}", open.repeat(n), close.repeat(n));
        let r = server.ask("POST", "/shop/orders", JSON, body.as_bytes()).await;
        assert_eq!(r.status, 400);
    }
    assert_eq!(server.get("/shop/ping").await.status, 200);
}

#[tokio::test]
async fn another_media_type_is_415_and_names_the_right_one() {
    let server = Server::start().await;
    let good = br#"{"item": {"name": "a", "size": 1}}"#;
    for kind in ["application/xml", "multipart/form-data; boundary=x"] {
        let headers = format!("Content-Type: {kind}\r\n");
        let r = server.ask("POST", "/shop/orders", &headers, good).await;
        assert_eq!(r.status, 415, "{kind}");
        assert!(r.text().contains("application/json"), "{}", r.text());
    }
    for kind in [
        "application/json; charset=UTF-8",
        "Application/JSON",
        "application/vnd.x+json",
    ] {
        let headers = format!("Content-Type: {kind}\r\n");
        assert_eq!(
            server.ask("POST", "/shop/orders", &headers, good).await.status,
            201,
            "{kind}"
        );
    }
}

#[tokio::test]
async fn every_answer_has_its_own_request_id() {
    let server = Server::start().await;
    let mut seen = std::collections::HashSet::new();
    for target in ["/shop/ping", "/shop/none", "/v3/secret", "/image/none", "/shop/panic"] {
        for given in [
            "",
            "X-Openstack-Request-ID: req-11111111-2222-3333-4444-555555555555\r\n",
        ] {
            let r = server.ask("GET", target, given, b"").await;
            let id = r.header("x-openstack-request-id").unwrap().to_owned();
            assert!(id.starts_with("req-") && id.len() == 40, "{id}");
            assert!(!id.contains("11111111"), "a client chose its request id");
            assert!(seen.insert(id), "a request id came twice");
        }
    }
    let r = server.get("/shop/items/x").await;
    assert_eq!(r.json()["request"], r.header("x-openstack-request-id").unwrap());
    assert_eq!(r.header("x-compute-request-id"), r.header("x-openstack-request-id"));
}

#[tokio::test]
async fn microversions_are_negotiated() {
    let server = Server::start().await;
    for (headers, version) in [
        ("", "2.1"),
        ("OpenStack-API-Version: compute 2.7\r\n", "2.7"),
        ("OpenStack-API-Version: compute latest\r\n", "2.50"),
        ("X-OpenStack-Nova-API-Version: 2.3\r\n", "2.3"),
        ("X-OpenStack-Nova-API-Version: latest\r\n", "2.50"),
        ("OpenStack-API-Version: placement 1.9\r\n", "2.1"),
        ("OpenStack-API-Version: placement 1.9, compute 2.8\r\n", "2.8"),
        (
            "OpenStack-API-Version: compute 2.50\r\nX-OpenStack-Nova-API-Version: 2.3\r\n",
            "2.50",
        ),
    ] {
        let r = server.ask("GET", "/shop/ping", headers, b"").await;
        assert_eq!(r.status, 200, "{headers}");
        assert_eq!(r.json()["version"], version, "{headers}");
        assert_eq!(r.header("openstack-api-version").unwrap(), format!("compute {version}"));
        assert_eq!(r.header("x-openstack-nova-api-version"), Some(version));
        assert_eq!(
            r.header("vary"),
            Some("OpenStack-API-Version, X-OpenStack-Nova-API-Version")
        );
    }
    for wrong in ["2.51", "2.0", "3.1", "1.1"] {
        let headers = format!("OpenStack-API-Version: compute {wrong}\r\n");
        let r = server.ask("GET", "/shop/ping", &headers, b"").await;
        assert_eq!(r.status, 406, "{wrong}");
        let fault = r.json();
        assert_eq!(fault["computeFault"]["code"], 406);
        assert_eq!(
            fault["computeFault"]["message"],
            format!("Version {wrong} is not supported by the API. Minimum is 2.1 and maximum is 2.50.")
        );
        assert!(r.header("vary").unwrap().contains("OpenStack-API-Version"));
    }
    for wrong in ["2", "two", "2.", "2.1.1", "-2.1", "2.01", "99999.1"] {
        let headers = format!("OpenStack-API-Version: compute {wrong}\r\n");
        let r = server.ask("GET", "/shop/ping", &headers, b"").await;
        assert_eq!(r.status, 400, "{wrong}");
    }
    let headers = "OpenStack-API-Version: placement 2.99\r\n";
    let r = server.ask("GET", "/placement/ping", headers, b"").await;
    assert_eq!(r.status, 406);
    let error = r.json()["errors"][0].clone();
    assert_eq!(
        (&error["min_version"], &error["max_version"]),
        (&json!("2.1"), &json!("2.50"))
    );
}

#[tokio::test]
async fn tokens_and_policy_stand_before_the_handler() {
    let server = Server::start().await;
    let good = br#"{"item": {"name": "a", "size": 1}}"#;
    for (token, status) in [
        ("", 401),
        ("nonsense", 401),
        ("\u{fe}", 401),
        ("reader", 403),
        ("member", 201),
    ] {
        let headers = if token.is_empty() {
            String::new()
        } else {
            format!("X-Auth-Token: {token}\r\n")
        };
        let r = server.ask("POST", "/shop/private-orders", &headers, good).await;
        assert_eq!(r.status, status, "{token}");
        if status == 401 {
            assert_eq!(
                r.header("www-authenticate"),
                Some("Keystone uri=\"http://t:1/identity\"")
            );
        }
    }
    // C7: what middleware would set is not believed.
    let forged = "X-Roles: member\r\nX-User-Id: u\r\nX-Project-Id: p\r\nX-Identity-Status: Confirmed\r\n";
    let r = server.ask("POST", "/shop/private-orders", forged, good).await;
    assert_eq!(r.status, 401);
    let audit = server.audit.0.lock().unwrap();
    let told: Vec<_> = audit.iter().map(|a| (a.status, a.user_id.as_deref())).collect();
    assert_eq!(
        told,
        [
            (401, None),
            (401, None),
            (401, None),
            (403, Some("u")),
            (201, Some("u")),
            (401, None)
        ]
    );
    assert!(
        audit
            .iter()
            .all(|a| a.action == "shop:write" && a.remote == "127.0.0.1")
    );
}

#[tokio::test]
async fn a_hostile_host_header_reaches_no_link() {
    let server = Server::start().await;
    for host in ["a\"b", "a/../b", "a<script>", "a b", "a@b"] {
        let mut client = server.connect().await;
        client
            .send(format!("GET /shop/items/x HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())
            .await;
        let r = client.answer(false).await;
        if r.status == 200 {
            assert_eq!(r.json()["base"], "http://localhost/shop", "{host}");
        } else {
            assert_eq!(r.status, 400, "{host}");
        }
    }
}
