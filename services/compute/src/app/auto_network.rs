//! The network of a project that asks for one (`auto`) and has none.

use crate::App;
use maru_base::{ProjectId, Result};
use maru_compute_model::network::plan_auto_network;
use maru_store::Txn;

/// Sees to it that the project has one: step by step, each a transaction that a later call goes on from.
///
/// # Errors
/// 409 over quota, or when the default pools are used up.
pub(crate) async fn ensure(app: &App, project: &ProjectId) -> Result<()> {
    loop {
        let step = app.store.plan(|snapshot| {
            let mut txn = Txn::new();
            let done = plan_auto_network(snapshot, &mut txn, project)?;
            Ok((txn, done))
        });
        let over = |e| maru_network_model::over_quota(&e).unwrap_or(e);
        if step.await.map_err(over)? {
            return Ok(());
        }
    }
}
