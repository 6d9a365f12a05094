//! The randomness seam. Everything that needs unpredictable bytes asks here.

use rand::{Rng, RngCore, seq::SliceRandom};

/// A random UUID (version 4) in its dashed lower-case form.
#[must_use]
pub fn uuid() -> String {
    let mut raw = [0_u8; 16];
    fill(&mut raw);
    uuid::Builder::from_random_bytes(raw).into_uuid().to_string()
}

/// Thirty-two random hexadecimal digits.
#[must_use]
pub fn hex32() -> String {
    let mut raw = [0_u8; 16];
    fill(&mut raw);
    uuid::Builder::from_random_bytes(raw).into_uuid().simple().to_string()
}

/// Fills `out` from the operating system-seeded generator.
pub fn fill(out: &mut [u8]) {
    rand::rng().fill_bytes(out);
}

/// A random number in `0..bound`; `bound` of 0 gives 0.
#[must_use]
pub fn below(bound: u64) -> u64 {
    if bound == 0 {
        0
    } else {
        rand::rng().random_range(0..bound)
    }
}

/// A random `u128`.
#[must_use]
pub fn u128() -> u128 {
    rand::rng().random()
}

/// Puts `items` in random order.
pub fn shuffle<T>(items: &mut [T]) {
    items.shuffle(&mut rand::rng());
}
