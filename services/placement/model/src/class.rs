//! Resource classes and traits: custom ones beside the standard names.

use crate::{ResourceProvider, STANDARD_CLASSES, STANDARD_TRAITS};
use maru_store::{Guard, Key, Kind, Object, Op, Snapshot, Txn};
use serde::{Deserialize, Serialize};

maru_base::typed_id!(
    /// Name of a custom resource class, `CUSTOM_…`.
    CustomClassId
);
maru_base::typed_id!(
    /// Name of a custom trait, `CUSTOM_…`.
    CustomTraitId
);

/// A custom resource class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CustomClass {
    /// When it was made.
    pub created_at: jiff::Timestamp,
}
impl Kind for CustomClass {
    type Id = CustomClassId;
    const NAME: &'static str = "resource_class";
}

/// A custom trait.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CustomTrait {
    /// When it was made.
    pub created_at: jiff::Timestamp,
}
impl Kind for CustomTrait {
    type Id = CustomTraitId;
    const NAME: &'static str = "trait";
}

/// Whether a name has the form of a custom class or trait: `CUSTOM_` and upper-case letters, digits, underscores,
/// 255 characters at most.
#[must_use]
pub fn is_custom(name: &str) -> bool {
    name.len() <= 255
        && name.strip_prefix("CUSTOM_").is_some_and(|rest| {
            !rest.is_empty()
                && rest
                    .bytes()
                    .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
        })
}

/// Whether there is such a resource class.
#[must_use]
pub fn knows_class(snapshot: &Snapshot, name: &str) -> bool {
    STANDARD_CLASSES.contains(&name) || snapshot.get::<CustomClass>(&CustomClassId::from(name)).is_some()
}

/// Whether there is such a trait.
#[must_use]
pub fn knows_trait(snapshot: &Snapshot, name: &str) -> bool {
    STANDARD_TRAITS.binary_search(&name).is_ok() || snapshot.get::<CustomTrait>(&CustomTraitId::from(name)).is_some()
}

/// The trait of a provider that others use through a common aggregate.
pub const SHARES: &str = "MISC_SHARES_VIA_AGGREGATE";

/// Makes a custom class; the commit conflicts when another one made it meanwhile.
pub fn plan_create_class(txn: &mut Txn, name: &str) {
    let created_at = maru_base::time::now();
    txn.create(&CustomClassId::from(name), &CustomClass { created_at });
}

/// Makes a custom trait; the commit conflicts when another one made it meanwhile.
pub fn plan_create_trait(txn: &mut Txn, name: &str) {
    let created_at = maru_base::time::now();
    txn.create(&CustomTraitId::from(name), &CustomTrait { created_at });
}

/// Removes a custom class that no provider has an inventory of; tells whether it could.
#[must_use]
pub fn plan_delete_class(snapshot: &Snapshot, txn: &mut Txn, class: &Object<CustomClass>) -> bool {
    if snapshot.find::<ResourceProvider>("class", &class.id).next().is_some() {
        return false;
    }
    txn.delete(class);
    end_uses(snapshot, txn, &class_uses(&class.id));
    true
}

/// Removes a custom trait that no provider has; tells whether it could.
#[must_use]
pub fn plan_delete_trait(snapshot: &Snapshot, txn: &mut Txn, custom: &Object<CustomTrait>) -> bool {
    if snapshot.find::<ResourceProvider>("trait", &custom.id).next().is_some() {
        return false;
    }
    txn.delete(custom);
    end_uses(snapshot, txn, &trait_uses(&custom.id));
    true
}

/// A provider begins to have a class: a custom one must be there, and its deletion must see it.
pub(crate) fn use_class(txn: &mut Txn, name: &str) {
    if is_custom(name) {
        txn.alive::<CustomClass>(&CustomClassId::from(name));
        txn.bump_epoch(&class_uses(name));
    }
}

/// A provider begins to have a trait: a custom one must be there, and its deletion must see it.
pub(crate) fn use_trait(txn: &mut Txn, name: &str) {
    if is_custom(name) {
        txn.alive::<CustomTrait>(&CustomTraitId::from(name));
        txn.bump_epoch(&trait_uses(name));
    }
}

fn class_uses(name: &str) -> String {
    format!("resource_class:{name}")
}

fn trait_uses(name: &str) -> String {
    format!("trait:{name}")
}

/// Guards that the set of a name's uses is as it was read, and forgets it.
pub(crate) fn end_uses(snapshot: &Snapshot, txn: &mut Txn, set: &str) {
    let key = Key::of(&["epoch", set]);
    match snapshot.raw(&key) {
        Some((revision, _)) => {
            txn.guard(Guard::At(key.clone(), revision));
            txn.op(Op::Delete(key));
        }
        None => {
            txn.guard(Guard::Absent(key));
        }
    }
}
