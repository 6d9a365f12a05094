//! Structured logs on standard error: text for people, JSON for machines.

use anyhow::{Context, Result};
use std::io::Write;
use tracing_subscriber::EnvFilter;

/// Standard error, whether or not anybody reads it: a log that has lost its reader must not end the cloud.
struct Anyway;

impl Write for Anyway {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let _ = std::io::stderr().write_all(line);
        Ok(line.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Starts logging.
///
/// # Errors
/// When the filter does not parse.
pub fn start(filter: &str, format: &str) -> Result<()> {
    let filter = EnvFilter::try_new(filter)
        .with_context(|| format!("--log '{filter}' is not a filter; try info, debug or info,maru_agent=debug"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Anyway);
    let started = if format == "json" {
        builder.json().try_init()
    } else {
        builder.with_ansi(false).try_init()
    };
    started.map_err(|e| anyhow::anyhow!("logging is already on: {e}"))
}
