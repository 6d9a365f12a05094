//! Places volumes on a node, and finishes deletions that waited for snapshots.
//!
//! ```text
//!  creating, no host ─► backends up, not disabled, in the zone, with room ─► host set (its agent makes the bytes)
//!                    └► none ─► error, with the reason of each backend
//!  deleting, no host ─► gone
//! ```

use crate::app::capabilities::unmet;
use maru_base::Result;
use maru_control::{Next, Reconciler};
use maru_store::{Kind, Object, Snapshot as View, Store, Txn};
use maru_volume_model::{
    Backend, Snapshot, Source, Status, Volume, VolumeId, VolumeType, find_backend, given_gb, message,
    plan_forget_volume,
};

/// The reconciler, keyed by volume.
pub(crate) struct Placing;

/// Volumes that something is to be done about.
const WORK: &[Status] = &[Status::Creating, Status::Deleting];

#[async_trait::async_trait]
impl Reconciler for Placing {
    fn name(&self) -> &'static str {
        "volume-placing"
    }
    fn kinds(&self) -> Vec<&'static str> {
        vec![Volume::NAME, Backend::NAME]
    }
    fn keys_for(&self, snapshot: &View, kind: &str, id: &str) -> Vec<String> {
        if kind == Backend::NAME {
            // A backend has come: what found none is looked at once more.
            return self.all(snapshot);
        }
        let waits = snapshot
            .get::<Volume>(&id.into())
            .is_some_and(|v| v.value.host.is_none() && WORK.contains(&v.value.status));
        if waits { vec![id.to_owned()] } else { Vec::new() }
    }
    fn all(&self, snapshot: &View) -> Vec<String> {
        WORK.iter()
            .flat_map(|s| snapshot.find::<Volume>("status", s.word()))
            .filter(|v| v.value.host.is_none() && (v.value.assemble.is_none() || v.value.removing))
            .map(|v| v.id.to_string())
            .collect()
    }
    async fn reconcile(&self, store: &Store, key: &str) -> Result<Next> {
        store
            .plan(|snapshot| {
                let mut txn = Txn::new();
                if let Some(volume) = snapshot.get::<Volume>(&VolumeId::from(key))
                    && volume.value.host.is_none()
                {
                    match volume.value.status {
                        // What it is made of is put together first.
                        Status::Creating if volume.value.assemble.is_some() => {}
                        Status::Creating => place(snapshot, &mut txn, &volume),
                        _ if volume.value.removing => plan_forget_volume(snapshot, &mut txn, &volume)?,
                        _ => {}
                    }
                }
                Ok((txn, ()))
            })
            .await?;
        Ok(Next::Done)
    }
}

fn place(snapshot: &View, txn: &mut Txn, volume: &Object<Volume>) {
    let mut new = (*volume.value).clone();
    match choose(snapshot, volume) {
        Ok(host) => new.host = Some(host),
        Err(why) => {
            new.status = Status::Error;
            new.fault = Some(format!("No valid backend was found. {why}"));
            message::plan_message(
                txn,
                &new.project_id,
                &volume.id,
                &new.request_id,
                message::Event {
                    resource: "VOLUME",
                    action: message::SCHEDULE,
                    detail: message::NO_BACKEND,
                },
            );
        }
    }
    new.updated = Some(maru_base::time::now());
    new.asked_after = snapshot.revision();
    txn.update(volume, &new);
}

/// The backend for a volume: a copy goes where its source is, others where most room is.
fn choose(snapshot: &View, volume: &Object<Volume>) -> std::result::Result<String, String> {
    let source = match &volume.value.source {
        Source::Volume(id) => Some(snapshot.get::<Volume>(id).and_then(|v| v.value.host.clone())),
        Source::Snapshot(id) => Some(snapshot.get::<Snapshot>(id).and_then(|s| s.value.host.clone())),
        Source::Blank | Source::Image { .. } | Source::Backup { .. } => volume.value.wanted_host.clone().map(Some),
    };
    if let Some(host) = source {
        let host = host.ok_or("What it is copied from is gone.")?;
        let backend =
            find_backend(snapshot, &host).ok_or_else(|| format!("{host}, where it must be, is not there."))?;
        return match refused(snapshot, volume, &backend.value) {
            // The source's zone is where the copy must be.
            Some(why) if !why.starts_with("is in the zone") => Err(format!("{host}, where it must be, {why}.")),
            _ => Ok(host),
        };
    }
    let mut best: Option<(i64, String)> = None;
    let mut reasons = Vec::new();
    for b in snapshot.list::<Backend>() {
        match refused(snapshot, volume, &b.value) {
            Some(why) => reasons.push(format!("{} {why}", b.value.host)),
            None => {
                let free = free_gb(snapshot, &b.value);
                if best.as_ref().is_none_or(|(f, h)| (free, &b.value.host) > (*f, h)) {
                    best = Some((free, b.value.host.clone()));
                }
            }
        }
    }
    best.map(|(_, host)| host).ok_or_else(|| {
        if reasons.is_empty() {
            "No node has connected yet.".to_owned()
        } else {
            reasons.sort();
            format!("{}.", reasons.join("; "))
        }
    })
}

/// Why a backend cannot have a volume, in words that follow its name.
pub(crate) fn refused(snapshot: &View, volume: &Object<Volume>, b: &Backend) -> Option<String> {
    let unmet = snapshot
        .get::<VolumeType>(&volume.value.type_id)
        .and_then(|t| unmet(&t.value.extra_specs));
    if unmet.is_some() {
        return unmet;
    }
    if !b.up {
        return Some("is down".to_owned());
    }
    if b.disabled || b.frozen {
        return Some("is disabled".to_owned());
    }
    if b.zone != volume.value.zone {
        return Some(format!("is in the zone {}, not {}", b.zone, volume.value.zone));
    }
    let free = free_gb(snapshot, b);
    (free < i64::from(volume.value.size)).then(|| format!("has {free} GiB left of {}", b.capacity_gb))
}

/// Room of a backend that nothing was given yet, in GiB: neither a volume or a snapshot nor, by placement's count, a server's disk.
pub(crate) fn free_gb(snapshot: &View, backend: &Backend) -> i64 {
    let whole = |gb: u64| i64::try_from(gb).unwrap_or(i64::MAX);
    let servers = maru_placement_model::find_by_name(snapshot, &backend.host)
        .map_or(0, |p| maru_placement_model::usage(snapshot, &p.id, "DISK_GB"));
    whole(backend.capacity_gb) - whole(given_gb(snapshot, &backend.host)) - servers
}
