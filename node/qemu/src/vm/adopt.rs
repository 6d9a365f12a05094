//! Takes over what an earlier process of the agent left; the table is in the module's header.

use super::power::Door;
use super::{Host, Vm};
use crate::process::Process;
use crate::qmp::Qmp;
use crate::record::{Last, boot_id};
use maru_agent_api::observed::PowerState;
use maru_base::{Error, Result};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How often the monitor is tried before a guest is adopted without it.
const TRIES: u32 = 3;
/// Time between two tries.
const PAUSE: Duration = Duration::from_millis(500);
/// Time between two looks at a saving of memory that is being given up.
const LOOK: Duration = Duration::from_millis(20);
/// How long a monitor that another client just left may take to greet.
const PATIENCE: Duration = Duration::from_secs(5);

impl Vm {
    /// Takes over a guest: `pid` is the process that the kernel shows for it, if any.
    pub async fn adopt(host: Arc<Host>, id: &str, pid: Option<u32>) -> (Self, super::Handle) {
        let (mut vm, handle) = Self::new(host, id, None);
        vm.record = vm.home.read().unwrap_or_else(|e| {
            tracing::error!(server = %id, error = %e.chain(), "a guest's record is lost");
            None
        });
        let directory = std::fs::canonicalize(&vm.home.0).unwrap_or_else(|_| vm.home.0.clone());
        if let Some(pid) = pid {
            match Process::adopt(id, &directory, pid) {
                Ok(process) => vm.process = process,
                Err(e) => tracing::error!(server = %id, error = %e.chain(), "a guest's process cannot be watched"),
            }
        }
        if vm.process.is_some() {
            vm.take_over().await;
        } else {
            vm.without_process();
        }
        vm.publish("adopted");
        (vm, handle)
    }

    fn without_process(&mut self) {
        let Some(record) = &self.record else { return };
        let restarted = record.boot != boot_id();
        let saved = self.home.memory().exists();
        let (last, problem) = match record.last {
            _ if saved => (Last::Suspended, None),
            Last::Running if restarted => (Last::Off, Some("the machine was restarted".to_owned())),
            Last::Running => {
                let words = crate::console::last_words(&self.home.0).unwrap_or_else(|| "it said nothing".to_owned());
                (
                    Last::Crashed,
                    Some(format!("the hypervisor process ended while no agent ran: {words}")),
                )
            }
            Last::Starting | Last::Suspended => (Last::Off, None),
            other => (other, record.problem.clone()),
        };
        self.gone(last, problem);
    }

    async fn take_over(&mut self) {
        self.power = PowerState::Running;
        let started = self.record.as_ref().is_none_or(|r| r.last != Last::Starting);
        if self.record.is_none() {
            // Only destroy helps; until then it runs on.
            return;
        }
        if !started {
            return self.discard_process().await;
        }
        for _ in 0..TRIES {
            let Err(e) = self.connect_again().await else { return };
            // It may have been told to end just before its owner died: then the record says how that was meant.
            let ended = match &mut self.process {
                Some(process) => process.ended_within(PAUSE).await,
                None => true,
            };
            if ended {
                self.process = None;
                return self.without_process();
            }
            // The process lives and does not answer (stopped, or its monitor is held): it stays ours, every tick tries.
            tracing::warn!(server = %self.id, error = %e.chain(), "a guest's monitor does not answer");
        }
    }

    /// Ends a process that never ran the guest, or whose guest is saved.
    async fn discard_process(&mut self) {
        if let Some(process) = &mut self.process
            && let Err(e) = process.kill().await
        {
            tracing::error!(server = %self.id, error = %e.chain(), "a half-started process does not end");
            return;
        }
        let saved = self.home.memory().exists();
        self.gone(if saved { Last::Suspended } else { Last::Off }, None);
    }

    /// Connects to the monitor of a running process and brings the state up to date with it.
    pub(super) async fn connect_again(&mut self) -> Result<()> {
        let socket = Door::open(&self.home.0)?
            .connect("qmp.sock")
            .map_err(|e| Error::unavailable("the monitor's socket is not answered").with_source(e))?;
        let (qmp, events) = Qmp::negotiate(socket, PATIENCE).await?;
        let status = settled(&qmp).await?;
        self.qmp = Some(qmp.clone());
        self.qmp_events = Some(events);
        let saved = self.home.memory().exists();
        match status.as_str() {
            "running" => self.power = PowerState::Running,
            "prelaunch" | "inmigrate" => {
                self.discard_process().await;
                return Ok(());
            }
            "paused" | "postmigrate" if saved => {
                self.discard_process().await;
                return Ok(());
            }
            "shutdown" => self.guest_off = true,
            "paused" if self.home.memory_used().exists() => {
                qmp.call("cont", json!({})).await?;
                let _ = std::fs::remove_file(self.home.memory_used());
                self.power = PowerState::Running;
            }
            "io-error" => {
                self.power = PowerState::Paused;
                self.set_problem(Some("paused: a disk of the server could not be written".to_owned()));
            }
            _ => self.power = PowerState::Paused,
        }
        let _ = std::fs::remove_file(self.home.memory_part());
        self.set_last(Last::Running);
        self.reconcile(&qmp).await?;
        self.publish_quietly();
        Ok(())
    }

    /// Drops devices from the record that QEMU does not have, and copies that nobody waits for.
    async fn reconcile(&mut self, qmp: &Qmp) -> Result<()> {
        let there = qmp.call("qom-list", json!({ "path": "/machine/peripheral" })).await?;
        let there: BTreeSet<&str> = there
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|d| d.get("name")?.as_str())
            .collect();
        if let Some(live) = self.record.as_mut().and_then(|r| r.live.as_mut()) {
            let gone: Vec<String> = live
                .units
                .iter()
                .filter(|(key, unit)| match key.split(' ').next() {
                    Some("disk") => !there.contains(format!("disk{unit}").as_str()),
                    Some("nic") => !there.contains(format!("nic{unit}").as_str()),
                    _ => false,
                })
                .map(|(key, _)| key.clone())
                .collect();
            for key in &gone {
                tracing::info!(server = %self.id, %key, "a device that was never plugged is forgotten");
                live.forget(key);
            }
            if !gone.is_empty() {
                self.save();
            }
        }
        let jobs = qmp.call("query-block-jobs", json!({})).await?;
        for job in jobs.as_array().into_iter().flatten() {
            let name = job.get("device").and_then(Value::as_str).unwrap_or_default();
            if name.starts_with("snap") && !self.jobs.contains_key(name) {
                let _ = qmp
                    .call("block-job-cancel", json!({ "device": name, "force": true }))
                    .await;
            }
        }
        Ok(())
    }
}

/// What the guest does once the saving of its memory that its last owner had begun, if any, is given up. Until that is over QEMU
/// refuses to let it go on.
async fn settled(qmp: &Qmp) -> Result<String> {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let migration = qmp.call("query-migrate", json!({})).await?;
        let status = qmp.call("query-status", json!({})).await?;
        let status = status["status"].as_str().unwrap_or_default().to_owned();
        let idle = matches!(
            migration["status"].as_str().unwrap_or("none"),
            "none" | "completed" | "failed" | "cancelled"
        );
        // One that never ran is not saved but loaded: it is discarded.
        if status == "inmigrate" || (idle && status != "finish-migrate" && status != "save-vm") {
            return Ok(status);
        }
        if tokio::time::Instant::now() > end {
            return Err(Error::unavailable(format!(
                "a saving of the server's memory does not end within {} s",
                PATIENCE.as_secs()
            )));
        }
        // It may be over before this arrives.
        let _ = qmp.call("migrate_cancel", json!({})).await;
        tokio::time::sleep(LOOK).await;
    }
}
