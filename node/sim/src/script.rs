//! What happens on a simulated node: how long each step takes, and what goes wrong.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// A step of the node's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// A port's link and firewall.
    Port,
    /// Making a server's disks and starting it.
    Spawn,
    /// A change of power: start, stop, pause, resume, suspend.
    Power,
    /// A reboot.
    Reboot,
    /// A rebuild.
    Rebuild,
    /// A change of size.
    Resize,
    /// Removing a server.
    Remove,
    /// Plugging a disk into a server that is there; asked for the disk's name.
    Plug,
    /// Making a volume's bytes, anew or larger.
    Volume,
    /// Copying a volume into a snapshot.
    Snapshot,
}

/// Something that goes wrong once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What is reported.
    pub message: String,
    /// Whether it is final; else the step is tried again after a second.
    pub last: bool,
}

/// Delays and faults.
#[derive(Debug, Clone, Default)]
pub struct Script {
    delays: BTreeMap<Step, Duration>,
    /// Faults to come, by step and by id (`None`: whatever comes first).
    faults: BTreeMap<(Step, Option<String>), VecDeque<Fault>>,
    /// The node says nothing more (no heartbeats), as if the machine were dead; its stream stays open.
    pub silent: bool,
}

impl Script {
    /// The step takes this long from now on; at first all take no time.
    pub fn delay(&mut self, step: Step, time: Duration) -> &mut Self {
        self.delays.insert(step, time);
        self
    }

    /// The next time that this step is done for `id` (`None`: for anything) it fails so. Several faults come one after another.
    pub fn fail(&mut self, step: Step, id: Option<&str>, message: &str, last: bool) -> &mut Self {
        let fault = Fault {
            message: message.to_owned(),
            last,
        };
        self.faults
            .entry((step, id.map(str::to_owned)))
            .or_default()
            .push_back(fault);
        self
    }

    /// How long the step takes for `id` now, and what goes wrong.
    pub(crate) fn next(&mut self, step: Step, id: &str) -> (Duration, Option<Fault>) {
        let delay = self.delays.get(&step).copied().unwrap_or_default();
        let keys = [(step, Some(id.to_owned())), (step, None)];
        (delay, keys.iter().find_map(|key| self.faults.get_mut(key)?.pop_front()))
    }
}
