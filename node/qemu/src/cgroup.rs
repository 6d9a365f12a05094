//! A control group for each guest: version 1 (one hierarchy a controller) and version 2 (one for all).
//!
//! The groups lie beneath a parent of their own (`maru-guests/<id>`), not beneath the agent's: whoever restarts the
//! agent's service, and with it its control group, touches no guest. A controller that the machine does not have is
//! left out: limits are a fence between guests, not a condition of running.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Controllers that are used.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// Threads that QEMU may have: processors, I/O workers, VNC, migration.
const MAX_THREADS: u32 = 1024;
/// Memory of QEMU itself beyond the guest's: translated code, tables, queues.
const OVERHEAD: u64 = 768 << 20;

/// What a guest may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Processors: the weight among guests.
    pub vcpus: u32,
    /// Memory of the guest in bytes; QEMU's own is added.
    pub memory: u64,
}

/// Where groups can be made on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchies {
    /// Version 1: controller and mount point.
    v1: Vec<(String, PathBuf)>,
    /// Version 2: its mount point and those of the controllers that it has.
    v2: Option<(PathBuf, Vec<String>)>,
    parent: String,
}

impl Hierarchies {
    /// Finds them in the mount table.
    #[must_use]
    pub fn find(parent: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        Self::from_mounts(&mounts, parent, |root| {
            fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default()
        })
    }

    fn from_mounts(mounts: &str, parent: &str, controllers: impl Fn(&Path) -> String) -> Self {
        let mut found = Self {
            v1: Vec::new(),
            v2: None,
            parent: parent.to_owned(),
        };
        for line in mounts.lines() {
            let mut words = line.split(' ').skip(1);
            let (Some(point), Some(kind), Some(options)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let point = PathBuf::from(point);
            if kind == "cgroup2" && found.v2.is_none() {
                let there = controllers(&point);
                let ours: Vec<String> = there
                    .split_whitespace()
                    .filter(|c| CONTROLLERS.contains(c))
                    .map(str::to_owned)
                    .collect();
                if !ours.is_empty() {
                    found.v2 = Some((point, ours));
                }
            } else if kind == "cgroup" {
                for controller in options.split(',').filter(|o| CONTROLLERS.contains(o)) {
                    if !found.v1.iter().any(|(c, _)| c == controller) {
                        found.v1.push((controller.to_owned(), point.clone()));
                    }
                }
            }
        }
        found
    }

    /// What is used, for people: `v1 cpu, memory, pids`.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut parts = Vec::new();
        if let Some((_, controllers)) = &self.v2 {
            parts.push(format!("v2 {}", controllers.join(", ")));
        }
        if !self.v1.is_empty() {
            let names: Vec<&str> = self.v1.iter().map(|(c, _)| c.as_str()).collect();
            parts.push(format!("v1 {}", names.join(", ")));
        }
        if parts.is_empty() {
            "none".to_owned()
        } else {
            parts.join("; ")
        }
    }

    fn groups(&self, id: &str) -> Vec<PathBuf> {
        let roots = self
            .v2
            .iter()
            .map(|(root, _)| root)
            .chain(self.v1.iter().map(|(_, root)| root));
        let mut groups: Vec<PathBuf> = roots.map(|root| root.join(&self.parent).join(id)).collect();
        groups.dedup();
        groups
    }

    /// Makes (or finds) a guest's groups and sets its limits. Writing `0` into each of the returned files moves the
    /// writing process there.
    #[must_use]
    pub fn make(&self, id: &str, limits: Limits) -> Vec<File> {
        if let Some((root, controllers)) = &self.v2 {
            let on: String = controllers.iter().map(|c| format!("+{c} ")).collect();
            for group in [root.clone(), root.join(&self.parent)] {
                let _ = fs::create_dir_all(&group);
                note(set(&group, "cgroup.subtree_control", on.trim()), &group);
            }
        }
        let mut doors = Vec::new();
        for group in self.groups(id) {
            let door =
                fs::create_dir_all(&group).and_then(|()| File::options().write(true).open(group.join("cgroup.procs")));
            match door {
                Ok(door) => doors.push(door),
                Err(e) => note(Err(e), &group),
            }
        }
        self.limit(id, limits);
        doors
    }

    fn limit(&self, id: &str, limits: Limits) {
        let memory = (limits.memory + OVERHEAD).to_string();
        let vcpus = u64::from(limits.vcpus.max(1));
        if let Some((root, controllers)) = &self.v2 {
            let group = root.join(&self.parent).join(id);
            for controller in controllers {
                let result = match controller.as_str() {
                    "cpu" => set(&group, "cpu.weight", &(100 * vcpus).min(10_000).to_string()),
                    "memory" => set(&group, "memory.max", &memory),
                    _ => set(&group, "pids.max", &MAX_THREADS.to_string()),
                };
                note(result, &group);
            }
        }
        for (controller, root) in &self.v1 {
            let group = root.join(&self.parent).join(id);
            let result = match controller.as_str() {
                "cpu" => set(&group, "cpu.shares", &(1024 * vcpus).min(262_144).to_string()),
                "memory" => set(&group, "memory.limit_in_bytes", &memory),
                _ => set(&group, "pids.max", &MAX_THREADS.to_string()),
            };
            note(result, &group);
        }
    }

    /// Removes a guest's groups; they must be empty. Those that are not there are fine.
    pub fn remove(&self, id: &str) {
        for group in self.groups(id) {
            match fs::remove_dir(&group) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => note(Err(e), &group),
                _ => {}
            }
            // The parent goes with its last guest; while there is another one, this fails, and that is right.
            if let Some(parent) = group.parent() {
                let _ = fs::remove_dir(parent);
            }
        }
    }
}

fn set(group: &Path, file: &str, value: &str) -> io::Result<()> {
    File::options()
        .write(true)
        .open(group.join(file))?
        .write_all(value.as_bytes())
}

fn note(result: io::Result<()>, group: &Path) {
    if let Err(e) = result {
        tracing::warn!(group = %group.display(), error = %e, "a control group is not as it should be");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_found_in_a_mount_table() {
        let v1 = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                  cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,cpu,cpuacct 0 0\n\
                  cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
                  cgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0\n\
                  cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let mixed = Hierarchies::from_mounts(v1, "maru-guests", |_| "hugetlb\n".to_owned());
        assert_eq!(mixed.describe(), "v1 cpu, memory");
        assert_eq!(
            mixed.groups("a"),
            [
                "/sys/fs/cgroup/cpu,cpuacct/maru-guests/a",
                "/sys/fs/cgroup/memory/maru-guests/a"
            ]
            .map(PathBuf::from)
        );
        let v2 = Hierarchies::from_mounts("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n", "m", |_| {
            "cpuset cpu io memory pids\n".to_owned()
        });
        assert_eq!(v2.describe(), "v2 cpu, memory, pids");
        assert_eq!(v2.groups("a"), [PathBuf::from("/sys/fs/cgroup/m/a")]);
    }
}
