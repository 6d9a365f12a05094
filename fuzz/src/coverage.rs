//! Which branches of the crates under test have run: LLVM's 8-bit counters, where the build has them (`fuzz/rustc`).
//!
//! Each instrumented module calls [`__sanitizer_cov_8bit_counters_init`] before `main` with the bounds of its counters,
//! which its code then increments. We read and clear them between runs, on the thread that runs the target.

use std::sync::{Mutex, PoisonError};

/// The counters' regions: first address and length.
static REGIONS: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

/// Called by instrumented modules before `main`.
///
/// The name and the signature are LLVM's (SanitizerCoverage).
// SAFETY: no other crate of ours defines this name; without instrumentation nobody calls it.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
pub extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, stop: *mut u8) {
    let (start, stop) = (start as usize, stop as usize);
    if start < stop {
        let mut regions = REGIONS.lock().unwrap_or_else(PoisonError::into_inner);
        if !regions.contains(&(start, stop - start)) {
            regions.push((start, stop - start));
        }
    }
}

/// What has been seen so far.
pub struct Coverage {
    regions: Vec<(usize, usize)>,
    /// For each counter the classes of counts seen, one bit each.
    seen: Vec<u8>,
}

impl Coverage {
    pub fn new() -> Self {
        let regions = REGIONS.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let total = regions.iter().map(|(_, n)| n).sum();
        Self {
            regions,
            seen: vec![0; total],
        }
    }

    /// Whether the build has counters.
    pub fn is_on(&self) -> bool {
        !self.regions.is_empty()
    }

    /// Counters that were ever hit, and all.
    pub fn reached(&self) -> (usize, usize) {
        (self.seen.iter().filter(|s| **s != 0).count(), self.seen.len())
    }

    /// Clears the counters.
    pub fn clear(&self) {
        for &(start, length) in &self.regions {
            // SAFETY: LLVM gave these bounds of a static array of bytes that lives as long as the program; only code on
            // this thread changes it while no target runs.
            #[allow(unsafe_code)]
            unsafe {
                std::ptr::write_bytes(start as *mut u8, 0, length);
            }
        }
    }

    /// Whether the run since [`Coverage::clear`] did something that no run did before; remembers it.
    pub fn is_new(&mut self) -> bool {
        let mut new = false;
        let mut at = 0;
        for &(start, length) in &self.regions {
            // SAFETY: as in `clear`.
            #[allow(unsafe_code)]
            let counters = unsafe { std::slice::from_raw_parts(start as *const u8, length) };
            // Most are zero: eight at a time.
            for (i, word) in counters.chunks(8).enumerate() {
                if word == [0; 8] {
                    continue;
                }
                for (j, count) in word.iter().enumerate() {
                    let (class, seen) = (class(*count), &mut self.seen[at + 8 * i + j]);
                    if class & !*seen != 0 {
                        *seen |= class;
                        new = true;
                    }
                }
            }
            at += length;
        }
        new
    }
}

/// Counts are told apart by their order of magnitude.
fn class(count: u8) -> u8 {
    match count {
        0 => 0,
        1 => 1,
        2 => 2,
        3 => 4,
        4..=7 => 8,
        8..=15 => 16,
        16..=31 => 32,
        32..=127 => 64,
        _ => 128,
    }
}
