//! Members of shared images.

use super::images::not_found;
use crate::App;
use maru_auth::Target;
use maru_base::{Error, ProjectId, Result};
use maru_http::Request;
use maru_image_model::{Image, ImageId, Member, MemberStatus, Visibility, find_visible, member_id};
use maru_store::{Object, Snapshot, Txn};

impl App {
    /// The image for a member request: owners (and members, for reading) alone may know of its members.
    fn shared(&self, snapshot: &Snapshot, request: &Request, image: &str) -> Result<Object<Image>> {
        let caller = request.caller()?;
        let found = find_visible(snapshot, caller, &ImageId::from(image)).ok_or_else(|| not_found(image))?;
        if found.visibility != Visibility::Shared {
            return Err(Error::forbidden(format!(
                "Only shared images have members; image {image} is {}.",
                found.visibility.as_str()
            )));
        }
        Ok(found)
    }

    fn owner_only(request: &Request, image: &Object<Image>) -> Result<()> {
        request.authorize(&Target::project(&image.owner).with("owner", &image.owner))
    }

    /// All members that the caller may see.
    pub(crate) fn members(&self, request: &Request, image: &str) -> Result<Vec<Object<Member>>> {
        let snapshot = self.store.snapshot();
        let caller = request.caller()?;
        let found = self.shared(&snapshot, request, image)?;
        let all: Vec<_> = snapshot.find::<Member>("image", &found.id).collect();
        if caller.is_admin() || caller.project_id() == Some(&found.owner) {
            Self::owner_only(request, &found)?;
            return Ok(all);
        }
        Ok(all
            .into_iter()
            .filter(|m| caller.project_id() == Some(&m.project_id))
            .collect())
    }

    /// One member.
    pub(crate) fn member(&self, request: &Request, image: &str, project: &str) -> Result<Object<Member>> {
        self.members(request, image)?
            .into_iter()
            .find(|m| m.project_id == project)
            .ok_or_else(|| Error::not_found(format!("{project} is not in the member list of image {image}.")))
    }

    /// Offers the image to a project.
    pub(crate) async fn add_member(&self, request: &Request, image: &str, project: &str) -> Result<Object<Member>> {
        if project.is_empty() || project.chars().count() > 255 {
            return Err(Error::invalid(
                "member",
                "member must be a project id of 1 to 255 characters.",
            ));
        }
        let id = member_id(&ImageId::from(image), &ProjectId::from(project));
        self.store
            .plan(|snapshot| {
                let found = self.shared(snapshot, request, image)?;
                Self::owner_only(request, &found)?;
                if snapshot.get::<Member>(&id).is_some() {
                    return Err(Error::conflict(format!(
                        "Image member {project} already exists for image {image}."
                    )));
                }
                if snapshot.find::<Member>("image", image).count() >= 128 {
                    return Err(Error::too_large("An image may have at most 128 members."));
                }
                let now = maru_base::time::now();
                let mut txn = Txn::new();
                txn.alive::<Image>(&found.id).create(
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
        let caller = request.caller()?.clone();
        self.store
            .plan(|snapshot| {
                self.shared(snapshot, request, image)?;
                let own = caller.project_id().is_some_and(|p| p.as_str() == project);
                let old = snapshot
                    .get::<Member>(&id)
                    .filter(|_| own || caller.is_admin() || caller.project_id().is_some())
                    .ok_or_else(|| {
                        Error::not_found(format!("{project} is not in the member list of image {image}."))
                    })?;
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
        let id = member_id(&ImageId::from(image), &ProjectId::from(project));
        self.store
            .plan(|snapshot| {
                let found = self.shared(snapshot, request, image)?;
                Self::owner_only(request, &found)?;
                let member = snapshot.get::<Member>(&id).ok_or_else(|| {
                    Error::not_found(format!("{project} is not in the member list of image {image}."))
                })?;
                let mut txn = Txn::new();
                txn.delete(&member);
                Ok((txn, ()))
            })
            .await
    }
}
