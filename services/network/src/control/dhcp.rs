//! Makes the DHCP port of a network anew when a client deleted it.

use maru_base::Result;
use maru_control::{Next, Reconciler};
use maru_network_model::{Network, NetworkId, Port, Subnet, SubnetId, dhcp, keys};
use maru_store::{Kind, Snapshot, Store, Txn};

/// The reconciler. It has one key: of a deleted port the network is not known any more, so all are looked through, once
/// for however many deletions.
pub(crate) struct DhcpPorts;

const SWEEP: &str = "all";

#[async_trait::async_trait]
impl Reconciler for DhcpPorts {
    fn name(&self) -> &'static str {
        "dhcp-ports"
    }
    fn kinds(&self) -> Vec<&'static str> {
        vec![Port::NAME]
    }
    fn keys_for(&self, snapshot: &Snapshot, _kind: &str, id: &str) -> Vec<String> {
        if snapshot.get::<Port>(&id.into()).is_some() {
            Vec::new()
        } else {
            vec![SWEEP.to_owned()]
        }
    }
    fn all(&self, _snapshot: &Snapshot) -> Vec<String> {
        vec![SWEEP.to_owned()]
    }
    fn workers(&self) -> usize {
        1
    }
    async fn reconcile(&self, store: &Store, _key: &str) -> Result<Next> {
        for id in missing(&store.snapshot()) {
            remake(store, &id).await?;
        }
        Ok(Next::Done)
    }
}

/// Networks with DHCP subnets and no DHCP port.
fn missing(snapshot: &Snapshot) -> Vec<NetworkId> {
    let mut wanted: Vec<NetworkId> = snapshot
        .list::<Subnet>()
        .filter(|s| s.value.enable_dhcp)
        .map(|s| s.value.network_id.clone())
        .collect();
    wanted.sort();
    wanted.dedup();
    wanted.retain(|n| dhcp::dhcp_port(snapshot, n).is_none());
    wanted
}

async fn remake(store: &Store, id: &NetworkId) -> Result<()> {
    store
        .plan(|snapshot| {
            let mut txn = Txn::new();
            if snapshot.get::<Network>(id).is_none() || dhcp::dhcp_port(snapshot, id).is_some() {
                return Ok((txn, ()));
            }
            let all: Vec<(SubnetId, Subnet)> = snapshot
                .find::<Subnet>("network", id)
                .map(|o| (o.id.clone(), (*o.value).clone()))
                .collect();
            keys::hold_epoch(snapshot, &mut txn, &format!("subnets:{id}"));
            dhcp::plan_dhcp_port(snapshot, &mut txn, id, &all)?;
            Ok((txn, ()))
        })
        .await
}
