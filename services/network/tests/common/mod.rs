//! A network service in memory behind a real gateway. A token is `<project>:<role>`, or `-:admin` for an administrator
//! of a project of its own.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use http_body_util::BodyExt;
use maru_auth::{Caller, NoAudit, Policy, Scope, TokenVerifier};
use maru_base::{DomainId, Error, ProjectId, Result, UserId};
use maru_http::Gateway;
use maru_network::{App, POLICY, service};
use maru_store::{Registry, Store};
use serde_json::{Value, json};
use std::sync::Arc;

struct Tokens;

#[async_trait::async_trait]
impl TokenVerifier for Tokens {
    async fn verify(&self, token: &str) -> Result<Arc<Caller>> {
        let (project, role) = token.split_once(':').ok_or_else(|| Error::unauthorized("bad token"))?;
        let roles: &[&str] = match role {
            "admin" => &["admin", "manager", "member", "reader"],
            "member" => &["member", "reader"],
            "reader" => &["reader"],
            "service" => &["service"],
            _ => &[],
        };
        Ok(Arc::new(Caller {
            user_id: UserId::from(format!("user-of-{project}")),
            user_name: project.to_owned(),
            user_domain_id: DomainId::from("default"),
            scope: Scope::Project(ProjectId::from(project)),
            project_domain_id: Some(DomainId::from("default")),
            project_name: Some(project.to_owned()),
            roles: roles.iter().map(|r| (*r).to_owned()).collect(),
            methods: vec!["password".to_owned()],
            audit_ids: vec![],
            expires_at: maru_base::time::now() + jiff::SignedDuration::from_hours(1),
        }))
    }
}

pub struct Cloud {
    pub store: Store,
    pub app: Arc<App>,
    pub gateway: Gateway,
}

pub const ADMIN: &str = "ops:admin";
pub const A: &str = "aaa:member";
pub const B: &str = "bbb:member";

pub fn cloud() -> Cloud {
    let mut registry = Registry::new();
    maru_network_model::register(&mut registry);
    let store = Store::in_memory(registry);
    let app = Arc::new(App::new(store.clone()));
    let policy = Arc::new(Policy::build(&[POLICY], None).unwrap());
    let gateway = Gateway::new(
        vec![service(Arc::clone(&app))],
        Arc::new(Tokens),
        policy,
        Arc::new(NoAudit),
    )
    .unwrap();
    Cloud { store, app, gateway }
}

impl Cloud {
    pub async fn raw(&self, token: &str, method: &str, path: &str, body: Bytes) -> (u16, Value) {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("http://maru/network{path}"))
            .header("x-auth-token", token)
            .header("content-type", "application/json")
            .body(body)
            .unwrap();
        let response = self.gateway.call(request).await;
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let value = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).unwrap()
        };
        (status, value)
    }
    pub async fn call(&self, token: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
        let bytes = if body.is_null() {
            Bytes::new()
        } else {
            Bytes::from(body.to_string())
        };
        self.raw(token, method, path, bytes).await
    }
    /// The answer, which must have this status.
    pub async fn want(&self, status: u16, token: &str, method: &str, path: &str, body: Value) -> Value {
        let (have, value) = self.call(token, method, path, body.clone()).await;
        assert_eq!(have, status, "{method} {path} {body}: {value}");
        value
    }
    pub async fn get(&self, token: &str, path: &str) -> Value {
        self.want(200, token, "GET", path, Value::Null).await
    }
    pub async fn delete(&self, token: &str, path: &str) {
        self.want(204, token, "DELETE", path, Value::Null).await;
    }
    /// Creates one object and gives it.
    pub async fn make(&self, token: &str, path: &str, name: &str, attributes: Value) -> Value {
        self.want(201, token, "POST", path, json!({ name: attributes })).await[name].clone()
    }
    /// The refusal's type, of a request that must be refused so.
    pub async fn refused(&self, status: u16, token: &str, method: &str, path: &str, body: Value) -> String {
        let v = self.want(status, token, method, path, body).await;
        let e = &v["NeutronError"];
        assert!(e["message"].as_str().is_some_and(|m| m.len() > 10), "{v}");
        e["type"].as_str().unwrap().to_owned()
    }
    pub async fn network(&self, token: &str) -> String {
        id(&self
            .make(token, "/v2.0/networks", "network", json!({"name": "net"}))
            .await)
    }
    pub async fn subnet(&self, token: &str, network: &str, cidr: &str) -> String {
        let version = if cidr.contains(':') { 6 } else { 4 };
        let mut s = json!({"network_id": network, "cidr": cidr, "ip_version": version});
        // Addresses are given at random, from the upper half only: tests ask for those of the lower.
        if let Some(net) = cidr.strip_suffix(".0/24") {
            s["allocation_pools"] = json!([{"start": format!("{net}.128"), "end": format!("{net}.254")}]);
        }
        id(&self.make(token, "/v2.0/subnets", "subnet", s).await)
    }
    pub async fn port(&self, token: &str, network: &str) -> Value {
        self.make(token, "/v2.0/ports", "port", json!({"network_id": network}))
            .await
    }
    /// An external network with a subnet.
    pub async fn external(&self) -> String {
        let net = self
            .make(
                ADMIN,
                "/v2.0/networks",
                "network",
                json!({"name": "public", "router:external": true}),
            )
            .await;
        let pool = json!([{"start": "172.24.4.128", "end": "172.24.4.254"}]);
        let s = json!({"network_id": net["id"], "cidr": "172.24.4.0/24", "ip_version": 4, "enable_dhcp": false,
            "allocation_pools": pool});
        self.make(ADMIN, "/v2.0/subnets", "subnet", s).await;
        id(&net)
    }
    pub async fn set_quota(&self, project: &str, limits: Value) {
        self.want(
            200,
            ADMIN,
            "PUT",
            &format!("/v2.0/quotas/{project}"),
            json!({ "quota": limits }),
        )
        .await;
    }
    /// A node that hosts routers.
    pub async fn node(&self, host: &str) {
        self.store
            .plan(|s| {
                let mut txn = maru_store::Txn::new();
                maru_network_model::plan_upsert_agent(s, &mut txn, host, true, "nova");
                Ok((txn, ()))
            })
            .await
            .unwrap();
    }
    /// Every counter agrees with what is there, and every address in use belongs to a port.
    pub fn audit(&self) {
        use maru_network_model as m;
        use maru_store::Key;
        let s = self.store.snapshot();
        let mut addresses = std::collections::BTreeSet::new();
        let mut per: std::collections::BTreeMap<(String, &str), i64> = std::collections::BTreeMap::new();
        let mut count = |p: &str, r: &'static str| {
            if !p.is_empty() {
                *per.entry((p.to_owned(), r)).or_default() += 1;
            }
        };
        for p in s.list::<m::Port>() {
            count(&p.value.project_id, "port");
            for f in &p.value.fixed_ips {
                assert!(
                    addresses.insert(m::keys::address(&f.subnet_id, f.ip_address)),
                    "{} twice",
                    f.ip_address
                );
            }
        }
        s.list::<m::Network>()
            .for_each(|n| count(&n.value.project_id, "network"));
        s.list::<m::Subnet>().for_each(|n| count(&n.value.project_id, "subnet"));
        s.list::<m::Router>().for_each(|n| count(&n.value.project_id, "router"));
        s.list::<m::FloatingIp>()
            .for_each(|n| count(&n.value.project_id, "floatingip"));
        s.list::<m::SecurityGroup>()
            .for_each(|n| count(&n.value.project_id, "security_group"));
        s.list::<m::SecurityGroupRule>()
            .for_each(|n| count(&n.value.project_id, "security_group_rule"));
        s.list::<m::SubnetPool>()
            .for_each(|n| count(&n.value.project_id, "subnetpool"));
        for (key, _) in s.raw_under(&Key::prefix(&["alloc"])) {
            let parts = key.parts();
            if parts[1] != "vni" && parts[1] != "zone" {
                assert!(addresses.remove(&key), "{key} belongs to no port");
            }
        }
        assert!(addresses.is_empty(), "not allocated: {addresses:?}");
        for (key, _) in s.raw_under(&Key::prefix(&["counter", "quota"])) {
            let parts = key.parts();
            let have = per
                .iter()
                .find(|((p, r), _)| *p == parts[2] && *r == parts[3])
                .map_or(0, |(_, n)| *n);
            assert_eq!(s.counter(&key), have, "{key}");
            per.retain(|(p, r), _| !(*p == parts[2] && *r == parts[3]));
        }
        assert!(per.is_empty(), "not counted: {per:?}");
        for sub in s.list::<m::Subnet>() {
            let inside = s
                .raw_under(&m::keys::addresses(&sub.id))
                .filter(|(k, _)| m::address::in_pools(&sub.value.pools, k.parts()[2].parse().unwrap()))
                .count();
            assert_eq!(
                s.counter(&m::keys::pool_counter(&sub.id)),
                i64::try_from(inside).unwrap()
            );
        }
        for (key, _) in s.raw_under(&Key::prefix(&["epoch"])) {
            let set = key.parts()[1].clone();
            let (_, id) = set.split_once(':').unwrap();
            let there = s.get::<m::Network>(&id.into()).is_some()
                || s.get::<m::Subnet>(&id.into()).is_some()
                || s.get::<m::Port>(&id.into()).is_some()
                || s.get::<m::Router>(&id.into()).is_some()
                || s.get::<m::SecurityGroup>(&id.into()).is_some()
                || s.get::<m::QosPolicy>(&id.into()).is_some()
                || s.get::<m::SubnetPool>(&id.into()).is_some()
                || s.get::<m::AddressScope>(&id.into()).is_some();
            assert!(there, "{key} outlived its object");
        }
    }
}

pub fn id(v: &Value) -> String {
    v["id"].as_str().unwrap_or_else(|| panic!("no id in {v}")).to_owned()
}
