//! The stock `openstack` client against the service over TCP.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, missing_docs)]

mod common;

use common::Cloud;
use maru_http::{Listener, serve};
use serde_json::Value;
use std::{net::SocketAddr, path::PathBuf, sync::Arc};

/// The client: `MARU_OPENSTACK`, or from the search path.
fn client() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("MARU_OPENSTACK") {
        return Some(path.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join("openstack"))
        .find(|p| p.is_file())
}

struct Client {
    program: PathBuf,
    address: String,
    env: Vec<(&'static str, String)>,
}

impl Client {
    async fn raw(&self, arguments: &[&str]) -> (bool, String, String) {
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var("PATH").unwrap_or_default());
        command
            .env("OS_AUTH_URL", &self.address)
            .env("OS_IDENTITY_API_VERSION", "3")
            .env("HOME", "/nonexistent");
        for (k, v) in &self.env {
            command.env(k, v);
        }
        let out = command.output().await.unwrap();
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        (out.status.success(), text(&out.stdout), text(&out.stderr))
    }
    async fn json(&self, arguments: &[&str]) -> Value {
        let mut all = arguments.to_vec();
        all.extend(["-f", "json"]);
        let (ok, out, err) = self.raw(&all).await;
        assert!(ok, "{arguments:?}: {out}{err}");
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {out}"))
    }
    async fn run(&self, arguments: &[&str]) {
        let (ok, out, err) = self.raw(arguments).await;
        assert!(ok, "{arguments:?}: {out}{err}");
    }
}

fn user(name: &str, password: &str, project: &str) -> Vec<(&'static str, String)> {
    vec![
        ("OS_USERNAME", name.to_owned()),
        ("OS_PASSWORD", password.to_owned()),
        ("OS_PROJECT_NAME", project.to_owned()),
        ("OS_USER_DOMAIN_ID", "default".to_owned()),
        ("OS_PROJECT_DOMAIN_ID", "default".to_owned()),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stock_client_manages_identity() {
    let Some(program) = client() else {
        eprintln!("skipped: no `openstack` client in PATH and MARU_OPENSTACK is not set");
        return;
    };
    let cloud = Cloud::start().await;
    let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0)), None)
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let server = tokio::spawn(serve(listener, Arc::clone(&cloud.gateway), stopped));
    let url = format!("http://{address}/identity");
    maru_identity::set_catalogue(&cloud.store, "RegionOne", &[("identity", "keystone", &url)])
        .await
        .unwrap();

    for address in [url.clone(), format!("http://{address}/v3")] {
        let c = Client {
            program: program.clone(),
            address,
            env: user("admin", "admin-pass", "admin"),
        };
        assert!(
            c.json(&["token", "issue"]).await["id"]
                .as_str()
                .unwrap()
                .starts_with("gAAAA")
        );
    }
    let admin = Client {
        program: program.clone(),
        address: url.clone(),
        env: user("admin", "admin-pass", "admin"),
    };
    let catalog = admin.json(&["catalog", "list"]).await;
    assert_eq!(catalog[0]["Type"], "identity");
    let project = admin
        .json(&["project", "create", "demo", "--description", "a project"])
        .await;
    assert_eq!(project["domain_id"], "default");
    let made = admin
        .json(&["user", "create", "ann", "--password", "pw-1", "--email", "a@b"])
        .await;
    assert_eq!((&made["name"], &made["email"]), (&"ann".into(), &"a@b".into()));
    admin
        .run(&["role", "add", "--user", "ann", "--project", "demo", "member"])
        .await;
    let names = admin
        .json(&["role", "assignment", "list", "--names", "--user", "ann"])
        .await;
    assert_eq!(names[0]["Role"], "member");
    let effective = admin
        .json(&[
            "role",
            "assignment",
            "list",
            "--effective",
            "--project",
            "demo",
            "--names",
        ])
        .await;
    assert_eq!(
        effective.as_array().unwrap().len(),
        2,
        "member and what it implies: {effective}"
    );

    let ann = Client {
        program: program.clone(),
        address: url.clone(),
        env: user("ann", "pw-1", "demo"),
    };
    assert_eq!(ann.json(&["token", "issue"]).await["project_id"], project["id"]);
    let (ok, _, err) = ann.raw(&["user", "list"]).await;
    assert!(!ok && err.contains("403"), "{err}");
    ann.run(&[
        "user",
        "password",
        "set",
        "--original-password",
        "pw-1",
        "--password",
        "pw-2",
    ])
    .await;
    let (ok, _, err) = ann.raw(&["token", "issue"]).await;
    assert!(!ok && err.contains("401"), "{err}");

    admin.run(&["group", "create", "crew"]).await;
    admin.run(&["group", "add", "user", "crew", "ann"]).await;
    admin.run(&["group", "contains", "user", "crew", "ann"]).await;
    admin.run(&["domain", "create", "lab"]).await;
    admin.run(&["role", "create", "tester"]).await;
    admin
        .run(&["implied", "role", "create", "tester", "--implied-role", "reader"])
        .await;
    assert_eq!(
        admin.json(&["implied", "role", "list"]).await.as_array().unwrap().len(),
        4
    );
    admin
        .run(&[
            "role",
            "add",
            "--group",
            "crew",
            "--domain",
            "lab",
            "--inherited",
            "tester",
        ])
        .await;
    admin
        .run(&["role", "add", "--user", "ann", "--system", "all", "reader"])
        .await;
    admin
        .run(&["project", "create", "sub", "--parent", "demo", "--tag", "blue"])
        .await;
    assert!(admin.json(&["project", "show", "sub", "--parents"]).await["parents"].is_object());
    admin.run(&["project", "set", "sub", "--disable"]).await;
    admin.run(&["region", "create", "RegionTwo"]).await;
    admin.run(&["service", "create", "--name", "glance", "image"]).await;
    admin
        .run(&[
            "endpoint",
            "create",
            "--region",
            "RegionTwo",
            "image",
            "public",
            "http://img/$(project_id)s",
        ])
        .await;
    assert_eq!(
        admin
            .json(&["endpoint", "list", "--service", "image"])
            .await
            .as_array()
            .unwrap()
            .len(),
        1
    );
    admin
        .run(&["credential", "create", "--type", "cert", "ann", "blob"])
        .await;
    for what in [
        "project",
        "user",
        "group",
        "role",
        "domain",
        "region",
        "service",
        "credential",
    ] {
        assert!(
            !admin.json(&[what, "list"]).await.as_array().unwrap().is_empty(),
            "{what}"
        );
    }
    admin.run(&["domain", "set", "lab", "--disable"]).await;
    admin.run(&["domain", "delete", "lab"]).await;
    admin.run(&["user", "delete", "ann"]).await;
    admin.run(&["project", "delete", "sub"]).await;
    admin.run(&["project", "delete", "demo"]).await;
    stop.send(true).unwrap();
    server.await.unwrap();
}
