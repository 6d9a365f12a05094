//! Durations counted into fixed buckets: what a metric of latencies is made of, without a lock or an allocation.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Upper bounds of the buckets in microseconds; the last bucket, without a bound, follows.
const BOUNDS: [u64; 13] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000, 30_000_000,
];

/// A histogram of durations.
#[derive(Debug, Default)]
pub struct Durations {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

impl Durations {
    /// Counts one.
    pub fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let at = BOUNDS.iter().position(|b| micros <= *b).unwrap_or(BOUNDS.len());
        self.buckets[at].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }
    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|n| n.load(Ordering::Relaxed)).sum()
    }
    /// All of them together, in seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        seconds(self.micros.load(Ordering::Relaxed))
    }
    /// The buckets: upper bound in seconds (the last: `f64::MAX`) and how many are in it, not in those before it.
    #[must_use]
    pub fn buckets(&self) -> Vec<(f64, u64)> {
        BOUNDS
            .iter()
            .map(|b| seconds(*b))
            .chain([f64::MAX])
            .zip(self.buckets.iter().map(|n| n.load(Ordering::Relaxed)))
            .collect()
    }
}

#[allow(clippy::cast_precision_loss)] // 2^53 microseconds are 285 years
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_is_in_the_bucket_whose_bound_it_does_not_pass() {
        let d = Durations::default();
        for micros in [0, 250, 251, 1_000_000, 60_000_000] {
            d.observe(Duration::from_micros(micros));
        }
        let full: Vec<(f64, u64)> = d.buckets().into_iter().filter(|(_, n)| *n > 0).collect();
        assert_eq!(full, [(0.000_25, 2), (0.000_5, 1), (1.0, 1), (f64::MAX, 1)]);
        assert_eq!(d.count(), 5);
        assert!((d.seconds() - 61.000_501).abs() < 1e-9);
    }
}
