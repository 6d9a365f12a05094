//! Image records: create, read, update, tag, deactivate, delete.

use super::{
    Draft, PatchOp,
    attributes::{bounded, check_limits},
    over_quota,
};
use crate::App;
use maru_auth::{Caller, Target};
use maru_base::{Error, ErrorKind, Result};
use maru_http::Request;
use maru_image_model::{Image, ImageId, ImageStatus, Member, Visibility, find_visible, member_id, usage};
use maru_store::{Object, Snapshot, Txn};
use std::sync::Arc;

/// The attributes that rules are checked against.
pub(crate) fn target(snapshot: &Snapshot, image: &Object<Image>, caller: &Caller) -> Target {
    let mut t = owned(image);
    // A merely shared image is visible to its members alone.
    if image.visibility != Visibility::Shared {
        t = t.with("visibility", image.visibility.as_str());
    }
    if let Some(p) = caller.project_id()
        && image.visibility == Visibility::Shared
        && snapshot.get::<Member>(&member_id(&image.id, p)).is_some()
    {
        t = t.with("member_id", p);
    }
    t
}

/// The attributes that rules about the owner alone are checked against.
pub(crate) fn owned(image: &Image) -> Target {
    owned_by(&image.owner)
}
/// The same of something whose owner alone is known.
pub(crate) fn owned_by(owner: &maru_base::ProjectId) -> Target {
    Target::project(owner).with("owner", owner)
}

pub(crate) fn not_found(id: &str) -> Error {
    Error::not_found(format!("No image found with ID {id}"))
}

/// The refusal of a media type.
pub(crate) fn unsupported_media(found: &str, wanted: &str) -> Error {
    Error::new(
        ErrorKind::UnsupportedMedia,
        format!("The body's content type is '{found}'; this request takes {wanted}."),
    )
    .with_field("Content-Type")
}

impl App {
    /// An image that the caller may know of, authorised for the request's rule.
    pub(crate) fn find(&self, snapshot: &Snapshot, request: &Request, id: &str) -> Result<Object<Image>> {
        let caller = request.caller()?;
        let image = find_visible(snapshot, caller, &ImageId::from(id)).ok_or_else(|| not_found(id))?;
        request.authorize(&target(snapshot, &image, caller))?;
        Ok(image)
    }

    fn may_be_seen(request: &Request, image: &Image) -> Result<()> {
        match image.visibility {
            Visibility::Public => request.authorize_rule("publicize_image", &owned(image)),
            Visibility::Community => request.authorize_rule("communitize_image", &owned(image)),
            _ => Ok(()),
        }
    }

    /// Makes a record.
    pub(crate) async fn create(&self, request: &Request, draft: Draft) -> Result<Object<Image>> {
        if !request.may("add_image", &owned(&draft.image)) {
            let owner = &draft.image.owner;
            return Err(
                Error::forbidden(format!("You are not permitted to create images owned by '{owner}'."))
                    .with_field("owner"),
            );
        }
        Self::may_be_seen(request, &draft.image)?;
        let id = draft.id.unwrap_or_else(ImageId::new_uuid);
        self.store
            .plan(|snapshot| {
                if snapshot.get::<Image>(&id).is_some() || usage::is_retired(snapshot, &id) {
                    return Err(Error::conflict(format!(
                        "Image ID {id} already exists! The id of a deleted image is not given out again, either."
                    ))
                    .with_field("id"));
                }
                let mut txn = Txn::new();
                txn.create(&id, &draft.image);
                usage::plan_count(&mut txn, &draft.image.owner, self.settings.project_images);
                Ok((txn, ()))
            })
            .await
            .map_err(over_quota)?;
        self.store.snapshot().get(&id).ok_or_else(|| not_found(&id))
    }

    /// Applies a patch in one transaction.
    pub(crate) async fn update(&self, request: &Request, id: &str, ops: &[PatchOp]) -> Result<Object<Image>> {
        let caller = Arc::clone(request.caller()?);
        let key = ImageId::from(id);
        self.store
            .plan(|snapshot| {
                let old = self.find(snapshot, request, id)?;
                let mut image = (*old.value).clone();
                for op in ops {
                    op.apply(&mut image, &caller)?;
                }
                if image == *old.value {
                    return Ok((Txn::new(), ()));
                }
                check_limits(&image, &self.settings)?;
                if image.visibility != old.visibility {
                    Self::may_be_seen(request, &image)?;
                }
                if old.status != ImageStatus::Queued
                    && (image.disk_format != old.disk_format || image.container_format != old.container_format)
                {
                    return Err(Error::forbidden(
                        "Attributes disk_format and container_format can be only replaced for a queued image.",
                    ));
                }
                image.updated_at = maru_base::time::now();
                let mut txn = Txn::new();
                if image.owner != old.owner {
                    usage::plan_release(&mut txn, &old);
                    usage::plan_count(&mut txn, &image.owner, self.settings.project_images);
                    if let Some(size) = image.held() {
                        usage::plan_hold(&mut txn, &image.owner, size, self.settings.project_bytes);
                    }
                }
                txn.update(&old, &image);
                Ok((txn, ()))
            })
            .await
            .map_err(over_quota)?;
        self.store.snapshot().get(&key).ok_or_else(|| not_found(id))
    }

    /// Removes a record and its members; the blob goes when no image names it.
    pub(crate) async fn delete(self: &Arc<Self>, request: &Request, id: &str) -> Result<()> {
        let digests = self
            .store
            .plan(|snapshot| {
                let image = self.find(snapshot, request, id)?;
                if image.protected {
                    return Err(Error::forbidden(format!(
                        "Image {id} is protected and cannot be deleted; set protected to false first."
                    )));
                }
                let mut txn = Txn::new();
                let digests = usage::plan_delete(snapshot, &mut txn, &image);
                Ok((txn, digests))
            })
            .await?;
        for digest in digests {
            // A task of its own, so that a client who goes away does not leave it half done.
            let app = Arc::clone(self);
            let collected = tokio::spawn(async move { app.collect(&digest).await }).await;
            if let Ok(Err(error)) = collected {
                tracing::warn!(image = id, error = %error.chain(), "its blob stays until the next start");
            }
        }
        Ok(())
    }

    /// Sets or clears a tag.
    pub(crate) async fn tag(&self, request: &Request, id: &str, tag: &str, add: bool) -> Result<()> {
        let tag = bounded("tag", tag)?;
        self.store
            .plan(|snapshot| {
                let old = self.find(snapshot, request, id)?;
                let mut image = (*old.value).clone();
                let at = image.tags.iter().position(|t| *t == tag);
                match (add, at) {
                    (true, None) => image.tags.push(tag.clone()),
                    (false, Some(at)) => {
                        image.tags.remove(at);
                    }
                    (false, None) => return Err(Error::not_found(format!("The tag '{tag}' is not on image {id}."))),
                    (true, Some(_)) => return Ok((Txn::new(), ())),
                }
                check_limits(&image, &self.settings)?;
                image.tags.sort_unstable();
                image.updated_at = maru_base::time::now();
                let mut txn = Txn::new();
                txn.update(&old, &image);
                Ok((txn, ()))
            })
            .await
    }

    /// Deactivates or reactivates.
    pub(crate) async fn set_active(&self, request: &Request, id: &str, active: bool) -> Result<()> {
        self.store
            .plan(|snapshot| {
                let old = self.find(snapshot, request, id)?;
                let to = if active {
                    ImageStatus::Active
                } else {
                    ImageStatus::Deactivated
                };
                if old.status == to {
                    return Ok((Txn::new(), ()));
                }
                if !matches!(old.status, ImageStatus::Active | ImageStatus::Deactivated) {
                    return Err(Error::forbidden(format!(
                        "Not allowed to {} image in status '{}'; it must be active or deactivated.",
                        if active { "reactivate" } else { "deactivate" },
                        old.status.as_str(),
                    )));
                }
                let mut image = (*old.value).clone();
                image.status = to;
                image.updated_at = maru_base::time::now();
                let mut txn = Txn::new();
                txn.update(&old, &image);
                Ok((txn, ()))
            })
            .await
    }

    /// What the caller's project uses of each limit, and the limit: bytes in MiB, -1 for none.
    pub(crate) fn usage(&self, snapshot: &Snapshot, caller: &Caller) -> Result<[(&'static str, i64, i64); 4]> {
        let project = caller.require_project()?;
        let signed = |limit: Option<u64>| limit.map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX));
        let uploading = snapshot
            .find::<Image>("owner", project)
            .filter(|i| i.upload.is_some())
            .count();
        let staged: u64 = snapshot
            .find::<Image>("owner", project)
            .filter_map(|i| i.staged.as_ref().map(|s| s.size))
            .sum();
        Ok([
            (
                "image_size_total",
                snapshot.counter(&usage::bytes_counter(project)) >> 20,
                signed(self.settings.project_bytes.map(|n| n >> 20)),
            ),
            (
                "image_count_total",
                snapshot.counter(&usage::images_counter(project)),
                signed(self.settings.project_images),
            ),
            (
                "image_count_uploading",
                i64::try_from(uploading).unwrap_or(i64::MAX),
                -1,
            ),
            ("image_stage_total", i64::try_from(staged >> 20).unwrap_or(i64::MAX), -1),
        ])
    }
}
