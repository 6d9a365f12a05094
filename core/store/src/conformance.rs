//! What every engine must do, and the mirror over it, as a library: one test per sentence of the design.
//!
//! An engine's tests call [`crate::conformance_suite!`] with an expression that makes a fresh, empty engine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

pub mod faults;
pub mod history;
pub mod races;
pub mod rules;
pub mod server;

use crate::{Class, Engine, Index, Kind, Registry, Store};
use std::{sync::Arc, time::Duration};

maru_base::typed_id!(
    /// Id of the suite's objects.
    ItemId
);

/// A mirrored kind of the suite.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Item {
    pub parent: String,
    pub n: i64,
}

impl Kind for Item {
    type Id = ItemId;
    const NAME: &'static str = "item";
    fn indexes() -> Vec<Index<Self>> {
        vec![Index {
            name: "parent",
            values: |i| vec![i.parent.clone()],
        }]
    }
}

/// A kind that is not mirrored.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Page(pub String);

impl Kind for Page {
    type Id = ItemId;
    const NAME: &'static str = "page";
    const CLASS: Class = Class::Stored;
}

#[must_use]
pub fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.register::<Item>().register::<Page>();
    registry
}

/// The handle over an engine.
pub async fn open(engine: &Arc<dyn Engine>) -> Store {
    Store::open(Arc::clone(engine), registry()).await.unwrap()
}

#[must_use]
pub fn item(parent: &str, n: i64) -> Item {
    Item {
        parent: parent.to_owned(),
        n,
    }
}

/// The mirror is what the engine says: the end of every test.
pub async fn agrees(store: &Store) {
    let digest = store.digest().await.unwrap();
    assert!(digest.agrees(), "{digest:?}");
}

/// A deadline for a wait, so that a hang is a failure that says where.
pub async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), wait)
        .await
        .unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// Defines the suite's tests for an engine; the argument is an async expression that makes a fresh one, and what must
/// live as long as it.
#[macro_export]
macro_rules! conformance_suite {
    ($make:expr) => {
        $crate::conformance_suite!(@ $make, rules: guards_decide_and_name_the_first_that_fails, a_transaction_is_all_or_nothing,
            a_key_appears_once, limits_hold_on_every_engine, unknown_is_resolved_by_id, counters_add_and_stop,
            a_rename_deletes_and_puts_in_one_transaction, a_watch_sees_whole_transactions,
            a_watcher_resumes_and_expires_when_history_is_gone, stored_kinds_are_paged,
            a_write_answers_when_the_mirror_has_it, two_mirrors_agree, a_new_mirror_loads_what_is_there,
            an_incarnation_is_begun_once, a_backup_restores_into_a_new_incarnation, the_level_is_never_lowered);
        $crate::conformance_suite!(@ $make, races: one_of_many_creates_wins, no_update_is_lost, a_child_never_outlives_its_parent,
            a_rule_over_a_set_holds, a_name_has_one_owner, counters_never_pass_their_limit,
            unlimited_counters_never_conflict, pairs_are_never_seen_apart, the_last_admin_stays);
        $crate::conformance_suite!(@ $make, history: histories_replay_on_a_model);
    };
    (@ $make:expr, $module:ident: $($test:ident),+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let (engine, _alive) = $make.await;
                $crate::conformance::$module::$test(engine).await;
            }
        )+
    };
}
