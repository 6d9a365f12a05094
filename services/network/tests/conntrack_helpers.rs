//! Conntrack helpers of routers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::*;
use serde_json::{Value, json};

fn helper(name: &str, protocol: &str, port: u32) -> Value {
    json!({"conntrack_helper": {"helper": name, "protocol": protocol, "port": port}})
}

#[tokio::test]
async fn helpers_of_a_router_are_made_changed_and_deleted() {
    let c = cloud();
    let router = id(&c.make(A, "/v2.0/routers", "router", json!({"name": "r"})).await);
    let all = format!("/v2.0/routers/{router}/conntrack_helpers");
    let made = c.want(201, A, "POST", &all, helper("tftp", "udp", 69)).await["conntrack_helper"].clone();
    let one = format!("{all}/{}", id(&made));
    assert_eq!(c.get(A, &one).await["conntrack_helper"], made);
    let shown = c.get(A, &format!("/v2.0/routers/{router}")).await["router"]["conntrack_helpers"].clone();
    assert_eq!(shown, json!([{"protocol": "udp", "port": 69, "helper": "tftp"}]));
    c.refused(400, A, "POST", &all, helper("tftp", "udp", 69)).await;
    c.want(201, A, "POST", &all, helper("sip", "UDP", 5060)).await;
    assert_eq!(
        c.get(A, &format!("{all}?helper=sip")).await["conntrack_helpers"][0]["port"],
        5060
    );
    let change = json!({"conntrack_helper": {"port": 6969}});
    let changed = c.want(200, A, "PUT", &one, change).await["conntrack_helper"].clone();
    assert_eq!(
        (&changed["port"], &changed["helper"], &changed["id"]),
        (&json!(6969), &json!("tftp"), &made["id"])
    );
    for (body, code, field) in [
        (helper("telnet", "tcp", 23), "ConntrackHelperNotAllowed", "tftp"),
        (helper("tftp", "tcp", 69), "InvalidProtocolForHelper", "udp"),
        (helper("ftp", "tcp", 0), "HTTPBadRequest", "port"),
        (
            json!({"conntrack_helper": {"helper": "ftp", "port": 21}}),
            "HTTPBadRequest",
            "protocol",
        ),
    ] {
        let (status, answer) = c.call(A, "POST", &all, body).await;
        let error = &answer["NeutronError"];
        assert_eq!((status, error["type"].as_str()), (400, Some(code)), "{answer}");
        assert!(answer.to_string().contains(field), "{answer}");
    }
    // Another project's router is not there, nor is a helper of another router.
    c.want(404, B, "GET", &one, Value::Null).await;
    c.want(404, B, "POST", &all, helper("ftp", "tcp", 21)).await;
    let other = id(&c.make(A, "/v2.0/routers", "router", json!({"name": "o"})).await);
    let path = format!("/v2.0/routers/{other}/conntrack_helpers/{}", id(&made));
    c.want(404, A, "DELETE", &path, Value::Null).await;
    c.delete(A, &one).await;
    c.want(404, A, "PUT", &one, json!({"conntrack_helper": {"port": 1}}))
        .await;
    c.delete(A, &format!("/v2.0/routers/{router}")).await;
    c.audit();
}
