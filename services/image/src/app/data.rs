//! Image data: upload, inspection, download, and the collection of blobs that no image names.

use super::images::{not_found, unsupported_media};
use crate::App;
use futures_util::StreamExt;
use maru_base::{Error, ErrorKind, Result};
use maru_http::{ByteStream, Request};
use maru_image_model::{Image, ImageId, ImageStatus};
use maru_store::{Object, Txn};

/// Bytes to send, with what the headers say of them.
pub(crate) struct Download {
    pub image: Object<Image>,
    pub stream: ByteStream,
    /// First byte and length of the part that is sent, if only a part is.
    pub part: Option<(u64, u64)>,
    pub total: u64,
}

impl App {
    /// Takes an image's bytes: queued → saving → active, or back to queued when anything goes wrong.
    pub(crate) async fn upload(&self, request: &mut Request, id: &str) -> Result<()> {
        let content_type = request.header("content-type").unwrap_or("").to_owned();
        if content_type.split(';').next().map(str::trim) != Some("application/octet-stream") {
            return Err(unsupported_media(&content_type, "application/octet-stream"));
        }
        let ticket = maru_base::random::hex32();
        self.begin_upload(request, id, &ticket).await?;
        let outcome = self.receive(request, id, &ticket).await;
        if let Err(error) = &outcome {
            tracing::info!(request_id = %request.id, image = id, error = %error.chain(), "upload refused");
            self.abandon_upload(id, &ticket).await;
        }
        outcome
    }

    async fn begin_upload(&self, request: &Request, id: &str, ticket: &str) -> Result<()> {
        self.store
            .plan(|snapshot| {
                let old = self.find(snapshot, request, id)?;
                if old.status != ImageStatus::Queued {
                    return Err(Error::conflict(format!(
                        "Image status transition from {} to saving is not allowed: only a queued image takes data.",
                        old.status.as_str()
                    )));
                }
                if old.disk_format.is_none() || old.container_format.is_none() {
                    return Err(Error::bad_request(
                        "disk_format and container_format must be set before data is uploaded.",
                    ));
                }
                let mut image = (*old.value).clone();
                image.status = ImageStatus::Saving;
                image.upload = Some(ticket.to_owned());
                let mut txn = Txn::new();
                txn.update(&old, &image);
                Ok((txn, ()))
            })
            .await
    }

    async fn receive(&self, request: &mut Request, id: &str, ticket: &str) -> Result<()> {
        let key = ImageId::from(id);
        let mut writer = self.blobs.begin().await?;
        let mut stream = request.take_stream();
        while let Some(chunk) = stream.next().await {
            let chunk =
                chunk.map_err(|e| Error::bad_request("The upload ended before it was complete.").with_source(e))?;
            writer.write(chunk).await?;
        }
        // From here to the commit the blob has no name; the collector must not take it.
        let _naming = self.naming.read().await;
        let info = writer.finish().await?;
        let declared = self
            .store
            .snapshot()
            .get::<Image>(&key)
            .and_then(|i| i.disk_format.clone())
            .ok_or_else(|| not_found(id))?;
        let path = self
            .blobs
            .path(&info.digest)
            .ok_or_else(|| Error::unavailable("The stored bytes cannot be found for inspection; try again."))?;
        let inspected = self.inspector.inspect(&path, &declared).await;
        let named = match inspected {
            Ok(inspected) => {
                self.store
                    .plan(|snapshot| {
                        let old = snapshot.get::<Image>(&key).ok_or_else(|| {
                            Error::new(ErrorKind::Gone, format!("Image {id} was deleted during the upload."))
                        })?;
                        if old.upload.as_deref() != Some(ticket) {
                            return Err(Error::conflict(format!(
                                "The upload of image {id} was taken over by another."
                            )));
                        }
                        let mut image = (*old.value).clone();
                        image.status = ImageStatus::Active;
                        image.upload = None;
                        image.size = Some(info.size);
                        image.virtual_size = inspected.virtual_size;
                        image.proven_format = Some(inspected.proven_format.clone());
                        image.checksum = Some(info.md5.clone());
                        image.digest = Some(info.digest.clone());
                        image.updated_at = maru_base::time::now();
                        let mut txn = Txn::new();
                        txn.update(&old, &image);
                        Ok((txn, ()))
                    })
                    .await
            }
            Err(error) => Err(error),
        };
        drop(_naming);
        if named.is_err() {
            self.collect(&info.digest).await?;
        }
        named
    }

    /// Back to queued, if the upload is still this one.
    async fn abandon_upload(&self, id: &str, ticket: &str) {
        let key = ImageId::from(id);
        let outcome = self
            .store
            .plan(|snapshot| {
                let mut txn = Txn::new();
                if let Some(old) = snapshot.get::<Image>(&key)
                    && old.upload.as_deref() == Some(ticket)
                {
                    let mut image = (*old.value).clone();
                    image.status = ImageStatus::Queued;
                    image.upload = None;
                    txn.update(&old, &image);
                }
                Ok((txn, ()))
            })
            .await;
        if let Err(error) = outcome {
            tracing::warn!(image = id, error = %error.chain(), "the image stays in saving until the next start");
        }
    }

    /// Puts uploads that a dead process left behind back to queued; called once at start, before requests.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn recover(&self) -> Result<()> {
        let stuck: Vec<(ImageId, String)> = self
            .store
            .snapshot()
            .list::<Image>()
            .filter_map(|i| Some((i.id.clone(), i.upload.clone()?)))
            .collect();
        for (id, ticket) in stuck {
            self.abandon_upload(&id, &ticket).await;
        }
        Ok(())
    }

    /// Removes a blob if no image names it.
    pub(crate) async fn collect(&self, digest: &str) -> Result<()> {
        let _alone = self.naming.write().await;
        if self.store.snapshot().find::<Image>("digest", digest).next().is_none() {
            self.blobs.delete(digest).await?;
        }
        Ok(())
    }

    /// Opens an image's bytes; `range` is the Range header.
    pub(crate) async fn download(&self, request: &Request, id: &str) -> Result<Option<Download>> {
        let snapshot = self.store.snapshot();
        let image = self.find(&snapshot, request, id)?;
        if image.status == ImageStatus::Deactivated && !request.caller()?.is_admin() {
            return Err(Error::forbidden(format!(
                "The requested image {id} has been deactivated. Image data download is forbidden."
            )));
        }
        let (Some(digest), Some(total)) = (image.digest.clone(), image.size) else {
            return Ok(None);
        };
        let part = match request.header("range") {
            Some(text) => Some(range(text, total)?),
            None => None,
        };
        let (start, length) = part.unwrap_or((0, total));
        let range = part.map(|_| start..start + length);
        let stream: ByteStream = Box::pin(self.blobs.open(&digest, range).await?.into_stream());
        Ok(Some(Download {
            image,
            stream,
            part,
            total,
        }))
    }
}

/// One byte range of RFC 9110, section 14: first byte and length.
fn range(text: &str, total: u64) -> Result<(u64, u64)> {
    let refuse = || {
        Error::new(
            ErrorKind::RangeNotSatisfiable,
            format!("The range '{text}' does not lie within the image's {total} bytes."),
        )
    };
    let spec = text
        .strip_prefix("bytes=")
        .filter(|s| !s.contains(','))
        .ok_or_else(refuse)?;
    let (first, last) = spec.split_once('-').ok_or_else(refuse)?;
    let number = |s: &str| s.trim().parse::<u64>().map_err(|_| refuse());
    let (first, last) = match (first.trim(), last.trim()) {
        ("", suffix) => (total.saturating_sub(number(suffix)?), total.saturating_sub(1)),
        (first, "") => (number(first)?, total.saturating_sub(1)),
        (first, last) => (number(first)?, number(last)?.min(total.saturating_sub(1))),
    };
    if first > last || first >= total {
        Err(refuse())
    } else {
        Ok((first, last - first + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::range;

    #[test]
    fn ranges_of_rfc_9110() {
        assert_eq!(range("bytes=0-9", 100).ok(), Some((0, 10)));
        assert_eq!(range("bytes=90-", 100).ok(), Some((90, 10)));
        assert_eq!(range("bytes=-5", 100).ok(), Some((95, 5)));
        assert_eq!(range("bytes=50-500", 100).ok(), Some((50, 50)));
        for bad in [
            "bytes=100-",
            "bytes=9-3",
            "lines=1-2",
            "bytes=a-b",
            "bytes=0-1,3-4",
            "bytes=-0",
        ] {
            assert!(range(bad, 100).is_err(), "{bad}");
        }
    }
}
