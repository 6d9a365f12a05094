//! Stored types, pure rules and planners of the placement service.
//!
//! Usage is a counter per provider and class, raised in the transaction that writes the allocation: two requests that
//! race for the last unit cannot both get it. An allocation guards the revision of its provider, so an inventory that
//! shrinks meanwhile is seen; allocations do not change the provider, so they never conflict with each other.

mod allocation;
mod class;
mod provider;
mod upkeep;

pub use allocation::{
    Allocations, Consumer, ConsumerId, Holder, plan_allocate, plan_release, plan_set_allocations, release_counters,
    usage, usage_key, usages,
};
pub use class::{
    CustomClass, CustomClassId, CustomTrait, CustomTraitId, STANDARD_CLASSES, STANDARD_TRAITS, is_custom, knows_class,
    knows_trait,
};
pub use provider::{Inventory, ProviderId, ResourceProvider, find_by_name, generation, generation_key, tree};
pub use upkeep::{ProviderFacts, plan_upsert_provider};

/// Registers the kinds of this model.
pub fn register(registry: &mut maru_store::Registry) {
    registry
        .register::<ResourceProvider>()
        .register::<Consumer>()
        .register::<CustomClass>()
        .register::<CustomTrait>();
}
