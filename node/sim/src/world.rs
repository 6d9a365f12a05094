//! The simulated machine: what the slice says and what is there.

use crate::{Fault, Inner, Step, event, step, wanted};
use maru_agent_api::observed::{
    PortState, PowerState, Report, ServerState, UnknownThing, VolumeSnapshotState, VolumeState,
};
use maru_agent_api::slice::{DiskSource, Item, ItemKey, Port, Power, Router, Server, Volume, VolumeSnapshot};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Where simulated nodes offer their volumes: an address that nobody has (RFC 5737).
const OFFERED: &str = "192.0.2.1:10809";

/// A guest that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SimGuest {
    /// What it does.
    pub power: PowerState,
    /// Reboots carried out.
    pub reboots: u64,
    /// Rebuilds carried out.
    pub rebuilds: u64,
    /// Changes of size carried out.
    pub resizes: u64,
    /// The request whose power was carried out.
    pub request_id: String,
    /// Ports that are attached.
    pub ports: Vec<String>,
    /// Disks that are attached.
    pub disks: Vec<String>,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// What the last slice item said of where it comes from.
    pub origin: String,
    /// How often it was started.
    pub starts: u64,
}

impl Default for SimGuest {
    fn default() -> Self {
        Self {
            power: PowerState::Nostate,
            reboots: 0,
            rebuilds: 0,
            resizes: 0,
            request_id: String::new(),
            ports: Vec::new(),
            disks: Vec::new(),
            memory_mib: 0,
            origin: String::new(),
            starts: 0,
        }
    }
}

/// The machine.
#[derive(Default)]
pub(crate) struct World {
    pub guests: BTreeMap<String, SimGuest>,
    /// Volumes that have bytes here: which making, and how many.
    pub volumes: BTreeMap<String, (u64, u64)>,
    /// Snapshots that have bytes here.
    pub snapshots: BTreeSet<String>,
    pub items: BTreeMap<ItemKey, (u64, Arc<Item>)>,
    pub gone: BTreeMap<ItemKey, u64>,
    seen: HashMap<ItemKey, u64>,
    incarnation: String,
    arriving: BTreeSet<ItemKey>,
    pub synced: bool,
    /// Keys to look at although the slice did not change.
    pub look: Vec<ItemKey>,
    pub wake: Arc<Notify>,
}

impl World {
    pub(crate) fn begin(&mut self, incarnation: &str) {
        if self.incarnation != incarnation {
            incarnation.clone_into(&mut self.incarnation);
            self.seen.clear();
            self.gone.clear();
        }
        self.synced = false;
        self.arriving.clear();
    }
    pub(crate) fn set(&mut self, revision: u64, item: Item) {
        let key = item.key();
        if self.seen.get(&key).is_some_and(|s| *s > revision) {
            return;
        }
        self.seen.insert(key.clone(), revision);
        self.arriving.insert(key.clone());
        self.gone.remove(&key);
        self.items.insert(key, (revision, Arc::new(item)));
    }
    pub(crate) fn gone(&mut self, revision: u64, key: ItemKey) {
        if self.seen.get(&key).is_some_and(|s| *s > revision) {
            return;
        }
        self.seen.insert(key.clone(), revision);
        self.items.remove(&key);
        self.gone.insert(key, revision);
    }
    /// The full set is here. What it lacks is forgotten, and kept on the machine. Gives all keys to look at.
    pub(crate) fn synced(&mut self) -> Vec<ItemKey> {
        let arriving = std::mem::take(&mut self.arriving);
        self.items.retain(|key, _| arriving.contains(key));
        self.synced = true;
        self.items.keys().chain(self.gone.keys()).cloned().collect()
    }
    /// Guests that the slice does not speak of.
    pub(crate) fn unknown(&self) -> Vec<UnknownThing> {
        let each = self.guests.iter().filter(|(id, _)| {
            let key = ItemKey::Server((*id).clone());
            !self.items.contains_key(&key) && !self.gone.contains_key(&key)
        });
        let thing = |(id, guest): (&String, &SimGuest)| UnknownThing {
            what: "server".to_owned(),
            id: id.clone(),
            description: format!("a guest that is {:?}", guest.power),
        };
        let volumes = self
            .volumes
            .keys()
            .map(|id| ("volume", ItemKey::Volume(id.clone()), id));
        let snapshots = self
            .snapshots
            .iter()
            .map(|id| ("volume-snapshot", ItemKey::VolumeSnapshot(id.clone()), id));
        let bytes = volumes
            .chain(snapshots)
            .filter(|(_, key, _)| !self.items.contains_key(key) && !self.gone.contains_key(key))
            .map(|(what, _, id)| UnknownThing {
                what: what.to_owned(),
                id: id.clone(),
                description: "bytes that the store does not know".to_owned(),
            });
        each.map(thing).chain(bytes).collect()
    }
}

/// The state of a port of this node.
pub(crate) fn port_state(revision: u64, port: &Port, fault: Option<Fault>) -> Report {
    let up = port.admin_up && fault.is_none();
    Report::Port(PortState {
        id: port.id.clone(),
        revision,
        up,
        fault: fault.map(|f| f.message),
    })
}

/// The interfaces of a router are up as soon as it is there.
pub(crate) fn router(inner: &Inner, router: &Router) -> Vec<Report> {
    let world = inner.world();
    let ids = router
        .interfaces
        .iter()
        .chain(router.gateway.iter().map(|g| &g.port_id));
    let each = ids.filter_map(|id| match world.items.get(&ItemKey::Port(id.clone())) {
        Some((revision, item)) => match &**item {
            Item::Port(port) => Some(port_state(*revision, port, None)),
            _ => None,
        },
        None => None,
    });
    each.collect()
}

/// Makes a volume's bytes.
pub(crate) async fn volume(inner: &Arc<Inner>, revision: u64, v: &Volume) -> Vec<Report> {
    let there = inner.world().volumes.get(&v.id).copied();
    let fault = match there {
        Some((content, size)) if content >= v.content && size >= v.size => None,
        _ => step(inner, Step::Volume, &v.id).await.err(),
    };
    if fault.is_none() {
        inner.world().volumes.insert(v.id.clone(), (v.content, v.size));
    } else {
        again(inner, fault.as_ref(), ItemKey::Volume(v.id.clone()));
    }
    let there = inner.world().volumes.get(&v.id).copied();
    vec![Report::Volume(VolumeState {
        id: v.id.clone(),
        revision,
        content: there.map(|t| t.0),
        size: there.map_or(0, |t| t.1),
        offered_at: (there.is_some() && !v.exports.is_empty()).then(|| OFFERED.to_owned()),
        exports: v.exports.iter().map(|e| e.name.clone()).collect(),
        fault_final: fault.as_ref().is_some_and(|f| f.last),
        fault: fault.map(|f| f.message),
    })]
}

/// Copies a volume into a snapshot.
pub(crate) async fn snapshot(inner: &Arc<Inner>, revision: u64, s: &VolumeSnapshot) -> Vec<Report> {
    let there = inner.world().snapshots.contains(&s.id);
    let fault = if there {
        None
    } else {
        step(inner, Step::Snapshot, &s.id).await.err()
    };
    if fault.is_none() {
        inner.world().snapshots.insert(s.id.clone());
    } else {
        again(inner, fault.as_ref(), ItemKey::VolumeSnapshot(s.id.clone()));
    }
    vec![Report::VolumeSnapshot(VolumeSnapshotState {
        id: s.id.clone(),
        revision,
        made: fault.is_none(),
        fault_final: fault.as_ref().is_some_and(|f| f.last),
        fault: fault.map(|f| f.message),
    })]
}

/// Looks at a key again after a second, unless its fault is final.
fn again(inner: &Arc<Inner>, fault: Option<&Fault>, key: ItemKey) {
    if fault.is_some_and(|f| f.last) {
        return;
    }
    let inner = Arc::clone(inner);
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut world = inner.world();
        world.look.push(key);
        world.wake.notify_one();
    });
}

fn state(id: &str, revision: u64, guest: &SimGuest, fault: Option<Fault>) -> Report {
    Report::Server(ServerState {
        id: id.to_owned(),
        revision,
        power: guest.power,
        reboots: guest.reboots,
        rebuilds: guest.rebuilds,
        resizes: guest.resizes,
        fault_final: fault.as_ref().is_some_and(|f| f.last),
        fault: fault.map(|f| f.message),
        attached: guest.ports.iter().chain(&guest.disks).cloned().collect(),
    })
}

/// Brings a server to its intent, a step at a time; the reports of all steps.
pub(crate) async fn server(inner: &Arc<Inner>, revision: u64, server: &Server, id: &str) -> Vec<Report> {
    let mut reports = Vec::new();
    // A guest is not started, and not changed, before its volumes are there.
    let waits = server.disks.iter().any(|d| match &d.source {
        DiskSource::Volume {
            remote: Some(there), ..
        } => there.address.is_none(),
        DiskSource::Volume { id, .. } => !inner.world().volumes.contains_key(id),
        _ => false,
    });
    if waits {
        again(inner, None, ItemKey::Server(id.to_owned()));
        return reports;
    }
    // Kept before anything is done, as the real agent does: what is half done must not be forgotten with the control plane.
    let mut guest = inner.world().guests.get_mut(id).map(|guest| {
        guest.origin.clone_from(&server.origin);
        guest.clone()
    });
    let begun = maru_base::time::now().as_microsecond();
    let outcome = steps(inner, server, &mut guest, begun, &mut reports).await;
    let mut guest = guest.unwrap_or_default();
    let Err(fault) = outcome else {
        guest.ports.clone_from(&server.ports);
        guest.disks = server.disks.iter().map(|d| d.name.clone()).collect();
        guest.request_id.clone_from(&server.request_id);
        guest.memory_mib = server.memory_mib;
        guest.origin.clone_from(&server.origin);
        reports.push(state(id, revision, &guest, None));
        let mut world = inner.world();
        // A guest that left its power meanwhile keeps it, and is looked at again.
        if let Some(now) = world.guests.get(id)
            && matches!(now.power, PowerState::Shutdown | PowerState::Crashed)
            && world.look.contains(&ItemKey::Server(id.to_owned()))
        {
            guest.power = now.power;
        }
        world.guests.insert(id.to_owned(), guest);
        return reports;
    };
    again(inner, Some(&fault), ItemKey::Server(id.to_owned()));
    reports.push(event(id, &server.request_id, "spawn", begun, Some(&fault)));
    reports.push(state(id, revision, &guest, Some(fault)));
    reports
}

async fn steps(
    inner: &Inner,
    server: &Server,
    guest: &mut Option<SimGuest>,
    begun: i64,
    reports: &mut Vec<Report>,
) -> Result<(), Fault> {
    let id = server.id.as_str();
    let target = wanted(server.power);
    let Some(now) = guest else {
        step(inner, Step::Spawn, id).await?;
        for name in ["disk", "spawn", "qmp", "running"] {
            reports.push(event(id, &server.request_id, name, begun, None));
        }
        *guest = Some(SimGuest {
            power: target,
            // What was asked before it existed is moot.
            reboots: server.reboot.count,
            rebuilds: server.rebuild,
            resizes: server.resize.count,
            starts: 1,
            ..SimGuest::default()
        });
        return Ok(());
    };
    if now.rebuilds < server.rebuild {
        step(inner, Step::Rebuild, id).await?;
        now.rebuilds = server.rebuild;
        now.power = target;
        return Ok(());
    }
    if now.resizes < server.resize.count {
        step(inner, Step::Resize, id).await?;
        now.resizes = server.resize.count;
        now.power = target;
        return Ok(());
    }
    for disk in server.disks.iter().filter(|d| !now.disks.contains(&d.name)) {
        step(inner, Step::Plug, &disk.name).await?;
    }
    let off = matches!(now.power, PowerState::Shutdown | PowerState::Crashed);
    // Off without being asked: it stays off unless a newer request wants it on.
    let stays = off && (server.power != Power::Running || now.request_id == server.request_id);
    if now.power != target && !stays {
        step(inner, Step::Power, id).await?;
        now.starts += u64::from(off && target == PowerState::Running);
        now.power = target;
    }
    if now.reboots < server.reboot.count {
        step(inner, Step::Reboot, id).await?;
        now.reboots = server.reboot.count;
        if server.power == Power::Running {
            now.power = PowerState::Running;
        }
    }
    Ok(())
}
