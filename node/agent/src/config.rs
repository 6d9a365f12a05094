//! How the agent is set up, and what the machine has.

use maru_agent_api::NodeName;
use std::path::PathBuf;

/// How the agent is set up.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// The node's name.
    pub node: NodeName,
    /// Where guests, disks and base images are kept (in `guests/`).
    pub data_dir: PathBuf,
    /// Prefix of everything made on the machine.
    pub instance: String,
    /// Device that joins the external network to a LAN.
    pub uplink: Option<String>,
    /// Address that other nodes reach this one at; its volumes are offered there.
    pub address: String,
    /// Processors to offer; those of the machine unless set.
    pub vcpus: Option<u32>,
    /// Memory to offer in MiB; that of the machine unless set.
    pub memory_mib: Option<u64>,
    /// Disk to offer in GiB; that of the data directory unless set.
    pub disk_gib: Option<u64>,
}

impl AgentConfig {
    /// The usual configuration.
    #[must_use]
    pub fn new(node: NodeName, data_dir: PathBuf, instance: String) -> Self {
        Self {
            node,
            data_dir,
            instance,
            uplink: None,
            address: "127.0.0.1".to_owned(),
            vcpus: None,
            memory_mib: None,
            disk_gib: None,
        }
    }
}

/// Processors of the machine.
pub(crate) fn processors() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
}

/// Memory of the machine in MiB: all, and what is available.
pub(crate) fn memory() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        text.lines()
            .find_map(|l| l.strip_prefix(name)?.split_whitespace().next()?.parse::<u64>().ok())
            .map_or(0, |kib| kib >> 10)
    };
    (field("MemTotal:"), field("MemAvailable:"))
}

/// The processor's name.
pub(crate) fn cpu_model() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    text.lines()
        .find_map(|l| {
            l.strip_prefix("model name")?
                .split_once(':')
                .map(|(_, v)| v.trim().to_owned())
        })
        .unwrap_or_default()
}

/// The load averages.
pub(crate) fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(", ")
}
