//! What handlers share: the state, transactions with Neutron's refusals, and who may see and do what.

pub(crate) mod access;
pub(crate) mod floating_ips;
pub(crate) mod networks;
pub(crate) mod ports;
pub(crate) mod quotas;
pub(crate) mod routers;
pub(crate) mod security_groups;
pub(crate) mod subnet_pools;
pub(crate) mod subnets;
pub(crate) mod tags;

use maru_base::{ProjectId, Result};
use maru_network_model::{default_group, ensure_default_group, over_quota};
use maru_store::{Snapshot, Store, Txn};

/// The service's state.
pub struct App {
    /// The store.
    pub store: Store,
}

impl App {
    /// A service over a store.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Plans and commits; a quota that others used up meanwhile is 409 `OverQuota`.
    pub(crate) async fn plan<T, F>(&self, mut plan: F) -> Result<T>
    where
        F: FnMut(&Snapshot, &mut Txn) -> Result<T>,
    {
        self.store
            .plan(|snapshot| {
                let mut txn = Txn::new();
                let answer = plan(snapshot, &mut txn)?;
                Ok((txn, answer))
            })
            .await
            .map_err(|e| over_quota(&e).unwrap_or(e))
    }

    /// Makes a project's default security group if it is not there.
    pub(crate) async fn ensure_default_group(&self, project: &ProjectId) -> Result<()> {
        if default_group(&self.store.snapshot(), project).is_some() {
            return Ok(());
        }
        self.plan(|snapshot, txn| ensure_default_group(snapshot, txn, project).map(|_| ()))
            .await
    }
}
