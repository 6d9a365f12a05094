//! Aggregates of a provider: a list until 1.18, with the generation since.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::{cloud, uuid};
use serde_json::json;

#[tokio::test]
async fn aggregates_by_microversion() {
    let c = cloud();
    let id = c.provider("one", None).await;
    let path = format!("/resource_providers/{id}/aggregates");
    let (a, b) = (uuid(), uuid());
    c.get(&path).at("1.0").want(404).await;
    c.put(&path, json!([])).at("1.0").want(404).await;
    assert_eq!(c.get(&path).at("1.1").ok().await, json!({"aggregates": []}));
    let both = json!([a.clone().min(b.clone()), a.clone().max(b.clone())]);
    let set = c.put(&path, json!([a, b])).at("1.18").ok().await;
    assert_eq!(set, json!({"aggregates": both}));
    // Until 1.18 the generation stays.
    assert_eq!(
        c.get(&path).ok().await,
        json!({"aggregates": both, "resource_provider_generation": 0})
    );
    let body = json!({"aggregates": [a.replace('-', "").to_uppercase()], "resource_provider_generation": 0});
    let set = c.put(&path, body.clone()).ok().await;
    assert_eq!(set, json!({"aggregates": [a], "resource_provider_generation": 1}));
    let code = c.put(&path, body).refused(409, "actual: 1, given: 0").await;
    assert_eq!(code, "placement.concurrent_update");

    for (body, part) in [
        (json!([a]), "is not of type 'object'"),
        (
            json!({"aggregates": [a]}),
            "'resource_provider_generation' is a required property",
        ),
        (
            json!({"resource_provider_generation": 1}),
            "'aggregates' is a required property",
        ),
        (
            json!({"aggregates": ["pony"], "resource_provider_generation": 1}),
            "aggregates[0]",
        ),
        (
            json!({"aggregates": [7], "resource_provider_generation": 1}),
            "aggregates[0]",
        ),
        (
            json!({"aggregates": [a, a], "resource_provider_generation": 1}),
            "non-unique",
        ),
        (
            json!({"aggregates": a, "resource_provider_generation": 1}),
            "is not of type 'array' (in aggregates)",
        ),
        (
            json!({"aggregates": [], "resource_provider_generation": 1, "x": 1}),
            "'x' was unexpected",
        ),
    ] {
        c.put(&path, body).refused(400, part).await;
    }
    c.put(&path, json!({"aggregates": []}))
        .at("1.18")
        .refused(400, "'array'")
        .await;
    let nobody = format!("/resource_providers/{}/aggregates", uuid());
    c.get(&nobody).want(404).await;
    c.put(&nobody, json!({})).want(404).await;
}
