//! What handlers share: the state, transactions, providers with their generation.

pub(crate) mod allocations;
pub(crate) mod inventories;
pub(crate) mod resource_providers;

use maru_base::{Error, Result};
use maru_placement_model::{ProviderId, ResourceProvider, generation, knows_class, knows_trait};
use maru_store::{CommitError, Conflict, Object, Snapshot, Store, Txn};
use std::sync::Arc;

/// How often a transaction that ran out of a resource while it was planned is planned again.
const AGAIN: u32 = 5;

/// The service's state.
pub struct App {
    /// The store.
    pub store: Store,
}

/// A provider as a transaction left it.
pub(crate) struct Shown {
    pub(crate) id: ProviderId,
    pub(crate) provider: Arc<ResourceProvider>,
    pub(crate) generation: u64,
}

impl App {
    /// A service over a store.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Plans and commits. Units that others took meanwhile are planned again: the plan then says what is short.
    pub(crate) async fn plan<T, F>(&self, mut plan: F) -> Result<T>
    where
        F: FnMut(&Snapshot, &mut Txn) -> Result<T>,
    {
        let mut tries = 0;
        loop {
            let outcome = self
                .store
                .plan(|snapshot| {
                    let mut txn = Txn::new();
                    let answer = plan(snapshot, &mut txn)?;
                    Ok((txn, answer))
                })
                .await;
            let error = match outcome {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let short = match CommitError::conflict_of(&error) {
                Some(Conflict::Exceeded {
                    used, wanted, limit, ..
                }) => format!(
                    "Unable to allocate inventory: {wanted} more units exceed what is free ({used} of {limit} are used)."
                ),
                Some(Conflict::Guard { .. }) => {
                    return Err(concurrent(
                        "Other requests changed the same provider all the time; try again.",
                    ));
                }
                None => return Err(error),
            };
            tries += 1;
            if tries == AGAIN {
                return Err(Error::conflict(short));
            }
            self.store.sync().await?;
        }
    }

    /// A snapshot that has everything that was committed before.
    pub(crate) async fn current(&self) -> Result<Snapshot> {
        self.store.current().await
    }
}

impl Shown {
    /// A provider as a snapshot has it.
    pub(crate) fn of(snapshot: &Snapshot, provider: &Object<ResourceProvider>) -> Self {
        Self {
            id: provider.id.clone(),
            provider: Arc::clone(&provider.value),
            generation: generation(snapshot, provider),
        }
    }
}

/// The provider with this id.
///
/// # Errors
/// 404.
pub(crate) fn find(snapshot: &Snapshot, id: &str) -> Result<Object<ResourceProvider>> {
    snapshot
        .get::<ResourceProvider>(&ProviderId::from(id))
        .ok_or_else(|| Error::not_found(format!("No resource provider with uuid {id} found.")))
}

/// The 409 of a request that was made on an older state.
pub(crate) fn concurrent(why: &str) -> Error {
    Error::conflict(why).with_code("placement.concurrent_update")
}

/// Refuses a request that was made on another generation of a provider.
pub(crate) fn same_generation(snapshot: &Snapshot, provider: &Object<ResourceProvider>, given: i64) -> Result<()> {
    let actual = generation(snapshot, provider);
    if u64::try_from(given) == Ok(actual) {
        return Ok(());
    }
    Err(concurrent(&format!(
        "resource provider generation conflict for provider {}: actual: {actual}, given: {given}. Read it again and repeat \
         the change.",
        provider.id
    )))
}

/// The first name that is no resource class.
pub(crate) fn unknown_class<'a>(
    snapshot: &Snapshot,
    names: impl IntoIterator<Item = &'a String>,
) -> Option<&'a String> {
    names.into_iter().find(|name| !knows_class(snapshot, name))
}

/// The names that are no traits, if there are any, as `A, B`.
pub(crate) fn unknown_traits<'a>(snapshot: &Snapshot, names: impl IntoIterator<Item = &'a String>) -> Option<String> {
    let unknown: std::collections::BTreeSet<&str> = names
        .into_iter()
        .filter(|name| !knows_trait(snapshot, name))
        .map(String::as_str)
        .collect();
    (!unknown.is_empty()).then(|| unknown.into_iter().collect::<Vec<_>>().join(", "))
}
