//! Attachments: which server has a volume, and the planners by which compute takes and gives it back.
//!
//! ```text
//!   plan_reserve ─► reserved ─ plan_attach ─► attaching ─ plan_attached ─► attached ─ plan_detaching ─► detaching
//!        │                                                                                                  │
//!        └─ plan_unreserve ──► (gone)  ◄─────────────────────── plan_detached ──────────────────────────────┘
//! ```
//!
//! The volume's status follows: `reserved`, `attaching`, `in-use`, `detaching`, `available`. Of several attachments of a
//! multiattach volume the furthest counts.

use crate::{Status, Volume, VolumeId};
use jiff::Timestamp;
use maru_base::{Error, ProjectId, Result, Secret};
use maru_store::{Index, Kind, Object, Snapshot, Txn};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha512};

maru_base::typed_id!(
    /// Id of an attachment, a UUID.
    AttachmentId
);

/// How far an attachment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachmentStatus {
    /// Kept for a server.
    Reserved,
    /// Being plugged in.
    Attaching,
    /// There.
    Attached,
    /// Being unplugged.
    Detaching,
}

impl AttachmentStatus {
    /// Upstream's word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Attaching => "attaching",
            Self::Attached => "attached",
            Self::Detaching => "detaching",
        }
    }
}

/// How it is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Read and write.
    #[default]
    Rw,
    /// Read only.
    Ro,
}

impl Mode {
    /// Upstream's word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Rw => "rw",
            Self::Ro => "ro",
        }
    }
}

/// An attachment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    /// The volume.
    pub volume_id: VolumeId,
    /// Its project.
    pub project_id: ProjectId,
    /// The server; a host's own attachment has none.
    pub server_id: Option<String>,
    /// Host that plugs it.
    pub host: Option<String>,
    /// Name of the device in the guest: `/dev/vdb`.
    pub device: Option<String>,
    /// Reading only or writing, too.
    pub mode: Mode,
    /// How far it is.
    pub status: AttachmentStatus,
    /// Whether compute made it for one of its servers: it alone ends it.
    pub by_compute: bool,
    /// What the other side said of itself, as given.
    pub connector: Option<serde_json::Value>,
    /// When it was attached.
    pub attached: Option<Timestamp>,
    /// When it was made; one that was detached is removed.
    pub created: Timestamp,
    /// What the keys of its exports are derived from: 32 random bytes in hexadecimal digits, gone with it. Empty in one that
    /// was made before there were exports: that one is not exported.
    #[serde(default)]
    pub secret: Secret,
    /// Where its volume's holder offers it ([`Offer`]), once it has said so.
    #[serde(default)]
    pub offer: Option<Offer>,
}

/// An export that the holder of a volume has opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Its name ([`Attachment::export`]): for this node's use and no other's.
    pub export: String,
    /// Address and port.
    pub address: String,
}

fn new_secret() -> Secret {
    Secret::new(format!("{}{}", maru_base::random::hex32(), maru_base::random::hex32()))
}

/// One node's way to a volume, through one attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Its name.
    pub name: String,
    /// What opens it.
    pub key: Secret,
    /// Whether it may only be read.
    pub readonly: bool,
}

impl Attachment {
    /// The way of `host` to the volume. Name and key are of this attachment and this node alone: what was given to another
    /// attachment or another node opens nothing.
    #[must_use]
    pub fn export(&self, id: &AttachmentId, host: &str) -> Option<Export> {
        if self.secret.reveal().is_empty() {
            return None;
        }
        let derive = |what: &str| {
            let mut hash = Sha512::new();
            for part in [what, self.secret.reveal(), id.as_str(), host] {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part);
            }
            maru_base::hex(&hash.finalize()[..32])
        };
        Some(Export {
            name: format!("{id}-{}", &derive("export name")[..8]),
            key: Secret::new(derive("export key")),
            readonly: self.mode == Mode::Ro,
        })
    }
}

/// Whether a server on `host` reaches a volume through an export of its holder: one that is on another node, or that several
/// servers may have at once (a file is written by one process only, and that is the exporter then).
#[must_use]
pub fn exported(volume: &Volume, host: &str) -> bool {
    volume.multiattach || volume.host.as_deref().is_some_and(|holder| holder != host)
}

/// Plans that a volume's holder offers these exports at an address.
pub fn plan_offered(snapshot: &Snapshot, txn: &mut Txn, volume: &VolumeId, address: &str, exports: &[String]) {
    for attachment in attachments_of(snapshot, volume) {
        let Some(export) = exports.iter().find(|e| e.starts_with(attachment.id.as_str())) else {
            continue;
        };
        let offer = Some(Offer {
            export: export.clone(),
            address: address.to_owned(),
        });
        if attachment.value.offer != offer {
            let mut new = (*attachment.value).clone();
            new.offer = offer;
            txn.update(&attachment, &new);
        }
    }
}

impl Kind for Attachment {
    type Id = AttachmentId;
    const NAME: &'static str = "volume_attachment";
    const SECRETS: &'static [&'static str] = &["secret"];
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "volume",
                values: |a| vec![a.volume_id.to_string()],
            },
            Index {
                name: "server",
                values: |a| a.server_id.iter().cloned().collect(),
            },
            Index {
                name: "project",
                values: |a| vec![a.project_id.to_string()],
            },
        ]
    }
}

/// All attachments of a volume.
pub fn attachments_of<'a>(snapshot: &'a Snapshot, volume: &VolumeId) -> impl Iterator<Item = Object<Attachment>> + 'a {
    snapshot.find::<Attachment>("volume", volume)
}

/// The volume's status by its attachments, with `changed` in place of what the store has (`None`: it goes).
fn status_with(snapshot: &Snapshot, volume: &VolumeId, id: &AttachmentId, changed: Option<AttachmentStatus>) -> Status {
    let mut all: Vec<AttachmentStatus> = attachments_of(snapshot, volume)
        .filter(|a| a.id != *id)
        .map(|a| a.value.status)
        .collect();
    all.extend(changed);
    let has = |status| all.contains(&status);
    if has(AttachmentStatus::Attached) {
        Status::InUse
    } else if has(AttachmentStatus::Detaching) {
        Status::Detaching
    } else if has(AttachmentStatus::Attaching) {
        Status::Attaching
    } else if has(AttachmentStatus::Reserved) {
        Status::Reserved
    } else {
        Status::Available
    }
}

/// Sets the volume's status by its attachments. A volume that something else is done to keeps its status.
fn follow(
    snapshot: &Snapshot,
    txn: &mut Txn,
    volume: &Object<Volume>,
    id: &AttachmentId,
    now: Option<AttachmentStatus>,
) {
    let mut new = (*volume.value).clone();
    let follows = matches!(
        new.status,
        Status::Available | Status::Reserved | Status::Attaching | Status::Detaching | Status::InUse
    );
    if follows {
        new.status = status_with(snapshot, &volume.id, id, now);
    } else if new.before.is_some() {
        // It comes back to this when the other work is done.
        new.before = Some(status_with(snapshot, &volume.id, id, now));
    }
    new.updated = Some(maru_base::time::now());
    txn.update(volume, &new);
}

/// Keeps a volume for a server (or for `None`, whoever asked through the attachment API).
///
/// # Errors
/// 400 when its status does not allow it, or when it is attached already and not multiattach.
pub fn plan_reserve(
    snapshot: &Snapshot,
    txn: &mut Txn,
    volume: &Object<Volume>,
    id: &AttachmentId,
    server: Option<&str>,
    mode: Option<Mode>,
) -> Result<Attachment> {
    let v = &volume.value;
    let free = v.status == Status::Available;
    let again = v.multiattach && matches!(v.status, Status::InUse | Status::Attaching | Status::Reserved);
    if !free && !again {
        return Err(Error::bad_request(format!(
            "Invalid volume: Volume {} status must be available or downloading to reserve, but the current status is {}.",
            volume.id,
            v.status.word()
        )));
    }
    crate::check_still(snapshot, &volume.id)?;
    if let Some(server) = server
        && attachments_of(snapshot, &volume.id).any(|a| a.value.server_id.as_deref() == Some(server))
    {
        return Err(Error::bad_request(format!(
            "Invalid volume: volume {} already attached to the server {server}.",
            volume.id
        )));
    }
    if v.is_readonly() && mode == Some(Mode::Rw) {
        return Err(Error::bad_request(format!(
            "Invalid attachment mode 'rw' for volume '{}': it is read-only; use mode ro.",
            volume.id
        )));
    }
    let attachment = Attachment {
        volume_id: volume.id.clone(),
        project_id: v.project_id.clone(),
        server_id: server.map(str::to_owned),
        host: None,
        device: None,
        mode: mode.unwrap_or(if v.is_readonly() { Mode::Ro } else { Mode::Rw }),
        status: AttachmentStatus::Reserved,
        by_compute: false,
        connector: None,
        attached: None,
        created: maru_base::time::now(),
        secret: new_secret(),
        offer: None,
    };
    txn.create(id, &attachment);
    follow(snapshot, txn, volume, id, Some(AttachmentStatus::Reserved));
    Ok(attachment)
}

/// Keeps a volume for a server and begins to plug it there as `device`. A server that is on no node has nothing to plug: there the
/// volume is attached at once.
///
/// # Errors
/// As [`plan_reserve`].
pub fn plan_attach(
    snapshot: &Snapshot,
    txn: &mut Txn,
    volume: &Object<Volume>,
    id: &AttachmentId,
    (server, shelved): (&str, bool),
    device: &str,
) -> Result<()> {
    let mut scratch = Txn::new();
    let mut attachment = plan_reserve(snapshot, &mut scratch, volume, id, Some(server), None)?;
    attachment.status = if shelved {
        attachment.attached = Some(maru_base::time::now());
        AttachmentStatus::Attached
    } else {
        AttachmentStatus::Attaching
    };
    attachment.device = Some(device.to_owned());
    attachment.by_compute = true;
    let status = attachment.status;
    txn.create(id, &attachment);
    follow(snapshot, txn, volume, id, Some(status));
    Ok(())
}

/// Begins to plug a volume that is made in the same transaction; its status follows when its bytes are there.
pub fn plan_attach_new(
    txn: &mut Txn,
    volume_id: &VolumeId,
    volume: &Volume,
    id: &AttachmentId,
    server: &str,
    device: &str,
) {
    txn.create(
        id,
        &Attachment {
            volume_id: volume_id.clone(),
            project_id: volume.project_id.clone(),
            server_id: Some(server.to_owned()),
            host: None,
            device: Some(device.to_owned()),
            mode: Mode::Rw,
            status: AttachmentStatus::Attaching,
            by_compute: true,
            connector: None,
            attached: None,
            created: maru_base::time::now(),
            secret: new_secret(),
            offer: None,
        },
    );
}

/// What a volume's attachments make of its status.
#[must_use]
pub fn status_by_attachments(snapshot: &Snapshot, volume: &VolumeId) -> Status {
    status_with(snapshot, volume, &AttachmentId::from(""), None)
}

/// Moves an attachment on, and the volume with it; nothing when either is gone.
fn move_on(snapshot: &Snapshot, txn: &mut Txn, id: &AttachmentId, change: impl FnOnce(&mut Attachment)) {
    let Some(read) = snapshot.get::<Attachment>(id) else {
        return;
    };
    let mut new = (*read.value).clone();
    change(&mut new);
    if new == *read.value {
        return;
    }
    txn.update(&read, &new);
    if let Some(volume) = snapshot.get::<Volume>(&new.volume_id) {
        follow(snapshot, txn, &volume, id, Some(new.status));
    }
}

/// The volume is in the guest.
pub fn plan_attached(snapshot: &Snapshot, txn: &mut Txn, id: &AttachmentId, host: &str) {
    move_on(snapshot, txn, id, |a| {
        a.status = AttachmentStatus::Attached;
        a.host = Some(host.to_owned());
        a.attached.get_or_insert_with(maru_base::time::now);
    });
}

/// It shall be unplugged.
pub fn plan_detaching(snapshot: &Snapshot, txn: &mut Txn, id: &AttachmentId) {
    move_on(snapshot, txn, id, |a| a.status = AttachmentStatus::Detaching);
}

/// It is unplugged: the attachment goes.
pub fn plan_detached(snapshot: &Snapshot, txn: &mut Txn, id: &AttachmentId) {
    plan_detach(snapshot, txn, id);
}

/// A reservation is given up.
pub fn plan_unreserve(snapshot: &Snapshot, txn: &mut Txn, id: &AttachmentId) {
    plan_detach(snapshot, txn, id);
}

/// Removes an attachment, whatever it was.
pub fn plan_detach(snapshot: &Snapshot, txn: &mut Txn, id: &AttachmentId) {
    let Some(read) = snapshot.get::<Attachment>(id) else {
        return;
    };
    txn.delete(&read);
    if let Some(volume) = snapshot.get::<Volume>(&read.value.volume_id) {
        follow(snapshot, txn, &volume, id, None);
    }
}
