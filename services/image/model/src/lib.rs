//! Stored types and pure rules of the image service: images and their members.

mod image;
mod member;

pub use image::{ContainerFormat, DISK_FORMATS, Image, ImageId, ImageStatus, Visibility, find_visible, visible_to};
pub use member::{Member, MemberId, MemberStatus, member_id};

/// Registers the kinds of this model.
pub fn register(registry: &mut maru_store::Registry) {
    registry.register::<Image>().register::<Member>();
}
