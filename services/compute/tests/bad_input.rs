//! Every request body with every part of it replaced by every kind of nonsense: refused or taken, never a fault of the
//! service; and the same for ids and queries.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod common;
use bytes::Bytes;
use common::*;
use serde_json::{Value, json};

fn nonsense() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(1.5),
        json!(1e300),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(""),
        json!(" "),
        json!("x".repeat(300)),
        json!("\u{0}"),
        json!("\u{202e}\u{feff}"),
        json!("../../../etc/passwd"),
        json!("'; DROP TABLE servers; --"),
        json!("${jndi:ldap://x}"),
        json!("9".repeat(40)),
        json!(NOBODY),
        json!([]),
        json!({}),
        json!([[[]]]),
        json!([null]),
        json!({"a": {"b": {}}}),
        json!(["x", 1, null, {}]),
    ]
}

/// All places in a value, as JSON pointers.
fn places(v: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    match v {
        Value::Object(map) => {
            for (key, inner) in map {
                let key = key.replace('~', "~0").replace('/', "~1");
                places(inner, &format!("{at}/{key}"), all);
            }
        }
        Value::Array(list) => {
            for (i, inner) in list.iter().enumerate() {
                places(inner, &format!("{at}/{i}"), all);
            }
        }
        _ => {}
    }
}

fn sane(status: u16) -> bool {
    matches!(status, 200..=204 | 400 | 403 | 404 | 409 | 413 | 501)
}

async fn try_all(c: &Cloud, method: &str, path: &str, body: &Value, count: &mut usize) {
    let mut tries = Vec::new();
    let mut all = Vec::new();
    places(body, "", &mut all);
    for place in all {
        for bad in nonsense() {
            let mut one = body.clone();
            *one.pointer_mut(&place).unwrap() = bad;
            tries.push(one);
        }
        let mut one = body.clone();
        if let Some(map) = one.pointer_mut(&place).unwrap().as_object_mut() {
            map.insert("no_such_key".to_owned(), json!(1));
            tries.push(one);
        }
    }
    for one in tries {
        for minor in [1, 56, NEW] {
            let answer = c.at(minor, ADMIN, method, path, one.clone()).await;
            assert!(
                sane(answer.status),
                "{method} {path} 2.{minor} {one}: {} {}",
                answer.status,
                answer.body
            );
            if answer.status >= 400 {
                let message = answer.body.as_object().unwrap().values().next().unwrap()["message"]
                    .as_str()
                    .unwrap();
                assert!(message.len() >= 8, "{method} {path} {one}: '{message}' says too little");
                // Names of our types and crates tell a user nothing.
                for inner in ["untagged enum", "maru_", "::", "panicked"] {
                    assert!(!message.contains(inner), "{method} {path} {one}: {message}");
                }
            }
            *count += 1;
        }
    }
}

#[tokio::test]
async fn no_body_makes_the_service_fail() {
    let c = cloud().await;
    c.quota("ops", json!({"instances": 3, "server_groups": 2, "key_pairs": 2}))
        .await;
    let net = c.network(ADMIN, "n", "10.1.0.0/24").await;
    let server = c.boot(ADMIN, "s").await;
    c.want(
        200,
        ADMIN,
        "POST",
        "/os-aggregates",
        json!({"aggregate": {"name": "a"}}),
    )
    .await;
    let service = maru_compute_model::find_service(&c.store.snapshot(), "node1")
        .unwrap()
        .id;
    let s = format!("/servers/{server}");
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO6pFVYnYMsmcmzMzSlxOWnrZtYPb/tWRGmSzKEsXS2N";
    let create = json!({
        "server": {
            "name": "s", "imageRef": IMAGE, "flavorRef": "1", "adminPass": "p", "metadata": {"k": "v"},
            "networks": [{"uuid": net, "fixed_ip": "10.1.0.9", "tag": "t"}], "OS-DCF:diskConfig": "AUTO",
            "accessIPv4": "192.0.2.1", "accessIPv6": "::1", "availability_zone": "nova", "config_drive": true, "key_name": "k",
            "min_count": 1, "max_count": 1, "return_reservation_id": false, "security_groups": [{"name": "default"}],
            "user_data": "aGk=", "description": "d", "tags": ["t"], "trusted_image_certificates": ["c"], "hostname": "h",
            "block_device_mapping_v2": [{
                "uuid": IMAGE, "source_type": "image", "destination_type": "local", "boot_index": 0, "disk_bus": "virtio",
                "device_type": "disk", "guest_format": "x", "volume_size": 1, "tag": "t", "delete_on_termination": true,
            }],
        },
        "os:scheduler_hints": {"group": NOBODY, "same_host": [NOBODY]},
    });
    let old = json!({"server": {"name": "s", "imageRef": IMAGE, "flavorRef": "1", "personality": [{"path": "/a", "contents": "aGk="}]}});
    let rebuild = json!({"rebuild": {
        "imageRef": IMAGE, "name": "n", "adminPass": "p", "metadata": {"k": "v"}, "accessIPv4": "192.0.2.1", "accessIPv6": "::1",
        "OS-DCF:diskConfig": "AUTO", "description": "d", "key_name": null, "user_data": "aGk=", "hostname": "h",
        "trusted_image_certificates": ["c"], "preserve_ephemeral": false,
    }});
    let a = format!("{s}/action");
    let mut count = 0;
    for (method, path, body) in [
        ("POST", "/servers", create),
        ("POST", "/servers", old),
        (
            "PUT",
            &s,
            json!({"server": {"name": "n", "description": "d", "accessIPv4": "192.0.2.1", "hostname": "h", "OS-DCF:diskConfig": "AUTO"}}),
        ),
        ("POST", &a, rebuild),
        ("POST", &a, json!({"reboot": {"type": "SOFT"}})),
        ("POST", &a, json!({"os-stop": null})),
        ("POST", &a, json!({"lock": {"locked_reason": "r"}})),
        ("POST", &a, json!({"os-resetState": {"state": "active"}})),
        ("POST", &a, json!({"os-getConsoleOutput": {"length": 5}})),
        ("POST", &a, json!({"changePassword": {"adminPass": "x"}})),
        ("POST", &a, json!({"addSecurityGroup": {"name": "default"}})),
        ("POST", &a, json!({"removeSecurityGroup": {"name": "default"}})),
        ("POST", &format!("{s}/metadata"), json!({"metadata": {"k": "v"}})),
        ("PUT", &format!("{s}/metadata"), json!({"metadata": {"k": "v"}})),
        ("PUT", &format!("{s}/metadata/k"), json!({"meta": {"k": "v"}})),
        ("PUT", &format!("{s}/tags"), json!({"tags": ["t"]})),
        (
            "POST",
            &format!("{s}/os-interface"),
            json!({"interfaceAttachment": {"net_id": net, "fixed_ips": [{"ip_address": "10.1.0.9"}], "tag": "t"}}),
        ),
        (
            "POST",
            "/flavors",
            json!({"flavor": {"name": "f", "id": "f", "ram": 1, "vcpus": 1, "disk": 1, "swap": 1, "rxtx_factor": 1.0, "OS-FLV-EXT-DATA:ephemeral": 1, "os-flavor-access:is_public": true, "description": "d"}}),
        ),
        ("PUT", "/flavors/1", json!({"flavor": {"description": "d"}})),
        ("POST", "/flavors/1/action", json!({"addTenantAccess": {"tenant": "t"}})),
        ("POST", "/flavors/1/os-extra_specs", json!({"extra_specs": {"k": "v"}})),
        ("PUT", "/flavors/1/os-extra_specs/k", json!({"k": "v"})),
        (
            "POST",
            "/os-keypairs",
            json!({"keypair": {"name": "k", "public_key": key, "type": "ssh", "user_id": "u"}}),
        ),
        (
            "POST",
            "/os-server-groups",
            json!({"server_group": {"name": "g", "policy": "anti-affinity", "rules": {"max_server_per_host": 1}}}),
        ),
        (
            "POST",
            "/os-server-groups",
            json!({"server_group": {"name": "g", "policies": ["affinity"]}}),
        ),
        (
            "PUT",
            &format!("/os-services/{service}"),
            json!({"status": "disabled", "disabled_reason": "r", "forced_down": false}),
        ),
        (
            "PUT",
            "/os-services/disable-log-reason",
            json!({"host": "node1", "binary": "nova-compute", "disabled_reason": "r"}),
        ),
        (
            "POST",
            "/os-aggregates",
            json!({"aggregate": {"name": "b", "availability_zone": "z"}}),
        ),
        (
            "PUT",
            "/os-aggregates/1",
            json!({"aggregate": {"name": "a", "availability_zone": "z"}}),
        ),
        (
            "POST",
            "/os-aggregates/1/action",
            json!({"add_host": {"host": "node1"}}),
        ),
        (
            "POST",
            "/os-aggregates/1/action",
            json!({"remove_host": {"host": "node1"}}),
        ),
        (
            "POST",
            "/os-aggregates/1/action",
            json!({"set_metadata": {"metadata": {"k": "v"}}}),
        ),
        (
            "PUT",
            "/os-quota-sets/aaa",
            json!({"quota_set": {"cores": 1, "force": true}}),
        ),
        (
            "PUT",
            "/os-quota-class-sets/default",
            json!({"quota_class_set": {"cores": 1}}),
        ),
    ] {
        try_all(&c, method, path, &body, &mut count).await;
    }
    c.settle().await;
    c.idle();
    println!("{count} malformed requests, none a fault of the service");
}

#[tokio::test]
async fn no_address_or_query_makes_the_service_fail() {
    let c = cloud().await;
    let server = c.boot(ADMIN, "s").await;
    let bad = [
        "%00",
        "..%2F..%2Fx",
        "%F0%9F%92%A9",
        "x%20y",
        "-1",
        "999999999999999999999",
        "%25",
        "a:b",
        "None",
    ];
    let long = "y".repeat(2_000);
    let mut count = 0;
    for path in [
        "/servers/{}",
        "/servers/{}/ips",
        "/servers/{}/os-instance-actions",
        "/servers/S/ips/{}",
        "/servers/S/metadata/{}",
        "/servers/S/tags/{}",
        "/servers/S/os-interface/{}",
        "/servers/S/os-instance-actions/{}",
        "/flavors/{}",
        "/flavors/1/os-extra_specs/{}",
        "/flavors/{}/os-flavor-access",
        "/os-keypairs/{}",
        "/os-services/{}",
        "/os-hypervisors/{}",
        "/os-hypervisors/{}/servers",
        "/os-aggregates/{}",
        "/os-quota-sets/{}",
        "/os-quota-class-sets/{}",
        "/os-server-groups/{}",
        "/os-simple-tenant-usage/{}",
        "/extensions/{}",
    ] {
        for id in bad.iter().copied().chain([long.as_str()]) {
            let path = path.replace('S', &server).replace("{}", id);
            for method in ["GET", "DELETE", "PUT"] {
                for minor in [1, NEW] {
                    let answer = c
                        .send(
                            ADMIN,
                            minor,
                            method,
                            &format!("/compute/v2.1{path}"),
                            Bytes::from_static(b"{}"),
                        )
                        .await;
                    let good = sane(answer.status) || answer.status == 405;
                    assert!(good, "{method} {path}: {} {}", answer.status, answer.body);
                    count += 1;
                }
            }
        }
    }
    let keys = [
        "limit",
        "marker",
        "sort_key",
        "sort_dir",
        "all_tenants",
        "name",
        "status",
        "ip",
        "ip6",
        "changes-since",
        "tags",
        "not-tags",
        "locked",
        "host",
        "power_state",
        "tenant_id",
        "is_public",
        "minRam",
        "offset",
        "user_id",
        "detailed",
        "start",
        "end",
        "with_servers",
        "hypervisor_hostname_pattern",
        "reservation_id",
        "deleted",
    ];
    for path in [
        "/servers",
        "/servers/detail",
        "/flavors",
        "/flavors/detail",
        "/os-keypairs",
        "/os-hypervisors",
        "/os-services",
        "/os-server-groups",
        "/os-simple-tenant-usage",
        "/limits",
        "/os-aggregates",
        "/os-availability-zone",
    ] {
        for key in keys {
            for value in bad
                .iter()
                .copied()
                .chain([long.as_str(), "", "(", "[", "a,b", "2026-01-01T00:00:00%2B25:00"])
            {
                for minor in [1, NEW] {
                    let answer = c
                        .at(minor, ADMIN, "GET", &format!("{path}?{key}={value}&{key}"), Value::Null)
                        .await;
                    assert!(
                        sane(answer.status),
                        "{path}?{key}={value}: {} {}",
                        answer.status,
                        answer.body
                    );
                    count += 1;
                }
            }
        }
    }
    println!("{count} odd addresses and queries, none a fault of the service");
}
