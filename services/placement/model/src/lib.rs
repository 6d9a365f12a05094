//! Stored types, pure rules and planners of the placement service.
//!
//! Usage is a counter per provider and class, raised in the transaction that writes the allocation: two requests that
//! race for the last unit cannot both get it. An allocation guards the revision of its provider, so an inventory that
//! shrinks meanwhile is seen; allocations do not change the provider, so they never conflict with each other. A change of
//! a provider guards the counter of its allocations' changes, which is the other half of the generation that the API shows.

mod allocation;
pub mod candidates;
mod class;
mod edit;
mod provider;
mod standard;
mod upkeep;

pub use allocation::{
    Allocations, Claim, Consumer, ConsumerId, Holder, Refusal, Usages, plan_allocate, plan_release, plan_replace,
    plan_set_allocations, usage, usage_key, usages,
};
pub use class::{
    CustomClass, CustomClassId, CustomTrait, CustomTraitId, SHARES, is_custom, knows_class, knows_trait,
    plan_create_class, plan_create_trait, plan_delete_class, plan_delete_trait,
};
pub use edit::{
    plan_create_provider, plan_delete_provider, plan_edit_provider, plan_move_provider, plan_rename_provider,
};
pub use provider::{Inventory, ProviderId, ResourceProvider, find_by_name, generation, generation_key, tree};
pub use standard::{STANDARD_CLASSES, STANDARD_TRAITS};
pub use upkeep::{ProviderFacts, plan_upsert_provider};

/// Registers the kinds of this model.
pub fn register(registry: &mut maru_store::Registry) {
    registry
        .register::<ResourceProvider>()
        .register::<Consumer>()
        .register::<CustomClass>()
        .register::<CustomTrait>();
}
