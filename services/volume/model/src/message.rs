//! User messages: why an operation that was accepted failed all the same, told to the project it belongs to.

use jiff::{Timestamp, ToSpan};
use maru_base::ProjectId;
use maru_store::{Index, Kind, Txn};
use serde::{Deserialize, Serialize};

maru_base::typed_id!(
    /// Id of a message, a UUID.
    MessageId
);

/// How long a message is kept: upstream's `message_ttl` of 30 days.
const KEPT_HOURS: i64 = 30 * 24;

/// A number of upstream's, and words.
pub type Words = (&'static str, &'static str);

/// What failed: upstream's resource, action and detail, of which its event ids are made (`VOLUME_VOLUME_001_002`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// `VOLUME`, `VOLUME_SNAPSHOT`, `VOLUME_BACKUP`.
    pub resource: &'static str,
    /// Number and words of what was being done.
    pub action: Words,
    /// Number and words of why it failed.
    pub detail: Words,
}

/// Making a volume: placing it.
pub const SCHEDULE: Words = ("001", "schedule allocate volume");
/// Uploading a volume as an image.
pub const UPLOAD: Words = ("003", "copy volume to image");
/// Filling a volume with an image.
pub const COPY_IMAGE: Words = ("005", "copy image to volume");
/// Extending a volume.
pub const EXTEND: Words = ("007", "extend volume");
/// Making a volume of what it is made of, other than an image.
pub const CREATE: Words = ("008", "create volume from backend storage");
/// Making a snapshot.
pub const SNAPSHOT_CREATE: Words = ("009", "create snapshot");
/// Making a backup.
pub const BACKUP_CREATE: Words = ("013", "create backup");
/// Restoring a backup.
pub const BACKUP_RESTORE: Words = ("015", "restore backup");
/// Making a volume's bytes anew of an image.
pub const REIMAGE: Words = ("016", "reimage volume");

/// No reason that a project may know.
pub const UNKNOWN: Words = ("001", "it failed for a reason that an administrator can look up");
/// No back end takes it.
pub const NO_BACKEND: Words = (
    "003",
    "no back end is fit for it: try another size, volume type or availability zone",
);
/// The bytes did not become an image.
pub const NOT_UPLOADED: Words = ("004", "the back end did not upload the volume to the image");
/// The image does not fit.
pub const IMAGE_TOO_BIG: Words = (
    "007",
    "the image could not be written to the volume, or does not fit into it",
);
/// The back end did not make it larger.
pub const NOT_EXTENDED: Words = (
    "010",
    "the back end did not make the volume larger; it keeps the size it had",
);
/// The back end did not make it.
pub const NOT_CREATED: Words = ("012", "the back end did not make the volume");
/// The back end did not make the snapshot.
pub const NOT_SNAPPED: Words = ("013", "the back end did not make the snapshot");
/// The bytes of the volume did not become a backup.
pub const NOT_BACKED_UP: Words = ("019", "the volume could not be read into the backup");
/// The backup's bytes did not become the volume's.
pub const NOT_RESTORED: Words = ("025", "the backup could not be written to the volume");
/// The image's bytes did not become the volume's.
pub const NOT_REIMAGED: Words = ("027", "the image could not be written to the volume");

/// A message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Owner.
    pub project_id: ProjectId,
    /// Upstream's id of the event.
    pub event_id: String,
    /// What it says.
    pub text: String,
    /// `VOLUME`, ...
    pub resource_type: String,
    /// Id of what it is about.
    pub resource_id: String,
    /// The request that failed.
    pub request_id: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it goes.
    pub expires: Timestamp,
}

impl Kind for Message {
    type Id = MessageId;
    const NAME: &'static str = "volume_message";
    fn indexes() -> Vec<Index<Self>> {
        vec![Index {
            name: "project",
            values: |m| vec![m.project_id.to_string()],
        }]
    }
}

/// Leaves a message in the transaction of the failure itself.
pub fn plan_message(txn: &mut Txn, project: &ProjectId, resource_id: &str, request_id: &str, event: Event) {
    let created = maru_base::time::now();
    txn.create(
        &MessageId::new_uuid(),
        &Message {
            project_id: project.clone(),
            event_id: format!("VOLUME_{}_{}_{}", event.resource, event.action.0, event.detail.0),
            text: format!("{}: {}", event.action.1, event.detail.1),
            resource_type: event.resource.to_owned(),
            resource_id: resource_id.to_owned(),
            request_id: request_id.to_owned(),
            created,
            expires: created.checked_add(KEPT_HOURS.hours()).unwrap_or(Timestamp::MAX),
        },
    );
}
