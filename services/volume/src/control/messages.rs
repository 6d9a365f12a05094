//! Removes user messages whose time is over.

use maru_base::Result;
use maru_control::{Next, Reconciler};
use maru_store::{Kind, Snapshot, Store, Txn};
use maru_volume_model::message::{Message, MessageId};
use std::time::Duration;

/// The reconciler, keyed by message.
pub(crate) struct Messages;

#[async_trait::async_trait]
impl Reconciler for Messages {
    fn name(&self) -> &'static str {
        "volume-messages"
    }
    fn kinds(&self) -> Vec<&'static str> {
        vec![Message::NAME]
    }
    fn all(&self, snapshot: &Snapshot) -> Vec<String> {
        snapshot.list::<Message>().map(|m| m.id.to_string()).collect()
    }
    async fn reconcile(&self, store: &Store, key: &str) -> Result<Next> {
        let Some(message) = store.snapshot().get::<Message>(&MessageId::from(key)) else {
            return Ok(Next::Done);
        };
        let left = message.value.expires.as_second() - maru_base::time::now().as_second();
        if let Ok(left) = u64::try_from(left)
            && left > 0
        {
            return Ok(Next::After(Duration::from_secs(left)));
        }
        let mut txn = Txn::new();
        txn.delete(&message);
        match store.commit(txn).await {
            Err(e) if !e.is_conflict() => Err(e.into()),
            _ => Ok(Next::Done),
        }
    }
    fn workers(&self) -> usize {
        1
    }
}
