//! Trunks: what may be in one, and where their subports are.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::*;
use maru_network_model as m;
use maru_store::Txn;
use serde_json::{Value, json};

const TRUNKS: &str = "/v2.0/trunks";

fn sub(port: &Value, vlan: u16) -> Value {
    json!({"port_id": id(port), "segmentation_type": "vlan", "segmentation_id": vlan})
}

async fn trunk(c: &Cloud, parent: &Value, subs: Vec<Value>) -> String {
    let body = json!({"name": "t", "port_id": id(parent), "sub_ports": subs});
    id(&c.make(A, TRUNKS, "trunk", body).await)
}

async fn shown(c: &Cloud, trunk: &str) -> Value {
    c.get(A, &format!("{TRUNKS}/{trunk}")).await["trunk"].clone()
}

async fn port(c: &Cloud, port: &Value) -> Value {
    c.get(ADMIN, &format!("/v2.0/ports/{}", id(port))).await["port"].clone()
}

/// A network with a subnet.
async fn wired(c: &Cloud, cidr: &str) -> String {
    let network = c.network(A).await;
    c.subnet(A, &network, cidr).await;
    network
}

/// Gives a port to a server, or (no host) takes it away.
async fn bind(c: &Cloud, of: &Value, host: &str) {
    let port = m::PortId::from(id(of));
    let plan = |s: &maru_store::Snapshot| {
        let mut txn = Txn::new();
        let read = s.get::<m::Port>(&port).unwrap();
        if host.is_empty() {
            m::plan_unbind_port(s, &mut txn, &read)?;
        } else {
            m::plan_bind_port(s, &mut txn, &read, host, "server-1", "", "nova")?;
        }
        Ok((txn, ()))
    };
    c.store.plan(plan).await.unwrap();
}

async fn observe(c: &Cloud, of: &Value, host: &str, up: bool) {
    let port = m::PortId::from(id(of));
    let seen = m::ObservedPort {
        host: host.to_owned(),
        up,
        revision: 1,
        session: 1,
        fault: None,
    };
    let plan = |s: &maru_store::Snapshot| {
        let mut txn = Txn::new();
        assert!(m::plan_observe_port(s, &mut txn, &port, &seen));
        Ok((txn, ()))
    };
    c.store.plan(plan).await.unwrap();
}

#[tokio::test]
async fn subports_go_where_their_parent_goes_and_the_status_follows() {
    let c = cloud();
    let (one, two) = (wired(&c, "10.1.0.0/24").await, wired(&c, "10.2.0.0/24").await);
    let (parent, first, second) = (c.port(A, &one).await, c.port(A, &two).await, c.port(A, &two).await);
    let t = trunk(&c, &parent, vec![sub(&first, 100)]).await;
    assert_eq!(shown(&c, &t).await["status"], "DOWN");
    let owned = port(&c, &first).await;
    assert_eq!(
        (&owned["device_owner"], &owned["device_id"], &owned["binding:host_id"]),
        (&json!("trunk:subport"), &json!(t), &json!(""))
    );
    bind(&c, &parent, "n1").await;
    assert_eq!(shown(&c, &t).await["status"], "BUILD");
    assert_eq!(port(&c, &first).await["binding:host_id"], "n1");
    observe(&c, &parent, "n1", true).await;
    assert_eq!(shown(&c, &t).await["status"], "BUILD");
    observe(&c, &first, "n1", true).await;
    assert_eq!(shown(&c, &t).await["status"], "ACTIVE");

    // One more while the server runs.
    let added = c
        .want(
            200,
            A,
            "PUT",
            &format!("{TRUNKS}/{t}/add_subports"),
            json!({"sub_ports": [sub(&second, 101)]}),
        )
        .await;
    assert_eq!((&added["id"], &added["status"]), (&json!(t), &json!("BUILD")));
    assert_eq!(port(&c, &second).await["binding:host_id"], "n1");
    observe(&c, &second, "n1", true).await;
    let details = port(&c, &parent).await["trunk_details"].clone();
    assert_eq!(details["trunk_id"], json!(t));
    assert_eq!(details["sub_ports"][1]["mac_address"], second["mac_address"]);
    assert_eq!(details["sub_ports"][1]["segmentation_id"], 101);

    // And one less.
    c.want(
        200,
        A,
        "PUT",
        &format!("{TRUNKS}/{t}/remove_subports"),
        json!({"sub_ports": [{"port_id": id(&first)}]}),
    )
    .await;
    let free = port(&c, &first).await;
    assert_eq!(
        (&free["device_owner"], &free["device_id"], &free["binding:host_id"]),
        (&json!(""), &json!(""), &json!(""))
    );
    let subs = c.get(A, &format!("{TRUNKS}/{t}/get_subports")).await["sub_ports"].clone();
    assert_eq!(subs, json!([sub(&second, 101)]));
    assert_eq!(
        c.refused(409, A, "DELETE", &format!("{TRUNKS}/{t}"), Value::Null).await,
        "TrunkInUse"
    );

    bind(&c, &parent, "").await;
    assert_eq!(port(&c, &second).await["binding:host_id"], "");
    assert_eq!(shown(&c, &t).await["status"], "DOWN");
    c.delete(A, &format!("{TRUNKS}/{t}")).await;
    assert_eq!(port(&c, &second).await["device_owner"], "");
    assert!(port(&c, &parent).await["trunk_details"].is_null());
    for p in [&parent, &first, &second] {
        c.delete(A, &format!("/v2.0/ports/{}", id(p))).await;
    }
    c.audit();
}

#[tokio::test]
async fn a_port_is_of_one_trunk_and_stays_while_it_is() {
    let c = cloud();
    let net = wired(&c, "10.1.0.0/24").await;
    let mut ports = Vec::new();
    for _ in 0..5 {
        ports.push(c.port(A, &net).await);
    }
    let [parent, first, other, loose, used] = &ports[..] else {
        panic!("{ports:?}")
    };
    bind(&c, used, "n1").await;
    let t = trunk(&c, parent, vec![sub(first, 5)]).await;
    let u = trunk(&c, other, vec![]).await;
    let add = |t: &str| format!("{TRUNKS}/{t}/add_subports");
    let of = |port: &Value, vlan| json!({"sub_ports": [sub(port, vlan)]});
    for (path, body, code) in [
        (add(&t), of(first, 6), "TrunkPortInUse"),
        (add(&u), of(first, 6), "TrunkPortInUse"),
        (add(&t), of(parent, 6), "ParentPortInUse"),
        (add(&t), of(other, 6), "ParentPortInUse"),
        (add(&t), of(used, 6), "PortInUse"),
        (add(&t), of(loose, 5), "DuplicateSubPort"),
        (
            add(&t),
            json!({"sub_ports": [sub(loose, 6), sub(loose, 7)]}),
            "TrunkPortInUse",
        ),
    ] {
        assert_eq!(c.refused(409, A, "PUT", &path, body).await, code);
    }
    for (port, code) in [
        (parent, "ParentPortInUse"),
        (first, "TrunkPortInUse"),
        (used, "ParentPortInUse"),
    ] {
        let body = json!({"trunk": {"port_id": id(port)}});
        assert_eq!(c.refused(409, A, "POST", TRUNKS, body).await, code);
    }
    for (port, code) in [(parent, "PortInUseAsTrunkParent"), (first, "PortInUseAsSubPort")] {
        let path = format!("/v2.0/ports/{}", id(port));
        assert_eq!(c.refused(409, A, "DELETE", &path, Value::Null).await, code);
    }
    // A subport keeps its place, and is otherwise its project's.
    let path = format!("/v2.0/ports/{}", id(first));
    let body = json!({"port": {"device_owner": "", "device_id": ""}});
    assert_eq!(c.refused(409, A, "PUT", &path, body).await, "PortInUse");
    c.want(
        200,
        A,
        "PUT",
        &path,
        json!({"port": {"name": "x", "security_groups": []}}),
    )
    .await;
    // Nobody but the cloud makes one of a port.
    let body = json!({"port": {"network_id": net, "device_owner": "trunk:subport"}});
    c.refused(400, A, "POST", "/v2.0/ports", body).await;
    // A disabled trunk stays as it is.
    let path = format!("{TRUNKS}/{t}");
    c.want(200, A, "PUT", &path, json!({"trunk": {"admin_state_up": false}}))
        .await;
    for (method, path, body) in [
        ("PUT", add(&t), of(loose, 6)),
        (
            "PUT",
            format!("{path}/remove_subports"),
            json!({"sub_ports": [{"port_id": id(first)}]}),
        ),
        ("DELETE", path.clone(), Value::Null),
    ] {
        assert_eq!(c.refused(409, A, method, &path, body).await, "TrunkDisabled");
    }
    c.want(200, A, "PUT", &path, json!({"trunk": {"admin_state_up": true}}))
        .await;
    let body = json!({"sub_ports": [{"port_id": id(loose)}]});
    assert_eq!(
        c.refused(404, A, "PUT", &format!("{path}/remove_subports"), body).await,
        "SubPortNotFound"
    );
    for (sub_port, field) in [
        (json!({"port_id": id(loose)}), "segmentation"),
        (
            json!({"port_id": id(loose), "segmentation_type": "inherit", "segmentation_id": 1}),
            "segmentation_type",
        ),
        (
            json!({"port_id": id(loose), "segmentation_type": "vlan", "segmentation_id": 4095}),
            "segmentation_id",
        ),
        (json!({"segmentation_type": "vlan", "segmentation_id": 1}), "port_id"),
    ] {
        let (status, answer) = c.call(A, "PUT", &add(&t), json!({"sub_ports": [sub_port]})).await;
        assert!(status == 400 && answer.to_string().contains(field), "{status} {answer}");
    }
    c.audit();
}

#[tokio::test]
async fn nobody_plugs_another_projects_port_into_a_trunk() {
    let c = cloud();
    let net = wired(&c, "10.1.0.0/24").await;
    c.want(
        200,
        ADMIN,
        "PUT",
        &format!("/v2.0/networks/{net}"),
        json!({"network": {"shared": true}}),
    )
    .await;
    // On a shared network: its owner sees the ports of all.
    let (foreign, own) = (c.port(B, &net).await, c.port(A, &net).await);
    assert_eq!(
        c.get(A, &format!("/v2.0/ports/{}", id(&foreign))).await["port"]["id"],
        foreign["id"]
    );
    for (token, body) in [
        (A, json!({"port_id": id(&own), "sub_ports": [sub(&foreign, 5)]})),
        (A, json!({"port_id": id(&foreign)})),
        (B, json!({"port_id": id(&own)})),
    ] {
        c.want(404, token, "POST", TRUNKS, json!({"trunk": body})).await;
    }
    let t = trunk(&c, &own, vec![]).await;
    c.want(404, B, "GET", &format!("{TRUNKS}/{t}"), Value::Null).await;
    assert_eq!(c.get(B, TRUNKS).await["trunks"], json!([]));
    let path = format!("{TRUNKS}/{t}/add_subports");
    c.want(404, A, "PUT", &path, json!({"sub_ports": [sub(&foreign, 5)]}))
        .await;
    // A smaller parent cannot carry larger frames.
    let wide = wired(&c, "10.2.0.0/24").await;
    let path = format!("/v2.0/networks/{net}");
    c.want(200, A, "PUT", &path, json!({"network": {"mtu": 1300}})).await;
    let large = c.port(A, &wide).await;
    let path = format!("{TRUNKS}/{t}/add_subports");
    assert_eq!(
        c.refused(409, A, "PUT", &path, json!({"sub_ports": [sub(&large, 5)]}))
            .await,
        "SubPortMtuGreaterThanTrunkPortMtu"
    );
    c.audit();
}
