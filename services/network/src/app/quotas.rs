//! Quotas.

use super::App;
use maru_base::{ProjectId, Result};
use maru_network_model::Quota;

impl App {
    pub(crate) async fn set_quota(&self, project: &str, limits: &[(String, i64)]) -> Result<()> {
        let id = ProjectId::from(project);
        self.plan(|snapshot, txn| {
            let read = snapshot.get::<Quota>(&id);
            let mut quota = read.as_ref().map(|o| (*o.value).clone()).unwrap_or_default();
            quota.limits.extend(limits.iter().cloned());
            match &read {
                Some(read) => txn.update(read, &quota),
                None => txn.create(&id, &quota),
            };
            Ok(())
        })
        .await
    }

    pub(crate) async fn reset_quota(&self, project: &str) -> Result<()> {
        let id = ProjectId::from(project);
        self.plan(|snapshot, txn| {
            if let Some(read) = snapshot.get::<Quota>(&id) {
                txn.delete(&read);
            }
            Ok(())
        })
        .await
    }
}
