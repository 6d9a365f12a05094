//! Ports of floating IPs that lead to ports of guests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::*;
use maru_network_model as m;
use serde_json::{Value, json};

struct Stage {
    c: Cloud,
    public: String,
    net: String,
    router: String,
    sub: String,
    fip: String,
}

/// A network behind a router, and a floating IP that leads nowhere.
async fn stage() -> Stage {
    let c = cloud();
    let public = c.external().await;
    let net = c.network(A).await;
    let sub = c.subnet(A, &net, "10.0.0.0/24").await;
    let router = json!({"name": "r", "external_gateway_info": {"network_id": public}});
    let router = id(&c.make(A, "/v2.0/routers", "router", router).await);
    let add = format!("/v2.0/routers/{router}/add_router_interface");
    c.want(200, A, "PUT", &add, json!({"subnet_id": sub})).await;
    let fip = json!({"floating_network_id": public});
    let fip = id(&c.make(A, "/v2.0/floatingips", "floatingip", fip).await);
    Stage {
        c,
        public,
        net,
        router,
        sub,
        fip,
    }
}

impl Stage {
    async fn port(&self, last: u8) -> String {
        let body = json!({"network_id": self.net, "fixed_ips": [{"ip_address": format!("10.0.0.{last}")}]});
        id(&self.c.make(A, "/v2.0/ports", "port", body).await)
    }
    fn path(&self, id: &str) -> String {
        let slash = if id.is_empty() { "" } else { "/" };
        format!("/v2.0/floatingips/{}/port_forwardings{slash}{id}", self.fip)
    }
    async fn make(&self, port: &str, external: u16) -> Value {
        let made = self
            .c
            .want(201, A, "POST", &self.path(""), wanted(port, external))
            .await;
        made["port_forwarding"].clone()
    }
    async fn fip(&self) -> Value {
        self.c.get(A, &format!("/v2.0/floatingips/{}", self.fip)).await["floatingip"].clone()
    }
    fn count(&self) -> usize {
        self.c.store.snapshot().count::<m::PortForwarding>()
    }
}

fn wanted(port: &str, external: u16) -> Value {
    json!({"port_forwarding": {"protocol": "tcp", "external_port": external, "internal_port": 80, "internal_port_id": port}})
}

#[tokio::test]
async fn a_forwarding_is_made_changed_shown_and_deleted() {
    let s = stage().await;
    let port = s.port(5).await;
    let made = s.make(&port, 8080).await;
    let one = s.path(made["id"].as_str().unwrap());
    assert_eq!(
        (
            &made["internal_ip_address"],
            &made["external_port"],
            &made["description"]
        ),
        (&json!("10.0.0.5"), &json!(8080), &json!(""))
    );
    assert_eq!(s.c.get(A, &one).await["port_forwarding"], made);
    assert_eq!(s.c.get(A, &s.path("")).await["port_forwardings"], json!([made]));
    let shown = s.fip().await;
    assert_eq!(
        (&shown["port_forwardings"], &shown["router_id"], &shown["port_id"]),
        (&json!([made]), &json!(s.router), &Value::Null)
    );
    let by_router = s.c.get(A, &format!("/v2.0/floatingips?router_id={}", s.router)).await;
    assert_eq!(by_router["floatingips"][0]["id"], shown["id"]);
    let other = s.port(6).await;
    let change = json!({"port_forwarding": {"external_port": 8081, "internal_port_id": other, "description": "d", "protocol": "UDP"}});
    let changed = s.c.want(200, A, "PUT", &one, change).await["port_forwarding"].clone();
    assert_eq!(
        (
            &changed["internal_ip_address"],
            &changed["protocol"],
            &changed["internal_port"]
        ),
        (&json!("10.0.0.6"), &json!("udp"), &json!(80))
    );
    // What it was is free.
    s.make(&port, 8080).await;
    let listed = s.c.get(A, &format!("{}?external_port=8081", s.path(""))).await;
    assert_eq!(listed["port_forwardings"], json!([changed]));
    s.c.want(204, A, "DELETE", &one, Value::Null).await;
    s.c.want(404, A, "GET", &one, Value::Null).await;
    // The rest goes with the floating IP.
    s.c.want(204, A, "DELETE", &format!("/v2.0/floatingips/{}", s.fip), Value::Null)
        .await;
    assert_eq!(s.count(), 0);
    s.c.audit();
}

#[tokio::test]
async fn as_a_whole_or_port_by_port() {
    let s = stage().await;
    let (p5, p6) = (s.port(5).await, s.port(6).await);
    s.make(&p5, 8080).await;
    let path = format!("/v2.0/floatingips/{}", s.fip);
    let lead = |port: &str| json!({"floatingip": {"port_id": port}});
    assert_eq!(
        s.c.refused(409, A, "PUT", &path, lead(&p6)).await,
        "FipInUseByPortForwarding"
    );
    // To lead nowhere is what it does.
    s.c.want(200, A, "PUT", &path, json!({"floatingip": {"port_id": null}}))
        .await;
    assert_eq!(s.count(), 1);
    let second = json!({"floatingip": {"floating_network_id": s.public, "port_id": p5}});
    assert_eq!(
        s.c.refused(409, A, "POST", "/v2.0/floatingips", second).await,
        "PortHasPortForwarding"
    );
    let second = json!({"floating_network_id": s.public, "port_id": p6});
    let second = id(&s.c.make(A, "/v2.0/floatingips", "floatingip", second).await);
    assert_eq!(
        s.c.refused(409, A, "POST", &s.path(""), wanted(&p6, 9090)).await,
        "PortHasBindingFloatingIP"
    );
    let of_second = format!("/v2.0/floatingips/{second}/port_forwardings");
    assert_eq!(
        s.c.refused(409, A, "POST", &of_second, wanted(&p5, 9090)).await,
        "FloatingIPPortAlreadyAssociated"
    );
    // The way stays as long as it is needed.
    let remove = format!("/v2.0/routers/{}/remove_router_interface", s.router);
    s.c.want(204, A, "DELETE", &format!("/v2.0/floatingips/{second}"), Value::Null)
        .await;
    assert_eq!(
        s.c.refused(409, A, "PUT", &remove, json!({"subnet_id": s.sub})).await,
        "RouterInterfaceInUseByFloatingIP"
    );
    let clear = json!({"router": {"external_gateway_info": {}}});
    assert_eq!(
        s.c.refused(409, A, "PUT", &format!("/v2.0/routers/{}", s.router), clear)
            .await,
        "RouterExternalGatewayInUseByFloatingIp"
    );
    // A port that goes, or loses the address, takes its forwardings along.
    s.make(&p6, 8081).await;
    let moved = json!({"port": {"fixed_ips": [{"ip_address": "10.0.0.9"}]}});
    s.c.want(200, A, "PUT", &format!("/v2.0/ports/{p6}"), moved).await;
    assert_eq!(s.count(), 1);
    s.c.want(204, A, "DELETE", &format!("/v2.0/ports/{p5}"), Value::Null)
        .await;
    assert_eq!(s.count(), 0);
    assert_eq!(s.fip().await["router_id"], Value::Null);
    s.c.want(200, A, "PUT", &remove, json!({"subnet_id": s.sub})).await;
    s.c.audit();
}

#[tokio::test]
async fn bad_forwardings_are_refused_by_the_fields_name() {
    let s = stage().await;
    let port = s.port(5).await;
    s.make(&port, 8080).await;
    let with = |name: &str, value: Value| {
        let mut body = wanted(&port, 9090);
        body["port_forwarding"][name] = value;
        body
    };
    for (name, value) in [
        ("protocol", json!("icmp")),
        ("external_port", json!(0)),
        ("external_port", json!(65_536)),
        ("external_port", json!("x")),
        ("internal_port", json!(null)),
        ("internal_port_id", json!("x")),
        ("internal_ip_address", json!("x")),
        ("more", json!(1)),
        ("description", json!(1)),
    ] {
        let (status, answer) = s.c.call(A, "POST", &s.path(""), with(name, value.clone())).await;
        assert_eq!(status, 400, "{name} {value}: {}", answer);
        assert!(answer.to_string().contains(name), "{name}: {}", answer);
    }
    for (body, part) in [
        (with("internal_ip_address", json!("10.0.0.77")), "10.0.0.77"),
        (with("internal_ip_address", json!("2001:db8::1")), "2001:db8::1"),
        (with("external_port", json!(8080)), "duplicate"),
    ] {
        let (status, answer) = s.c.call(A, "POST", &s.path(""), body).await;
        assert_eq!(status, 400, "{}", answer);
        assert!(answer.to_string().contains(part), "{}", answer);
    }
    // No router leads to a network of its own, and another router is another way.
    let lone = s.c.network(A).await;
    s.c.subnet(A, &lone, "10.3.0.0/24").await;
    let far = id(&s.c.port(A, &lone).await);
    assert_eq!(
        s.c.refused(404, A, "POST", &s.path(""), wanted(&far, 9090)).await,
        "ExternalGatewayForFloatingIPNotFound"
    );
    let second = json!({"name": "r2", "external_gateway_info": {"network_id": s.public}});
    let second = id(&s.c.make(A, "/v2.0/routers", "router", second).await);
    let near = s.c.network(A).await;
    let sub = s.c.subnet(A, &near, "10.4.0.0/24").await;
    let add = format!("/v2.0/routers/{second}/add_router_interface");
    s.c.want(200, A, "PUT", &add, json!({"subnet_id": sub})).await;
    let near = id(&s.c.port(A, &near).await);
    assert_eq!(
        s.c.refused(400, A, "POST", &s.path(""), wanted(&near, 9090)).await,
        "BadRequest"
    );
    assert_eq!(s.count(), 1);
    s.c.audit();
}

#[tokio::test]
async fn forwardings_are_their_projects() {
    let s = stage().await;
    let port = s.port(5).await;
    let made = s.make(&port, 8080).await;
    let one = s.path(made["id"].as_str().unwrap());
    for (method, path, body) in [
        ("GET", s.path(""), Value::Null),
        ("GET", one.clone(), Value::Null),
        ("POST", s.path(""), wanted(&port, 9090)),
        ("PUT", one.clone(), json!({"port_forwarding": {"description": "x"}})),
        ("DELETE", one.clone(), Value::Null),
    ] {
        s.c.want(404, B, method, &path, body).await;
    }
    // Another's port is not there, and another floating IP has not this forwarding.
    let foreign = s.c.network(B).await;
    s.c.subnet(B, &foreign, "10.9.0.0/24").await;
    let foreign = id(&s.c.port(B, &foreign).await);
    s.c.want(404, A, "POST", &s.path(""), wanted(&foreign, 9090)).await;
    let second = json!({"floating_network_id": s.public});
    let second = id(&s.c.make(A, "/v2.0/floatingips", "floatingip", second).await);
    let crossed = one.replace(&s.fip, &second);
    s.c.want(404, A, "GET", &crossed, Value::Null).await;
    assert_eq!(s.c.get(A, &one).await["port_forwarding"], made);
    s.c.audit();
}
