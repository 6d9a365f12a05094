//! Metadata definitions: namespaces and what they define.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::*;
use serde_json::{Value, json};

const ALL: &str = "/v2/metadefs/namespaces";

#[tokio::test]
async fn a_namespace_and_all_that_it_defines() {
    let c = cloud().await;
    let body = json!({"namespace": "ns", "visibility": "public", "protected": true, "description": "d",
        "resource_type_associations": [{"name": "OS::Nova::Server", "prefix": "x_"}]});
    c.want(403, A, "POST", ALL, body.clone()).await;
    let made = c.want(201, ADMIN, "POST", ALL, body.clone()).await.json();
    assert_eq!(made["resource_type_associations"][0]["prefix"], "x_");
    c.want(409, ADMIN, "POST", ALL, body).await;
    let one = format!("{ALL}/ns");
    c.want(403, ADMIN, "DELETE", &one, Value::Null).await;
    for (noun, good, name) in [
        (
            "objects",
            json!({"name": "n", "properties": {"p": {"title": "P", "type": "string"}}}),
            "name",
        ),
        (
            "properties",
            json!({"name": "n", "title": "P", "type": "string", "enum": ["a"]}),
            "name",
        ),
        ("resource_types", json!({"name": "n"}), "name"),
    ] {
        let path = format!("{one}/{noun}");
        c.want(403, A, "POST", &path, good.clone()).await;
        let made = c.want(201, ADMIN, "POST", &path, good.clone()).await.json();
        assert_eq!(made[name], "n");
        c.want(409, ADMIN, "POST", &path, good).await;
        c.get(A, &path).await;
    }
    for noun in ["objects", "properties"] {
        let path = format!("{one}/{noun}");
        assert_eq!(c.get(A, &format!("{path}/n")).await["name"], "n");
        let renamed = json!({"name": "m", "title": "T", "type": "string"});
        let renamed = if noun == "objects" {
            json!({"name": "m"})
        } else {
            renamed
        };
        let changed = c
            .want(200, ADMIN, "PUT", &format!("{path}/n"), renamed.clone())
            .await
            .json();
        assert_eq!(changed["name"], "m");
        c.want(404, ADMIN, "PUT", &format!("{path}/n"), renamed).await;
        c.want(404, A, "GET", &format!("{path}/n"), Value::Null).await;
    }
    let prefixed = c
        .get(A, &format!("{one}/properties/x_m?resource_type=OS::Nova::Server"))
        .await;
    assert_eq!(prefixed["title"], "T");
    let tags = json!({"tags": [{"name": "a"}, {"name": "b"}]});
    c.want(201, ADMIN, "POST", &format!("{one}/tags"), tags).await;
    c.want(201, ADMIN, "POST", &format!("{one}/tags/c"), Value::Null).await;
    c.want(409, ADMIN, "POST", &format!("{one}/tags/c"), Value::Null).await;
    c.want(200, ADMIN, "PUT", &format!("{one}/tags/c"), json!({"name": "e"}))
        .await;
    let names: Vec<Value> = c.get(A, &format!("{one}/tags")).await["tags"]
        .as_array()
        .unwrap()
        .clone();
    assert_eq!(
        names,
        [json!({"name": "a"}), json!({"name": "b"}), json!({"name": "e"})]
    );
    // What is protected loses nothing.
    c.want(403, ADMIN, "DELETE", &format!("{one}/tags"), Value::Null).await;
    let open = json!({"namespace": "ns", "visibility": "private", "protected": false});
    c.want(200, ADMIN, "PUT", &one, open).await;
    for path in ["tags/e", "tags", "objects/m", "properties/m", "resource_types/n"] {
        c.want(204, ADMIN, "DELETE", &format!("{one}/{path}"), Value::Null)
            .await;
    }
    c.want(404, ADMIN, "DELETE", &format!("{one}/objects/m"), Value::Null)
        .await;
    // Private, and another's.
    c.want(404, A, "GET", &one, Value::Null).await;
    assert_eq!(c.get(A, ALL).await["namespaces"], json!([]));
    c.want(204, ADMIN, "DELETE", &one, Value::Null).await;
    c.want(404, ADMIN, "GET", &one, Value::Null).await;
}

#[tokio::test]
async fn namespaces_are_listed_in_pages() {
    let c = cloud().await;
    for n in 0..5 {
        let body = json!({"namespace": format!("n{n}"), "visibility": "public"});
        c.want(201, ADMIN, "POST", ALL, body).await;
    }
    let mut path = format!("{ALL}?limit=2&sort_key=namespace&sort_dir=asc");
    let mut seen = Vec::new();
    loop {
        let page = c.get(A, &path).await;
        for n in page["namespaces"].as_array().unwrap() {
            seen.push(n["namespace"].as_str().unwrap().to_owned());
        }
        match page["next"].as_str() {
            Some(next) => path = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, ["n0", "n1", "n2", "n3", "n4"]);
    c.want(400, A, "GET", &format!("{ALL}?sort_key=x"), Value::Null).await;
    c.want(404, A, "GET", &format!("{ALL}?marker=x"), Value::Null).await;
}

#[tokio::test]
async fn bad_definitions_are_refused() {
    let c = cloud().await;
    for (body, word) in [
        (json!({}), "namespace"),
        (json!({"namespace": ""}), "namespace"),
        (json!({"namespace": "n", "visibility": "shared"}), "visibility"),
        (json!({"namespace": "n", "x": 1}), "x"),
        (
            json!({"namespace": "n", "properties": {"p": {"title": "t", "type": "date"}}}),
            "type",
        ),
        (
            json!({"namespace": "n", "properties": {"p": {"type": "string"}}}),
            "title",
        ),
        (json!({"namespace": "n", "objects": [{"description": "d"}]}), "name"),
        (json!({"namespace": "n", "description": "x".repeat(501)}), "description"),
    ] {
        c.refused(400, ADMIN, "POST", ALL, body, &[word]).await;
    }
    // As Glance: an empty id is no list.
    c.want(404, A, "GET", "/v2/images/", Value::Null).await;
    c.want(404, A, "DELETE", "/v2/images/", Value::Null).await;
}
