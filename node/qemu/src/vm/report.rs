//! Live figures of a guest in the form of Nova's server diagnostics (microversion 2.48).

use super::Vm;
use crate::process::start_time;
use maru_agent_api::observed::PowerState;
use maru_base::Result;
use serde_json::{Value, json};

/// Clock ticks a second: fixed at 100 for user space on every Linux that runs here.
const TICKS: u64 = 100;

impl Vm {
    pub(super) async fn diagnostics(&mut self) -> Result<Value> {
        let Some(record) = &self.record else {
            return Ok(Value::Null);
        };
        let config = record.live.as_ref().map_or(&record.config, |live| &live.config);
        let state = match self.power {
            PowerState::Running => "running",
            PowerState::Paused => "paused",
            PowerState::Crashed => "crashed",
            PowerState::Suspended => "suspended",
            PowerState::Shutdown => "shutdown",
            PowerState::Nostate => "pending",
        };
        let mut cpus = Vec::new();
        let mut disks = Vec::new();
        let (mut uptime, mut used) = (0, 0);
        if let (Ok(qmp), Some(process)) = (self.qmp(), &self.process) {
            let threads = qmp.call("query-cpus-fast", json!({})).await?;
            for cpu in threads.as_array().into_iter().flatten() {
                let time = cpu["thread-id"].as_u64().and_then(|t| cpu_time(process.pid, t));
                cpus.push(json!({ "id": cpu["cpu-index"], "time": time, "utilisation": null }));
            }
            let stats = qmp.call("query-blockstats", json!({})).await?;
            for disk in stats.as_array().into_iter().flatten() {
                let s = &disk["stats"];
                let failed = [
                    "failed_rd_operations",
                    "failed_wr_operations",
                    "failed_flush_operations",
                ];
                let errors: u64 = failed.iter().filter_map(|f| s[*f].as_u64()).sum();
                disks.push(json!({
                    "read_bytes": s["rd_bytes"], "read_requests": s["rd_operations"],
                    "write_bytes": s["wr_bytes"], "write_requests": s["wr_operations"], "errors_count": errors,
                }));
            }
            uptime = since_boot().saturating_sub(start_time(process.pid).unwrap_or(0) / TICKS);
            used = resident_mib(process.pid).unwrap_or(0);
        }
        let kind = self
            .host
            .accelerator
            .get()
            .map_or("qemu", |a| if a.kind.name() == "kvm" { "kvm" } else { "qemu" });
        let nics: Vec<Value> = config.nics.iter().map(|n| json!({ "mac_address": n.mac })).collect();
        Ok(json!({
            "state": state, "driver": "qemu", "hypervisor": kind, "hypervisor_os": "linux", "uptime": uptime,
            "config_drive": config.disks.iter().any(|d| d.name == "config"),
            "num_cpus": config.vcpus, "num_nics": config.nics.len(), "num_disks": config.disks.len(),
            "cpu_details": cpus, "nic_details": nics, "disk_details": disks,
            "memory_details": { "maximum": config.memory_mib, "used": used.min(config.memory_mib) },
        }))
    }
}

/// CPU time of a thread in nanoseconds.
fn cpu_time(pid: u32, thread: u64) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/task/{thread}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) * (1_000_000_000 / TICKS))
}

/// Seconds since the machine's boot.
fn since_boot() -> u64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split('.').next().and_then(|s| s.parse().ok()).unwrap_or(0)
}

fn resident_mib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|l| l.starts_with("VmRSS:"))?;
    line.split_whitespace()
        .nth(1)?
        .parse::<u64>()
        .ok()
        .map(|kib| kib / 1024)
}
