//! Members of shared images.
//!
//! Who knows what: the owner (and an administrator) sees all members; a member sees itself; to all others the image
//! does not exist. The owner adds and removes, the member alone answers.

use super::images::{not_found, owned};
use crate::App;
use maru_auth::Target;
use maru_base::{Error, ProjectId, Result};
use maru_http::Request;
use maru_image_model::{Image, ImageId, Member, MemberStatus, Visibility, find_visible, member_id};
use maru_store::{Object, Snapshot, Txn};

fn not_shared(image: &Object<Image>) -> Error {
    Error::forbidden(format!(
        "Only shared images have members; image {} is {}.",
        image.id,
        image.visibility.as_str()
    ))
}

fn no_member(image: &str, project: &str) -> Error {
    Error::not_found(format!("{project} not found in the member list of the image {image}."))
}

impl App {
    /// The image of a member request.
    fn shared(&self, snapshot: &Snapshot, request: &Request, image: &str) -> Result<Object<Image>> {
        let caller = request.caller()?;
        let found = find_visible(snapshot, caller, &ImageId::from(image)).ok_or_else(|| not_found(image))?;
        if found.visibility == Visibility::Shared {
            Ok(found)
        } else {
            Err(not_shared(&found))
        }
    }

    /// One member, if the caller may know of it.
    fn known(
        &self,
        snapshot: &Snapshot,
        request: &Request,
        image: &Object<Image>,
        project: &str,
    ) -> Result<Object<Member>> {
        let caller = request.caller()?;
        let own = caller.project_id().is_some_and(|p| *p == image.owner || p == project);
        snapshot
            .get::<Member>(&member_id(&image.id, &ProjectId::from(project)))
            .filter(|_| own || caller.is_admin())
            .ok_or_else(|| no_member(&image.id, project))
    }

    /// All members that the caller may see.
    pub(crate) fn members(&self, snapshot: &Snapshot, request: &Request, image: &str) -> Result<Vec<Object<Member>>> {
        let caller = request.caller()?;
        let found = self.shared(snapshot, request, image)?;
        let mut all: Vec<_> = snapshot.find::<Member>("image", &found.id).collect();
        if caller.is_admin() || caller.project_id() == Some(&found.owner) {
            request.authorize(&owned(&found))?;
        } else {
            all.retain(|m| caller.project_id() == Some(&m.project_id));
        }
        all.sort_by_key(|m| m.value.created_at);
        Ok(all)
    }

    /// One member.
    pub(crate) fn member(
        &self,
        snapshot: &Snapshot,
        request: &Request,
        image: &str,
        project: &str,
    ) -> Result<Object<Member>> {
        let caller = request.caller()?;
        // What has no members has not this one, either.
        let found = find_visible(snapshot, caller, &ImageId::from(image))
            .ok_or_else(|| not_found(image))
            .and_then(|found| match found.visibility {
                Visibility::Shared => Ok(found),
                _ => Err(Error::not_found(not_shared(&found).message().to_owned())),
            })?;
        self.known(snapshot, request, &found, project)
    }

    /// Offers the image to a project.
    pub(crate) async fn add_member(&self, request: &Request, image: &str, project: &str) -> Result<Object<Member>> {
        if project.is_empty() || project.chars().count() > 255 {
            return Err(Error::invalid(
                "member",
                "Invalid value for member: it must be a project id of 1 to 255 characters.",
            ));
        }
        let id = member_id(&ImageId::from(image), &ProjectId::from(project));
        let limit = self.settings.members;
        self.store
            .plan(|snapshot| {
                let found = self.shared(snapshot, request, image)?;
                request.authorize(&owned(&found))?;
                if snapshot.get::<Member>(&id).is_some() {
                    return Err(Error::conflict(format!(
                        "Member {project} is duplicated for image {image}."
                    )));
                }
                if snapshot.find::<Member>("image", image).count() >= limit {
                    return Err(Error::too_large(format!(
                        "Image member limit exceeded for image {image}: it has {limit} members, the most an image may \
                         have. Remove one first."
                    ))
                    .with_field("member"));
                }
                let now = maru_base::time::now();
                let mut txn = Txn::new();
                // The image is written, too: of two that would be the last member one plans again, and no member comes
                // to an image that is being deleted.
                txn.update(&found, &found.value).create(
                    &id,
                    &Member {
                        image_id: found.id.clone(),
                        project_id: ProjectId::from(project),
                        status: MemberStatus::Pending,
                        created_at: now,
                        updated_at: now,
                    },
                );
                Ok((txn, ()))
            })
            .await?;
        self.store.snapshot().get(&id).ok_or_else(|| not_found(image))
    }

    /// The member's own answer.
    pub(crate) async fn answer(
        &self,
        request: &Request,
        image: &str,
        project: &str,
        status: MemberStatus,
    ) -> Result<Object<Member>> {
        let id = member_id(&ImageId::from(image), &ProjectId::from(project));
        self.store
            .plan(|snapshot| {
                let found = self.shared(snapshot, request, image)?;
                let old = self.known(snapshot, request, &found, project)?;
                request.authorize(&Target::none().with("member_id", project).with("project_id", project))?;
                let mut member = (*old.value).clone();
                member.status = status;
                member.updated_at = maru_base::time::now();
                let mut txn = Txn::new();
                txn.update(&old, &member);
                Ok((txn, ()))
            })
            .await?;
        self.store.snapshot().get(&id).ok_or_else(|| not_found(image))
    }

    /// Takes the offer back.
    pub(crate) async fn remove_member(&self, request: &Request, image: &str, project: &str) -> Result<()> {
        self.store
            .plan(|snapshot| {
                let found = self.shared(snapshot, request, image)?;
                let member = self.known(snapshot, request, &found, project)?;
                request.authorize(&owned(&found))?;
                let mut txn = Txn::new();
                txn.delete(&member);
                Ok((txn, ()))
            })
            .await
    }
}
