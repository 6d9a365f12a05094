//! Removes the action records of servers that have been gone for an hour.

use maru_base::Result;
use maru_compute_model::{ActionId, ServerAction};
use maru_control::{Next, Reconciler};
use maru_store::{Snapshot, Store, Txn};
use std::time::Duration;

/// How long the actions of a deleted server can be read.
const KEPT_SECONDS: i64 = 3_600;

pub(crate) struct Sweeper;

#[async_trait::async_trait]
impl Reconciler for Sweeper {
    fn name(&self) -> &'static str {
        "server-action-sweeper"
    }
    fn kinds(&self) -> Vec<&'static str> {
        vec!["server_action"]
    }
    fn keys_for(&self, snapshot: &Snapshot, _kind: &str, id: &str) -> Vec<String> {
        let deleted = snapshot
            .get::<ServerAction>(&ActionId::from(id))
            .is_some_and(|a| a.deleted.is_some());
        if deleted { vec![id.to_owned()] } else { Vec::new() }
    }
    fn all(&self, snapshot: &Snapshot) -> Vec<String> {
        snapshot
            .find::<ServerAction>("deleted", "yes")
            .map(|a| a.id.to_string())
            .collect()
    }
    async fn reconcile(&self, store: &Store, key: &str) -> Result<Next> {
        let snapshot = store.snapshot();
        let Some(action) = snapshot.get::<ServerAction>(&ActionId::from(key)) else {
            return Ok(Next::Done);
        };
        let Some(deleted) = action.deleted else {
            return Ok(Next::Done);
        };
        let age = maru_base::time::now().as_second() - deleted.as_second();
        if let Ok(rest) = u64::try_from(KEPT_SECONDS - age)
            && rest > 0
        {
            return Ok(Next::After(Duration::from_secs(rest)));
        }
        let mut txn = Txn::new();
        txn.delete(&action);
        match store.commit(txn).await {
            Err(e) if !e.is_conflict() => Err(e.into()),
            _ => Ok(Next::Done),
        }
    }
    fn workers(&self) -> usize {
        1
    }
}
