//! Usages of a provider and of a project.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::{SERVICE, claim, cloud, uuid};
use serde_json::json;

#[tokio::test]
async fn usages_by_provider_project_user_and_type() {
    let c = cloud();
    let id = c.provider("one", None).await;
    let other = c.provider("two", None).await;
    let path = format!("/resource_providers/{id}/usages");
    assert_eq!(
        c.get(&path).ok().await,
        json!({"resource_provider_generation": 0, "usages": {}})
    );
    for id in [&id, &other] {
        c.stock(id, json!({"VCPU": {"total": 100}, "DISK_GB": {"total": 1000}}))
            .await;
    }
    assert_eq!(c.get(&path).ok().await["usages"], json!({"VCPU": 0, "DISK_GB": 0}));
    for (project, user, kind, vcpu, disk) in [
        ("aaa", "u1", "INSTANCE", 1, 10),
        ("aaa", "u2", "INSTANCE", 2, 20),
        ("aaa", "u1", "MIGRATION", 4, 40),
        ("bbb", "u1", "INSTANCE", 8, 80),
    ] {
        let mut body = claim(
            json!({id.clone(): {"resources": {"VCPU": vcpu}}, other.clone(): {"resources": {"VCPU": 1, "DISK_GB": disk}}}),
        );
        body["project_id"] = json!(project);
        body["user_id"] = json!(user);
        body["consumer_type"] = json!(kind);
        c.put(&format!("/allocations/{}", uuid()), body).want(204).await;
    }
    // One from before consumers had types.
    let old = json!({"allocations": {id.clone(): {"resources": {"DISK_GB": 5}}}, "project_id": "aaa", "user_id": "u1"});
    c.put(&format!("/allocations/{}", uuid()), old)
        .at("1.12")
        .want(204)
        .await;

    assert_eq!(c.get(&path).ok().await["usages"], json!({"VCPU": 15, "DISK_GB": 5}));
    c.get("/usages?project_id=aaa").at("1.8").want(404).await;
    let usages =
        async |query: &str, version: &str| c.get(&format!("/usages?{query}")).at(version).ok().await["usages"].clone();
    assert_eq!(
        usages("project_id=aaa", "1.9").await,
        json!({"VCPU": 10, "DISK_GB": 75})
    );
    assert_eq!(
        usages("project_id=aaa&user_id=u2", "1.37").await,
        json!({"VCPU": 3, "DISK_GB": 20})
    );
    assert_eq!(usages("project_id=ccc", "1.9").await, json!({}));
    assert_eq!(
        usages("project_id=aaa", "1.38").await,
        json!({
            "INSTANCE": {"consumer_count": 2, "VCPU": 5, "DISK_GB": 30},
            "MIGRATION": {"consumer_count": 1, "VCPU": 5, "DISK_GB": 40},
            "unknown": {"consumer_count": 1, "DISK_GB": 5},
        })
    );
    assert_eq!(
        usages("project_id=aaa&consumer_type=MIGRATION&user_id=u1", "1.38").await,
        json!({"MIGRATION": {"consumer_count": 1, "VCPU": 5, "DISK_GB": 40}})
    );
    assert_eq!(
        usages("project_id=aaa&consumer_type=all", "1.38").await,
        json!({"all": {"consumer_count": 4, "VCPU": 10, "DISK_GB": 75}})
    );
    assert_eq!(
        usages("project_id=aaa&consumer_type=unknown", "1.38").await,
        json!({"unknown": {"consumer_count": 1, "DISK_GB": 5}})
    );
    for none in ["ALL", "UNKNOWN", "COW"] {
        assert_eq!(
            usages(&format!("project_id=aaa&consumer_type={none}"), "1.38").await,
            json!({})
        );
    }
    for (query, version, part) in [
        ("", "1.9", "'project_id' is a required property"),
        ("user_id=u1", "1.9", "'project_id' is a required property"),
        ("project_id=", "1.9", "project_id"),
        ("project_id=a&user_id=", "1.9", "user_id"),
        (
            "project_id=a&consumer_type=INSTANCE",
            "1.37",
            "'consumer_type' was unexpected",
        ),
        ("project_id=a&consumer_type=instance", "1.38", "consumer_type"),
        ("project_id=a&pony=1", "1.9", "'pony' was unexpected"),
    ] {
        c.get(&format!("/usages?{query}")).at(version).refused(400, part).await;
    }
    c.get(&format!("/resource_providers/{}/usages", uuid())).want(404).await;
    // A project's own usage it may see itself, and no other's (class D).
    for token in ["aaa:reader", "aaa:member"] {
        c.get("/usages?project_id=aaa").as_(token).ok().await;
        c.get("/usages?project_id=bbb").as_(token).want(403).await;
        c.get("/usages?project_id=aaa&project_id=bbb")
            .as_(token)
            .want(403)
            .await;
        c.get(&path).as_(token).want(403).await;
    }
    c.get("/usages?project_id=aaa").as_("aaa:none").want(403).await;
    c.get("/usages?project_id=bbb").as_(SERVICE).ok().await;
}
