//! A process that dies between the disk and the store: nothing is lost, nothing is left behind, nothing is stuck.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use bytes::Bytes;
use common::*;
use maru_blob::{Blobs, put};
use maru_image::{Inspected, Inspector, Settings};
use maru_image_model::{BlobDigest, Image, ImageId, ImageStatus, LooseBlob};
use maru_store::Txn;
use serde_json::{Value, json};
use std::{path::Path, sync::Arc};

/// The next start of the process, over what the last one left.
async fn restart(c: &Cloud) -> Cloud {
    let next = over(
        c.store.clone(),
        Arc::clone(&c.folder),
        Settings::default(),
        Arc::new(Look),
    )
    .await;
    next.app.recover().await.unwrap();
    next
}

/// Writes what an upload writes before its blob is in place.
async fn begin(c: &Cloud, image: &str, digest: Option<&str>) {
    let key = ImageId::from(image);
    c.store
        .plan(|s| {
            let old = s.get::<Image>(&key).unwrap();
            let mut image = (*old.value).clone();
            image.status = ImageStatus::Saving;
            image.upload = Some("of a dead process".to_owned());
            let mut txn = Txn::new();
            txn.update(&old, &image);
            if let Some(digest) = digest {
                let since = maru_base::time::now();
                txn.put(&BlobDigest::from(digest), &LooseBlob { since });
            }
            Ok((txn, ()))
        })
        .await
        .unwrap();
}

async fn place(c: &Cloud, data: &'static [u8]) -> String {
    let chunks = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(data))]);
    put(&c.blobs, chunks).await.unwrap().digest
}

#[tokio::test]
async fn while_bytes_came_in() {
    let c = cloud().await;
    let image = c.queued(A, json!({})).await;
    begin(&c, &image, None).await;
    std::fs::write(c.folder.path().join("tmp/left"), "half").unwrap();
    let c = restart(&c).await;
    assert_eq!(c.status(&image).await, "queued");
    c.audit().await;
    assert_eq!(c.upload(A, &image, "again").await.status, 204);
}

#[tokio::test]
async fn between_the_blob_and_the_image_that_names_it() {
    let c = cloud().await;
    let kept = c.active(A, json!({}), b"kept").await;
    let image = c.queued(A, json!({})).await;
    let digest = place(&c, b"orphan").await;
    begin(&c, &image, Some(&digest)).await;
    let c = restart(&c).await;
    assert_eq!(c.status(&image).await, "queued");
    assert!(c.blobs.path(&digest).is_none(), "the orphan is gone");
    assert_eq!(c.download(A, &kept, &[]).await.body, "kept");
    c.audit().await;
    assert_eq!(c.upload(A, &image, "orphan").await.status, 204);
    c.audit().await;
}

#[tokio::test]
async fn between_the_record_and_the_blob() {
    let c = cloud().await;
    let image = c.queued(A, json!({})).await;
    begin(&c, &image, Some(&"a".repeat(128))).await;
    let c = restart(&c).await;
    assert_eq!(c.status(&image).await, "queued");
    c.audit().await;
}

#[tokio::test]
async fn with_a_blob_that_another_image_names() {
    let c = cloud().await;
    let kept = c.active(A, json!({}), b"shared").await;
    let image = c.queued(B, json!({})).await;
    let digest = place(&c, b"shared").await;
    begin(&c, &image, Some(&digest)).await;
    let c = restart(&c).await;
    assert_eq!(c.download(A, &kept, &[]).await.body, "shared");
    c.audit().await;
}

#[tokio::test]
async fn between_the_deletion_of_an_image_and_of_its_blob() {
    let c = cloud().await;
    let image = c.active(A, json!({}), b"deleted").await;
    let key = ImageId::from(image.as_str());
    // What the deletion's transaction writes, without what comes after it.
    c.store
        .plan(|s| {
            let old = s.get::<Image>(&key).unwrap();
            let mut txn = Txn::new();
            txn.delete(&old);
            maru_image_model::usage::plan_release(&mut txn, &old);
            let since = maru_base::time::now();
            txn.put(&BlobDigest::from(old.digest.as_ref().unwrap()), &LooseBlob { since });
            Ok((txn, ()))
        })
        .await
        .unwrap();
    assert_eq!(c.files().await, 1);
    let c = restart(&c).await;
    assert_eq!(c.files().await, 0);
    c.audit().await;
}

#[tokio::test]
async fn blobs_that_no_record_speaks_of_are_left_alone() {
    let c = cloud().await;
    let digest = place(&c, b"of an image that a restored backup does not know").await;
    let c = restart(&c).await;
    assert!(c.blobs.path(&digest).is_some());
}

/// An inspector that never comes back.
struct Stuck;

#[async_trait::async_trait]
impl Inspector for Stuck {
    async fn inspect(&self, _: &Path, _: &str) -> maru_base::Result<Inspected> {
        std::future::pending().await
    }
}

/// The whole runtime of the first process goes away in the middle, at whatever its tasks were doing.
#[test]
fn while_the_parser_looked() {
    let first = tokio::runtime::Runtime::new().unwrap();
    let (c, image) = first.block_on(async {
        let c = cloud_with(Settings::default(), Arc::new(Stuck)).await;
        let image = c.queued(A, json!({})).await;
        (Arc::new(c), image)
    });
    let (uploader, id) = (Arc::clone(&c), image.clone());
    first.spawn(async move { uploader.upload(A, &id, vec![7; 1_000_000]).await.status });
    first.block_on(c.until(&image, ImageStatus::Saving));
    first.shutdown_background();
    let second = tokio::runtime::Runtime::new().unwrap();
    second.block_on(async {
        let c = restart(&c).await;
        c.until(&image, ImageStatus::Queued).await;
        assert_eq!(c.upload(A, &image, "again").await.status, 204);
        assert_eq!(c.get(A, &format!("/v2/images/{image}")).await["size"], 5);
        c.want(204, A, "DELETE", &format!("/v2/images/{image}"), Value::Null)
            .await;
    });
}
