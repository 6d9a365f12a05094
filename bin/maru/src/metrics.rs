//! `/metrics` for Prometheus: counts and durations of this process, nothing of a tenant (docs/adr/0003).
//!
//! Everything is counted where it happens, in atomics; only a scrape puts it into text.

use maru_auth::{Caller, NoAudit, Policy, RuleDefault, TokenVerifier};
use maru_base::{Error, Result};
use maru_control::ControllerStats;
use maru_http::{ErrorStyle, Gateway, Metrics, Reply, Request, Routes, Service};
use maru_nodes::{Hub, liveness::DOWN_AFTER};
use maru_store::Store;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};
use std::{
    fmt, fs,
    sync::{Arc, OnceLock},
};

/// Who may read the metrics over the API: administrators, and readers of the whole system.
pub const POLICY: &[RuleDefault] = &[RuleDefault {
    name: READ,
    check: "role:admin or (role:reader and system_scope:all)",
}];
const READ: &str = "maru:metrics:read";
/// What is answered; the text ends in `# EOF` as OpenMetrics wants.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Where the figures come from.
pub struct Exporter {
    store: Store,
    hub: Arc<Hub>,
    http: OnceLock<Arc<Metrics>>,
    controllers: OnceLock<Vec<Arc<ControllerStats>>>,
}

impl Exporter {
    /// An exporter of a store's and its nodes' figures.
    #[must_use]
    pub fn new(store: Store, hub: Arc<Hub>) -> Arc<Self> {
        Arc::new(Self {
            store,
            hub,
            http: OnceLock::new(),
            controllers: OnceLock::new(),
        })
    }
    /// Adds the listener's figures, once.
    pub fn add_http(&self, metrics: &Arc<Metrics>) {
        self.http.set(Arc::clone(metrics)).ok();
    }
    /// Adds the controllers' figures, once.
    pub fn add_controllers(&self, stats: Vec<Arc<ControllerStats>>) {
        self.controllers.set(stats).ok();
    }

    /// All figures as OpenMetrics text.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn text(self: &Arc<Self>) -> Result<String> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process));
        let maru = registry.sub_registry_with_prefix("maru");
        if let Some(http) = self.http.get() {
            maru.register_collector(Box::new(Arc::clone(http)));
        }
        maru.register_collector(Box::new(Arc::clone(self)));
        let mut text = String::with_capacity(64 << 10);
        text::encode(&mut text, &registry).map_err(|e| Error::internal("The metrics cannot be written.", e))?;
        Ok(text)
    }

    /// The service of the API listener: readers with a token only.
    #[must_use]
    pub fn service(self: &Arc<Self>) -> Service {
        service(Routes::new(Arc::clone(self)).get("/", READ, show))
    }

    /// A gateway for a listener of its own that asks for no token (`--metrics`).
    ///
    /// # Errors
    /// Never in practice: one route cannot collide.
    pub fn gateway(self: &Arc<Self>) -> Result<Gateway, String> {
        let routes = Routes::new(Arc::clone(self)).public(http::Method::GET, "/", show);
        Gateway::new(
            vec![service(routes)],
            Arc::new(NoTokens),
            Arc::new(Policy::default()),
            Arc::new(NoAudit),
        )
    }
}

fn service(routes: Routes<Exporter>) -> Service {
    Service {
        name: "metrics",
        prefixes: &["/metrics"],
        errors: ErrorStyle::Identity,
        strict_slash: false,
        microversions: None,
        routes: routes.build(),
    }
}

async fn show(exporter: Arc<Exporter>, _: Request) -> Result<Reply> {
    Ok(Reply::bytes(200, CONTENT_TYPE, exporter.text()?))
}

/// There is nothing a token would open.
struct NoTokens;

#[async_trait::async_trait]
impl TokenVerifier for NoTokens {
    async fn verify(&self, _: &str) -> Result<Arc<Caller>> {
        Err(Error::unauthorized("This listener takes no tokens."))
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exporter")
    }
}

impl Collector for Exporter {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let stats = self.store.stats();
        let mut counters = vec![
            (
                "store_conflicts",
                "Transactions whose guards or limits did not hold",
                stats.conflicts(),
            ),
            (
                "store_failures",
                "Transactions that failed for another reason",
                stats.failures(),
            ),
            (
                "panics",
                "Panics that were caught, in handlers, controllers and streams",
                maru_base::panics::caught(),
            ),
        ];
        for (name, help, value) in counters.drain(..) {
            counter(&mut encoder, name, help, value)?;
        }
        encoder
            .encode_descriptor(
                "store_commit_duration_seconds",
                "Time of a transaction that committed, until this process shows it",
                None,
                MetricType::Histogram,
            )?
            .encode_histogram::<NoLabelSet>(
                stats.commits().seconds(),
                stats.commits().count(),
                &stats.commits().buckets(),
                None,
            )?;
        let snapshot = self.store.snapshot();
        gauge(
            &mut encoder,
            "store_revision",
            "Revision of the store",
            snapshot.revision(),
        )?;
        let mut objects =
            encoder.encode_descriptor("objects", "Objects in the store, by kind", None, MetricType::Gauge)?;
        for (kind, count) in snapshot.counts() {
            objects
                .encode_family(&[("kind", kind)])?
                .encode_gauge(&u64::try_from(count).unwrap_or(u64::MAX))?;
        }
        let silence = self.hub.silence();
        let alive = silence.iter().filter(|(_, s)| *s < DOWN_AFTER).count();
        let mut nodes =
            encoder.encode_descriptor("nodes", "Nodes that have connected, by state", None, MetricType::Gauge)?;
        for (state, count) in [("alive", alive), ("silent", silence.len() - alive)] {
            nodes
                .encode_family(&[("state", state)])?
                .encode_gauge(&u64::try_from(count).unwrap_or(u64::MAX))?;
        }
        let controllers = self.controllers.get().map(Vec::as_slice).unwrap_or_default();
        type Figure = fn(&ControllerStats) -> u64;
        let figures: [(&str, &str, MetricType, Figure); 4] = [
            (
                "controller_queue_depth",
                "Keys that wait or run",
                MetricType::Gauge,
                |c| u64::try_from(c.depth()).unwrap_or(u64::MAX),
            ),
            (
                "controller_runs",
                "Runs of a key that ended",
                MetricType::Counter,
                ControllerStats::runs,
            ),
            (
                "controller_retries",
                "Runs that failed and are tried again",
                MetricType::Counter,
                ControllerStats::failures,
            ),
            (
                "controller_panics",
                "Runs that panicked: each is a bug, and its log line has the stack",
                MetricType::Counter,
                ControllerStats::panics,
            ),
        ];
        for (name, help, kind, figure) in figures {
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for controller in controllers {
                let labels = [("controller", controller.name())];
                let mut one = family.encode_family(&labels)?;
                match kind {
                    MetricType::Gauge => one.encode_gauge(&figure(controller))?,
                    _ => one.encode_counter::<NoLabelSet, u64, u64>(&figure(controller), None)?,
                }
            }
        }
        Ok(())
    }
}

/// This process, as the kernel sees it; named as every Prometheus client names it.
#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        // Second field of statm: resident pages.
        let pages: Option<u64> = fs::read_to_string("/proc/self/statm")
            .ok()
            .and_then(|s| s.split_whitespace().nth(1)?.parse().ok());
        if let Some(pages) = pages {
            let bytes = pages * u64::try_from(rustix::param::page_size()).unwrap_or(4_096);
            gauge(&mut encoder, "process_resident_memory_bytes", "Resident memory", bytes)?;
        }
        if let Ok(entries) = fs::read_dir("/proc/self/fd") {
            // The listing itself holds one open.
            let open = u64::try_from(entries.count().saturating_sub(1)).unwrap_or(u64::MAX);
            gauge(&mut encoder, "process_open_fds", "Open file descriptors", open)?;
        }
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        if let Some(limit) = limit {
            gauge(
                &mut encoder,
                "process_max_fds",
                "Most file descriptors that may be open",
                limit,
            )?;
        }
        Ok(())
    }
}

fn counter(encoder: &mut DescriptorEncoder, name: &str, help: &str, value: u64) -> fmt::Result {
    encoder
        .encode_descriptor(name, help, None, MetricType::Counter)?
        .encode_counter::<NoLabelSet, u64, u64>(&value, None)
}

fn gauge(encoder: &mut DescriptorEncoder, name: &str, help: &str, value: u64) -> fmt::Result {
    encoder
        .encode_descriptor(name, help, None, MetricType::Gauge)?
        .encode_gauge(&value)
}
