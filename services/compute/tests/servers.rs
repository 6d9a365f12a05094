//! Servers: creation with every field of every microversion, bad input, what is shown, changes, deletion.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use bytes::Bytes;
use common::*;
use maru_compute_model as m;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A body with only these fields.
fn only(fields: Value) -> Value {
    json!({ "server": fields })
}

fn least(minor: u16) -> Value {
    let mut server = json!({"name": "s", "imageRef": IMAGE, "flavorRef": "1"});
    if minor >= 37 {
        server["networks"] = json!("none");
    }
    server
}

#[tokio::test]
async fn a_server_is_made_with_the_least_and_answers_as_upstream() {
    let c = cloud().await;
    for minor in [1, 18, 19, 36, 37, 51, 52, 57, 63, 74, 90, NEW] {
        let answer = c.at(minor, A, "POST", "/servers", only(least(minor))).await;
        assert_eq!(answer.status, 202, "2.{minor}: {}", answer.body);
        let server = &answer.body["server"];
        assert_eq!(
            keys(server),
            ["OS-DCF:diskConfig", "adminPass", "id", "links", "security_groups"]
        );
        assert_eq!(server["adminPass"].as_str().unwrap().len(), 12);
        assert_eq!(server["security_groups"], json!([{"name": "default"}]));
        let link = format!("http://maru/compute/v2.1/servers/{}", id(server));
        assert_eq!(answer.headers["location"], link.as_str());
        assert_eq!(server["links"][0]["href"], link);
        c.settle().await;
        c.want(204, A, "DELETE", &format!("/servers/{}", id(server)), Value::Null)
            .await;
        c.settle().await;
    }
    assert_eq!(c.store.snapshot().count::<m::Server>(), 0);
    c.audit();
}

#[tokio::test]
async fn a_server_is_made_with_everything() {
    let c = cloud().await;
    let net = c.network(A, "web", "10.1.0.0/24").await;
    // An address of its own: one at random could be the one asked for below.
    let port = json!({"port": {"network_id": net, "fixed_ips": [{"ip_address": "10.1.0.9"}]}});
    let port = id(&c.net(A, "POST", "/ports", port).await);
    c.net(A, "POST", "/security-groups", json!({"security_group": {"name": "sg"}}))
        .await;
    c.want(
        201,
        A,
        "POST",
        "/os-keypairs",
        json!({"keypair": {"name": "k", "public_key": KEY}}),
    )
    .await;
    let body = json!({
        "server": {
            "name": "big one", "imageRef": IMAGE_A, "flavorRef": "2", "adminPass": "secret", "metadata": {"a": "1", "b c": ""},
            "networks": [{"uuid": net, "fixed_ip": "10.1.0.77", "tag": "nic0"}, {"port": port}],
            "OS-DCF:diskConfig": "AUTO", "accessIPv4": "192.0.2.7", "accessIPv6": "2001:db8::7",
            "availability_zone": "nova", "config_drive": "True", "key_name": "k", "min_count": "1",
            "security_groups": [{"name": "sg"}, {"name": "default"}, {"name": "sg"}], "user_data": "I2Nsb3VkLWNvbmZpZwo=",
            "block_device_mapping_v2": [
                {"uuid": IMAGE_A, "source_type": "image", "destination_type": "local", "boot_index": "0", "delete_on_termination": true},
                {"source_type": "blank", "destination_type": "local", "volume_size": 10, "boot_index": -1},
                {"source_type": "blank", "destination_type": "local", "guest_format": "swap", "volume_size": "32", "boot_index": null},
            ],
            "description": "what for", "tags": ["x", "y"], "trusted_image_certificates": ["cert1"], "hostname": "web.example",
        },
        "os:scheduler_hints": {"anything": [1, {"goes": true}]},
    });
    let made = c.want(202, A, "POST", "/servers", body).await["server"].clone();
    assert_eq!(made["adminPass"], "secret");
    assert_eq!(made["OS-DCF:diskConfig"], "AUTO");
    assert_eq!(made["security_groups"], json!([{"name": "sg"}, {"name": "default"}]));
    c.settle().await;
    let v = c.get(ADMIN, &format!("/servers/{}", id(&made))).await["server"].clone();
    assert_eq!(v["status"], "ACTIVE", "{v}");
    assert_eq!(v["metadata"], json!({"a": "1", "b c": ""}));
    assert_eq!(v["tags"], json!(["x", "y"]));
    assert_eq!(v["key_name"], "k");
    assert_eq!(v["config_drive"], "True");
    assert_eq!(v["accessIPv4"], "192.0.2.7");
    assert_eq!(v["accessIPv6"], "2001:db8::7");
    assert_eq!(v["description"], "what for");
    assert_eq!(v["trusted_image_certificates"], json!(["cert1"]));
    assert_eq!(v["OS-EXT-SRV-ATTR:hostname"], "web.example");
    assert_eq!(v["OS-EXT-SRV-ATTR:user_data"], "I2Nsb3VkLWNvbmZpZwo=");
    assert_eq!(v["pinned_availability_zone"], "nova");
    assert_eq!(v["flavor"]["original_name"], "small");
    assert_eq!(v["image"]["id"], IMAGE_A);
    let addresses = v["addresses"]["web"].as_array().unwrap();
    assert_eq!(addresses.len(), 2);
    assert_eq!(addresses[0]["addr"], "10.1.0.77");
    assert_eq!(addresses[0]["OS-EXT-IPS:type"], "fixed");
    // The groups are on the port that was made, the given port keeps its own.
    let of_port = c.net(A, "GET", &format!("/ports/{port}"), Value::Null).await;
    assert_eq!(of_port["device_id"], v["id"]);
    assert_eq!(of_port["security_groups"].as_array().unwrap().len(), 1);
    let snapshot = c.store.snapshot();
    let server = snapshot.get::<m::Server>(&id(&made).as_str().into()).unwrap();
    let intent = m::guest_intent(&snapshot, &server).unwrap();
    let disks: Vec<(&str, u64)> = intent.disks.iter().map(|d| (d.name.as_str(), d.size)).collect();
    assert_eq!(
        disks,
        [("root", 20 << 30), ("ephemeral0", 10 << 30), ("swap", 32 << 20)]
    );
    assert_eq!(intent.ports.len(), 2);
    c.audit();
    // The port that was given is given back, the other goes.
    c.want(204, A, "DELETE", &format!("/servers/{}", id(&made)), Value::Null)
        .await;
    c.settle().await;
    let of_port = c.net(A, "GET", &format!("/ports/{port}"), Value::Null).await;
    assert_eq!(of_port["device_id"], "");
    c.audit();
}

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO6pFVYnYMsmcmzMzSlxOWnrZtYPb/tWRGmSzKEsXS2N me";

#[tokio::test]
async fn bad_input_is_refused_with_the_fields_name_and_leaves_nothing() {
    let c = cloud().await;
    let net = c.network(A, "n", "10.1.0.0/24").await;
    let foreign = c.network(B, "n", "10.2.0.0/24").await;
    let foreign_port = id(&c
        .net(B, "POST", "/ports", json!({"port": {"network_id": foreign}}))
        .await);
    let bare = id(&c
        .net(A, "POST", "/networks", json!({"network": {"name": "no-subnet"}}))
        .await);
    let long = "x".repeat(256);
    let many: Vec<String> = (0..51).map(|n| format!("t{n}")).collect();
    let mut wrong = Vec::new();
    // field, value, status, a part of the message
    let cases = [
        ("name", json!(""), 400, "server.name"),
        ("name", json!(long), 400, "server.name"),
        ("name", json!(" x"), 400, "server.name"),
        ("name", json!("a\u{7}b"), 400, "server.name"),
        ("name", json!(5), 400, "server.name"),
        ("name", json!(null), 400, "server.name"),
        ("name", json!({"a": {"b": [[[[]]]]}}), 400, "server.name"),
        ("imageRef", json!(null), 400, "server.imageRef"),
        ("imageRef", json!(["x"]), 400, "server.imageRef"),
        ("imageRef", json!("not-a-uuid"), 400, "Invalid imageRef"),
        ("imageRef", json!(""), 400, "Invalid imageRef"),
        ("imageRef", json!(NOBODY), 400, "Can not find requested image"),
        ("imageRef", json!(IMAGE_B), 400, "Can not find requested image"),
        ("flavorRef", json!("nope"), 400, "Flavor nope could not be found"),
        ("flavorRef", json!(7), 400, "Flavor 7 could not be found"),
        ("flavorRef", json!(-1), 400, "Flavor -1"),
        ("flavorRef", json!([]), 400, "server.flavorRef"),
        ("flavorRef", json!(null), 400, "server.flavorRef"),
        ("adminPass", json!(1), 400, "server.adminPass"),
        ("adminPass", json!(null), 400, "server.adminPass"),
        ("metadata", json!({"k": 1}), 400, "server.metadata.k"),
        ("metadata", json!({"k": long}), 400, "metadata.k"),
        ("metadata", json!({"": "v"}), 400, "metadata"),
        ("metadata", json!({"k/": "v"}), 400, "metadata"),
        ("metadata", json!([]), 400, "server.metadata"),
        ("networks", json!("all"), 400, "server.networks"),
        ("networks", json!(7), 400, "server.networks"),
        ("networks", json!(null), 400, "server.networks"),
        ("networks", json!([{}]), 400, "networks[0]"),
        ("networks", json!([{"uuid": 5}]), 400, "server.networks[0].uuid"),
        ("networks", json!([{"uuid": "x"}]), 400, "server.networks[0].uuid"),
        ("networks", json!([{"uuid": net, "x": 1}]), 400, "server.networks[0]"),
        ("networks", json!([{"uuid": net}, {"uuid": NOBODY}]), 400, NOBODY),
        ("networks", json!([{"uuid": foreign}]), 400, foreign.as_str()),
        ("networks", json!([{"uuid": bare}]), 400, "requires a subnet"),
        (
            "networks",
            json!([{"uuid": net, "fixed_ip": "10.9.9.9"}]),
            400,
            "10.9.9.9",
        ),
        (
            "networks",
            json!([{"uuid": net, "fixed_ip": "10.1.0"}]),
            400,
            "fixed_ip",
        ),
        ("networks", json!([{"uuid": net, "tag": "a/b"}]), 400, "tag"),
        ("networks", json!([{"port": foreign_port}]), 400, foreign_port.as_str()),
        ("networks", json!([{"port": NOBODY}]), 400, NOBODY),
        ("OS-DCF:diskConfig", json!("BOTH"), 400, "OS-DCF:diskConfig"),
        ("OS-DCF:diskConfig", json!(true), 400, "OS-DCF:diskConfig"),
        ("accessIPv4", json!("1.2.3"), 400, "server.accessIPv4"),
        ("accessIPv4", json!("::1"), 400, "server.accessIPv4"),
        ("accessIPv6", json!("1.2.3.4"), 400, "server.accessIPv6"),
        ("availability_zone", json!("moon"), 400, "moon"),
        ("availability_zone", json!(long), 400, "availability_zone"),
        ("availability_zone", json!("nova:node1"), 403, "forced_host"),
        ("host", json!("node1"), 403, "requested_destination"),
        ("config_drive", json!("maybe"), 400, "server.config_drive"),
        ("config_drive", json!(3), 400, "server.config_drive"),
        ("key_name", json!("none-such"), 400, "key_name"),
        ("key_name", json!(null), 400, "key_name"),
        ("min_count", json!(0), 400, "server.min_count"),
        ("min_count", json!(-3), 400, "server.min_count"),
        ("min_count", json!("x"), 400, "server.min_count"),
        ("min_count", json!(2_147_483_648_u64), 400, "server.min_count"),
        ("max_count", json!(0), 400, "server.max_count"),
        ("max_count", json!(1.5), 400, "server.max_count"),
        (
            "return_reservation_id",
            json!("perhaps"),
            400,
            "server.return_reservation_id",
        ),
        ("security_groups", json!([{"name": "no-such"}]), 400, "no-such"),
        (
            "security_groups",
            json!([{"name": 1}]),
            400,
            "server.security_groups[0].name",
        ),
        (
            "security_groups",
            json!([{"id": "x"}]),
            400,
            "server.security_groups[0]",
        ),
        ("security_groups", json!("default"), 400, "server.security_groups"),
        ("user_data", json!("***"), 400, "user_data"),
        ("user_data", json!("QUFB".repeat(16_384)), 400, "user_data"),
        ("user_data", json!(null), 400, "user_data"),
        ("personality", json!([]), 400, "personality"),
        ("description", json!(5), 400, "server.description"),
        ("description", json!("a\u{0}"), 400, "server.description"),
        ("tags", json!(["a/b"]), 400, "tags"),
        ("tags", json!([""]), 400, "tags"),
        ("tags", json!(many), 400, "tags"),
        ("tags", json!("x"), 400, "server.tags"),
        (
            "trusted_image_certificates",
            json!([]),
            400,
            "trusted_image_certificates",
        ),
        (
            "trusted_image_certificates",
            json!(["a", "a"]),
            400,
            "trusted_image_certificates",
        ),
        ("hostname", json!("a b"), 400, "hostname"),
        ("hostname", json!(""), 400, "hostname"),
        (
            "block_device_mapping",
            json!([{"volume_id": NOBODY}]),
            400,
            "Block Device Mapping is Invalid",
        ),
        ("unknown_key", json!(1), 400, "unknown_key"),
    ];
    for (field, value, status, part) in cases {
        let mut body = wanted(json!({}));
        body["server"][field] = value.clone();
        let answer = c.at(NEW, A, "POST", "/servers", body).await;
        if answer.status != status || !answer.body.to_string().contains(part) {
            wrong.push(format!("{field} {value}: {} {}", answer.status, answer.body));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for missing in ["name", "flavorRef", "networks"] {
        let mut body = wanted(json!({}));
        body["server"].as_object_mut().unwrap().remove(missing);
        let message = c.refused(400, A, "POST", "/servers", body).await;
        assert!(message.contains(missing), "{missing}: {message}");
    }
    let mut extra = wanted(json!({}));
    extra["more"] = json!({});
    assert!(c.refused(400, A, "POST", "/servers", extra).await.contains("more"));
    let mut hints = wanted(json!({}));
    hints["os:scheduler_hints"] = json!({"group": "no-uuid"});
    assert!(
        c.refused(400, A, "POST", "/servers", hints.clone())
            .await
            .contains("group")
    );
    hints["os:scheduler_hints"] = json!({"group": NOBODY});
    assert!(
        c.refused(400, A, "POST", "/servers", hints.clone())
            .await
            .contains(NOBODY)
    );
    hints["os:scheduler_hints"] = json!([]);
    assert!(
        c.refused(400, A, "POST", "/servers", hints)
            .await
            .contains("scheduler_hints")
    );
    let reader = c.refused(403, READER, "POST", "/servers", wanted(json!({}))).await;
    assert!(reader.contains("os_compute_api:servers:create"), "{reader}");
    nothing_made(&c);
}

fn nothing_made(c: &Cloud) {
    let s = c.store.snapshot();
    assert_eq!(s.count::<m::Server>(), 0);
    assert_eq!(s.count::<m::ServerAction>(), 0);
    assert_eq!(s.count::<maru_control::Flow>(), 0);
    c.audit();
}

#[tokio::test]
async fn broken_bodies_are_refused() {
    let c = cloud().await;
    let deep = format!("{{\"server\": {}1{}}}", "[".repeat(200), "]".repeat(200));
    let huge = format!("{{\"server\": {{\"name\": \"{}\"}}}}", "x".repeat(2 << 20));
    for (body, status) in [
        (Bytes::new(), 400),
        (Bytes::from_static(b"[]"), 400),
        (Bytes::from_static(b"5"), 400),
        (Bytes::from_static(b"null"), 400),
        (Bytes::from_static(b"{}"), 400),
        (Bytes::from_static(b"{\"server\": {}}"), 400),
        (Bytes::from_static(b"{\"server\": null}"), 400),
        (Bytes::from_static(b"{\"server\": []}"), 400),
        (Bytes::from_static(b"{\"server\": "), 400),
        (Bytes::from_static(b"{\"server\": {\"name\": \"\xff\"}}"), 400),
        (Bytes::from(deep), 400),
        (Bytes::from(huge), 413),
    ] {
        let shown = body.slice(..body.len().min(60));
        let answer = c.send(A, NEW, "POST", "/compute/v2.1/servers", body).await;
        assert_eq!(answer.status, status, "{shown:?}: {}", answer.body);
    }
    nothing_made(&c);
}

#[tokio::test]
async fn fields_come_and_go_with_the_microversion() {
    let c = cloud().await;
    // field, value, first microversion that has it, first that has it no more
    let fields = [
        ("description", json!("d"), 19, None),
        ("tags", json!(["t"]), 52, None),
        ("trusted_image_certificates", json!(["c"]), 63, None),
        ("hostname", json!("h"), 90, None),
        ("personality", json!([{"path": "/a", "contents": "aGk="}]), 1, Some(57)),
    ];
    for (field, value, from, to) in fields {
        for minor in [1, 18, 19, 51, 52, 56, 57, 62, 63, 89, 90, NEW] {
            let served = minor >= from && to.is_none_or(|t| minor < t);
            let mut body = only(least(minor));
            body["server"][field] = value.clone();
            let answer = c.at(minor, A, "POST", "/servers", body).await;
            if served {
                assert_eq!(answer.status, 202, "{field} 2.{minor}: {}", answer.body);
                let path = format!("/servers/{}", id(&answer.body["server"]));
                c.settle().await;
                c.want(204, A, "DELETE", &path, Value::Null).await;
                c.settle().await;
            } else {
                assert_eq!(answer.status, 400, "{field} 2.{minor}");
                let message = answer.body["badRequest"]["message"].as_str().unwrap();
                assert!(message.contains(field) && message.contains("unexpected"), "{message}");
            }
        }
    }
    // `networks` as a word from 2.37 on; a tag of a NIC in 2.32 to 2.36 and from 2.42 on.
    let mut body = only(least(36));
    body["server"]["networks"] = json!("none");
    c.refused_at(36, 400, A, "POST", "/servers", body).await;
    let net = c.network(A, "n", "10.1.0.0/24").await;
    for (minor, status) in [(31, 400), (32, 202), (36, 202), (37, 400), (41, 400), (42, 202)] {
        let mut body = only(least(minor));
        body["server"]["networks"] = json!([{"uuid": net, "tag": "t"}]);
        c.want_at(minor, status, A, "POST", "/servers", body).await;
    }
    // An administrator names a host from 2.74 on, and by the zone at any time.
    let mut body = only(least(74));
    body["server"]["hypervisor_hostname"] = json!("node1");
    c.refused_at(73, 400, ADMIN, "POST", "/servers", body.clone()).await;
    c.want_at(74, 202, ADMIN, "POST", "/servers", body.clone()).await;
    body["server"]["host"] = json!("node2");
    c.refused_at(74, 400, ADMIN, "POST", "/servers", body).await;
    let mut body = only(least(1));
    body["server"]["availability_zone"] = json!("nova:node1");
    c.want_at(1, 202, ADMIN, "POST", "/servers", body.clone()).await;
    body["server"]["availability_zone"] = json!("nova:nowhere");
    let message = c.refused_at(1, 400, ADMIN, "POST", "/servers", body).await;
    assert!(message.contains("nowhere"), "{message}");
}

#[tokio::test]
async fn local_disks_come_out_of_the_flavor() {
    let c = cloud().await;
    let blank =
        |size: u64| json!({"source_type": "blank", "destination_type": "local", "volume_size": size, "boot_index": -1});
    let swap =
        |size: u64| json!({"source_type": "blank", "guest_format": "swap", "volume_size": size, "boot_index": -1});
    let cases = [
        (json!([blank(11)]), "Ephemeral disks requested are larger"),
        (json!([blank(1_000_000_000)]), "Ephemeral disks requested are larger"),
        (json!([blank(5), blank(6)]), "Ephemeral disks requested are larger"),
        (json!([swap(65)]), "Swap drive requested is larger"),
        (json!([swap(1), swap(1)]), "More than one swap drive"),
        (
            json!([blank(1), blank(1), blank(1)]),
            "more local devices than the limit",
        ),
        (json!([blank(0)]), "volume_size"),
        (json!([{"source_type": "blank"}]), "volume_size"),
        (
            json!([{"source_type": "tape"}]),
            "block_device_mapping_v2[0].source_type",
        ),
        (
            json!([{"source_type": "image", "uuid": IMAGE_A, "boot_index": 0}]),
            "two different images",
        ),
        (
            json!([{"source_type": "image", "uuid": IMAGE, "boot_index": 1}]),
            "Mapping image to local",
        ),
        (
            json!([{"source_type": "image", "uuid": IMAGE, "boot_index": "a"}]),
            "boot_index",
        ),
        (
            json!([{"source_type": "image", "uuid": IMAGE, "boot_index": 0, "destination_type": "moon"}]),
            "destination_type",
        ),
        (
            json!([{"source_type": "image", "uuid": IMAGE, "boot_index": 0, "x": 1}]),
            "block_device_mapping_v2[0]",
        ),
        (json!([{"source_type": "volume", "uuid": NOBODY}]), "get volume"),
        (
            json!([{"source_type": "blank", "destination_type": "volume"}]),
            "volume_size",
        ),
    ];
    for (list, part) in cases {
        let body = wanted(json!({"flavorRef": "2", "block_device_mapping_v2": list}));
        let message = c.refused(400, A, "POST", "/servers", body.clone()).await;
        assert!(message.contains(part), "{body}: {message}");
    }
    nothing_made(&c);
    // A flavor without a disk of its own would let a guest take what no one counts.
    c.plan(|s, txn| m::plan_create_flavor(s, txn, &"0".into(), &flavor("diskless", 1, 64, 0)).unwrap())
        .await;
    let message = c
        .refused(403, A, "POST", "/servers", wanted(json!({"flavorRef": "0"})))
        .await;
    assert!(message.contains("zero disk"), "{message}");
    c.want(202, ADMIN, "POST", "/servers", wanted(json!({"flavorRef": "0"})))
        .await;
}

#[tokio::test]
async fn an_image_must_fit_the_flavor() {
    let c = cloud().await;
    let set = |f: fn(&mut maru_image_model::Image)| {
        let store = c.store.clone();
        async move {
            let mut i = image("ops", maru_image_model::Visibility::Public);
            f(&mut i);
            let mut txn = maru_store::Txn::new();
            txn.put(&IMAGE.into(), &i);
            store.commit(txn).await.unwrap();
        }
    };
    set(|i| i.min_ram = 513).await;
    let memory = c.refused(400, A, "POST", "/servers", wanted(json!({}))).await;
    assert!(memory.contains("memory is too small"), "{memory}");
    set(|i| i.min_disk = 2).await;
    let least = c.refused(400, A, "POST", "/servers", wanted(json!({}))).await;
    assert!(least.contains("minimum size"), "{least}");
    set(|i| i.virtual_size = Some((1 << 30) + 1)).await;
    let disk = c.refused(400, A, "POST", "/servers", wanted(json!({}))).await;
    assert!(disk.contains("disk is too small"), "{disk}");
    set(|i| i.status = maru_image_model::ImageStatus::Queued).await;
    let queued = c.refused(400, A, "POST", "/servers", wanted(json!({}))).await;
    assert!(queued.contains("not active"), "{queued}");
    nothing_made(&c);
}

/// The keys of a server by microversion, as upstream documents them.
fn documented(minor: u16, admin: bool) -> BTreeSet<&'static str> {
    let mut all: BTreeSet<&str> = [
        "id",
        "name",
        "status",
        "tenant_id",
        "user_id",
        "metadata",
        "hostId",
        "image",
        "flavor",
        "created",
        "updated",
        "addresses",
        "accessIPv4",
        "accessIPv6",
        "links",
        "OS-DCF:diskConfig",
        "progress",
        "OS-EXT-AZ:availability_zone",
        "config_drive",
        "key_name",
        "OS-SRV-USG:launched_at",
        "OS-SRV-USG:terminated_at",
        "OS-EXT-STS:task_state",
        "OS-EXT-STS:vm_state",
        "OS-EXT-STS:power_state",
        "os-extended-volumes:volumes_attached",
        "security_groups",
    ]
    .into();
    if admin {
        all.extend([
            "OS-EXT-SRV-ATTR:host",
            "OS-EXT-SRV-ATTR:instance_name",
            "OS-EXT-SRV-ATTR:hypervisor_hostname",
        ]);
    }
    if admin && minor >= 3 {
        all.extend([
            "OS-EXT-SRV-ATTR:reservation_id",
            "OS-EXT-SRV-ATTR:launch_index",
            "OS-EXT-SRV-ATTR:hostname",
            "OS-EXT-SRV-ATTR:kernel_id",
            "OS-EXT-SRV-ATTR:ramdisk_id",
            "OS-EXT-SRV-ATTR:root_device_name",
            "OS-EXT-SRV-ATTR:user_data",
        ]);
    }
    let since = [
        (9, "locked"),
        (19, "description"),
        (26, "tags"),
        (63, "trusted_image_certificates"),
        (71, "server_groups"),
        (73, "locked_reason"),
        (90, "OS-EXT-SRV-ATTR:hostname"),
        (96, "pinned_availability_zone"),
    ];
    all.extend(since.iter().filter(|(from, _)| minor >= *from).map(|(_, key)| *key));
    if admin && minor >= 16 {
        all.insert("host_status");
    }
    all
}

#[tokio::test]
async fn a_server_shows_the_documented_keys_of_every_microversion() {
    let c = cloud().await;
    let net = c.network(A, "n", "10.1.0.0/24").await;
    let id = c.create(A, json!({"networks": [{"uuid": net}]})).await;
    c.settle().await;
    for minor in 1..=NEW {
        for (token, admin) in [(A, false), (READER, false), (ADMIN, true)] {
            let v = c.get_at(minor, token, &format!("/servers/{id}")).await["server"].clone();
            let want = documented(minor, admin);
            let have: BTreeSet<&str> = keys(&v).into_iter().collect();
            assert_eq!(have, want, "2.{minor} {token}");
            let flavor = keys(&v["flavor"]);
            let mut embedded = vec![
                "disk",
                "ephemeral",
                "extra_specs",
                "original_name",
                "ram",
                "swap",
                "vcpus",
            ];
            embedded.retain(|_| minor >= 47);
            if minor < 47 {
                embedded = vec!["id", "links"];
            }
            assert_eq!(flavor, embedded, "2.{minor}");
            // Lists leave the groups out, and are otherwise the same.
            let path = if admin {
                "/servers/detail?all_tenants=1"
            } else {
                "/servers/detail"
            };
            let list = c.get_at(minor, token, path).await;
            let mut want = want;
            want.remove("server_groups");
            let have: BTreeSet<&str> = keys(&list["servers"][0]).into_iter().collect();
            assert_eq!(have, want, "detail 2.{minor} {token}");
        }
        let brief = c.get_at(minor, A, "/servers").await;
        assert_eq!(keys(&brief["servers"][0]), ["id", "links", "name"]);
    }
    let v = c.get(A, &format!("/servers/{id}")).await["server"].clone();
    assert_eq!(v["hostId"].as_str().unwrap().len(), 56);
    assert_ne!(
        v["hostId"],
        c.get(ADMIN, &format!("/servers/{id}")).await["server"]["OS-EXT-SRV-ATTR:host"]
    );
    assert_eq!(v["OS-EXT-STS:power_state"], 1);
    assert_eq!(v["OS-EXT-STS:task_state"], Value::Null);
}

#[tokio::test]
async fn foreign_servers_are_not_there() {
    let c = cloud().await;
    let id = c.boot(A, "mine").await;
    let s = format!("/servers/{id}");
    let calls = [
        ("GET", s.clone(), Value::Null),
        ("PUT", s.clone(), json!({"server": {"name": "x"}})),
        ("DELETE", s.clone(), Value::Null),
        ("GET", format!("{s}/ips"), Value::Null),
        ("GET", format!("{s}/ips/n"), Value::Null),
        ("GET", format!("{s}/metadata"), Value::Null),
        ("POST", format!("{s}/metadata"), json!({"metadata": {"a": "b"}})),
        ("PUT", format!("{s}/metadata"), json!({"metadata": {}})),
        ("GET", format!("{s}/metadata/k"), Value::Null),
        ("PUT", format!("{s}/metadata/k"), json!({"meta": {"k": "v"}})),
        ("DELETE", format!("{s}/metadata/k"), Value::Null),
        ("GET", format!("{s}/tags"), Value::Null),
        ("PUT", format!("{s}/tags"), json!({"tags": []})),
        ("DELETE", format!("{s}/tags"), Value::Null),
        ("GET", format!("{s}/tags/t"), Value::Null),
        ("PUT", format!("{s}/tags/t"), Value::Null),
        ("DELETE", format!("{s}/tags/t"), Value::Null),
        ("GET", format!("{s}/os-interface"), Value::Null),
        ("POST", format!("{s}/os-interface"), json!({"interfaceAttachment": {}})),
        ("GET", format!("{s}/os-interface/{NOBODY}"), Value::Null),
        ("DELETE", format!("{s}/os-interface/{NOBODY}"), Value::Null),
        ("GET", format!("{s}/os-security-groups"), Value::Null),
        ("GET", format!("{s}/os-volume_attachments"), Value::Null),
        ("GET", format!("{s}/os-instance-actions"), Value::Null),
        ("GET", format!("{s}/os-instance-actions/req-1"), Value::Null),
        ("POST", format!("{s}/action"), json!({"os-stop": null})),
        ("POST", format!("{s}/action"), json!({"os-getConsoleOutput": {}})),
        ("POST", format!("{s}/action"), json!({"rebuild": {"imageRef": IMAGE}})),
        ("POST", format!("{s}/action"), json!({"lock": null})),
        ("POST", format!("{s}/action"), json!({"forceDelete": null})),
        (
            "POST",
            format!("{s}/action"),
            json!({"addSecurityGroup": {"name": "default"}}),
        ),
    ];
    let before = c.store.snapshot().revision();
    for (method, path, body) in calls {
        let message = c.refused(404, B, method, &path, body.clone()).await;
        assert!(
            message.contains(&id) || message.contains("not found"),
            "{method} {path} {body}: {message}"
        );
        // Nor does a stranger learn that it is there: the answer for an id that nothing has is the same.
        let other = c.refused(404, B, method, &path.replace(&id, NOBODY), body).await;
        assert_eq!(other, message.replace(&id, NOBODY));
        let nobody = c
            .send("", NEW, method, &format!("/compute/v2.1{path}"), Bytes::new())
            .await;
        assert_eq!(nobody.status, 401);
    }
    c.refused(403, B, "GET", &format!("{s}/diagnostics"), Value::Null).await;
    assert_eq!(c.store.snapshot().revision(), before, "nothing was written");
    for (method, path, body) in [
        ("PUT", s.clone(), json!({"server": {"name": "x"}})),
        ("DELETE", s.clone(), Value::Null),
        ("POST", format!("{s}/action"), json!({"os-stop": null})),
        ("PUT", format!("{s}/tags"), json!({"tags": []})),
    ] {
        c.refused(403, READER, method, &path, body).await;
    }
}

#[tokio::test]
async fn a_server_is_changed() {
    let c = cloud().await;
    let server = c.boot(A, "before").await;
    let path = format!("/servers/{server}");
    let body = json!({"server": {"name": "after", "description": "d", "accessIPv4": "192.0.2.1", "hostname": "h1", "OS-DCF:diskConfig": "MANUAL"}});
    let v = c.want(200, A, "PUT", &path, body).await["server"].clone();
    assert_eq!(v["name"], "after");
    assert_eq!(v["OS-EXT-SRV-ATTR:hostname"], "h1");
    assert_eq!(v["OS-DCF:diskConfig"], "MANUAL");
    assert!(keys(&v).contains(&"server_groups"), "all is shown from 2.75 on");
    let v = c
        .want_at(74, 200, A, "PUT", &path, json!({"server": {"description": null}}))
        .await["server"]
        .clone();
    assert_eq!(v["description"], Value::Null);
    for absent in ["OS-EXT-STS:vm_state", "config_drive", "security_groups"] {
        assert!(v.get(absent).is_none(), "{absent} before 2.75");
    }
    c.want(200, A, "PUT", &path, json!({"server": {}})).await;
    for (minor, body, part) in [
        (NEW, json!({"server": {"name": ""}}), "server.name"),
        (NEW, json!({"server": {"name": null}}), "server.name"),
        (NEW, json!({"server": {"status": "ACTIVE"}}), "status"),
        (NEW, json!({"server": {"accessIPv4": "x"}}), "accessIPv4"),
        (NEW, json!({"server": {"accessIPv6": "10.0.0.1"}}), "accessIPv6"),
        (NEW, json!({"server": {"OS-DCF:diskConfig": "x"}}), "diskConfig"),
        (NEW, json!({"server": {"hostname": "-a"}}), "hostname"),
        (NEW, json!({"server": {"description": "x".repeat(256)}}), "description"),
        (18, json!({"server": {"description": "x"}}), "description"),
        (89, json!({"server": {"hostname": "x"}}), "hostname"),
        (NEW, json!({}), "server"),
        (NEW, json!({"server": 1}), "server"),
    ] {
        let message = c.refused_at(minor, 400, A, "PUT", &path, body.clone()).await;
        assert!(message.contains(part), "{body}: {message}");
    }
    assert_eq!(c.server(&server).unwrap().name, "after");
}

#[tokio::test]
async fn a_server_is_deleted_in_every_phase_of_its_making() {
    let c = cloud().await;
    let net = c.network(A, "n", "10.1.0.0/24").await;
    let flow = maru_compute::create_flow();
    for steps in 0..=flow.steps.len() {
        let server = c.create(A, json!({"networks": [{"uuid": net}]})).await;
        // As many steps as this round wants, by the runner itself.
        let runner = maru_control::FlowRunner::new(std::sync::Arc::new(cut(steps)));
        if steps > 0 {
            drop(runner.run(&c.store, &server).await);
        }
        let before = c.server(&server).unwrap();
        c.want(204, A, "DELETE", &format!("/servers/{server}"), Value::Null)
            .await;
        // Again: a deletion that is under way is not an error.
        let again = c.at(NEW, A, "DELETE", &format!("/servers/{server}"), Value::Null).await;
        let gone = !before.placed;
        assert_eq!(again.status, if gone { 404 } else { 204 }, "after {steps} steps");
        c.settle().await;
        assert!(c.server(&server).is_none(), "after {steps} steps");
        assert_eq!(c.store.snapshot().count::<maru_control::Flow>(), 0);
        c.audit();
        c.refused(404, A, "GET", &format!("/servers/{server}"), Value::Null)
            .await;
    }
    // A server that no host takes is deleted as well.
    let server = c.create(A, json!({"flavorRef": "2"})).await;
    c.plan(|s, txn| m::plan_node_down(s, txn, "node1").unwrap()).await;
    c.settle().await;
    let v = c.get(A, &format!("/servers/{server}")).await["server"].clone();
    assert_eq!(v["status"], "ERROR");
    let fault = &v["fault"];
    assert_eq!(fault["code"], 500);
    let message = fault["message"].as_str().unwrap();
    assert!(
        message.contains("No valid host") && message.contains("ComputeFilter"),
        "{message}"
    );
    assert!(!v.to_string().contains("node1"), "D6: an owner does not see hosts: {v}");
    let v = c.get(ADMIN, &format!("/servers/{server}")).await["server"].clone();
    assert!(v["fault"]["details"].as_str().unwrap().contains("node1"));
    c.audit();
    c.want(204, A, "DELETE", &format!("/servers/{server}"), Value::Null)
        .await;
    assert!(c.server(&server).is_none());
    c.audit();
}

/// The step list whose later steps only wait.
fn cut(steps: usize) -> maru_control::FlowSpec {
    struct Stop(&'static str);
    #[async_trait::async_trait]
    impl maru_control::Step for Stop {
        fn name(&self) -> &'static str {
            self.0
        }
        async fn run(
            &self,
            _: &maru_store::Snapshot,
            _: &maru_control::Flow,
        ) -> maru_base::Result<maru_control::StepResult> {
            Ok(maru_control::StepResult::Wait(std::time::Duration::from_secs(1)))
        }
    }
    let mut spec = maru_compute::create_flow();
    spec.steps = spec
        .steps
        .into_iter()
        .enumerate()
        .map(|(i, step)| {
            if i < steps {
                step
            } else {
                Box::new(Stop(step.name())) as Box<dyn maru_control::Step>
            }
        })
        .collect();
    spec
}
