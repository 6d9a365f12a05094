//! The clock seam. Wall-clock time for what an API shows; never for ordering (the store's revision does that).

use jiff::Timestamp;
use std::sync::atomic::{AtomicI64, Ordering};

/// Tests move the clock by this many seconds.
static OFFSET_SECONDS: AtomicI64 = AtomicI64::new(0);

/// The current time.
#[must_use]
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    match OFFSET_SECONDS.load(Ordering::Relaxed) {
        0 => now,
        offset => now.checked_add(jiff::SignedDuration::from_secs(offset)).unwrap_or(now),
    }
}

/// Moves the clock that [`now`] shows by `seconds`; for tests only.
pub fn advance(seconds: i64) {
    OFFSET_SECONDS.fetch_add(seconds, Ordering::Relaxed);
}

/// `2026-11-22T10:00:00Z`: the form of Nova, Glance and Neutron.
#[must_use]
pub fn seconds_z(t: Timestamp) -> String {
    t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `2026-11-22T10:00:00.000000Z`: the form of Keystone.
#[must_use]
pub fn micros_z(t: Timestamp) -> String {
    t.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// `2026-11-22T10:00:00.000000`: the form of Nova's older fields.
#[must_use]
pub fn micros_bare(t: Timestamp) -> String {
    t.strftime("%Y-%m-%dT%H:%M:%S.%6f").to_string()
}
