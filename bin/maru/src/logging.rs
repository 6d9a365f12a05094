//! Structured logs on standard error: text for people, JSON for machines. Their levels can be changed while the process runs.

use anyhow::{Context, Result};
use maru_base::{Error, levels::Levels};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::Write,
    sync::{Mutex, PoisonError},
};
use tracing::{Level, level_filters::LevelFilter};
use tracing_subscriber::{EnvFilter, filter::Targets};

/// Most targets that are given a level while the process runs.
const MOST: usize = 64;

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

/// Takes a new filter.
type Put = Box<dyn Fn(EnvFilter) -> std::result::Result<(), tracing_subscriber::reload::Error> + Send + Sync>;

/// The filter that the process was started with, and the levels that it was given since.
struct Changed {
    start: String,
    since: Mutex<BTreeMap<String, LevelFilter>>,
    put: Put,
}

impl Changed {
    fn new(start: &str, put: Put) -> Self {
        Self {
            start: start.to_owned(),
            since: Mutex::default(),
            put,
        }
    }
    /// The filter in words; of two directives for one target the later one counts.
    fn text(&self, since: &BTreeMap<String, LevelFilter>) -> String {
        since.iter().fold(self.start.clone(), |mut text, (target, level)| {
            let _ = write!(text, ",{target}={level}");
            text
        })
    }
}

impl Levels for Changed {
    fn level(&self, target: &str) -> LevelFilter {
        let text = self.text(&self.since.lock().unwrap_or_else(PoisonError::into_inner));
        // A filter of spans has no one level for a target.
        let Ok(targets) = text.parse::<Targets>() else {
            return LevelFilter::current();
        };
        [Level::TRACE, Level::DEBUG, Level::INFO, Level::WARN, Level::ERROR]
            .into_iter()
            .find(|level| targets.would_enable(target, level))
            .map_or(LevelFilter::OFF, LevelFilter::from_level)
    }
    fn set(&self, target: &str, level: LevelFilter) -> maru_base::Result<()> {
        let name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        // Not what others wrote: nobody here knows what that shows at which level.
        if !target.starts_with("maru") || target.len() > 128 || !target.chars().all(name) {
            return Err(Error::bad_request(format!(
                "'{target}' is not the name of a part of the log whose level can be changed: a crate of Maru or a module of one, \
                 like maru_volume or maru_volume::control."
            )));
        }
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = since.clone();
        next.insert(target.to_owned(), level);
        if next.len() > MOST {
            return Err(Error::bad_request(format!(
                "{MOST} parts of the log have a level of their own; give one of them another level, or a part that holds several."
            )));
        }
        let refused = |e: String| Error::bad_request(format!("The log did not take the level: {e}"));
        let filter = EnvFilter::try_new(self.text(&next)).map_err(|e| refused(e.to_string()))?;
        (self.put)(filter).map_err(|e| refused(e.to_string()))?;
        *since = next;
        Ok(())
    }
}

/// Starts logging, and offers its levels.
///
/// # Errors
/// When the filter does not parse.
pub fn start(filter: &str, format: &str) -> Result<()> {
    let parsed = EnvFilter::try_new(filter)
        .with_context(|| format!("--log '{filter}' is not a filter; try info, debug or info,maru_agent=debug"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(parsed).with_writer(|| Anyway);
    let (started, put): (_, Put) = if format == "json" {
        let builder = builder.json().with_filter_reloading();
        let handle = builder.reload_handle();
        (builder.try_init(), Box::new(move |f| handle.reload(f)))
    } else {
        let builder = builder.with_ansi(false).with_filter_reloading();
        let handle = builder.reload_handle();
        (builder.try_init(), Box::new(move |f| handle.reload(f)))
    };
    started.map_err(|e| anyhow::anyhow!("logging is already on: {e}"))?;
    maru_base::levels::offer(Box::new(Changed::new(filter, put)));
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(line);
            Ok(line.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_level_that_is_changed_counts_at_once_and_for_its_part_alone() {
        let kept = Kept::default();
        let writer = kept.clone();
        let builder = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new("info,maru_agent=warn"))
            .with_writer(move || writer.clone())
            .with_filter_reloading();
        let handle = builder.reload_handle();
        let levels = Changed::new("info,maru_agent=warn", Box::new(move |f| handle.reload(f)));
        tracing::subscriber::with_default(builder.finish(), || {
            let say = |word: &str| {
                tracing::debug!(target: "maru_volume::control", "volume {word}");
                tracing::debug!(target: "maru_compute", "compute {word}");
            };
            say("before");
            levels.set("maru_volume", LevelFilter::DEBUG).unwrap();
            say("during");
            levels.set("maru_volume", LevelFilter::ERROR).unwrap();
            say("after");
        });
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("volume during"), "{text}");
        assert_eq!(levels.level("maru_volume::control"), LevelFilter::ERROR);
        assert_eq!(levels.level("maru_compute"), LevelFilter::INFO);
        assert_eq!(levels.level("maru_agent::work"), LevelFilter::WARN);
    }

    #[test]
    fn what_is_no_name_changes_nothing() {
        let levels = Changed::new("info", Box::new(|_| Ok(())));
        for bad in [
            "",
            "h2",
            "maru,b",
            "maru=trace",
            "maru[x]",
            "maru_é",
            &format!("maru{}", "x".repeat(129)),
        ] {
            assert!(levels.set(bad, LevelFilter::TRACE).is_err(), "{bad}");
        }
        for n in 0..MOST {
            levels.set(&format!("maru_part{n}"), LevelFilter::WARN).unwrap();
        }
        assert!(levels.set("maru_one_more", LevelFilter::TRACE).is_err());
        assert!(levels.set("maru_part0", LevelFilter::ERROR).is_ok());
        assert_eq!(levels.level("maru_one_more"), LevelFilter::INFO);
    }
}
