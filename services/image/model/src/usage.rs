//! What a project uses of the image service: counters in the transactions that change them.

use crate::{BlobDigest, Image, ImageId, LooseBlob, Member};
use maru_base::ProjectId;
use maru_store::{Key, Object, Snapshot, Txn};

/// The counter of the bytes that a project's images hold.
#[must_use]
pub fn bytes_counter(owner: &ProjectId) -> Key {
    Key::of(&["counter", "quota", owner, "image_size_total"])
}

/// The counter of a project's images, with data or without.
#[must_use]
pub fn images_counter(owner: &ProjectId) -> Key {
    Key::of(&["counter", "quota", owner, "image_count_total"])
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Counts a new image.
pub fn plan_count(txn: &mut Txn, owner: &ProjectId, limit: Option<u64>) {
    txn.add(images_counter(owner), 1, limit.map(signed));
}

/// Counts the bytes of an image that becomes active.
pub fn plan_hold(txn: &mut Txn, owner: &ProjectId, bytes: u64, limit: Option<u64>) {
    txn.add(bytes_counter(owner), signed(bytes), limit.map(signed));
}

/// Gives back bytes that were held.
pub fn plan_give_back(txn: &mut Txn, owner: &ProjectId, bytes: u64) {
    txn.add(bytes_counter(owner), -signed(bytes), None);
}

/// Gives back what an image used; for its deletion and for a change of its owner.
pub fn plan_release(txn: &mut Txn, image: &Image) {
    txn.add(images_counter(&image.owner), -1, None);
    if let Some(size) = image.held() {
        txn.add(bytes_counter(&image.owner), -signed(size), None);
    }
}

/// Marks an id as used up: an image that someone trusts by its id must not be replaced by another's.
pub fn plan_retire(txn: &mut Txn, id: &ImageId, owner: &ProjectId) {
    txn.claim("image", "retired", id, owner);
}

/// Plans that an image goes, with its members and what it used. Gives the digests that may have lost their last name with it: their
/// blobs are [`LooseBlob`]s, which the image service collects.
pub fn plan_delete(snapshot: &Snapshot, txn: &mut Txn, image: &Object<Image>) -> Vec<String> {
    txn.delete(image);
    for member in snapshot.find::<Member>("image", &image.id) {
        txn.delete(&member);
    }
    plan_release(txn, image);
    plan_retire(txn, &image.id, &image.owner);
    let staged = image.staged.as_ref().map(|s| &s.digest);
    let digests: Vec<String> = image.digest.iter().chain(staged).cloned().collect();
    for digest in digests.iter().map(BlobDigest::from) {
        // Two images that go in one transaction may have the same bytes.
        let key = maru_store::object_key::<LooseBlob>(&digest);
        if !txn.ops().iter().any(|op| *op.key() == key) {
            let since = maru_base::time::now();
            txn.put(&digest, &LooseBlob { since });
        }
    }
    digests
}

/// Whether an id belonged to an image that is gone.
#[must_use]
pub fn is_retired(snapshot: &Snapshot, id: &ImageId) -> bool {
    snapshot.owner("image", "retired", id).is_some()
}
