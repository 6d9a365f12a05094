//! Allocations: bodies by microversion, consumer generations, capacity under load.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::{Cloud, LATEST, claim, cloud, racing, uuid};
use serde_json::{Value, json};

const NOBODY: &str = "00000000-0000-0000-0000-000000000000";

async fn stocked(c: &Cloud, name: &str) -> String {
    let id = c.provider(name, None).await;
    c.stock(
        &id,
        json!({"VCPU": {"total": 10, "reserved": 2, "allocation_ratio": 1.5, "max_unit": 8},
        "DISK_GB": {"total": 1000, "min_unit": 10, "step_size": 10}}),
    )
    .await;
    id
}

#[tokio::test]
async fn bodies_by_microversion() {
    let c = cloud();
    let id = stocked(&c, "one").await;
    let consumer = uuid();
    let path = format!("/allocations/{consumer}");
    assert_eq!(c.get(&path).ok().await, json!({"allocations": {}}));

    let list = json!({"allocations": [{"resource_provider": {"uuid": id}, "resources": {"VCPU": 2, "DISK_GB": 20}}]});
    c.put(&path, list.clone()).at("1.0").want(204).await;
    let held = json!({id.clone(): {"generation": c.generation(&id).await, "resources": {"VCPU": 2, "DISK_GB": 20}}});
    assert_eq!(c.get(&path).at("1.11").ok().await, json!({"allocations": held}));
    assert_eq!(
        c.get(&path).at("1.12").ok().await,
        json!({"allocations": held, "project_id": NOBODY, "user_id": NOBODY})
    );
    assert_eq!(
        c.get(&path).ok().await,
        json!({"allocations": held, "project_id": NOBODY, "user_id": NOBODY, "consumer_generation": 1, "consumer_type": "unknown"})
    );
    let by_provider = format!("/resource_providers/{id}/allocations");
    assert_eq!(
        c.get(&by_provider).at("1.27").ok().await,
        json!({"allocations": {consumer.clone(): {"resources": {"VCPU": 2, "DISK_GB": 20}}}, "resource_provider_generation": c.generation(&id).await})
    );
    assert_eq!(
        c.get(&by_provider).at("1.28").ok().await["allocations"][&consumer]["consumer_generation"],
        1
    );

    c.put(&path, list.clone())
        .at("1.8")
        .refused(400, "'project_id' is a required property")
        .await;
    let mut owned = list;
    owned["project_id"] = json!("p");
    owned["user_id"] = json!("u");
    c.put(&path, owned.clone())
        .at("1.0")
        .refused(400, "was unexpected")
        .await;
    c.put(&path, owned.clone()).at("1.11").want(204).await;
    c.put(&path, owned.clone())
        .at("1.12")
        .refused(400, "is not of type 'object' (in allocations)")
        .await;
    owned["allocations"] = json!({id.clone(): {"resources": {"VCPU": 3}, "generation": 99}});
    c.put(&path, owned.clone()).at("1.27").want(204).await;
    c.put(&path, owned.clone())
        .at("1.28")
        .refused(400, "'consumer_generation' is a required property")
        .await;
    owned["consumer_generation"] = json!(3);
    c.put(&path, owned.clone())
        .at("1.27")
        .refused(400, "'consumer_generation' was unexpected")
        .await;
    c.put(&path, owned.clone()).at("1.28").want(204).await;
    owned["consumer_generation"] = json!(4);
    owned["consumer_type"] = json!("PONY");
    c.put(&path, owned.clone())
        .at("1.37")
        .refused(400, "'consumer_type' was unexpected")
        .await;
    c.put(&path, owned.clone()).at("1.38").want(204).await;
    let now = c.get(&path).ok().await;
    assert_eq!(
        (&now["consumer_generation"], &now["consumer_type"]),
        (&json!(5), &json!("PONY"))
    );
    assert_eq!((&now["project_id"], &now["user_id"]), (&json!("p"), &json!("u")));
    // An older microversion leaves the type.
    owned["consumer_generation"] = json!(5);
    owned.as_object_mut().unwrap().remove("consumer_type");
    c.put(&path, owned.clone()).at("1.36").want(204).await;
    assert_eq!(c.get(&path).ok().await["consumer_type"], "PONY");

    // Nothing: from 1.28 on PUT may release, POST always.
    owned["allocations"] = json!({});
    let mut old = owned.clone();
    old.as_object_mut().unwrap().remove("consumer_generation");
    c.put(&path, old.clone())
        .at("1.27")
        .refused(400, "in allocations")
        .await;
    owned["consumer_generation"] = json!(6);
    c.put(&path, owned).at("1.28").want(204).await;
    assert_eq!(c.get(&path).ok().await, json!({"allocations": {}}));
    c.post("/allocations", json!({consumer.clone(): old.clone()}))
        .at("1.12")
        .want(404)
        .await;
    c.post("/allocations", json!({consumer.clone(): old}))
        .at("1.13")
        .want(204)
        .await;
    c.audit();
}

#[tokio::test]
async fn consumer_generations() {
    let c = racing().await;
    let id = stocked(&c, "one").await;
    let consumer = uuid();
    let path = format!("/allocations/{consumer}");
    let mut body = claim(json!({id.clone(): {"resources": {"VCPU": 1}}}));
    body["consumer_generation"] = json!(1);
    let code = c.put(&path, body.clone()).refused(409, "expected null but got 1").await;
    assert_eq!(code, "placement.concurrent_update");
    body["consumer_generation"] = Value::Null;
    c.put(&path, body.clone()).want(204).await;
    let code = c.put(&path, body.clone()).refused(409, "expected 1 but got null").await;
    assert_eq!(code, "placement.concurrent_update");
    c.post("/allocations", json!({consumer.clone(): body.clone()}))
        .refused(409, "consumer generation conflict")
        .await;
    // Of many that saw the same generation one wins.
    for generation in 1..4 {
        body["consumer_generation"] = json!(generation);
        let many = (0..6).map(|_| c.put(&path, body.clone()).send());
        let mut statuses: Vec<u16> = futures_util::future::join_all(many)
            .await
            .iter()
            .map(|a| a.status)
            .collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [204, 409, 409, 409, 409, 409]);
    }
    // Released with another's generation: nothing happens.
    body["allocations"] = json!({});
    body["consumer_generation"] = json!(2);
    c.put(&path, body.clone()).refused(409, "expected 4 but got 2").await;
    c.delete(&path).want(204).await;
    c.delete(&path).refused(404, &consumer).await;
    c.audit();
}

#[tokio::test]
async fn what_does_not_fit_is_refused() {
    let c = cloud();
    let id = stocked(&c, "one").await;
    let bare = c.provider("bare", None).await;
    let ask = |allocations: Value| c.allocate(&uuid(), allocations);
    let of = |resources: Value| ask(json!({id.clone(): {"resources": resources}}));
    of(json!({"VCPU": 9})).refused(409, "max_unit 8").await;
    of(json!({"DISK_GB": 5})).refused(409, "min_unit 10").await;
    of(json!({"DISK_GB": 15})).refused(409, "step_size 10").await;
    of(json!({"DISK_GB": 1010})).refused(409, "0 of 1000").await;
    of(json!({"MEMORY_MB": 1}))
        .refused(409, "no inventory of MEMORY_MB")
        .await;
    of(json!({"PONY": 1})).refused(400, "No such resource class PONY").await;
    ask(json!({bare.clone(): {"resources": {"VCPU": 1}}}))
        .refused(409, &bare)
        .await;
    let nobody = uuid();
    ask(json!({nobody.clone(): {"resources": {"VCPU": 1}}}))
        .refused(400, &nobody)
        .await;
    // (10 - 2) * 1.5 = 12.
    of(json!({"VCPU": 8})).want(204).await;
    of(json!({"VCPU": 5})).refused(409, "8 of 12").await;
    of(json!({"VCPU": 4, "DISK_GB": 2000})).refused(409, "DISK_GB").await;
    of(json!({"VCPU": 4})).want(204).await;
    c.audit();
}

#[tokio::test]
async fn bad_bodies_name_the_field() {
    let c = cloud();
    let id = stocked(&c, "one").await;
    let path = format!("/allocations/{}", uuid());
    c.put("/allocations/pony", claim(json!({})))
        .refused(400, "consumer_uuid")
        .await;
    let with = |key: &str, value: Value| {
        let mut body = claim(json!({id.clone(): {"resources": {"VCPU": 1}}}));
        body[key] = value;
        body
    };
    let on = |of: Value| with("allocations", json!({id.clone(): of}));
    for (body, part) in [
        (json!({}), "'allocations' is a required property"),
        (json!(7), "is not of type 'object'"),
        (with("project_id", json!("")), "(in project_id)"),
        (with("project_id", json!("x".repeat(256))), "(in project_id)"),
        (with("user_id", json!(7)), "(in user_id)"),
        (with("consumer_generation", json!("1")), "(in consumer_generation)"),
        (
            with("consumer_type", json!("instance")),
            "'instance' does not match '^[A-Z0-9_]+$' (in consumer_type)",
        ),
        (with("consumer_type", json!("")), "(in consumer_type)"),
        (with("consumer_type", json!("X".repeat(256))), "(in consumer_type)"),
        (with("pony", json!(1)), "'pony' was unexpected"),
        (with("allocations", json!([])), "(in allocations)"),
        (
            with("allocations", json!({"pony": {"resources": {"VCPU": 1}}})),
            "(in allocations.pony)",
        ),
        (on(json!({})), "'resources' is a required property"),
        (on(json!({"resources": {}})), "does not have enough properties"),
        (on(json!({"resources": {"vcpu": 1}})), "resources.vcpu"),
        (on(json!({"resources": {"VCPU": 0}})), "0 is less than the minimum of 1"),
        (on(json!({"resources": {"VCPU": -3}})), "resources.VCPU"),
        (on(json!({"resources": {"VCPU": 1.5}})), "resources.VCPU"),
        (on(json!({"resources": {"VCPU": "1"}})), "resources.VCPU"),
        (
            on(json!({"resources": {"VCPU": 18_446_744_073_709_551_615_u64}})),
            "resources.VCPU",
        ),
        (on(json!({"resources": {"VCPU": 1}, "generation": "x"})), "generation"),
        (on(json!({"resources": {"VCPU": 1}, "x": 1})), "'x' was unexpected"),
        (
            with("mappings", json!({"alpha": "beta"})),
            "'beta' is not of type 'array' (in mappings.alpha)",
        ),
        (with("mappings", json!({})), "(in mappings)"),
        (with("mappings", json!({"_A": []})), "(in mappings._A)"),
        (with("mappings", json!({"_A": ["pony"]})), "mappings._A[0]"),
    ] {
        c.put(&path, body.clone()).refused(400, part).await;
        // Of several consumers the place begins with the consumer.
        let consumer = uuid();
        let part = part.replace("(in ", &format!("(in {consumer}."));
        if body != json!(7) {
            c.post("/allocations", json!({consumer: body}))
                .refused(400, &part)
                .await;
        }
    }
    // Numbers that no sum can hold.
    c.put(&path, on(json!({"resources": {"VCPU": i64::MAX}})))
        .refused(409, "max_unit")
        .await;
    c.post("/allocations", json!({}))
        .refused(400, "enough properties")
        .await;
    c.post("/allocations", json!({"pony": claim(json!({}))}))
        .refused(400, "pony")
        .await;
    let (id, loud) = (uuid(), uuid());
    let twice = json!({loud.to_uppercase(): claim(json!({})), loud.clone(): claim(json!({}))});
    c.post("/allocations", twice).refused(400, "twice").await;
    for (body, part) in [
        (json!({"allocations": []}), "allocations"),
        (json!({"allocations": {}}), "'array'"),
        (
            json!({"allocations": [{"resources": {"VCPU": 1}}]}),
            "resource_provider",
        ),
        (
            json!({"allocations": [{"resource_provider": {"uuid": "x"}, "resources": {"VCPU": 1}}]}),
            "uuid",
        ),
        (
            json!({"allocations": [{"resource_provider": {"uuid": id}, "resources": {}}]}),
            "resources",
        ),
    ] {
        c.put(&path, body).at("1.7").refused(400, part).await;
    }
    c.audit();
    assert_eq!(c.store.snapshot().count::<maru_placement_model::Consumer>(), 0);
}

/// Many consumers at once: what one gives back another takes, and all of it happens or none.
#[tokio::test]
async fn many_consumers_in_one_request() {
    let c = cloud();
    let one = stocked(&c, "one").await;
    let two = stocked(&c, "two").await;
    let (a, b, new) = (uuid(), uuid(), uuid());
    let held = |id: &str, n: u32| json!({id: {"resources": {"VCPU": n}}});
    c.allocate(&a, held(&one, 8)).want(204).await;
    c.allocate(&b, held(&two, 8)).want(204).await;
    let known = |allocations: Value| {
        let mut body = claim(allocations);
        body["consumer_generation"] = json!(1);
        body
    };
    // A swap: each takes what the other has, though neither provider has room for both.
    c.post(
        "/allocations",
        json!({a.clone(): known(held(&two, 8)), b.clone(): known(held(&one, 8))}),
    )
    .want(204)
    .await;
    assert!(
        c.get(&format!("/allocations/{a}")).ok().await["allocations"]
            .get(&two)
            .is_some()
    );
    c.audit();
    // One that does not fit: nobody's changes.
    let mut release = claim(json!({}));
    release["consumer_generation"] = json!(2);
    let body = json!({a.clone(): release, new.clone(): claim(held(&one, 5))});
    c.post("/allocations", body).refused(409, "8 of 12").await;
    assert!(
        c.get(&format!("/allocations/{a}")).ok().await["allocations"]
            .get(&two)
            .is_some()
    );
    // Together too much, although each alone would fit.
    let body = json!({new.clone(): claim(held(&one, 3)), uuid(): claim(held(&one, 3))});
    c.post("/allocations", body).refused(409, "6 more units").await;
    // A generation that is wrong: nobody's changes.
    let body = json!({new.clone(): claim(held(&one, 1)), b.clone(): known(json!({}))});
    assert_eq!(
        c.post("/allocations", body).refused(409, &b).await,
        "placement.concurrent_update"
    );
    assert_eq!(
        c.get(&format!("/allocations/{new}")).ok().await,
        json!({"allocations": {}})
    );
    c.audit();
}

/// Far more requests than room, on two providers, with releases between them: never more than
/// (total - reserved) * ratio is held, and what is free in the end can be taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_allocations_never_exceed_capacity() {
    let c = racing().await;
    let ids = [stocked(&c, "one").await, stocked(&c, "two").await];
    let consumers: Vec<String> = (0..60).map(|_| uuid()).collect();
    let held = |n: usize| {
        let first = &ids[n % 2];
        if n.is_multiple_of(5) {
            json!({ids[0].clone(): {"resources": {"VCPU": 1}}, ids[1].clone(): {"resources": {"VCPU": 2}}})
        } else {
            json!({first.clone(): {"resources": {"VCPU": 1 + n % 3}}})
        }
    };
    let c = &c;
    let round = |from: usize| {
        consumers.iter().enumerate().map(move |(n, consumer)| {
            let body = held(n + from);
            async move {
                let path = format!("/allocations/{consumer}");
                let answer = c
                    .put(&path, json!({"allocations": body, "project_id": "p", "user_id": "u"}))
                    .at("1.27")
                    .send()
                    .await;
                assert!(answer.status == 204 || answer.status == 409, "{}", answer.body);
                if answer.status == 204 && n.is_multiple_of(4) {
                    c.delete(&path).want(204).await;
                }
                answer.status
            }
        })
    };
    for from in 0..3 {
        let statuses = futures_util::future::join_all(round(from)).await;
        // Later it depends on who holds what already.
        assert!(from > 0 || (statuses.contains(&409) && statuses.contains(&204)));
        c.audit();
    }
    for id in &ids {
        let usages = c.get(&format!("/resource_providers/{id}/usages")).at(LATEST).ok().await;
        let used = usages["usages"]["VCPU"].as_u64().unwrap();
        assert!(used <= 12);
        for n in 0..12 - used {
            c.allocate(&uuid(), json!({id.clone(): {"resources": {"VCPU": 1}}}))
                .want(204)
                .await;
            assert!(n < 12);
        }
        c.allocate(&uuid(), json!({id.clone(): {"resources": {"VCPU": 1}}}))
            .refused(409, "12 of 12")
            .await;
    }
    for consumer in &consumers {
        c.delete(&format!("/allocations/{consumer}")).send().await;
    }
    c.audit();
}
