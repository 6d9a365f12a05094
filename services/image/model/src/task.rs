//! Tasks: imports of image data, with how they go. A task is a record for people; what is true of an image stands in the image.
//!
//! ```text
//!  pending ──► processing ──► success
//!                  └────────► failure   (also what the next start makes of a task whose process died)
//! ```

use crate::ImageId;
use jiff::Timestamp;
use maru_base::{ProjectId, UserId};
use maru_store::{Index, Kind};
use serde::{Deserialize, Serialize};
use serde_json::Value;

maru_base::typed_id!(
    /// Id of a task, a UUID.
    TaskId
);

/// How long a task that has ended is kept, in hours (Glance's default).
pub const KEPT_HOURS: i64 = 48;

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// Waits for others to end.
    Pending,
    /// Runs.
    Processing,
    /// Has done what it should.
    Success,
    /// Has not; the message says why.
    Failure,
}

impl TaskStatus {
    /// The word of the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
    /// Whether it has ended.
    #[must_use]
    pub const fn ended(self) -> bool {
        matches!(self, Self::Success | Self::Failure)
    }
}

/// A task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// `api_image_import` of an import into an image, `import` of one that makes the image.
    pub kind: String,
    /// Where it stands.
    pub status: TaskStatus,
    /// Project that asked for it.
    pub owner: ProjectId,
    /// User that asked for it.
    pub user_id: UserId,
    /// Request that asked for it.
    pub request_id: String,
    /// The image.
    pub image_id: ImageId,
    /// What was asked for.
    pub input: Value,
    /// What came of it; null until then.
    pub result: Value,
    /// Why it failed.
    pub message: String,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When its record goes.
    pub expires_at: Option<Timestamp>,
}

impl Kind for Task {
    type Id = TaskId;
    const NAME: &'static str = "image_task";
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "owner",
                values: |t| vec![t.owner.to_string()],
            },
            Index {
                name: "image",
                values: |t| vec![t.image_id.to_string()],
            },
        ]
    }
}
