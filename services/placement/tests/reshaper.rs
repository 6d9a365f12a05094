//! The reshaper: inventories and what is allocated of them move in one step, or not at all.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::{ADMIN, Cloud, SERVICE, claim, racing, uuid};
use serde_json::{Value, json};

struct World {
    c: Cloud,
    root: String,
    child: String,
    a: String,
    b: String,
}

/// A provider whose processors shall move to its child.
async fn world() -> World {
    let c = racing().await;
    let root = c.provider("root", None).await;
    let child = c.provider("child", Some(&root)).await;
    c.stock(
        &root,
        json!({"VCPU": {"total": 10, "max_unit": 8}, "DISK_GB": {"total": 2048}}),
    )
    .await;
    let (a, b) = (uuid(), uuid());
    c.allocate(&a, json!({root.clone(): {"resources": {"VCPU": 8, "DISK_GB": 1000}}}))
        .want(204)
        .await;
    c.allocate(&b, json!({root.clone(): {"resources": {"VCPU": 1, "DISK_GB": 20}}}))
        .want(204)
        .await;
    World { c, root, child, a, b }
}

impl World {
    async fn body(&self, allocations: Value) -> Value {
        json!({
            "inventories": {
                self.root.clone(): {
                    "resource_provider_generation": self.c.generation(&self.root).await,
                    "inventories": {"DISK_GB": {"total": 2048}},
                },
                self.child.clone(): {
                    "resource_provider_generation": self.c.generation(&self.child).await,
                    "inventories": {"VCPU": {"total": 10, "max_unit": 8}},
                },
            },
            "allocations": allocations,
        })
    }
    fn moved(&self, vcpu: u32, disk: u32) -> Value {
        let mut body = claim(
            json!({self.child.clone(): {"resources": {"VCPU": vcpu}}, self.root.clone(): {"resources": {"DISK_GB": disk}}}),
        );
        body["consumer_generation"] = json!(1);
        body
    }
}

#[tokio::test]
async fn inventory_moves_with_its_allocations() {
    let w = world().await;
    let body = w
        .body(json!({w.a.clone(): w.moved(8, 1000), w.b.clone(): w.moved(1, 20)}))
        .await;
    w.c.post("/reshaper", body.clone())
        .as_(SERVICE)
        .at("1.29")
        .want(404)
        .await;
    w.c.post("/reshaper", body.clone()).as_(ADMIN).want(403).await;
    let mut untyped = body.clone();
    for one in untyped["allocations"].as_object_mut().unwrap().values_mut() {
        one.as_object_mut().unwrap().remove("consumer_type");
    }
    w.c.post("/reshaper", untyped.clone())
        .as_(SERVICE)
        .refused(400, "'consumer_type' is a required property")
        .await;
    w.c.post("/reshaper", body)
        .as_(SERVICE)
        .at("1.37")
        .refused(400, "'consumer_type' was unexpected")
        .await;
    w.c.post("/reshaper", untyped).as_(SERVICE).at("1.30").want(204).await;
    let usages = |id: &str| format!("/resource_providers/{id}/usages");
    assert_eq!(w.c.get(&usages(&w.root)).ok().await["usages"], json!({"DISK_GB": 1020}));
    assert_eq!(w.c.get(&usages(&w.child)).ok().await["usages"], json!({"VCPU": 9}));
    assert_eq!(
        w.c.get(&format!("/allocations/{}", w.a)).ok().await["consumer_generation"],
        2
    );
    assert_eq!(
        w.c.get("/reshaper").as_(SERVICE).want(405).await.header("allow"),
        "POST"
    );
    w.c.audit();
}

#[tokio::test]
async fn what_would_not_fit_changes_nothing() {
    let w = world().await;
    let ask = |body: Value| w.c.post("/reshaper", body).as_(SERVICE);
    // Processors that nobody moves.
    let body = w.body(json!({})).await;
    assert_eq!(ask(body).refused(409, "'VCPU'").await, "placement.inventory.inuse");
    let body = w.body(json!({w.a.clone(): w.moved(8, 1000)})).await;
    assert_eq!(ask(body).refused(409, "in use").await, "placement.inventory.inuse");
    // Too large for the new place.
    let body = w
        .body(json!({w.a.clone(): w.moved(9, 1000), w.b.clone(): w.moved(1, 20)}))
        .await;
    ask(body).refused(409, "max_unit 8").await;
    let body = w
        .body(json!({w.a.clone(): w.moved(8, 1000), w.b.clone(): w.moved(3, 20)}))
        .await;
    ask(body).refused(409, "of 10").await;
    // A consumer that keeps what is gone.
    let mut stays = claim(json!({w.root.clone(): {"resources": {"VCPU": 8, "DISK_GB": 1000}}}));
    stays["consumer_generation"] = json!(1);
    let body = w.body(json!({w.a.clone(): stays, w.b.clone(): w.moved(1, 20)})).await;
    ask(body).refused(409, "no inventory of VCPU").await;
    // Generations.
    let mut body = w
        .body(json!({w.a.clone(): w.moved(8, 1000), w.b.clone(): w.moved(1, 20)}))
        .await;
    body["allocations"][&w.a]["consumer_generation"] = json!(99);
    assert_eq!(
        ask(body.clone()).refused(409, "consumer generation conflict").await,
        "placement.concurrent_update"
    );
    body["allocations"][&w.a]["consumer_generation"] = json!(1);
    body["inventories"][&w.root]["resource_provider_generation"] = json!(77);
    assert_eq!(
        ask(body.clone()).refused(409, "given: 77").await,
        "placement.concurrent_update"
    );
    // Names.
    let nobody = uuid();
    let mut body = w.body(json!({})).await;
    body["inventories"][&nobody] = json!({"resource_provider_generation": 0, "inventories": {}});
    assert_eq!(
        ask(body).refused(400, &nobody).await,
        "placement.resource_provider.not_found"
    );
    let mut body = w.body(json!({})).await;
    body["inventories"][&w.root]["inventories"] = json!({"DISK_OF_STEEL": {"total": 1}});
    ask(body).refused(400, "No such resource class DISK_OF_STEEL").await;
    let mut body = w.body(json!({})).await;
    body["inventories"][&w.root]["inventories"]["DISK_GB"]["bad_field"] = json!("moo");
    ask(body).refused(400, "'bad_field' was unexpected").await;
    let mut body = w.body(json!({w.a.clone(): w.moved(8, 1000)})).await;
    body["allocations"][&w.a]["bad_field"] = json!("moo");
    ask(body).refused(400, "'bad_field' was unexpected").await;
    for (body, part) in [
        (json!({"cows": "moo"}), "'cows' was unexpected"),
        (json!({"inventories": {}}), "'allocations' is a required property"),
        (json!({"inventories": {}, "allocations": {}}), "(in inventories)"),
        (
            json!({"inventories": {"pony": {}}, "allocations": {}}),
            "inventories.pony",
        ),
        (
            json!({"inventories": {nobody.clone(): {"inventories": {}}}, "allocations": {}}),
            "resource_provider_generation",
        ),
    ] {
        ask(body).refused(400, part).await;
    }
    assert_eq!(
        w.c.get(&format!("/resource_providers/{}/usages", w.root)).ok().await["usages"],
        json!({"VCPU": 9, "DISK_GB": 1020})
    );
    w.c.audit();
}

/// Two reshapes of one state: one happens. And an allocation that comes between is never left without its inventory.
#[tokio::test]
async fn reshapes_race() {
    for _ in 0..10 {
        let w = world().await;
        let body = w
            .body(json!({w.a.clone(): w.moved(8, 1000), w.b.clone(): w.moved(1, 20)}))
            .await;
        let (x, y, z) = futures_util::join!(
            w.c.post("/reshaper", body.clone()).as_(SERVICE).send(),
            w.c.post("/reshaper", body).as_(SERVICE).send(),
            w.c.allocate(&uuid(), json!({w.root.clone(): {"resources": {"VCPU": 1}}}))
                .send(),
        );
        assert!(x.status == 409 || y.status == 409);
        assert!(
            (x.status == 204 || y.status == 204) != (z.status == 204),
            "{} {} {}",
            x.status,
            y.status,
            z.status
        );
        w.c.audit();
    }
}
