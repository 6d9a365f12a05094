//! The levels of this process's log, and the way to change them while it runs. Whoever writes the log offers it, once; an API for
//! operators takes it from here. Without one (in tests) there is nothing to change.

use crate::Result;
use std::sync::OnceLock;
use tracing::level_filters::LevelFilter;

/// The levels of a log.
pub trait Levels: Send + Sync {
    /// The level of what a target (a crate, or a module of one: `maru_volume::control`) logs.
    fn level(&self, target: &str) -> LevelFilter;
    /// Gives a target, and all targets whose names begin so, another level until the process ends.
    ///
    /// # Errors
    /// When the target is no name, or too many have a level of their own.
    fn set(&self, target: &str, level: LevelFilter) -> Result<()>;
}

static OFFERED: OnceLock<Box<dyn Levels>> = OnceLock::new();

/// Offers the levels of this process's log; a second offer is not taken.
pub fn offer(levels: Box<dyn Levels>) {
    drop(OFFERED.set(levels));
}

/// The levels that were offered.
#[must_use]
pub fn offered() -> Option<&'static dyn Levels> {
    OFFERED.get().map(AsRef::as_ref)
}
