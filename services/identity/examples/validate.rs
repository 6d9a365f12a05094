//! Measures GET /v3/auth/tokens (with catalogue) and POST, on one core, through the whole gateway without sockets:
//! `cargo run --release -p maru-identity --example validate`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use bytes::Bytes;
use maru_auth::{NoAudit, Policy, Scope};
use maru_http::Gateway;
use maru_identity::{App, Bootstrap, POLICY, Secret, Settings, bootstrap, set_catalogue};
use maru_store::{Registry, Store};
use std::{sync::Arc, time::Instant};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut registry = Registry::new();
    maru_identity_model::register(&mut registry);
    let store = Store::in_memory(registry);
    let config = Bootstrap {
        admin_password: Secret::new("admin"),
        reset_password: false,
        region: "RegionOne".to_owned(),
        public_url: "http://127.0.0.1:5000/identity".to_owned(),
        bcrypt_cost: 12,
    };
    let begun = Instant::now();
    let report = bootstrap(&store, &config).await.unwrap();
    println!("bootstrap: {:?}", begun.elapsed());
    let entries = ["image", "compute", "network", "placement", "volumev3", "object-store"]
        .map(|t| (t, t, "http://127.0.0.1:5000/x/v1/AUTH_$(project_id)s"));
    set_catalogue(&store, "RegionOne", &entries).await.unwrap();
    let app = App::new(store.clone(), Settings::default());
    let gateway = Gateway::new(
        vec![maru_identity::service(Arc::clone(&app))],
        maru_identity::verifier(Arc::clone(&app)),
        Arc::new(Policy::build(&[POLICY], None).unwrap()),
        Arc::new(NoAudit),
    )
    .unwrap();
    let scope = Scope::Project(report.admin_project.clone());
    let issue = || maru_identity::issue_for_tests(&app, &report.admin_user, scope.clone()).unwrap();
    let admin = issue();
    let tokens: Vec<String> = (0..1_000).map(|_| issue()).collect();
    for (name, rounds) in [("first", 1), ("cached", 50)] {
        let begun = Instant::now();
        for _ in 0..rounds {
            for token in &tokens {
                let request = http::Request::get("/identity/v3/auth/tokens")
                    .header("host", "127.0.0.1:5000")
                    .header("x-auth-token", &admin)
                    .header("x-subject-token", token)
                    .body(Bytes::new())
                    .unwrap();
                assert_eq!(gateway.call(request).await.status(), 200);
            }
        }
        let n = rounds * tokens.len();
        println!("validate, {name}: {:.0}/s", n as f64 / begun.elapsed().as_secs_f64());
    }
    let body = r#"{"auth":{"identity":{"methods":["password"],"password":{"user":{"name":"admin","domain":{"id":"default"},"password":"admin"}}}}}"#;
    let begun = Instant::now();
    for _ in 0..4 {
        let request = http::Request::post("/identity/v3/auth/tokens")
            .body(Bytes::from(body))
            .unwrap();
        assert_eq!(gateway.call(request).await.status(), 201);
    }
    println!("POST /v3/auth/tokens by password at cost 12: {:?}", begun.elapsed() / 4);
}
