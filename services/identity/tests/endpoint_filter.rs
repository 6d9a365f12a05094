//! Which endpoints a project sees, and which policy is for which endpoint.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::{Cloud, project};
use serde_json::json;

struct Placed {
    service: String,
    other: String,
    public: String,
    internal: String,
    elsewhere: String,
}

async fn placed(cloud: &Cloud) -> Placed {
    let service = cloud.make("service", json!({"type": "t1", "name": "s1"})).await;
    let other = cloud.make("service", json!({"type": "t2", "name": "s2"})).await;
    cloud.make("region", json!({"id": "east"})).await;
    cloud
        .make("region", json!({"id": "east-1", "parent_region_id": "east"}))
        .await;
    let endpoint = async |service: &str, interface: &str| {
        let body = json!({"service_id": service, "interface": interface, "url": "http://e", "region_id": "east-1"});
        cloud.make("endpoint", body).await
    };
    Placed {
        public: endpoint(&service, "public").await,
        internal: endpoint(&service, "internal").await,
        elsewhere: endpoint(&other, "public").await,
        service,
        other,
    }
}

#[tokio::test]
async fn a_project_sees_the_endpoints_that_it_is_associated_with() {
    let cloud = Cloud::start().await;
    let e = placed(&cloud).await;
    let id = cloud.report.admin_project.to_string();
    let seen = async || {
        let token = cloud.login("admin", "admin-pass", project(&id)).await.ok(201);
        let mut all: Vec<String> = token.json["token"]["catalog"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|s| s["endpoints"].as_array().unwrap().clone())
            .map(|e| e["id"].as_str().unwrap().to_owned())
            .collect();
        all.sort();
        all
    };
    let sorted = |mut v: Vec<&String>| {
        v.sort();
        v.into_iter().cloned().collect::<Vec<_>>()
    };
    assert!(seen().await.len() > 3, "without an association all");
    let base = "/v3/OS-EP-FILTER";
    let one = format!("{base}/projects/{id}/endpoints/{}", e.elsewhere);
    assert_eq!(cloud.get(&one).await.status, 404);
    cloud.put(&one).await.ok(204);
    assert_eq!(cloud.put(&one).await.status, 409);
    cloud.get(&one).await.ok(204);
    assert_eq!(seen().await, sorted(vec![&e.elsewhere]));
    // A group of endpoints, of what they have in common.
    let group = json!({"endpoint_group": {"name": "g", "filters": {"service_id": e.service, "interface": "public"}}});
    let made = cloud.post(&format!("{base}/endpoint_groups"), group).await.ok(201);
    let group = made.json["endpoint_group"]["id"].as_str().unwrap().to_owned();
    let path = format!("{base}/endpoint_groups/{group}");
    assert_eq!(cloud.get(&path).await.ok(200).json, made.json);
    assert_eq!(
        cloud.get(&format!("{path}/endpoints")).await.ok(200).ids("endpoints"),
        [e.public.as_str()]
    );
    let associated = format!("{path}/projects/{id}");
    assert_eq!(cloud.get(&associated).await.status, 404);
    cloud.put(&associated).await.ok(204);
    let view = cloud.get(&associated).await.ok(200);
    assert_eq!(view.json["project_endpoint_group"]["project_id"], id.as_str());
    assert_eq!(seen().await, sorted(vec![&e.elsewhere, &e.public]));
    assert_eq!(
        cloud
            .get(&format!("{base}/projects/{id}/endpoints"))
            .await
            .ok(200)
            .ids("endpoints"),
        sorted(vec![&e.elsewhere, &e.public])
    );
    let listed = cloud
        .get(&format!("{base}/projects/{id}/endpoint_groups"))
        .await
        .ok(200);
    assert_eq!(listed.ids("endpoint_groups"), [group.as_str()]);
    for path in [
        format!("{path}/projects"),
        format!("{base}/endpoints/{}/projects", e.elsewhere),
    ] {
        assert_eq!(cloud.get(&path).await.ok(200).ids("projects"), [id.as_str()]);
    }
    let named = cloud.get(&format!("{base}/endpoint_groups?name=g")).await.ok(200);
    assert_eq!(named.ids("endpoint_groups"), [group.as_str()]);
    assert!(
        cloud
            .get(&format!("{base}/endpoint_groups?name=x"))
            .await
            .ok(200)
            .ids("endpoint_groups")
            .is_empty()
    );
    // An update shows at once.
    let wider = json!({"endpoint_group": {"filters": {"service_id": e.service}, "name": "g2", "description": "d"}});
    let updated = cloud.patch(&path, wider).await.ok(200);
    assert_eq!(updated.json["endpoint_group"]["description"], "d");
    assert_eq!(seen().await, sorted(vec![&e.elsewhere, &e.public, &e.internal]));
    for filters in [json!({}), json!({"name": "x"}), json!({"interface": "x"}), json!([])] {
        let body = json!({"endpoint_group": {"name": "g", "filters": filters}});
        let answer = cloud.post(&format!("{base}/endpoint_groups"), body).await.ok(400);
        assert!(answer.message().contains("filters"), "{}", answer.text);
    }
    // What goes takes its associations along; without any all is seen again.
    cloud.delete(&format!("/v3/endpoints/{}", e.elsewhere)).await.ok(204);
    cloud.delete(&path).await.ok(204);
    assert!(seen().await.len() > 3);
    let snapshot = cloud.store.snapshot();
    assert_eq!(snapshot.count::<maru_identity_model::ProjectEndpoint>(), 0);
    assert_eq!(snapshot.count::<maru_identity_model::ProjectEndpointGroup>(), 0);
}

#[tokio::test]
async fn a_policy_is_found_by_endpoint_region_and_service() {
    let cloud = Cloud::start().await;
    let e = placed(&cloud).await;
    let mut policies = Vec::new();
    for blob in ["own", "region", "service"] {
        policies.push(cloud.make("policy", json!({"type": "text/plain", "blob": blob})).await);
    }
    let of = async |endpoint: &str| {
        let answer = cloud
            .get(&format!("/v3/endpoints/{endpoint}/OS-ENDPOINT-POLICY/policy"))
            .await;
        (
            answer.status,
            answer.json["policy"]["blob"].as_str().unwrap_or("").to_owned(),
        )
    };
    assert_eq!(of(&e.public).await.0, 404);
    let service = format!("/v3/policies/{}/OS-ENDPOINT-POLICY/services/{}", policies[2], e.service);
    let region = format!(
        "/v3/policies/{}/OS-ENDPOINT-POLICY/services/{}/regions/east",
        policies[1], e.service
    );
    let own = format!("/v3/policies/{}/OS-ENDPOINT-POLICY/endpoints/{}", policies[0], e.public);
    for (path, blob) in [(&service, "service"), (&region, "region"), (&own, "own")] {
        assert_eq!(cloud.get(path).await.status, 404);
        cloud.put(path).await.ok(204);
        cloud.get(path).await.ok(204);
        assert_eq!(of(&e.public).await, (200, blob.to_owned()));
    }
    assert_eq!(
        of(&e.internal).await,
        (200, "region".to_owned()),
        "a region around its own"
    );
    assert_eq!(of(&e.elsewhere).await.0, 404);
    let list = cloud
        .get(&format!("/v3/policies/{}/OS-ENDPOINT-POLICY/endpoints", policies[1]))
        .await;
    assert_eq!(list.ok(200).ids("endpoints"), [e.internal.as_str()]);
    // Another policy for the same takes its place.
    let instead = own.replace(&policies[0], &policies[2]);
    cloud.put(&instead).await.ok(204);
    assert_eq!(of(&e.public).await, (200, "service".to_owned()));
    assert_eq!(cloud.get(&own).await.status, 404);
    assert_eq!(cloud.delete(&own).await.status, 404);
    cloud.delete(&instead).await.ok(204);
    cloud.delete(&format!("/v3/policies/{}", policies[1])).await.ok(204);
    assert_eq!(of(&e.public).await, (200, "service".to_owned()));
    cloud.delete(&format!("/v3/services/{}", e.service)).await.ok(204);
    assert_eq!(cloud.store.snapshot().count::<maru_identity_model::PolicyUse>(), 0);
    assert_eq!(cloud.get(&format!("/v3/services/{}", e.other)).await.status, 200);
}
