//! The directory engine.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use maru_base::ErrorKind;
use maru_blob::{BlobInfo, Blobs, DirBlobs, put};
use tokio::io::AsyncReadExt;

async fn open(folder: &tempfile::TempDir) -> DirBlobs {
    DirBlobs::open(folder.path(), "here").await.unwrap()
}

async fn upload(blobs: &DirBlobs, content: &[u8], chunk: usize) -> BlobInfo {
    let chunks: Vec<_> = content
        .chunks(chunk)
        .map(|c| Ok::<_, std::io::Error>(Bytes::copy_from_slice(c)))
        .collect();
    put(blobs, stream::iter(chunks)).await.unwrap()
}

fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| u8::try_from((i * 7 + i / 251) % 251).unwrap()).collect()
}

fn temporary_files(folder: &std::path::Path) -> usize {
    std::fs::read_dir(folder.join("tmp")).unwrap().count()
}

#[tokio::test]
async fn the_digests_are_those_of_the_standard_tools() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = open(&folder).await;
    let info = upload(&blobs, b"abc", 1).await;
    assert_eq!(info.md5, "900150983cd24fb0d6963f7d28e17f72");
    assert!(
        info.sha512.starts_with("ddaf35a193617abacc417349ae204131"),
        "{}",
        info.sha512
    );
    assert_eq!((info.size, &info.digest), (3, &info.sha512));
    let empty = upload(&blobs, b"", 1).await;
    assert_eq!(
        (empty.md5.as_str(), empty.size),
        ("d41d8cd98f00b204e9800998ecf8427e", 0)
    );
    let mut all = vec![info.digest.clone(), empty.digest];
    all.sort();
    assert_eq!(blobs.list().await.unwrap(), all);
    assert_eq!(blobs.locations(&info.digest).await.unwrap(), ["here"]);
}

#[tokio::test]
async fn what_went_in_comes_out_whole_and_in_ranges() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = open(&folder).await;
    let content = pattern(3_500_001);
    let info = upload(&blobs, &content, 70_001).await;
    assert_eq!(
        upload(&blobs, &content, 999_999).await,
        info,
        "the same content is the same blob"
    );
    let chunks: Vec<Bytes> = blobs
        .open(&info.digest, None)
        .await
        .unwrap()
        .into_stream()
        .try_collect()
        .await
        .unwrap();
    assert!(chunks.concat() == content);
    for range in [0..1, 1_048_575..1_048_577, 5..3_500_001, 3_500_000..9_999_999] {
        let mut reader = blobs.open(&info.digest, Some(range.clone())).await.unwrap();
        let end = usize::try_from(range.end).unwrap().min(content.len());
        let mut got = Vec::new();
        reader.read_to_end(&mut got).await.unwrap();
        assert!(got == content[usize::try_from(range.start).unwrap()..end], "{range:?}");
        assert_eq!(
            (reader.length(), reader.total()),
            (got.len() as u64, content.len() as u64)
        );
    }
    let refused = blobs
        .open(&info.digest, Some(3_500_001..3_500_002))
        .await
        .err()
        .unwrap();
    assert_eq!(refused.kind(), ErrorKind::RangeNotSatisfiable);
    assert_eq!(
        std::fs::read(blobs.path(&info.digest).unwrap()).unwrap().len(),
        content.len()
    );
    blobs.delete(&info.digest).await.unwrap();
    blobs.delete(&info.digest).await.unwrap();
    assert_eq!(
        blobs.open(&info.digest, None).await.err().unwrap().kind(),
        ErrorKind::NotFound
    );
    assert!(blobs.path(&info.digest).is_none() && blobs.size(&info.digest).await.unwrap().is_none());
}

#[tokio::test]
async fn a_broken_upload_leaves_nothing_and_a_running_one_survives_another_start() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = open(&folder).await;
    let broken = stream::iter([Ok(Bytes::from_static(b"x")), Err(std::io::Error::other("gone"))]);
    assert!(put(&blobs, broken).await.is_err());
    assert_eq!(temporary_files(folder.path()), 0);

    let mut writer = blobs.begin().await.unwrap();
    writer.write(Bytes::from_static(b"running")).await.unwrap();
    std::fs::write(folder.path().join("tmp/left-by-a-crash"), "x").unwrap();
    let again = open(&folder).await;
    assert_eq!(
        temporary_files(folder.path()),
        1,
        "the left one is gone, the running one is there"
    );
    let info = writer.finish().await.unwrap();
    assert_eq!(again.size(&info.digest).await.unwrap(), Some(7));
    drop(blobs.begin().await.unwrap());
    assert_eq!(temporary_files(folder.path()), 0);
}

#[tokio::test]
async fn only_a_digest_becomes_a_path() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = open(&folder).await;
    for name in ["../../etc/passwd", "", "AB", &"A".repeat(128), &"/".repeat(128)] {
        assert_eq!(
            blobs.open(name, None).await.err().unwrap().kind(),
            ErrorKind::NotFound,
            "{name}"
        );
        assert!(blobs.path(name).is_none());
        blobs.delete(name).await.unwrap();
    }
}

#[tokio::test]
async fn many_uploads_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = open(&folder).await;
    let uploads = stream::iter(0..16).map(|n| {
        let blobs = blobs.clone();
        async move { upload(&blobs, &pattern(200_000 + n), 4_096).await }
    });
    let infos: Vec<_> = uploads.buffer_unordered(16).collect().await;
    assert_eq!(blobs.list().await.unwrap().len(), infos.len());
}

#[tokio::test]
async fn a_sealed_upload_is_no_blob_until_it_is_placed() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = open(&folder).await;
    let seal = async || {
        let mut writer = blobs.begin().await.unwrap();
        writer.write(Bytes::from_static(b"looked at first")).await.unwrap();
        writer.seal().await.unwrap()
    };
    let sealed = seal().await;
    assert_eq!(std::fs::read(sealed.path()).unwrap(), b"looked at first");
    assert_eq!(sealed.info().size, 15);
    assert!(blobs.list().await.unwrap().is_empty());
    drop(sealed);
    assert_eq!(temporary_files(folder.path()), 0, "dropped, it leaves nothing");
    let info = seal().await.place().await.unwrap();
    assert_eq!(blobs.list().await.unwrap(), [info.digest]);
    assert_eq!(temporary_files(folder.path()), 0);
}

/// Buffers are used again: what a consumer still holds must not change under it.
#[tokio::test]
async fn chunks_that_are_kept_stay_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = open(&folder).await;
    let content = pattern(5_000_003);
    let info = upload(&blobs, &content, 1 << 20).await;
    // Once from the page cache, once from the disk, where the kernel lets go of it.
    for cached in [true, false] {
        let file = std::fs::File::open(blobs.path(&info.digest).unwrap()).unwrap();
        if !cached {
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        }
        let mut stream = std::pin::pin!(blobs.open(&info.digest, None).await.unwrap().into_stream());
        let (mut kept, mut at, mut n) = (Vec::new(), 0, 0);
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.unwrap();
            assert!(chunk[..] == content[at..at + chunk.len()]);
            // Some are dropped at once, some held for a while, some to the end.
            if n % 3 != 0 {
                kept.push((at, chunk.clone()));
            }
            if n % 5 == 4 {
                kept.swap_remove(0);
            }
            (at, n) = (at + chunk.len(), n + 1);
        }
        assert_eq!(at, content.len());
        for (at, chunk) in kept {
            assert!(
                chunk[..] == content[at..at + chunk.len()],
                "the chunk at {at} has changed"
            );
        }
    }
}
