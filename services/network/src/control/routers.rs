//! Gives a node to each router that has something to route and no node: those made while no node was connected.

use maru_base::Result;
use maru_control::{Next, Reconciler};
use maru_network_model::{Agent, Port, Router, RouterId, plan_host_routers, router};
use maru_store::{Kind, Snapshot, Store, Txn};

/// The reconciler; a key is a router's id.
pub(crate) struct HostRouters;

fn unhosted(snapshot: &Snapshot) -> Vec<String> {
    snapshot
        .list::<Router>()
        .filter(|r| r.value.host.is_none())
        .map(|r| r.id.to_string())
        .collect()
}

#[async_trait::async_trait]
impl Reconciler for HostRouters {
    fn name(&self) -> &'static str {
        "host-routers"
    }
    fn kinds(&self) -> Vec<&'static str> {
        vec![Router::NAME, Port::NAME, Agent::NAME]
    }
    fn keys_for(&self, snapshot: &Snapshot, kind: &str, id: &str) -> Vec<String> {
        if kind == Router::NAME {
            return vec![id.to_owned()];
        }
        if kind == Port::NAME {
            let port = snapshot.get::<Port>(&id.into());
            return port
                .filter(|p| router::is_router_port(&p.value))
                .map(|p| p.value.device_id.clone())
                .into_iter()
                .collect();
        }
        unhosted(snapshot)
    }
    fn all(&self, snapshot: &Snapshot) -> Vec<String> {
        unhosted(snapshot)
    }
    async fn reconcile(&self, store: &Store, key: &str) -> Result<Next> {
        let id = RouterId::from(key);
        store
            .plan(|snapshot| {
                let mut txn = Txn::new();
                plan_host_routers(snapshot, &mut txn, Some(&id))?;
                Ok((txn, ()))
            })
            .await?;
        Ok(Next::Done)
    }
}
