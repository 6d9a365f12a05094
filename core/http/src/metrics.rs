//! Counters of requests, kept without an allocation or a lock on a request's way: one fixed cell per route.
//!
//! Labels are the route's *template* (`/v2.1/servers/{id}`) and its service, never what a tenant sent: neither ids nor
//! names reach the metrics, and their number is bounded by the routes that exist.

use crate::Service;
use http::StatusCode;
use maru_base::Durations;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};
use std::{
    fmt,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

/// Statuses that are counted by themselves; the last cell takes the others.
const STATUSES: [u16; 29] = [
    200, 201, 202, 203, 204, 206, 300, 301, 302, 304, 400, 401, 403, 404, 405, 406, 408, 409, 410, 412, 413, 414, 415,
    416, 429, 500, 501, 502, 503,
];
/// One route's cells.
struct Cell {
    service: &'static str,
    method: String,
    route: String,
    by_status: [AtomicU64; STATUSES.len() + 1],
    durations: Durations,
}

impl Cell {
    fn new(service: &'static str, method: &str, route: &str) -> Self {
        Self {
            service,
            method: method.to_owned(),
            route: route.to_owned(),
            by_status: std::array::from_fn(|_| AtomicU64::new(0)),
            durations: Durations::default(),
        }
    }
}

/// Counters of the listener.
pub struct Metrics {
    /// Routes in the order of their services, then one cell for what no route took.
    cells: Vec<Cell>,
    /// Where a service's first route is among the cells.
    first: Vec<usize>,
    running: AtomicUsize,
    connections: AtomicUsize,
    panics: AtomicU64,
}

impl Metrics {
    pub(crate) fn new(services: &[Service]) -> Self {
        let mut cells = Vec::new();
        let mut first = Vec::new();
        for service in services {
            first.push(cells.len());
            for route in &service.routes {
                cells.push(Cell::new(service.name, route.method.as_str(), &route.path));
            }
        }
        cells.push(Cell::new("none", "any", "none"));
        Self {
            cells,
            first,
            running: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            panics: AtomicU64::new(0),
        }
    }

    /// Counts one answer; `route` is the service's and the route's number, if one took the request.
    pub(crate) fn answered(&self, route: Option<(usize, usize)>, status: StatusCode, took: Duration) {
        let at = route.map_or(self.cells.len() - 1, |(s, r)| self.first[s] + r);
        let cell = &self.cells[at];
        let status = STATUSES
            .iter()
            .position(|s| *s == status.as_u16())
            .unwrap_or(STATUSES.len());
        cell.by_status[status].fetch_add(1, Ordering::Relaxed);
        cell.durations.observe(took);
    }

    pub(crate) fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection until the guard is dropped.
    pub(crate) fn connection(self: &std::sync::Arc<Self>) -> impl Drop + Send + use<> {
        Counted::new(self, |m| &m.connections)
    }

    /// Counts a request until the guard is dropped.
    pub(crate) fn request(self: &std::sync::Arc<Self>) -> impl Drop + Send + use<> {
        Counted::new(self, |m| &m.running)
    }

    /// Requests answered so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.cells.iter().map(|c| c.durations.count()).sum()
    }

    /// Requests answered with this status so far.
    #[must_use]
    pub fn with_status(&self, status: u16) -> u64 {
        let at = STATUSES.iter().position(|s| *s == status).unwrap_or(STATUSES.len());
        self.cells.iter().map(|c| c.by_status[at].load(Ordering::Relaxed)).sum()
    }

    /// Connections that are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Requests whose handler runs.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// Handlers that panicked.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }
}

struct Counted {
    metrics: std::sync::Arc<Metrics>,
    which: fn(&Metrics) -> &AtomicUsize,
}

impl Counted {
    fn new(metrics: &std::sync::Arc<Metrics>, which: fn(&Metrics) -> &AtomicUsize) -> Self {
        which(metrics).fetch_add(1, Ordering::Relaxed);
        Self {
            metrics: std::sync::Arc::clone(metrics),
            which,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.which)(&self.metrics).fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metrics of {} routes", self.cells.len())
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let mut requests =
            encoder.encode_descriptor("http_requests", "Requests answered", None, MetricType::Counter)?;
        for cell in &self.cells {
            for (i, n) in cell.by_status.iter().enumerate() {
                let n = n.load(Ordering::Relaxed);
                if n > 0 {
                    let status = STATUSES.get(i).map_or_else(|| "other".to_owned(), u16::to_string);
                    let labels = [
                        ("service", cell.service),
                        ("method", cell.method.as_str()),
                        ("route", cell.route.as_str()),
                        ("status", status.as_str()),
                    ];
                    requests
                        .encode_family(&labels)?
                        .encode_counter::<NoLabelSet, u64, u64>(&n, None)?;
                }
            }
        }
        let mut durations = encoder.encode_descriptor(
            "http_request_duration_seconds",
            "Time from a request's head to the beginning of its answer",
            None,
            MetricType::Histogram,
        )?;
        for cell in &self.cells {
            if cell.durations.count() > 0 {
                let labels = [
                    ("service", cell.service),
                    ("method", cell.method.as_str()),
                    ("route", cell.route.as_str()),
                ];
                durations.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                    cell.durations.seconds(),
                    cell.durations.count(),
                    &cell.durations.buckets(),
                    None,
                )?;
            }
        }
        for (name, help, value) in [
            ("http_requests_running", "Requests whose handler runs", self.running()),
            ("http_connections", "Connections that are open", self.connections()),
        ] {
            encoder
                .encode_descriptor(name, help, None, MetricType::Gauge)?
                .encode_gauge(&u64::try_from(value).unwrap_or(u64::MAX))?;
        }
        encoder
            .encode_descriptor(
                "http_handler_panics",
                "Handlers that panicked: each is a bug, and its log line has the stack",
                None,
                MetricType::Counter,
            )?
            .encode_counter::<NoLabelSet, u64, u64>(&self.panics(), None)
    }
}
