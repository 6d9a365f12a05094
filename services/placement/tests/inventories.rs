//! Inventories: all forms, their generation, and that none is taken away from under an allocation.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::{LATEST, cloud, racing, uuid};
use serde_json::{Value, json};

#[tokio::test]
async fn all_forms_of_an_inventory() {
    let c = cloud();
    let id = c.provider("one", None).await;
    let all = format!("/resource_providers/{id}/inventories");
    assert_eq!(
        c.get(&all).ok().await,
        json!({"resource_provider_generation": 0, "inventories": {}})
    );

    let answer = c
        .post(
            &all,
            json!({"resource_class": "DISK_GB", "total": 2048, "reserved": 512}),
        )
        .want(201)
        .await;
    assert_eq!(answer.header("location"), format!("/placement{all}/DISK_GB"));
    let disk = json!({"total": 2048, "reserved": 512, "min_unit": 1, "max_unit": 2_147_483_647, "step_size": 1,
        "allocation_ratio": 1.0, "resource_provider_generation": 1});
    assert_eq!(answer.body, disk);
    assert_eq!(c.get(&format!("{all}/DISK_GB")).ok().await, disk);

    let code = c
        .post(&all, json!({"resource_class": "DISK_GB", "total": 1}))
        .refused(409, "DISK_GB")
        .await;
    assert_eq!(code, "placement.concurrent_update");
    let body = json!({"resource_class": "VCPU", "total": 1, "resource_provider_generation": 0});
    let code = c.post(&all, body).refused(409, "actual: 1, given: 0").await;
    assert_eq!(code, "placement.concurrent_update");

    let body = json!({"total": 100, "allocation_ratio": 2.5, "resource_provider_generation": 1});
    let changed = c.put(&format!("{all}/DISK_GB"), body.clone()).ok().await;
    assert_eq!(
        (&changed["reserved"], &changed["allocation_ratio"]),
        (&json!(0), &json!(2.5))
    );
    assert_eq!(changed["resource_provider_generation"], 2);
    let code = c
        .put(&format!("{all}/DISK_GB"), body.clone())
        .refused(409, "generation conflict")
        .await;
    assert_eq!(code, "placement.concurrent_update");
    let body = json!({"total": 100, "resource_provider_generation": 2});
    c.put(&format!("{all}/VCPU"), body)
        .refused(400, "No inventory record")
        .await;

    let body =
        json!({"resource_provider_generation": 2, "inventories": {"VCPU": {"total": 8}, "MEMORY_MB": {"total": 9}}});
    let set = c.put(&all, body.clone()).ok().await;
    assert_eq!(set["resource_provider_generation"], 3);
    assert_eq!(
        set["inventories"].as_object().unwrap().keys().collect::<Vec<_>>(),
        ["MEMORY_MB", "VCPU"]
    );
    assert_eq!(set["inventories"]["VCPU"].get("resource_provider_generation"), None);
    c.put(&all, body).refused(409, "generation conflict").await;
    assert_eq!(c.get(&all).ok().await, set);

    c.delete(&format!("{all}/VCPU")).want(204).await;
    c.delete(&format!("{all}/VCPU")).refused(404, "VCPU").await;
    c.get(&format!("{all}/VCPU")).refused(404, "VCPU").await;
    c.delete(&all).at("1.4").want(405).await;
    c.delete(&all).at("1.5").want(204).await;
    assert_eq!(
        c.get(&all).ok().await,
        json!({"resource_provider_generation": 5, "inventories": {}})
    );
    c.audit();

    let nobody = format!("/resource_providers/{}/inventories", uuid());
    for answer in [
        c.get(&nobody).want(404).await,
        c.delete(&nobody).want(404).await,
        c.get(&format!("{nobody}/VCPU")).want(404).await,
        c.delete(&format!("{nobody}/VCPU")).want(404).await,
        c.post(&nobody, json!({})).want(404).await,
        c.put(&nobody, json!({})).want(404).await,
        c.put(&format!("{nobody}/VCPU"), json!({})).want(404).await,
    ] {
        assert!(answer.refusal().0.contains("No resource provider"));
    }
}

#[tokio::test]
async fn bad_inventories_name_the_field() {
    let c = cloud();
    let id = c.provider("one", None).await;
    let all = format!("/resource_providers/{id}/inventories");
    let big = 2_147_483_648_u64;
    for (body, part) in [
        (json!({}), "'resource_class' is a required property"),
        (json!({"resource_class": "VCPU"}), "'total' is a required property"),
        (
            json!({"resource_class": "vcpu", "total": 1}),
            "'vcpu' does not match '^[A-Z0-9_]+$' (in resource_class)",
        ),
        (
            json!({"resource_class": "NO_CLASS_14", "total": 1}),
            "No such resource class NO_CLASS_14",
        ),
        (
            json!({"resource_class": "VCPU", "total": 0}),
            "0 is less than the minimum of 1 (in total)",
        ),
        (json!({"resource_class": "VCPU", "total": -1}), "-1 is less than"),
        (
            json!({"resource_class": "VCPU", "total": "8"}),
            "'8' is not of type 'integer' (in total)",
        ),
        (json!({"resource_class": "VCPU", "total": 1.5}), "not of type 'integer'"),
        (
            json!({"resource_class": "VCPU", "total": true}),
            "not of type 'integer'",
        ),
        (
            json!({"resource_class": "VCPU", "total": big}),
            "greater than the maximum",
        ),
        (
            json!({"resource_class": "VCPU", "total": 1e300}),
            "greater than the maximum",
        ),
        (
            json!({"resource_class": "VCPU", "total": 1, "reserved": -1}),
            "(in reserved)",
        ),
        (
            json!({"resource_class": "VCPU", "total": 1, "min_unit": 0}),
            "(in min_unit)",
        ),
        (
            json!({"resource_class": "VCPU", "total": 1, "max_unit": 0}),
            "(in max_unit)",
        ),
        (
            json!({"resource_class": "VCPU", "total": 1, "step_size": 0}),
            "(in step_size)",
        ),
        (
            json!({"resource_class": "VCPU", "total": 1, "allocation_ratio": "x"}),
            "(in allocation_ratio)",
        ),
        (
            json!({"resource_class": "VCPU", "total": 1, "allocation_ratio": 1e39}),
            "(in allocation_ratio)",
        ),
        (
            json!({"resource_class": "VCPU", "total": 1, "allocation_ratio": -1}),
            "allocation_ratio",
        ),
        (json!({"resource_class": "VCPU", "total": 1, "reserved": 2}), "reserved"),
        (
            json!({"resource_class": "VCPU", "total": 1, "pony": 2}),
            "'pony' was unexpected",
        ),
        (json!({"resource_class": "VCPU", "total": null}), "total"),
    ] {
        c.post(&all, body).refused(400, part).await;
    }
    for (body, part) in [
        (
            json!({"inventories": {}}),
            "'resource_provider_generation' is a required property",
        ),
        (
            json!({"resource_provider_generation": 0}),
            "'inventories' is a required property",
        ),
        (
            json!({"resource_provider_generation": "0", "inventories": {}}),
            "(in resource_provider_generation)",
        ),
        (
            json!({"resource_provider_generation": 0, "inventories": []}),
            "(in inventories)",
        ),
        (
            json!({"resource_provider_generation": 0, "inventories": {"vcpu": {"total": 1}}}),
            "inventories.vcpu",
        ),
        (
            json!({"resource_provider_generation": 0, "inventories": {"VCPU": {}}}),
            "inventories.VCPU.total",
        ),
        (
            json!({"resource_provider_generation": 0, "inventories": {"VCPU": {"total": 1, "x": 1}}}),
            "inventories.VCPU.x",
        ),
        (
            json!({"resource_provider_generation": 0, "inventories": {"PONY": {"total": 1}}}),
            "No such resource class PONY",
        ),
    ] {
        c.put(&all, body).refused(400, part).await;
    }
    assert_eq!(c.generation(&id).await, 0);
    // From 1.26 on all of it may be reserved.
    let body = json!({"resource_class": "VCPU", "total": 2, "reserved": 2});
    c.post(&all, body.clone())
        .at("1.25")
        .refused(400, "greater than or equal to")
        .await;
    c.post(&all, body).at("1.26").want(201).await;
    let body = json!({"resource_class": "DISK_GB", "total": 2, "allocation_ratio": 0});
    c.post(&all, body).want(201).await;
    let answer = c
        .post(&all, json!({"resource_class": "MEMORY_MB", "total": 2.0}))
        .want(201)
        .await;
    assert_eq!(answer.body["total"], 2);
}

#[tokio::test]
async fn what_is_in_use_is_not_taken_away() {
    let c = cloud();
    let id = c.provider("one", None).await;
    c.stock(&id, json!({"VCPU": {"total": 8}, "DISK_GB": {"total": 100}}))
        .await;
    let consumer = uuid();
    c.allocate(&consumer, json!({id.clone(): {"resources": {"VCPU": 6}}}))
        .want(204)
        .await;
    let all = format!("/resource_providers/{id}/inventories");
    let generation = c.generation(&id).await;
    let code = c.delete(&format!("{all}/VCPU")).refused(409, "in use").await;
    assert_eq!(code, "placement.concurrent_update");
    assert_eq!(c.delete(&all).refused(409, "'VCPU'").await, "placement.inventory.inuse");
    let body = json!({"resource_provider_generation": generation, "inventories": {"DISK_GB": {"total": 1}}});
    assert_eq!(
        c.put(&all, body).refused(409, "in use").await,
        "placement.inventory.inuse"
    );
    let code = c
        .delete(&format!("/resource_providers/{id}"))
        .refused(409, "has allocations")
        .await;
    assert_eq!(code, "placement.resource_provider.inuse");
    c.delete(&format!("{all}/DISK_GB")).want(204).await;
    // It may shrink below its use; then nothing more is given, and what is held can stay, shrink and go.
    c.stock(&id, json!({"VCPU": {"total": 4}})).await;
    c.allocate(&uuid(), json!({id.clone(): {"resources": {"VCPU": 1}}}))
        .refused(409, "6 of 4")
        .await;
    for amount in [6, 5, 3] {
        let mut body = common::claim(json!({id.clone(): {"resources": {"VCPU": amount}}}));
        body["consumer_generation"] =
            c.get(&format!("/allocations/{consumer}")).ok().await["consumer_generation"].clone();
        let answer = c.put(&format!("/allocations/{consumer}"), body).send().await;
        // What exceeds the new max_unit is refused unless it stays as it was; here max_unit is not limited.
        assert_eq!(answer.status, 204, "{amount}: {}", answer.body);
    }
    c.delete(&format!("/allocations/{consumer}")).want(204).await;
    c.delete(&all).want(204).await;
    c.delete(&format!("/resource_providers/{id}")).want(204).await;
    c.audit();
    assert_eq!(
        c.store
            .snapshot()
            .raw_under(&maru_store::Key::prefix(&["counter"]))
            .count(),
        0
    );
}

/// Of many that change one generation, one does; the others are told.
#[tokio::test]
async fn a_generation_is_changed_once() {
    let c = racing().await;
    let id = c.provider("one", None).await;
    for generation in 0..5_u64 {
        let many = (0..8).map(|n| {
            let body = json!({"resource_provider_generation": generation, "inventories": {"VCPU": {"total": n + 1}}});
            c.put(&format!("/resource_providers/{id}/inventories"), body).send()
        });
        let answers = futures_util::future::join_all(many).await;
        let won = answers.iter().filter(|a| a.status == 200).count();
        assert_eq!(won, 1);
        for lost in answers.iter().filter(|a| a.status != 200) {
            assert_eq!(
                (lost.status, lost.refusal().1.as_str()),
                (409, "placement.concurrent_update")
            );
        }
    }
    assert_eq!(c.generation(&id).await, 5);
}

/// An allocation raises the provider's generation, too: a change that was made without knowing of it is refused, and an
/// inventory is never taken from under an allocation, whichever comes first.
#[tokio::test]
async fn allocations_race_with_inventories() {
    let c = racing().await;
    let id = c.provider("one", None).await;
    let all = format!("/resource_providers/{id}/inventories");
    for _ in 0..30 {
        c.stock(&id, json!({"VCPU": {"total": 8}, "MEMORY_MB": {"total": 8}}))
            .await;
        let generation = c.generation(&id).await;
        let consumer = uuid();
        let body = json!({"resource_provider_generation": generation, "inventories": {"MEMORY_MB": {"total": 1}}});
        let (cut, held, cleared) = futures_util::join!(
            c.put(&all, body).send(),
            c.allocate(&consumer, json!({id.clone(): {"resources": {"VCPU": 3}}}))
                .send(),
            c.delete(&format!("{all}/VCPU")).send(),
        );
        let removed = cut.status == 200 || cleared.status == 204;
        assert!(
            removed != (held.status == 204),
            "{} {} {}",
            cut.status,
            held.status,
            cleared.status
        );
        c.audit();
        c.delete(&format!("/allocations/{consumer}")).send().await;
    }
    let before = c.generation(&id).await;
    c.stock(&id, json!({"VCPU": {"total": 8}})).await;
    c.allocate(&uuid(), json!({id.clone(): {"resources": {"VCPU": 3}}}))
        .want(204)
        .await;
    assert_eq!(c.generation(&id).await, before + 2);
    let body = json!({"resource_provider_generation": before + 1, "inventories": {"VCPU": {"total": 9}}});
    c.put(&all, body).at(LATEST).refused(409, "generation conflict").await;
}

#[tokio::test]
async fn caching_headers_and_old_errors() {
    let c = cloud();
    let id = c.provider("one", None).await;
    c.stock(&id, json!({"VCPU": {"total": 8}})).await;
    for path in [
        "inventories",
        "inventories/VCPU",
        "usages",
        "aggregates",
        "traits",
        "allocations",
    ] {
        let path = format!("/resource_providers/{id}/{path}");
        let new = c.get(&path).at("1.15").want(200).await;
        assert_eq!(new.header("cache-control"), "no-cache", "{path}");
        assert!(new.header("last-modified").ends_with(" GMT"), "{path}");
        let old = c.get(&path).at("1.14").want(200).await;
        assert_eq!(old.header("cache-control"), "", "{path}");
        c.get(&path)
            .header("accept", "text/html")
            .refused(406, "application/json")
            .await;
    }
    let body = json!({"resource_provider_generation": 0, "inventories": {}});
    let e = c
        .put(&format!("/resource_providers/{id}/inventories"), body)
        .at("1.22")
        .want(409)
        .await;
    assert_eq!(e.body["errors"][0].get("code"), None);
    assert_ne!(e.body["errors"][0]["detail"], Value::Null);
}
