//! Traits: the global list, custom ones, and those of a provider.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::{Cloud, cloud, racing, uuid};
use serde_json::{Value, json};

async fn names(c: &Cloud, query: &str) -> Vec<String> {
    let list = c.get(&format!("/traits{query}")).ok().await;
    list["traits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t.as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn custom_traits_live() {
    let c = cloud();
    c.get("/traits").at("1.5").want(404).await;
    c.get("/traits/HW_CPU_X86_AVX").at("1.5").want(404).await;
    c.ask("PUT", "/traits/CUSTOM_GOLD").at("1.5").want(404).await;
    let all = names(&c, "").await;
    assert_eq!(all.len(), maru_placement_model::STANDARD_TRAITS.len());
    assert!(
        maru_placement_model::STANDARD_TRAITS.is_sorted(),
        "they are searched by halves"
    );
    assert!(all.contains(&"MISC_SHARES_VIA_AGGREGATE".to_owned()) && all.contains(&"HW_NUMA_ROOT".to_owned()));

    let answer = c.ask("PUT", "/traits/CUSTOM_GOLD").at("1.6").want(201).await;
    assert_eq!(answer.header("location"), "/placement/traits/CUSTOM_GOLD");
    assert_eq!(answer.header("last-modified"), "");
    assert_eq!(answer.body, Value::Null);
    let again = c.ask("PUT", "/traits/CUSTOM_GOLD").want(204).await;
    assert_eq!(again.header("location"), "/placement/traits/CUSTOM_GOLD");
    assert_eq!(again.header("cache-control"), "no-cache");
    c.get("/traits/CUSTOM_GOLD").want(204).await;
    c.get("/traits/HW_CPU_X86_AVX").want(204).await;
    c.get("/traits/CUSTOM_NONE").refused(404, "CUSTOM_NONE").await;
    assert_eq!(names(&c, "?name=startswith:CUSTOM_").await, ["CUSTOM_GOLD"]);
    assert_eq!(
        names(&c, "?name=in:CUSTOM_GOLD,HW_CPU_X86_AVX,PONY").await,
        ["HW_CPU_X86_AVX", "CUSTOM_GOLD"]
    );
    assert_eq!(names(&c, "?name=in:PONY").await, [""; 0]);

    for name in [
        "CUSTOM_",
        "GOLD",
        "custom_gold",
        "CUSTOM_gold",
        "HW_CPU_X86_AVX",
        "CUSTOM_A-B",
        &format!("CUSTOM_{}", "X".repeat(249)),
    ] {
        c.ask("PUT", &format!("/traits/{name}")).refused(400, "CUSTOM_").await;
    }
    c.ask("PUT", &format!("/traits/CUSTOM_{}", "X".repeat(248)))
        .want(201)
        .await;
    c.delete("/traits/HW_CPU_X86_AVX").refused(400, "standard trait").await;
    c.delete("/traits/CUSTOM_NONE").refused(404, "CUSTOM_NONE").await;
    c.delete("/traits/CUSTOM_GOLD").want(204).await;
    c.get("/traits/CUSTOM_GOLD").want(404).await;
    for (query, part) in [
        ("?name=CUSTOM_", "Badly formatted name"),
        ("?name=like:X", "Badly formatted name"),
        ("?associated=maybe", "\"associated\""),
        ("?pony=1", "'pony' was unexpected"),
    ] {
        c.get(&format!("/traits{query}")).refused(400, part).await;
    }
    c.audit();
}

#[tokio::test]
async fn traits_of_a_provider() {
    let c = cloud();
    let id = c.provider("one", None).await;
    let path = format!("/resource_providers/{id}/traits");
    c.get(&path).at("1.5").want(404).await;
    assert_eq!(
        c.get(&path).ok().await,
        json!({"traits": [], "resource_provider_generation": 0})
    );
    c.ask("PUT", "/traits/CUSTOM_GOLD").want(201).await;
    let body = json!({"traits": ["HW_CPU_X86_AVX", "CUSTOM_GOLD"], "resource_provider_generation": 0});
    let set = c.put(&path, body.clone()).ok().await;
    assert_eq!(
        set,
        json!({"traits": ["CUSTOM_GOLD", "HW_CPU_X86_AVX"], "resource_provider_generation": 1})
    );
    let code = c.put(&path, body).refused(409, "generation").await;
    assert_eq!(code, "placement.concurrent_update");
    // What stays as it is raises nothing.
    let body = json!({"traits": ["CUSTOM_GOLD", "HW_CPU_X86_AVX"], "resource_provider_generation": 1});
    assert_eq!(c.put(&path, body).ok().await["resource_provider_generation"], 1);

    c.delete("/traits/CUSTOM_GOLD").refused(409, "in use").await;
    assert_eq!(names(&c, "?associated=true").await, ["HW_CPU_X86_AVX", "CUSTOM_GOLD"]);
    assert_eq!(names(&c, "?associated=false&name=startswith:CUSTOM").await, [""; 0]);
    for (body, part) in [
        (
            json!({"traits": ["PONY"], "resource_provider_generation": 1}),
            "No such trait PONY",
        ),
        (
            json!({"traits": ["pony"], "resource_provider_generation": 1}),
            "traits[0]",
        ),
        (
            json!({"traits": ["HW_NUMA_ROOT", "HW_NUMA_ROOT"], "resource_provider_generation": 1}),
            "non-unique",
        ),
        (json!({"traits": "X", "resource_provider_generation": 1}), "in traits"),
        (
            json!({"traits": []}),
            "'resource_provider_generation' is a required property",
        ),
        (
            json!({"resource_provider_generation": 1}),
            "'traits' is a required property",
        ),
        (
            json!({"traits": [], "resource_provider_generation": 1, "x": 2}),
            "'x' was unexpected",
        ),
    ] {
        c.put(&path, body).refused(400, part).await;
    }
    c.delete(&path).want(204).await;
    assert_eq!(
        c.get(&path).ok().await,
        json!({"traits": [], "resource_provider_generation": 2})
    );
    c.delete("/traits/CUSTOM_GOLD").want(204).await;
    let nobody = format!("/resource_providers/{}/traits", uuid());
    c.get(&nobody).want(404).await;
    c.delete(&nobody).want(404).await;
    c.put(&nobody, json!({"traits": [], "resource_provider_generation": 1}))
        .want(404)
        .await;
    c.audit();
}

/// A custom trait is deleted or given to a provider, never both.
#[tokio::test]
async fn deleting_a_trait_races_with_its_use() {
    let c = racing().await;
    for round in 0..20 {
        let id = c.provider(&format!("p{round}"), None).await;
        c.ask("PUT", "/traits/CUSTOM_RACE").want(201).await;
        let body = json!({"traits": ["CUSTOM_RACE"], "resource_provider_generation": 0});
        let (gone, given) = futures_util::join!(
            c.delete("/traits/CUSTOM_RACE").send(),
            c.put(&format!("/resource_providers/{id}/traits"), body).send(),
        );
        assert!(
            (gone.status == 204) != (given.status == 200),
            "{} {}",
            gone.status,
            given.status
        );
        c.audit();
        c.delete(&format!("/resource_providers/{id}")).want(204).await;
        if gone.status != 204 {
            c.delete("/traits/CUSTOM_RACE").want(204).await;
        }
    }
    c.audit();
}
