//! Stored types and pure rules of the image service: images, their members, what projects use.

mod blob;
mod image;
mod member;
pub mod usage;

pub use blob::{BlobDigest, LooseBlob};
pub use image::{ContainerFormat, DISK_FORMATS, Image, ImageId, ImageStatus, Visibility, find_visible, visible_to};
pub use member::{Member, MemberId, MemberStatus, member_id};

/// Registers the kinds of this model.
pub fn register(registry: &mut maru_store::Registry) {
    registry
        .register::<Image>()
        .register::<Member>()
        .register::<LooseBlob>();
}
