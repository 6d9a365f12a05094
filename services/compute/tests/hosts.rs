//! What operators see: services, hypervisors, zones, aggregates, usage.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::*;
use maru_compute_model as m;
use serde_json::{Value, json};

async fn two() -> Cloud {
    let c = bare().await;
    c.node("alpha", 4, 8_192, 100).await;
    c.node("beta", 8, 16_384, 200).await;
    c
}

fn service(c: &Cloud, host: &str) -> maru_store::Object<m::ComputeService> {
    m::find_service(&c.store.snapshot(), host).unwrap()
}

#[tokio::test]
async fn all_this_is_for_administrators() {
    let c = two().await;
    let id = service(&c, "alpha").id;
    let hypervisor = service(&c, "alpha").provider.clone();
    for (minor, method, path, body) in [
        (NEW, "GET", "/os-services".to_owned(), Value::Null),
        (NEW, "PUT", format!("/os-services/{id}"), json!({"status": "disabled"})),
        (NEW, "DELETE", format!("/os-services/{id}"), Value::Null),
        (NEW, "GET", "/os-hypervisors".to_owned(), Value::Null),
        (NEW, "GET", "/os-hypervisors/detail".to_owned(), Value::Null),
        (NEW, "GET", format!("/os-hypervisors/{hypervisor}"), Value::Null),
        (52, "GET", "/os-hypervisors/statistics".to_owned(), Value::Null),
        (52, "GET", "/os-hypervisors/alpha/search".to_owned(), Value::Null),
        (52, "GET", "/os-hypervisors/alpha/servers".to_owned(), Value::Null),
        (NEW, "GET", "/os-availability-zone/detail".to_owned(), Value::Null),
        (NEW, "GET", "/os-aggregates".to_owned(), Value::Null),
        (
            NEW,
            "POST",
            "/os-aggregates".to_owned(),
            json!({"aggregate": {"name": "a"}}),
        ),
        (NEW, "GET", "/os-aggregates/1".to_owned(), Value::Null),
        (
            NEW,
            "PUT",
            "/os-aggregates/1".to_owned(),
            json!({"aggregate": {"name": "a"}}),
        ),
        (NEW, "DELETE", "/os-aggregates/1".to_owned(), Value::Null),
        (
            NEW,
            "POST",
            "/os-aggregates/1/action".to_owned(),
            json!({"add_host": {"host": "alpha"}}),
        ),
        (NEW, "GET", "/os-simple-tenant-usage".to_owned(), Value::Null),
    ] {
        for token in [A, READER] {
            c.refused_at(minor, 403, token, method, &path, body.clone()).await;
        }
    }
    assert!(!service(&c, "alpha").disabled);
}

#[tokio::test]
async fn services_are_listed_disabled_and_forgotten() {
    let c = two().await;
    let base = [
        "binary",
        "disabled_reason",
        "host",
        "id",
        "state",
        "status",
        "updated_at",
        "zone",
    ];
    let v = c.get_at(1, ADMIN, "/os-services").await["services"][0].clone();
    assert_eq!(keys(&v), base);
    assert!(v["id"].is_u64());
    let v = c.get(ADMIN, "/os-services?host=alpha").await["services"].clone();
    assert_eq!(v.as_array().unwrap().len(), 1);
    assert!(keys(&v[0]).contains(&"forced_down"));
    assert_eq!(
        (&v[0]["state"], &v[0]["status"], &v[0]["zone"]),
        (&json!("up"), &json!("enabled"), &json!("nova"))
    );
    assert_eq!(
        c.get(ADMIN, "/os-services?binary=nova-scheduler").await["services"],
        json!([])
    );
    let alpha = v[0]["id"].as_str().unwrap().to_owned();
    let p = format!("/os-services/{alpha}");
    let body = json!({"status": "disabled", "disabled_reason": "maintenance"});
    let v = c.want(200, ADMIN, "PUT", &p, body).await["service"].clone();
    assert_eq!(
        (&v["status"], &v["disabled_reason"]),
        (&json!("disabled"), &json!("maintenance"))
    );
    // The scheduler heeds it.
    let server = c.boot(A, "s").await;
    assert_eq!(c.server(&server).unwrap().host.as_deref(), Some("beta"));
    c.want(200, ADMIN, "PUT", &p, json!({"forced_down": true})).await;
    let v = c.want(200, ADMIN, "PUT", &p, json!({"status": "enabled"})).await["service"].clone();
    assert_eq!((&v["disabled_reason"], &v["state"]), (&Value::Null, &json!("down")));
    for (path, body, status, part) in [
        (p.as_str(), json!({}), 400, "status"),
        (&p, json!({"status": "asleep"}), 400, "status"),
        (
            &p,
            json!({"status": "enabled", "disabled_reason": "x"}),
            400,
            "disabled_reason",
        ),
        (
            &p,
            json!({"status": "disabled", "disabled_reason": "x".repeat(256)}),
            400,
            "disabled_reason",
        ),
        (&p, json!({"forced_down": "perhaps"}), 400, "forced_down"),
        (&p, json!({"status": "enabled", "host": "x"}), 400, "host"),
        ("/os-services/7", json!({"status": "enabled"}), 400, "uuid"),
        (
            &format!("/os-services/{NOBODY}"),
            json!({"status": "enabled"}),
            404,
            NOBODY,
        ),
    ] {
        let message = c.refused(status, ADMIN, "PUT", path, body.clone()).await;
        assert!(message.contains(part), "{path} {body}: {message}");
    }
    // As it was before 2.53.
    let old = |fields: Value| {
        let mut body = json!({"host": "alpha", "binary": "nova-compute"});
        for (k, v) in fields.as_object().unwrap() {
            body[k] = v.clone();
        }
        body
    };
    for (action, fields, want) in [
        (
            "disable",
            json!({}),
            json!({"host": "alpha", "binary": "nova-compute", "status": "disabled"}),
        ),
        (
            "enable",
            json!({}),
            json!({"host": "alpha", "binary": "nova-compute", "status": "enabled"}),
        ),
        (
            "disable-log-reason",
            json!({"disabled_reason": "r"}),
            json!({"host": "alpha", "binary": "nova-compute", "status": "disabled", "disabled_reason": "r"}),
        ),
        (
            "force-down",
            json!({"forced_down": false}),
            json!({"host": "alpha", "binary": "nova-compute", "forced_down": false}),
        ),
    ] {
        let v = c
            .want_at(52, 200, ADMIN, "PUT", &format!("/os-services/{action}"), old(fields))
            .await;
        assert_eq!(v["service"], want);
    }
    c.refused_at(52, 404, ADMIN, "PUT", "/os-services/dance", old(json!({})))
        .await;
    c.refused_at(
        10,
        404,
        ADMIN,
        "PUT",
        "/os-services/force-down",
        old(json!({"forced_down": true})),
    )
    .await;
    c.refused_at(52, 400, ADMIN, "PUT", "/os-services/disable-log-reason", old(json!({})))
        .await;
    c.refused_at(
        52,
        404,
        ADMIN,
        "PUT",
        "/os-services/enable",
        old(json!({"host": "gamma"})),
    )
    .await;
    c.refused_at(52, 400, ADMIN, "PUT", "/os-services/enable", json!({"host": "alpha"}))
        .await;
    // One that is up, or has servers, is not forgotten.
    let beta = service(&c, "beta").id;
    let message = c
        .refused(409, ADMIN, "DELETE", &format!("/os-services/{beta}"), Value::Null)
        .await;
    assert!(message.contains("hosting instances"), "{message}");
    c.refused(409, ADMIN, "DELETE", &p, Value::Null).await;
    c.plan(|s, txn| m::plan_node_down(s, txn, "alpha").unwrap()).await;
    c.want(204, ADMIN, "DELETE", &p, Value::Null).await;
    c.refused(404, ADMIN, "DELETE", &p, Value::Null).await;
    c.refused(400, ADMIN, "DELETE", "/os-services/7", Value::Null).await;
    assert!(maru_placement_model::find_by_name(&c.store.snapshot(), "alpha").is_none());
    // It may come again.
    c.node("alpha", 4, 8_192, 100).await;
    assert_eq!(
        c.get(ADMIN, "/os-services").await["services"].as_array().unwrap().len(),
        2
    );
    c.idle();
}

#[tokio::test]
async fn a_node_keeps_what_operators_said_of_it() {
    let c = two().await;
    let p = format!("/os-services/{}", service(&c, "alpha").id);
    c.want(
        200,
        ADMIN,
        "PUT",
        &p,
        json!({"status": "disabled", "disabled_reason": "r"}),
    )
    .await;
    c.plan(|s, txn| m::plan_node_down(s, txn, "alpha").unwrap()).await;
    assert!(!service(&c, "alpha").alive());
    c.node("alpha", 2, 4_096, 50).await;
    let s = service(&c, "alpha");
    assert!(s.alive() && s.disabled);
    assert_eq!((s.facts.vcpus, s.disabled_reason.as_deref()), (2, Some("r")));
    let revision = c.store.snapshot().revision();
    c.node("alpha", 2, 4_096, 50).await;
    assert_eq!(c.store.snapshot().revision(), revision, "nothing new is not written");
}

#[tokio::test]
async fn hypervisors_have_the_documented_keys() {
    let c = two().await;
    let server = c.boot(A, "s").await;
    let host = c.server(&server).unwrap().host.unwrap();
    let brief = ["hypervisor_hostname", "id", "state", "status"];
    let more = ["host_ip", "hypervisor_type", "hypervisor_version", "service"];
    let figures = [
        "cpu_info",
        "current_workload",
        "disk_available_least",
        "free_disk_gb",
        "free_ram_mb",
        "local_gb",
        "local_gb_used",
        "memory_mb",
        "memory_mb_used",
        "running_vms",
        "vcpus",
        "vcpus_used",
    ];
    for (minor, usage) in [(1, true), (27, true), (53, true), (87, true), (88, false), (NEW, false)] {
        let v = c.get_at(minor, ADMIN, "/os-hypervisors").await["hypervisors"].clone();
        assert_eq!(keys(&v[0]), brief);
        let mut want: Vec<&str> = brief.iter().chain(&more).copied().collect();
        if usage {
            want.extend(figures);
        } else {
            want.push("uptime");
        }
        want.sort_unstable();
        let v = c.get_at(minor, ADMIN, "/os-hypervisors/detail").await["hypervisors"].clone();
        assert_eq!(keys(&v[0]), want, "2.{minor}");
        let shown = match &v[0]["id"] {
            Value::String(id) => id.clone(),
            number => number.to_string(),
        };
        assert_eq!(shown.len() == 36, minor >= 53);
        let one = c.get_at(minor, ADMIN, &format!("/os-hypervisors/{shown}")).await["hypervisor"].clone();
        assert_eq!(one, v[0]);
        assert_eq!(one["cpu_info"].is_string(), minor < 28);
    }
    let v = c.get_at(87, ADMIN, "/os-hypervisors/detail?with_servers=true").await["hypervisors"].clone();
    let busy = v
        .as_array()
        .unwrap()
        .iter()
        .find(|h| h["hypervisor_hostname"] == host)
        .unwrap();
    assert_eq!(
        (
            &busy["vcpus_used"],
            &busy["memory_mb_used"],
            &busy["local_gb_used"],
            &busy["running_vms"]
        ),
        (&json!(1), &json!(512), &json!(1), &json!(1))
    );
    assert_eq!(busy["servers"][0]["uuid"], server);
    let idle = v
        .as_array()
        .unwrap()
        .iter()
        .find(|h| h["hypervisor_hostname"] != host)
        .unwrap();
    assert_eq!(idle["servers"], json!([]));
    let v = c.get_at(1, ADMIN, "/os-hypervisors/statistics").await["hypervisor_statistics"].clone();
    assert_eq!(
        (&v["count"], &v["vcpus"], &v["vcpus_used"], &v["free_ram_mb"]),
        (&json!(2), &json!(12), &json!(1), &json!(24_064))
    );
    c.refused_at(88, 404, ADMIN, "GET", "/os-hypervisors/statistics", Value::Null)
        .await;
    // Pages from 2.33 on, with the ids of the microversion.
    for minor in [33, 53, NEW] {
        let v = c.get_at(minor, ADMIN, "/os-hypervisors?limit=1").await;
        let next = v["hypervisors_links"][0]["href"]
            .as_str()
            .unwrap()
            .strip_prefix("http://maru/compute/v2.1")
            .unwrap()
            .to_owned();
        let w = c.get_at(minor, ADMIN, &next).await;
        assert_ne!(v["hypervisors"][0]["id"], w["hypervisors"][0]["id"]);
    }
    let found = c.get(ADMIN, "/os-hypervisors?hypervisor_hostname_pattern=alp").await;
    assert_eq!(found["hypervisors"].as_array().unwrap().len(), 1);
    for (minor, path, status) in [
        (NEW, "/os-hypervisors?hypervisor_hostname_pattern=zzz", 404),
        (NEW, "/os-hypervisors?hypervisor_hostname_pattern=a&limit=1", 400),
        (NEW, "/os-hypervisors?marker=none", 400),
        (NEW, "/os-hypervisors/7", 400),
        (52, "/os-hypervisors/7", 404),
        (52, "/os-hypervisors/zzz/search", 404),
        (53, "/os-hypervisors/alpha/search", 404),
        (53, "/os-hypervisors/alpha/servers", 404),
    ] {
        c.refused_at(minor, status, ADMIN, "GET", path, Value::Null).await;
    }
    let found = c.get_at(52, ADMIN, &format!("/os-hypervisors/{host}/servers")).await["hypervisors"].clone();
    assert_eq!(found[0]["servers"][0]["uuid"], server);
    assert_eq!(
        c.get_at(52, ADMIN, "/os-hypervisors/a/search").await["hypervisors"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let provider = service(&c, "alpha").provider.clone();
    let up = c.get_at(87, ADMIN, &format!("/os-hypervisors/{provider}/uptime")).await["hypervisor"].clone();
    assert!(up["uptime"].is_string());
    c.plan(|s, txn| m::plan_node_down(s, txn, "alpha").unwrap()).await;
    c.refused_at(
        87,
        400,
        ADMIN,
        "GET",
        &format!("/os-hypervisors/{provider}/uptime"),
        Value::Null,
    )
    .await;
}

#[tokio::test]
async fn images_are_pulled_ahead_by_the_hosts_of_an_aggregate() {
    let c = two().await;
    let made = c
        .want(
            200,
            ADMIN,
            "POST",
            "/os-aggregates",
            json!({"aggregate": {"name": "racks"}}),
        )
        .await["aggregate"]
        .clone();
    let path = format!("/os-aggregates/{}", made["id"]);
    for host in ["alpha", "beta"] {
        let body = json!({"add_host": {"host": host}});
        c.want(200, ADMIN, "POST", &format!("{path}/action"), body).await;
    }
    let path = format!("{path}/images");
    let of = |ids: &[&str]| json!({"cache": ids.iter().map(|id| json!({"id": id})).collect::<Vec<_>>()});
    for (body, field) in [
        (of(&[]), "cache"),
        (of(&["x"]), "uuid"),
        (of(&[IMAGE, IMAGE]), "twice"),
        (of(&[IMAGE, NOBODY]), "could not be found"),
        (json!({"cache": [{"id": IMAGE, "x": 1}]}), "x"),
    ] {
        let message = c.refused(400, ADMIN, "POST", &path, body).await;
        assert!(message.contains(field), "{message}");
    }
    c.refused(404, ADMIN, "POST", "/os-aggregates/77/images", of(&[IMAGE]))
        .await;
    c.refused(403, A, "POST", &path, of(&[IMAGE])).await;
    c.refused_at(80, 404, ADMIN, "POST", &path, of(&[IMAGE])).await;
    assert!(
        c.cached.lock().unwrap().is_empty(),
        "nothing is begun for what is refused"
    );
    c.want(202, ADMIN, "POST", &path, of(&[IMAGE, IMAGE_A])).await;
    // One host is away; it does not keep the other from it, nor from the second image.
    for _ in 0..10_000 {
        if c.cached.lock().unwrap().len() == 4 {
            break;
        }
        tokio::task::yield_now().await;
    }
    let mut told: Vec<String> = c.cached.lock().unwrap().iter().map(|(host, _)| host.clone()).collect();
    told.sort();
    assert_eq!(told, ["alpha", "alpha", "beta", "beta"]);
}

#[tokio::test]
async fn what_os_hosts_cannot_do_it_says_after_what_is_wrong() {
    let c = two().await;
    let host = "/os-hosts/alpha";
    for (body, field) in [
        (json!({"status": "invalid", "maintenance_mode": "enable"}), "status"),
        (
            json!({"status": "enable", "maintenance_mode": "invalid"}),
            "maintenance_mode",
        ),
        (json!({}), "status"),
    ] {
        let message = c.refused_at(42, 400, ADMIN, "PUT", host, body).await;
        assert!(message.contains(field), "{message}");
    }
    let both = || json!({"status": "enable", "maintenance_mode": "enable"});
    c.refused_at(42, 404, ADMIN, "PUT", "/os-hosts/nobody", both()).await;
    c.refused_at(42, 501, ADMIN, "PUT", host, both()).await;
    for action in ["startup", "shutdown", "reboot"] {
        let at = |host: &str| format!("/os-hosts/{host}/{action}");
        c.refused_at(42, 403, A, "GET", &at("alpha"), Value::Null).await;
        c.refused_at(42, 404, ADMIN, "GET", &at("nobody"), Value::Null).await;
        c.refused_at(42, 501, ADMIN, "GET", &at("alpha"), Value::Null).await;
        c.refused_at(43, 404, ADMIN, "GET", &at("alpha"), Value::Null).await;
    }
}

#[tokio::test]
async fn aggregates_make_zones() {
    let c = two().await;
    let agg = "/os-aggregates";
    let body = json!({"aggregate": {"name": "racks", "availability_zone": "north"}});
    let made = c.want(200, ADMIN, "POST", agg, body).await["aggregate"].clone();
    assert_eq!(
        keys(&made),
        [
            "availability_zone",
            "created_at",
            "deleted",
            "deleted_at",
            "id",
            "name",
            "updated_at",
            "uuid"
        ]
    );
    let p = format!("{agg}/{}", made["id"]);
    let v = c.get_at(40, ADMIN, &p).await["aggregate"].clone();
    assert_eq!(
        keys(&v),
        [
            "availability_zone",
            "created_at",
            "deleted",
            "deleted_at",
            "hosts",
            "id",
            "metadata",
            "name",
            "updated_at"
        ]
    );
    assert_eq!(v["metadata"], json!({"availability_zone": "north"}));
    let act = format!("{p}/action");
    let v = c
        .want(200, ADMIN, "POST", &act, json!({"add_host": {"host": "alpha"}}))
        .await["aggregate"]
        .clone();
    assert_eq!(v["hosts"], json!(["alpha"]));
    let zones = c.get(A, "/os-availability-zone").await["availabilityZoneInfo"].clone();
    assert_eq!(
        zones,
        json!([
            {"zoneName": "north", "zoneState": {"available": true}, "hosts": null},
            {"zoneName": "nova", "zoneState": {"available": true}, "hosts": null},
        ])
    );
    let zones = c.get(ADMIN, "/os-availability-zone/detail").await["availabilityZoneInfo"].clone();
    let state = &zones[0]["hosts"]["alpha"]["nova-compute"];
    assert_eq!(keys(state), ["active", "available", "updated_at"]);
    assert_eq!(state["available"], true);
    // A server in the zone.
    let server = c.create(A, json!({"availability_zone": "north"})).await;
    c.settle().await;
    assert_eq!(c.server(&server).unwrap().host.as_deref(), Some("alpha"));
    assert_eq!(
        c.get(A, &format!("/servers/{server}")).await["server"]["OS-EXT-AZ:availability_zone"],
        "north"
    );
    // Its host does not change zones under it.
    let other = c
        .want(
            200,
            ADMIN,
            "POST",
            agg,
            json!({"aggregate": {"name": "south", "availability_zone": "south"}}),
        )
        .await;
    let south = format!("{agg}/{}/action", other["aggregate"]["id"]);
    for (method, path, body, part) in [
        (
            "POST",
            act.clone(),
            json!({"remove_host": {"host": "alpha"}}),
            "instances",
        ),
        (
            "POST",
            act.clone(),
            json!({"set_metadata": {"metadata": {"availability_zone": "west"}}}),
            "instances",
        ),
        (
            "POST",
            act.clone(),
            json!({"set_metadata": {"metadata": {"availability_zone": null}}}),
            "instances",
        ),
        (
            "PUT",
            p.clone(),
            json!({"aggregate": {"availability_zone": "west"}}),
            "instances",
        ),
        (
            "POST",
            act.clone(),
            json!({"add_host": {"host": "alpha"}}),
            "already has host",
        ),
        ("POST", south.clone(), json!({"add_host": {"host": "alpha"}}), "north"),
        ("DELETE", p.clone(), Value::Null, "hosts"),
        ("POST", agg.to_owned(), json!({"aggregate": {"name": "racks"}}), "racks"),
        ("PUT", p.clone(), json!({"aggregate": {"name": "south"}}), "south"),
    ] {
        let message = c.refused(409, ADMIN, method, &path, body.clone()).await;
        assert!(message.contains(part), "{path} {body}: {message}");
    }
    let v = c
        .want(
            200,
            ADMIN,
            "POST",
            &act,
            json!({"set_metadata": {"metadata": {"ssd": "true", "none": null}}}),
        )
        .await;
    assert_eq!(
        v["aggregate"]["metadata"],
        json!({"availability_zone": "north", "ssd": "true"})
    );
    let v = c
        .want(200, ADMIN, "PUT", &p, json!({"aggregate": {"name": "shelves"}}))
        .await;
    assert_eq!(v["aggregate"]["name"], "shelves");
    // The name that it had is free.
    c.want(200, ADMIN, "POST", agg, json!({"aggregate": {"name": "racks"}}))
        .await;
    c.want(204, A, "DELETE", &format!("/servers/{server}"), Value::Null)
        .await;
    c.settle().await;
    c.want(200, ADMIN, "POST", &act, json!({"remove_host": {"host": "alpha"}}))
        .await;
    c.want(200, ADMIN, "DELETE", &p, Value::Null).await;
    c.refused(404, ADMIN, "GET", &p, Value::Null).await;
    for (path, body, status, part) in [
        (agg, json!({"aggregate": {"name": ""}}), 400, "aggregate.name"),
        (agg, json!({"aggregate": {}}), 400, "name"),
        (
            agg,
            json!({"aggregate": {"name": "x", "availability_zone": "a:b"}}),
            400,
            "availability_zone",
        ),
        (
            agg,
            json!({"aggregate": {"name": "x", "availability_zone": ""}}),
            400,
            "availability_zone",
        ),
        (agg, json!({"aggregate": {"name": "x", "hosts": []}}), 400, "hosts"),
        (&south, json!({"add_host": {"host": "gamma"}}), 404, "gamma"),
        (&south, json!({"remove_host": {"host": "beta"}}), 404, "beta"),
        (&south, json!({"add_host": {}}), 400, "host"),
        (
            &south,
            json!({"set_metadata": {"metadata": {"k": 1}}}),
            400,
            "set_metadata.metadata.k",
        ),
        (
            &south,
            json!({"set_metadata": {"metadata": {"k": "x".repeat(256)}}}),
            400,
            "metadata",
        ),
        (&south, json!({"dance": {}}), 400, "dance"),
        (
            "/os-aggregates/none/action",
            json!({"add_host": {"host": "beta"}}),
            400,
            "aggregate",
        ),
        (
            "/os-aggregates/777/action",
            json!({"add_host": {"host": "beta"}}),
            404,
            "777",
        ),
    ] {
        let message = c.refused(status, ADMIN, "POST", path, body.clone()).await;
        assert!(message.contains(part), "{path} {body}: {message}");
    }
    let list = c.get(ADMIN, agg).await["aggregates"].clone();
    assert_eq!(names(&list), ["south", "racks"]);
}

/// A host is in one zone, also when two ask at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_is_in_one_zone_in_a_race() {
    let c = std::sync::Arc::new(two().await);
    for zone in ["z1", "z2", "z3"] {
        let body = json!({"aggregate": {"name": zone, "availability_zone": zone}});
        c.want(200, ADMIN, "POST", "/os-aggregates", body).await;
    }
    let calls = (1..=3).map(|n| {
        let c = std::sync::Arc::clone(&c);
        tokio::spawn(async move {
            let path = format!("/os-aggregates/{n}/action");
            c.at(NEW, ADMIN, "POST", &path, json!({"add_host": {"host": "alpha"}}))
                .await
                .status
        })
    });
    let mut statuses: Vec<u16> = futures_util::future::join_all(calls)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409, 409]);
}

#[tokio::test]
async fn usage_is_counted_by_time() {
    let c = two().await;
    let server = c.boot(A, "s").await;
    c.create(A, json!({"name": "never-ran", "availability_zone": "nova"}))
        .await;
    c.plan(|s, txn| {
        let read = s.get::<m::Server>(&server.as_str().into()).unwrap();
        let mut new = (*read.value).clone();
        new.launched_at = Some(maru_base::time::now() - jiff::SignedDuration::from_hours(10));
        txn.update(&read, &new);
    })
    .await;
    let v = c.get(A, "/os-simple-tenant-usage/aaa").await["tenant_usage"].clone();
    assert_eq!(
        keys(&v),
        [
            "server_usages",
            "start",
            "stop",
            "tenant_id",
            "total_hours",
            "total_local_gb_usage",
            "total_memory_mb_usage",
            "total_vcpus_usage"
        ]
    );
    let near = |v: &Value, n: f64| (v.as_f64().unwrap() - n).abs() < 0.1 * n;
    assert!(
        near(&v["total_hours"], 10.0) && near(&v["total_memory_mb_usage"], 5_120.0),
        "{v}"
    );
    let one = &v["server_usages"][0];
    assert_eq!(
        keys(one),
        [
            "ended_at",
            "flavor",
            "hours",
            "instance_id",
            "local_gb",
            "memory_mb",
            "name",
            "started_at",
            "state",
            "tenant_id",
            "uptime",
            "vcpus"
        ]
    );
    assert_eq!(v["server_usages"].as_array().unwrap().len(), 1);
    let list = c.get(ADMIN, "/os-simple-tenant-usage").await["tenant_usages"].clone();
    assert!(list[0].get("server_usages").is_none());
    let list = c.get(ADMIN, "/os-simple-tenant-usage?detailed=1").await["tenant_usages"].clone();
    assert_eq!(list[0]["server_usages"][0]["name"], "s");
    let none = c
        .get(
            A,
            "/os-simple-tenant-usage/aaa?start=2020-01-01&end=2020-02-01T00:00:00",
        )
        .await;
    assert_eq!(none["tenant_usage"]["total_hours"], 0.0);
    assert_eq!(
        c.get(B, "/os-simple-tenant-usage/bbb").await,
        json!({"tenant_usage": {}})
    );
    c.refused(403, B, "GET", "/os-simple-tenant-usage/aaa", Value::Null)
        .await;
    for query in ["start=yesterday", "end=2020-13-01", "start=2020-02-01&end=2020-01-01"] {
        let message = c
            .refused(
                400,
                A,
                "GET",
                &format!("/os-simple-tenant-usage/aaa?{query}"),
                Value::Null,
            )
            .await;
        assert!(message.contains("start") || message.contains("end"), "{message}");
    }
}

#[tokio::test]
async fn versions_and_extensions_are_discovered() {
    let c = two().await;
    let root = c.send("", 1, "GET", "/compute", bytes::Bytes::new()).await.body;
    // The frozen one first, as clients of old expect.
    assert_eq!(root["versions"][0]["id"], "v2.0");
    let v = &root["versions"][1];
    assert_eq!(
        (&v["id"], &v["version"], &v["min_version"]),
        (&json!("v2.1"), &json!("2.96"), &json!("2.1"))
    );
    let one = c.send("", 1, "GET", "/compute/v2.1/", bytes::Bytes::new()).await;
    assert_eq!((one.status, &one.body["version"]["status"]), (200, &json!("CURRENT")));
    // Under /v2 there are no microversions: what a header asks for is not looked at.
    let frozen = c.send("", 1, "GET", "/compute/v2/", bytes::Bytes::new()).await;
    assert_eq!(frozen.body["version"]["id"], "v2.0");
    let old = c
        .send(A, 96, "GET", "/compute/v2/servers/detail", bytes::Bytes::new())
        .await;
    assert_eq!((old.status, &old.body), (200, &json!({"servers": []})));
    assert_eq!(old.headers["openstack-api-version"], "compute 2.1");
    c.refused_at(1, 404, A, "GET", "/servers/none", Value::Null).await;
    let too_new = c.send(A, 97, "GET", "/compute/v2.1/servers", bytes::Bytes::new()).await;
    assert_eq!(too_new.status, 406);
    let answer = c.at(42, A, "GET", "/servers", Value::Null).await;
    assert_eq!(answer.headers["openstack-api-version"], "compute 2.42");
    assert_eq!(answer.headers["x-openstack-nova-api-version"], "2.42");
    let all = c.get(A, "/extensions").await["extensions"].clone();
    assert!(all.as_array().unwrap().len() > 20);
    assert_eq!(
        c.get(A, "/extensions/os-keypairs").await["extension"]["alias"],
        "os-keypairs"
    );
    c.refused(404, A, "GET", "/extensions/none", Value::Null).await;
}
