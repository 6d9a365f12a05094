//! What `debug store` shows of a cloud with one object of every kind: no secret (attack class H1).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use maru_kit::Scene;
use serde_json::Value;

#[tokio::test(start_paused = true)]
async fn no_dump_shows_a_secret() {
    let scene = Scene::start().await;
    let dump = scene.kit.cloud().dump("").await.unwrap();
    let entries = dump.as_array().unwrap();
    let of = |kind: &str| -> Vec<&Value> {
        let start = format!("{kind}/");
        entries
            .iter()
            .filter(|e| e["key"].as_str().unwrap().starts_with(&start))
            .map(|e| &e["value"])
            .collect()
    };
    for whole in ["password", "token-keys"] {
        assert!(!of(whole).is_empty(), "the scene has no {whole}");
        assert!(of(whole).iter().all(|v| *v == "(secret)"), "{whole} is shown");
    }
    for (kind, field) in [
        ("credential", "blob"),
        ("application-credential", "secret"),
        ("volume_transfer", "key_hash"),
        ("volume_transfer", "salt"),
        ("server", "admin_pass"),
    ] {
        let found = of(kind);
        assert!(!found.is_empty(), "the scene has no {kind}");
        for value in found {
            assert_eq!(value["d"][field], "(secret)", "{kind}: {value}");
        }
    }
    let text = dump.to_string();
    for hash in ["$2b$", "$2a$", "$argon2"] {
        assert!(!text.contains(hash), "a hash of a password is shown");
    }
    // What is no secret is there to be looked at.
    assert!(text.contains("\"name\":\"blue\"") && of("counter").len() > 10);
}
