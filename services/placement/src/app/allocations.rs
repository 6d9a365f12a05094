//! Allocations: what consumers hold, replaced whole, one or many at once; and the reshaper, which moves inventories and
//! what is allocated of them in one transaction.

use super::{App, concurrent, inventories::Inventories, same_generation, unknown_class};
use maru_base::{Error, Result};
use maru_placement_model::{
    Allocations, Claim, Consumer, ConsumerId, Holder, ProviderId, Refusal, ResourceProvider, plan_edit_provider,
    plan_release, plan_replace, usage,
};
use maru_store::{Snapshot, Txn};
use std::collections::BTreeMap;

/// Project and user of consumers that were made before microversion 1.8 asked for them.
pub(crate) const INCOMPLETE: &str = "00000000-0000-0000-0000-000000000000";
/// The type of consumers that were made before microversion 1.38 asked for one.
pub(crate) const UNKNOWN_TYPE: &str = "unknown";

/// What a request gives one consumer.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) consumer: ConsumerId,
    pub(crate) project_id: String,
    pub(crate) user_id: String,
    /// Left as it is when not given.
    pub(crate) consumer_type: Option<String>,
    /// What the caller saw (from microversion 1.28 on): `None` for no consumer.
    pub(crate) generation: Option<Option<i64>>,
    pub(crate) wanted: Allocations,
}

/// What a reshape gives one provider.
#[derive(Debug, Clone)]
pub(crate) struct Reshape {
    pub(crate) provider: ProviderId,
    pub(crate) generation: i64,
    pub(crate) inventories: Inventories,
}

impl App {
    /// Replaces all that some consumers hold.
    ///
    /// # Errors
    /// 400 for unknown providers and classes; 409 for what does not fit and for a consumer's generation.
    pub(crate) async fn allocate(&self, wishes: &[Wish]) -> Result<()> {
        self.plan(|snapshot, txn| replace(snapshot, txn, wishes, &BTreeMap::new()))
            .await
    }

    /// Releases all that a consumer holds.
    ///
    /// # Errors
    /// 404 when that is nothing.
    pub(crate) async fn release(&self, consumer: &str) -> Result<()> {
        let id = ConsumerId::from(consumer);
        self.plan(|snapshot, txn| {
            if snapshot.get::<Consumer>(&id).is_none() {
                return Err(Error::not_found(format!("No allocations for consumer '{consumer}'.")));
            }
            plan_release(snapshot, txn, &id)
        })
        .await
    }

    /// Replaces inventories of some providers and all that some consumers hold, in one transaction.
    ///
    /// # Errors
    /// As [`App::allocate`]; 400 for an unknown provider; 409 for a provider's generation and for inventory that is still in
    /// use after it.
    pub(crate) async fn reshape(&self, reshapes: &[Reshape], wishes: &[Wish]) -> Result<()> {
        self.plan(|snapshot, txn| {
            let mut reshaped = BTreeMap::new();
            for reshape in reshapes {
                let Some(old) = snapshot.get::<ResourceProvider>(&reshape.provider) else {
                    return Err(Error::invalid(
                        format!("inventories.{}", reshape.provider),
                        format!("Resource provider {} in inventories not found.", reshape.provider),
                    )
                    .with_code("placement.resource_provider.not_found"));
                };
                same_generation(snapshot, &old, reshape.generation)?;
                if let Some(class) = unknown_class(snapshot, reshape.inventories.keys()) {
                    return Err(Error::invalid(
                        format!("inventories.{}.inventories.{class}", reshape.provider),
                        format!("malformed reshaper data: No such resource class {class}."),
                    ));
                }
                let mut new = (*old.value).clone();
                new.inventories.clone_from(&reshape.inventories);
                plan_edit_provider(snapshot, txn, &old, new.clone(), true);
                reshaped.insert(old.id.clone(), new);
            }
            replace(snapshot, txn, wishes, &reshaped)?;
            still_used(snapshot, wishes, &reshaped)
        })
        .await
    }
}

fn replace(
    snapshot: &Snapshot,
    txn: &mut Txn,
    wishes: &[Wish],
    reshaped: &BTreeMap<ProviderId, ResourceProvider>,
) -> Result<()> {
    let mut types = Vec::with_capacity(wishes.len());
    for wish in wishes {
        let old = snapshot.get::<Consumer>(&wish.consumer);
        if let Some(given) = wish.generation {
            let actual = old.as_ref().map(|o| o.generation);
            if given.map(u64::try_from) != actual.map(Ok) {
                let show = |text: Option<String>| text.unwrap_or_else(|| "null".to_owned());
                return Err(concurrent(&format!(
                    "consumer generation conflict of {} - expected {} but got {}. Read its allocations again and repeat the \
                     change.",
                    wish.consumer,
                    show(actual.map(|g| g.to_string())),
                    show(given.map(|g| g.to_string())),
                )));
            }
        }
        let known = old.as_ref().map(|o| o.consumer_type.clone());
        types.push(
            wish.consumer_type
                .clone()
                .or(known)
                .unwrap_or_else(|| UNKNOWN_TYPE.to_owned()),
        );
    }
    let claims: Vec<Claim<'_>> = wishes
        .iter()
        .zip(&types)
        .map(|(wish, consumer_type)| Claim {
            consumer: &wish.consumer,
            holder: Holder {
                project_id: &wish.project_id,
                user_id: &wish.user_id,
                consumer_type,
            },
            wanted: &wish.wanted,
        })
        .collect();
    plan_replace(snapshot, txn, &claims, reshaped).map_err(|refusal| match &refusal {
        Refusal::NoClass(_) => Error::bad_request(format!("Unable to allocate inventory: {refusal}")),
        _ => Error::from(refusal),
    })
}

/// Refuses a reshape after which something is allocated of an inventory that is gone.
fn still_used(snapshot: &Snapshot, wishes: &[Wish], reshaped: &BTreeMap<ProviderId, ResourceProvider>) -> Result<()> {
    for (id, new) in reshaped {
        let Some(old) = snapshot.get::<ResourceProvider>(id) else {
            continue;
        };
        for class in old.inventories.keys().filter(|c| !new.inventories.contains_key(*c)) {
            // What the request's consumers hold of it now, they hold no more: else it would have been refused above.
            let given_back: i64 = wishes
                .iter()
                .filter_map(|w| snapshot.get::<Consumer>(&w.consumer))
                .filter_map(|c| c.allocations.get(id)?.get(class).copied())
                .map(|n| i64::try_from(n).unwrap_or(i64::MAX))
                .fold(0, i64::saturating_add);
            if usage(snapshot, id, class) > given_back {
                return Err(super::inventories::refuse_in_use(id, class));
            }
        }
    }
    Ok(())
}
