//! Filters, sorting, paging, fields and tags.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::*;
use serde_json::{Value, json};

fn names(v: &Value, plural: &str) -> Vec<String> {
    v[plural]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n["name"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn pages_follow_links_both_ways() {
    let c = cloud();
    for i in 0..7 {
        c.make(
            A,
            "/v2.0/networks",
            "network",
            json!({"name": format!("n{i}"), "description": format!("d{}", i % 2)}),
        )
        .await;
    }
    let mut seen = Vec::new();
    let mut path = "/v2.0/networks?limit=3&sort_key=name&sort_dir=desc".to_owned();
    loop {
        let page = c.get(A, &path).await;
        seen.extend(names(&page, "networks"));
        let next = page["networks_links"]
            .as_array()
            .and_then(|l| l.iter().find(|l| l["rel"] == "next").cloned());
        match next {
            Some(link) => {
                path = link["href"]
                    .as_str()
                    .unwrap()
                    .strip_prefix("http://maru/network")
                    .unwrap()
                    .to_owned()
            }
            None => break,
        }
    }
    assert_eq!(seen, ["n6", "n5", "n4", "n3", "n2", "n1", "n0"]);
    let second = c.get(A, "/v2.0/networks?limit=3&sort_key=name").await;
    let next = second["networks_links"][0]["href"]
        .as_str()
        .unwrap()
        .strip_prefix("http://maru/network")
        .unwrap()
        .to_owned();
    let page = c.get(A, &next).await;
    assert_eq!(names(&page, "networks"), ["n3", "n4", "n5"]);
    let back = page["networks_links"]
        .as_array()
        .unwrap()
        .iter()
        .find(|l| l["rel"] == "previous")
        .unwrap()
        .clone();
    let back = c
        .get(
            A,
            back["href"]
                .as_str()
                .unwrap()
                .strip_prefix("http://maru/network")
                .unwrap(),
        )
        .await;
    assert_eq!(names(&back, "networks"), ["n0", "n1", "n2"]);

    let some = c.get(A, "/v2.0/networks?name=n1&name=n2&name=zz&sort_key=name").await;
    assert_eq!(names(&some, "networks"), ["n1", "n2"]);
    assert_eq!(
        c.get(A, "/v2.0/networks?description=d1&shared=False").await["networks"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    let two = c.get(A, "/v2.0/networks?fields=id&fields=name&name=n1").await;
    let mut keys: Vec<&String> = two["networks"][0].as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(keys, ["id", "name"]);
}

#[tokio::test]
async fn ports_are_found_by_what_they_have() {
    let c = cloud();
    let net = c.network(A).await;
    let sub = c.subnet(A, &net, "10.0.0.0/24").await;
    for (i, ip) in ["10.0.0.50", "10.0.0.51", "10.0.0.60"].iter().enumerate() {
        let p = json!({"network_id": net, "name": format!("p{i}"), "device_id": format!("dev{i}"), "fixed_ips": [{"ip_address": ip}]});
        c.make(A, "/v2.0/ports", "port", p).await;
    }
    for (query, want) in [
        ("fixed_ips=ip_address%3D10.0.0.51", vec!["p1"]),
        ("fixed_ips=ip_address_substr%3D0.0.5&sort_key=name", vec!["p0", "p1"]),
        (
            "fixed_ips=ip_address=10.0.0.50&fixed_ips=ip_address=10.0.0.60&sort_key=name",
            vec!["p0", "p2"],
        ),
        ("device_id=dev2", vec!["p2"]),
        ("device_id=dev2&device_id=dev0&sort_key=name", vec!["p0", "p2"]),
        ("status=DOWN&admin_state_up=true&sort_key=name", vec!["p0", "p1", "p2"]),
        ("device_owner=&sort_key=name", vec!["p0", "p1", "p2"]),
    ] {
        let list = c.get(A, &format!("/v2.0/ports?{query}")).await;
        assert_eq!(names(&list, "ports"), want, "{query}");
    }
    let all = c.get(A, &format!("/v2.0/ports?fixed_ips=subnet_id={sub}")).await;
    assert_eq!(all["ports"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn tags_are_kept_filtered_and_count_as_changes() {
    let c = cloud();
    let mut ids = Vec::new();
    for (name, tags) in [("a", json!(["red", "blue"])), ("b", json!(["red"])), ("c", json!([]))] {
        let n = c.make(A, "/v2.0/networks", "network", json!({"name": name})).await;
        let path = format!("/v2.0/networks/{}", id(&n));
        c.want(200, A, "PUT", &format!("{path}/tags"), json!({"tags": tags}))
            .await;
        ids.push(path);
    }
    for (query, want) in [
        ("tags=red,blue", vec!["a"]),
        ("tags-any=red,blue&sort_key=name", vec!["a", "b"]),
        ("not-tags=red,blue&sort_key=name", vec!["b", "c"]),
        ("not-tags-any=red,blue", vec!["c"]),
    ] {
        assert_eq!(
            names(&c.get(A, &format!("/v2.0/networks?{query}")).await, "networks"),
            want,
            "{query}"
        );
    }
    let path = &ids[1];
    c.want(201, A, "PUT", &format!("{path}/tags/green"), Value::Null).await;
    assert_eq!(
        c.get(A, &format!("{path}/tags")).await,
        json!({"tags": ["green", "red"]})
    );
    c.want(204, A, "GET", &format!("{path}/tags/green"), Value::Null).await;
    c.delete(A, &format!("{path}/tags/green")).await;
    assert_eq!(
        c.refused(404, A, "DELETE", &format!("{path}/tags/green"), Value::Null)
            .await,
        "TagNotFound"
    );
    c.delete(A, &format!("{path}/tags")).await;
    let n = c.get(A, path).await["network"].clone();
    assert_eq!(n["tags"], json!([]));
    assert_eq!(n["revision_number"], 4);
    c.refused(400, A, "PUT", &format!("{path}/tags"), json!({"tags": ["a,b"]}))
        .await;
}
