//! How long the hash of a password takes at our cost, on one core: what `POST /v3/auth/tokens` cannot do without.
//! `cargo run --release -p maru-identity --example hash`.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::time::Instant;

/// The cost that `maru up` stores passwords at.
const COST: u32 = 12;

fn main() {
    let mut times: Vec<f64> = (0..7)
        .map(|_| {
            let begun = Instant::now();
            std::hint::black_box(bcrypt::hash_with_salt("a password", COST, [7; 16]).unwrap());
            begun.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!(
        r#"{{"name": "bcrypt at cost {COST}", "value": {:.3}, "unit": "ms"}}"#,
        times[times.len() / 2]
    );
}
