//! A project's whole outfit (image, network, router, floating address, group, port, key pair) is made and removed while the
//! control plane dies after each transaction. A client that got no answer looks whether its object is there and asks again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use bytes::Bytes;
use maru_kit::{Answer, Crashed, Kit, Project};
use serde_json::{Value, json};

struct Tenant {
    kit: Kit,
    project: Project,
    external: String,
}

impl Tenant {
    async fn start() -> Self {
        let kit = Kit::start().await;
        let project = kit.project("blue").await;
        let external = kit.external_network().await;
        Self { kit, project, external }
    }
    /// Asks until it is answered; the flag says whether there was a crash on the way.
    async fn ask(&self, method: &str, path: &str, body: Value) -> (Answer, bool) {
        let mut crashed = false;
        loop {
            match self
                .kit
                .try_call(method, path, &self.project.member.token, body.clone())
                .await
            {
                Ok(answer) => return (answer, crashed),
                Err(Crashed) => {
                    crashed = true;
                    self.kit.restart().await;
                }
            }
        }
    }
    /// Makes a named object once, whatever crashes.
    async fn make(&self, list: &str, plural: &str, one: &str, body: Value) -> String {
        let name = body["name"].as_str().unwrap().to_owned();
        let wrapped = if one.is_empty() { body } else { json!({ one: body }) };
        loop {
            match self
                .kit
                .try_call("POST", list, &self.project.member.token, wrapped.clone())
                .await
            {
                Ok(answer) => {
                    let made = answer.ok();
                    let made = if one.is_empty() { made } else { made[one].clone() };
                    return made["id"].as_str().or(made["name"].as_str()).unwrap().to_owned();
                }
                Err(Crashed) => {
                    self.kit.restart().await;
                    let (found, _) = self.ask("GET", &format!("{list}?name={name}"), Value::Null).await;
                    let found = found.ok();
                    let mine: Vec<&Value> = found[plural]
                        .as_array()
                        .unwrap()
                        .iter()
                        .filter(|o| o["name"] == *name)
                        .collect();
                    assert!(mine.len() < 2, "made twice: {found}");
                    if let Some(id) = mine.first().and_then(|o| o["id"].as_str()) {
                        return id.to_owned();
                    }
                }
            }
        }
    }
    async fn put(&self, path: &str, body: Value, done: &[u16]) {
        let (answer, crashed) = self.ask("PUT", path, body).await;
        let fine = (200..300).contains(&answer.status) || (crashed && done.contains(&answer.status));
        assert!(fine, "{}: {} {}", answer.asked, answer.status, answer.text());
    }
    async fn delete(&self, path: &str) {
        let (answer, crashed) = self.ask("DELETE", path, Value::Null).await;
        let fine = (200..300).contains(&answer.status) || (crashed && answer.status == 404);
        assert!(fine, "{}: {} {}", answer.asked, answer.status, answer.text());
    }
    /// Uploads until the image is active: an upload that was cut off leaves it queued.
    async fn upload(&self, image: &str) {
        let path = format!("/image/v2/images/{image}");
        loop {
            let token = &self.project.member.token;
            let data = Bytes::from(vec![3_u8; 5_000]);
            let sent = self
                .kit
                .raw("PUT", &format!("{path}/file"), token, "application/octet-stream", data)
                .await;
            match sent {
                Ok(answer) => {
                    answer.expect(204);
                    return;
                }
                Err(Crashed) => self.kit.restart().await,
            }
            let (shown, _) = self.ask("GET", &path, Value::Null).await;
            match shown.ok()["status"].as_str() {
                Some("active") => return,
                Some("queued") => {}
                other => panic!("a cut upload leaves the image {other:?}"),
            }
        }
    }
}

/// The whole of it, with a crash after the n-th commit; gives whether it came.
async fn outfit(n: u64) -> bool {
    let t = Tenant::start().await;
    let lives = t.kit.lives();
    let v2 = |path: &str| format!("/network/v2.0/{path}");
    t.kit.crash_after(n);
    let image = json!({"name": "i", "disk_format": "raw", "container_format": "bare"});
    let image = t.make("/image/v2/images", "images", "", image).await;
    t.upload(&image).await;
    let network = t
        .make(&v2("networks"), "networks", "network", json!({"name": "n"}))
        .await;
    let subnet = json!({"name": "s", "network_id": network, "cidr": "10.0.0.0/24", "ip_version": 4});
    let subnet = t.make(&v2("subnets"), "subnets", "subnet", subnet).await;
    let router = json!({"name": "r", "external_gateway_info": {"network_id": t.external}});
    let router = t.make(&v2("routers"), "routers", "router", router).await;
    // Asked twice, the second is a conflict: the interface is there.
    t.put(
        &v2(&format!("routers/{router}/add_router_interface")),
        json!({"subnet_id": subnet}),
        &[400, 409],
    )
    .await;
    let group = t
        .make(
            &v2("security-groups"),
            "security_groups",
            "security_group",
            json!({"name": "g"}),
        )
        .await;
    let port = json!({"name": "p", "network_id": network, "security_groups": [group]});
    let port = t.make(&v2("ports"), "ports", "port", port).await;
    let (fip, crashed) = t
        .ask(
            "POST",
            &v2("floatingips"),
            json!({"floatingip": {"floating_network_id": t.external, "port_id": port}}),
        )
        .await;
    let fip = if crashed && fip.status == 409 {
        let (found, _) = t.ask("GET", &v2("floatingips"), Value::Null).await;
        found.ok()["floatingips"][0]["id"].as_str().unwrap().to_owned()
    } else {
        fip.expect(201)["floatingip"]["id"].as_str().unwrap().to_owned()
    };
    t.delete(&v2(&format!("floatingips/{fip}"))).await;
    t.delete(&v2(&format!("ports/{port}"))).await;
    let (gone, crashed) = t
        .ask(
            "PUT",
            &v2(&format!("routers/{router}/remove_router_interface")),
            json!({"subnet_id": subnet}),
        )
        .await;
    assert!(
        gone.status == 200 || (crashed && matches!(gone.status, 404 | 409)),
        "{} {}",
        gone.status,
        gone.text()
    );
    t.delete(&v2(&format!("routers/{router}"))).await;
    t.delete(&v2(&format!("security-groups/{group}"))).await;
    t.delete(&v2(&format!("networks/{network}"))).await;
    t.delete(&format!("/image/v2/images/{image}")).await;
    while t.kit.try_rest().await.is_err() {
        t.kit.restart().await;
    }
    t.kit.no_more_crashes().await;
    t.kit.audit_rest().await;
    let snapshot = t.kit.snapshot();
    for (what, left) in [
        (
            "networks",
            snapshot
                .find::<maru_network_model::Network>("project", &t.project.id)
                .count(),
        ),
        (
            "ports",
            snapshot
                .find::<maru_network_model::Port>("project", &t.project.id)
                .count(),
        ),
        (
            "routers",
            snapshot
                .find::<maru_network_model::Router>("project", &t.project.id)
                .count(),
        ),
        ("images", snapshot.count::<maru_image_model::Image>()),
        ("floating addresses", snapshot.count::<maru_network_model::FloatingIp>()),
    ] {
        assert_eq!(left, 0, "{what} are left");
    }
    t.kit.lives() > lives
}

#[tokio::test(start_paused = true)]
async fn an_outfit_survives_a_crash_after_every_commit() {
    let mut n = 1;
    while outfit(n).await {
        n += 1;
        assert!(n < 200, "the outfit does not end");
    }
    assert!(n > 15, "only {n} commits");
    println!("a project's outfit: crashed after each of {} commits", n - 1);
}
