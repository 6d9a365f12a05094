//! Structured logs on standard error: text for people, JSON for machines.

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;

/// Starts logging.
///
/// # Errors
/// When the filter does not parse.
pub fn start(filter: &str, format: &str) -> Result<()> {
    let filter = EnvFilter::try_new(filter)
        .with_context(|| format!("--log '{filter}' is not a filter; try info, debug or info,maru_agent=debug"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = if format == "json" {
        builder.json().try_init()
    } else {
        builder.with_ansi(false).try_init()
    };
    started.map_err(|e| anyhow::anyhow!("logging is already on: {e}"))
}
