//! Image members: projects that a shared image is offered to.

use crate::ImageId;
use maru_base::ProjectId;
use maru_store::{Index, Kind};
use serde::{Deserialize, Serialize};

maru_base::typed_id!(
    /// Id of a membership: image id and project id joined by `:`.
    MemberId
);

/// The id of a membership.
#[must_use]
pub fn member_id(image: &ImageId, project: &ProjectId) -> MemberId {
    MemberId::from(format!("{image}:{project}"))
}

/// What the member makes of the offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberStatus {
    /// Not answered; usable by id, not listed.
    Pending,
    /// Listed.
    Accepted,
    /// Not listed.
    Rejected,
}

/// A project that an image is shared with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// The image.
    pub image_id: ImageId,
    /// The project it is offered to.
    pub project_id: ProjectId,
    /// Its answer.
    pub status: MemberStatus,
    /// When it was added.
    pub created_at: jiff::Timestamp,
    /// When it last changed.
    pub updated_at: jiff::Timestamp,
}

impl Kind for Member {
    type Id = MemberId;
    const NAME: &'static str = "image_member";
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "image",
                values: |m| vec![m.image_id.to_string()],
            },
            Index {
                name: "project",
                values: |m| vec![m.project_id.to_string()],
            },
        ]
    }
}
