//! Overrides of rules that a handler asks for itself: an operator who writes them gets what they say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use maru_kit::Kit;
use serde_json::{Value, json};

#[tokio::test(start_paused = true)]
async fn rules_of_single_attributes_hold_when_they_are_overridden() {
    let kit = Kit::builder()
        .policy(
            "create_network:port_security_enabled: role:admin\n\
             update_network:port_security_enabled: role:admin\n\
             create_port:binding:vnic_type: role:admin\n\
             update_port:binding:vnic_type: role:admin\n\
             get_network:provider:segmentation_id: role:member\n",
        )
        .start()
        .await;
    let who = kit.project("blue").await.member;
    let (network, _) = kit.network(&who, "net", "10.0.0.0/24").await;
    let port = kit.port(&who, &network).await;
    let v2 = |path: &str| format!("/network/v2.0/{path}");
    for (method, path, body) in [
        (
            "POST",
            v2("networks"),
            json!({"network": {"port_security_enabled": false}}),
        ),
        (
            "PUT",
            v2(&format!("networks/{network}")),
            json!({"network": {"port_security_enabled": false}}),
        ),
        (
            "POST",
            v2("ports"),
            json!({"port": {"network_id": network, "binding:vnic_type": "direct"}}),
        ),
        (
            "PUT",
            v2(&format!("ports/{port}")),
            json!({"port": {"binding:vnic_type": "direct"}}),
        ),
    ] {
        let answer = kit.call(method, &path, &who.token, body.clone()).await;
        assert_eq!(answer.status, 403, "{method} {path} {body}: {}", answer.text());
    }
    let shown = kit.get(&who, &v2(&format!("networks/{network}"))).await;
    assert!(shown["network"]["provider:segmentation_id"].is_number(), "{shown}");
    assert_eq!(shown["network"]["provider:network_type"], Value::Null, "{shown}");
}
