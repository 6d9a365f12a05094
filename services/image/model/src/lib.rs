//! Stored types and pure rules of the image service: images, their members, what projects use.

mod blob;
mod image;
mod member;
pub mod metadef;
mod task;
pub mod usage;

pub use blob::{BlobDigest, LooseBlob};
pub use image::{
    ContainerFormat, DISK_FORMATS, Image, ImageId, ImageStatus, Staged, Visibility, find_visible, visible_to,
};
pub use member::{Member, MemberId, MemberStatus, member_id};
pub use task::{KEPT_HOURS, Task, TaskId, TaskStatus};

/// Registers the kinds of this model.
pub fn register(registry: &mut maru_store::Registry) {
    registry
        .register::<Image>()
        .register::<Member>()
        .register::<LooseBlob>()
        .register::<Task>()
        .register::<metadef::Namespace>();
}
