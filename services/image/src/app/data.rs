//! Image data: upload, inspection, download, and the collection of blobs that no image names.
//!
//! ```text
//!  begin (queued → saving)  ─►  receive: bytes to disk, hashed  ─►  settle: seal, inspect, place, name (→ active)
//!        409 if not queued        client gone, too large: ─► abandon (→ queued)   refused: ─► abandon (→ queued)
//! ```
//! Nothing of it depends on the client staying: an upload whose request is dropped abandons itself, and what has been
//! received whole is settled in a task of its own. A process that dies leaves `saving` and a [`LooseBlob`] record, which
//! [`App::recover`] clears at the next start.

use super::{images::unsupported_media, over_quota, range};
use crate::App;
use futures_util::StreamExt;
use maru_base::{Error, ErrorKind, ProjectId, Result};
use maru_blob::{BlobWriter, SealedBlob};
use maru_http::{ByteStream, Request};
use maru_image_model::{BlobDigest, Image, ImageId, ImageStatus, LooseBlob, Staged, usage};
use maru_store::{Object, Snapshot, Txn};
use std::sync::Arc;

/// Bytes to send, with what the headers say of them.
pub(crate) struct Download {
    pub image: Object<Image>,
    pub stream: ByteStream,
    /// First byte and length of the part that is sent, if only a part is.
    pub part: Option<(u64, u64)>,
    pub total: u64,
}

/// One upload to one image; `ticket` tells it from any other.
#[derive(Clone)]
pub(super) struct Upload {
    pub(super) app: Arc<App>,
    pub(super) image: ImageId,
    pub(super) ticket: String,
    pub(super) owner: ProjectId,
    pub(super) declared: String,
}

/// Abandons the upload when its request is dropped while it is running.
struct Running(Option<Upload>);

impl Drop for Running {
    fn drop(&mut self) {
        // Without a runtime the process ends, and the next start recovers.
        if let Some(upload) = self.0.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            tracing::info!(image = %upload.image, "the client of an upload went away");
            runtime.spawn(async move { upload.abandon().await });
        }
    }
}

fn too_large(limit: u64) -> Error {
    Error::too_large(format!(
        "The incoming image is too large: an image may have at most {limit} bytes."
    ))
}

/// Why no more bytes come: the listener says so itself where it knows (too slow, too many).
fn broken(why: std::io::Error) -> Error {
    why.downcast::<Error>().unwrap_or_else(|why| {
        Error::bad_request("The upload ended before it was complete; send the whole data again.").with_source(why)
    })
}

/// The declared format of an image that is about to get data.
pub(super) fn declared(image: &Image) -> Result<String> {
    let missing = match (&image.disk_format, &image.container_format) {
        (Some(declared), Some(_)) => return Ok(declared.clone()),
        (None, _) => "disk_format",
        _ => "container_format",
    };
    Err(Error::invalid(
        missing,
        format!("Properties {missing} must be set prior to saving data."),
    ))
}

impl App {
    /// Takes an image's bytes: queued → saving → active, or back to queued when anything goes wrong. With `stage` they are only
    /// kept for an import: queued → uploading.
    pub(crate) async fn upload(self: &Arc<Self>, request: &mut Request, id: &str, stage: bool) -> Result<()> {
        let content_type = request.header("content-type").unwrap_or("").to_owned();
        if content_type.split(';').next().map(str::trim) != Some("application/octet-stream") {
            return Err(unsupported_media(&content_type, "application/octet-stream"));
        }
        let announced = request.header("content-length").and_then(|n| n.parse::<u64>().ok());
        let find = |snapshot: &Snapshot| self.find(snapshot, request, id);
        let upload = self.begin_upload(find, announced, stage).await?;
        let stream = request.take_stream();
        self.take(upload, stream, announced, stage, &request.id).await
    }

    /// Takes bytes that another service of this cloud has for a queued image (a volume's upload, a server's disk).
    ///
    /// # Errors
    /// 404 when the image is gone, 409 when it takes no data, and what an upload is refused for.
    pub async fn fill(self: &Arc<Self>, id: &str, stream: ByteStream) -> Result<()> {
        let find = |snapshot: &Snapshot| {
            snapshot
                .get::<Image>(&ImageId::from(id))
                .ok_or_else(|| Error::not_found(format!("Failed to find image {id}; it was deleted.")))
        };
        let upload = self.begin_upload(find, None, false).await?;
        self.take(upload, stream, None, false, "").await
    }

    /// Receives and settles (or stages), or abandons.
    async fn take(
        &self,
        upload: Upload,
        stream: ByteStream,
        announced: Option<u64>,
        stage: bool,
        request_id: &str,
    ) -> Result<()> {
        let mut running = Running(Some(upload.clone()));
        let received = upload.fill(stream, announced).await;
        running.0 = None;
        let outcome = match received {
            Ok(writer) => {
                let settling = upload.clone();
                tokio::spawn(async move {
                    if stage {
                        settling.stage(writer).await
                    } else {
                        settling.settle(writer).await
                    }
                })
                .await
                .unwrap_or_else(|e| Err(Error::internal("The upload could not be ended.", e)))
            }
            Err(error) => Err(error),
        };
        if let Err(error) = &outcome {
            tracing::info!(request_id, image = %upload.image, error = %error.chain(), "upload refused");
            upload.abandon().await;
        }
        outcome
    }

    async fn begin_upload(
        self: &Arc<Self>,
        find: impl Fn(&Snapshot) -> Result<Object<Image>> + Send,
        announced: Option<u64>,
        stage: bool,
    ) -> Result<Upload> {
        let to = if stage {
            ImageStatus::Uploading
        } else {
            ImageStatus::Saving
        };
        let ticket = maru_base::random::hex32();
        self.store
            .plan(|snapshot| {
                let old = find(snapshot)?;
                if old.status != ImageStatus::Queued {
                    return Err(Error::conflict(format!(
                        "Image status transition from {} to {} is not allowed: only a queued image takes data.",
                        old.status.as_str(),
                        to.as_str()
                    )));
                }
                let declared = declared(&old)?;
                if announced.is_some_and(|n| n > self.settings.image_size) {
                    return Err(too_large(self.settings.image_size));
                }
                if let (Some(bytes), Some(room)) = (announced, self.room(snapshot, &old.owner))
                    && bytes > room
                {
                    return Err(self.no_room(snapshot, &old.owner, bytes));
                }
                let mut image = (*old.value).clone();
                image.status = to;
                image.upload = Some(ticket.clone());
                let mut txn = Txn::new();
                txn.update(&old, &image);
                let upload = Upload {
                    app: Arc::clone(self),
                    image: old.id.clone(),
                    ticket: ticket.clone(),
                    owner: old.owner.clone(),
                    declared,
                };
                Ok((txn, upload))
            })
            .await
    }

    /// Bytes that a project may still store, `None` for no limit.
    fn room(&self, snapshot: &Snapshot, owner: &ProjectId) -> Option<u64> {
        let used = snapshot.counter(&usage::bytes_counter(owner));
        self.settings
            .project_bytes
            .map(|limit| limit.saturating_sub(u64::try_from(used).unwrap_or(0)))
    }

    fn no_room(&self, snapshot: &Snapshot, owner: &ProjectId, bytes: u64) -> Error {
        let limit = self.settings.project_bytes.unwrap_or(0);
        let used = snapshot.counter(&usage::bytes_counter(owner));
        Error::too_large(format!(
            "Image exceeds the storage quota: {used} of {limit} bytes are in use, and this image has {bytes} or more. \
             Delete images, or ask an administrator for a higher limit."
        ))
        .with_field("image_size_total")
    }

    /// Clears what a dead process left behind: uploads that were running go back to queued, blobs that got no name or
    /// lost their last one are removed. Called once at start, before requests.
    ///
    /// # Errors
    /// When the store or the disk does not answer.
    pub async fn recover(&self) -> Result<()> {
        let snapshot = self.store.snapshot();
        for image in snapshot.list::<Image>() {
            if let Some(ticket) = &image.upload {
                tracing::info!(image = %image.id, "an upload was cut off; the image is queued again");
                self.abandon(&image.id, ticket).await?;
            }
        }
        self.recover_tasks().await?;
        let snapshot = self.store.snapshot();
        for loose in snapshot.list::<LooseBlob>() {
            self.collect(&loose.id).await?;
        }
        Ok(())
    }

    /// Back to queued, if the upload is still this one; what was staged for it goes.
    async fn abandon(&self, id: &ImageId, ticket: &str) -> Result<()> {
        let staged = self
            .store
            .plan(|snapshot| {
                let mut txn = Txn::new();
                let mut staged = None;
                if let Some(old) = snapshot.get::<Image>(id)
                    && old.upload.as_deref() == Some(ticket)
                {
                    let mut image = (*old.value).clone();
                    image.status = ImageStatus::Queued;
                    image.upload = None;
                    if let Some(gone) = image.staged.take() {
                        usage::plan_give_back(&mut txn, &image.owner, gone.size);
                        let since = maru_base::time::now();
                        txn.put(&BlobDigest::from(&gone.digest), &LooseBlob { since });
                        staged = Some(gone.digest);
                    }
                    txn.update(&old, &image);
                }
                Ok((txn, staged))
            })
            .await?;
        match staged {
            Some(digest) => self.collect(&digest).await,
            None => Ok(()),
        }
    }

    /// Removes a blob if no image names it, and the record that asked for it.
    pub(crate) async fn collect(&self, digest: &str) -> Result<()> {
        let _alone = self.naming.write().await;
        if self
            .store
            .current()
            .await?
            .find::<Image>("digest", digest)
            .next()
            .is_none()
        {
            self.blobs.delete(digest).await?;
        }
        let key = BlobDigest::from(digest);
        self.store
            .plan(|snapshot| {
                let mut txn = Txn::new();
                if let Some(loose) = snapshot.get::<LooseBlob>(&key) {
                    txn.delete(&loose);
                }
                Ok((txn, ()))
            })
            .await
    }

    /// Opens an image's bytes, or the part of them that the request's headers ask for. None: there are none yet.
    pub(crate) async fn download(&self, request: &Request, id: &str) -> Result<Option<Download>> {
        let snapshot = self.store.current().await?;
        let image = self.find(&snapshot, request, id)?;
        if image.status == ImageStatus::Deactivated && !request.caller()?.is_admin() {
            return Err(Error::forbidden(
                "The requested image has been deactivated. Image data download is forbidden.",
            ));
        }
        let (Some(digest), Some(total)) = (image.digest.clone(), image.size) else {
            return Ok(None);
        };
        let part = range::requested(request, total)?;
        let range = part.map(|(start, length)| start..start + length);
        let reader = self.blobs.open(&digest, range).await.map_err(|e| match e.kind() {
            ErrorKind::NotFound => Error::internal(format!("The data of image {id} is missing on this machine."), e),
            _ => e,
        })?;
        Ok(Some(Download {
            image,
            stream: Box::pin(reader.into_stream()),
            part,
            total,
        }))
    }
}

impl Upload {
    /// Takes a stream's bytes, no more than an image and its project may have.
    pub(super) async fn fill(&self, mut stream: ByteStream, announced: Option<u64>) -> Result<BlobWriter> {
        let app = &self.app;
        let mut room = app.room(&app.store.snapshot(), &self.owner).unwrap_or(u64::MAX);
        let mut writer = app.blobs.begin().await?;
        while let Some(chunk) = stream.next().await {
            writer.write(chunk.map_err(broken)?).await?;
            if writer.written() > app.settings.image_size {
                return Err(too_large(app.settings.image_size));
            }
            if writer.written() > room {
                // Others may have given room back meanwhile.
                let snapshot = app.store.snapshot();
                room = app.room(&snapshot, &self.owner).unwrap_or(u64::MAX);
                if writer.written() > room {
                    return Err(app.no_room(&snapshot, &self.owner, writer.written()));
                }
            }
        }
        // A connection that is torn down may end its body like a whole one.
        if announced.is_some_and(|n| n != writer.written()) {
            return Err(broken(std::io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(writer)
    }

    /// Keeps received bytes for an import, or leaves nothing of them.
    async fn stage(&self, writer: BlobWriter) -> Result<()> {
        let app = &self.app;
        let sealed = writer.seal().await?;
        let digest = sealed.info().digest.clone();
        let kept = {
            let _naming = app.naming.read().await;
            let change = |image: &mut Image, info: &maru_blob::BlobInfo| {
                image.status = ImageStatus::Uploading;
                image.staged = Some(Staged {
                    digest: info.digest.clone(),
                    size: info.size,
                    checksum: info.md5.clone(),
                });
            };
            self.place(sealed, change).await
        };
        if kept.is_err() {
            app.collect(&digest).await?;
        }
        kept
    }

    /// Makes received bytes the image's data, or leaves nothing of them.
    pub(super) async fn settle(&self, writer: BlobWriter) -> Result<()> {
        let app = &self.app;
        let sealed = writer.seal().await?;
        let inspected = app.inspector.inspect(sealed.path(), &self.declared).await?;
        let digest = sealed.info().digest.clone();
        let named = {
            // From here to the commit the blob has no name; the collector must not take it.
            let _naming = app.naming.read().await;
            self.name(sealed, &inspected).await
        };
        if named.is_err() {
            app.collect(&digest).await?;
        }
        named
    }

    async fn name(&self, sealed: SealedBlob, inspected: &crate::Inspected) -> Result<()> {
        let change = |image: &mut Image, info: &maru_blob::BlobInfo| {
            image.status = ImageStatus::Active;
            image.size = Some(info.size);
            image.virtual_size = inspected.virtual_size;
            image.proven_format = Some(inspected.proven_format.clone());
            image.checksum = Some(info.md5.clone());
            image.digest = Some(info.digest.clone());
            super::imports::done(image);
        };
        self.place(sealed, change).await
    }

    /// Puts a blob in its place and has the image name it.
    async fn place(&self, sealed: SealedBlob, change: impl Fn(&mut Image, &maru_blob::BlobInfo)) -> Result<()> {
        let app = &self.app;
        let key = BlobDigest::from(&sealed.info().digest);
        app.store
            .plan(|snapshot| {
                self.current(snapshot)?;
                let since = maru_base::time::now();
                let mut txn = Txn::new();
                txn.put(&key, &LooseBlob { since });
                Ok((txn, ()))
            })
            .await?;
        let info = sealed.place().await?;
        app.store
            .plan(|snapshot| {
                let old = self.current(snapshot)?;
                let mut image = (*old.value).clone();
                image.upload = None;
                image.updated_at = maru_base::time::now();
                change(&mut image, &info);
                let mut txn = Txn::new();
                txn.update(&old, &image);
                if let Some(loose) = snapshot.get::<LooseBlob>(&key) {
                    txn.delete(&loose);
                }
                usage::plan_hold(&mut txn, &image.owner, info.size, app.settings.project_bytes);
                Ok((txn, ()))
            })
            .await
            .map_err(over_quota)
    }

    /// The image, while this upload is still its upload.
    pub(super) fn current(&self, snapshot: &Snapshot) -> Result<Object<Image>> {
        let id = &self.image;
        let image = snapshot.get::<Image>(id).ok_or_else(|| {
            Error::new(
                ErrorKind::Gone,
                format!(
                    "Image {id} could not be found after upload. The image may have been deleted during the upload."
                ),
            )
        })?;
        if image.upload.as_deref() == Some(&self.ticket) {
            Ok(image)
        } else {
            Err(Error::conflict(format!(
                "The upload of image {id} was taken over by another."
            )))
        }
    }

    pub(super) async fn abandon(&self) {
        if let Err(error) = self.app.abandon(&self.image, &self.ticket).await {
            let image = &self.image;
            tracing::warn!(%image, error = %error.chain(), "the image stays in saving until the next start");
        }
    }
}
