//! Attack class A at the API: data that would make a host read, write or burn what it should not is refused with a
//! clear message; the image waits for other data and no byte of it stays. (Format by format: node/block's own tests.)
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::*;
use maru_block::qcow2::{Beneath, empty};
use serde_json::{Value, json};
use std::path::Path;

/// Uploads and checks the refusal, and that nothing of it is left.
async fn refused(c: &Cloud, declared: &str, data: Vec<u8>, words: &[&str]) {
    let image = c.declared(A, declared, json!({})).await;
    let before = c.files().await;
    let answer = c.upload(A, &image, data).await;
    let text = answer.text();
    assert_eq!(answer.status, 400, "{declared}: {text}");
    for word in words {
        assert!(text.contains(word), "{declared}: no {word:?} in {text}");
    }
    let shown = c.get(A, &format!("/v2/images/{image}")).await;
    assert_eq!(shown["status"], "queued");
    for key in ["size", "virtual_size", "checksum", "os_hash_value", "os_hash_algo"] {
        assert_eq!(shown[key], Value::Null, "{key}");
    }
    assert_eq!(c.files().await, before, "a file is left");
    assert_eq!(c.download(A, &image, &[]).await.status, 204);
    c.audit().await;
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut image = empty(1 << 30, None).unwrap();
    put(&mut image, at, bytes);
    image
}

fn overlay() -> Vec<u8> {
    let beneath = Beneath {
        path: Path::new("/etc/shadow"),
        format: "raw",
    };
    empty(1 << 20, Some(beneath)).unwrap()
}

#[tokio::test]
async fn a1_a_vmdk_with_extents_on_the_host() {
    let c = cloud().await;
    let flat = "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\
                RW 8 FLAT \"/etc/shadow\" 0\n";
    refused(&c, "vmdk", flat.into(), &["vmdk", "names other files"]).await;
    // Declared as bytes, it is a descriptor all the same.
    refused(&c, "raw", flat.into(), &["vmdk"]).await;
    let mut sparse = vec![0; 64 << 10];
    put(&mut sparse, 0, b"KDMV\x01\0\0\0");
    put(&mut sparse, 12, &2048_u64.to_le_bytes());
    put(&mut sparse, 20, &128_u64.to_le_bytes());
    put(&mut sparse, 28, &1_u64.to_le_bytes());
    put(&mut sparse, 36, &20_u64.to_le_bytes());
    put(&mut sparse, 44, &512_u32.to_le_bytes());
    put(&mut sparse, 56, &30_u64.to_le_bytes());
    put(&mut sparse, 512, &flat.as_bytes()[..flat.len().min(10_000)]);
    refused(&c, "vmdk", sparse, &["extent", "/etc/shadow"]).await;
}

#[tokio::test]
async fn a2_a_qcow2_with_an_external_data_file() {
    let c = cloud().await;
    refused(&c, "qcow2", with(72, &4_u64.to_be_bytes()), &["external file"]).await;
    let mut named = with(104, &0x4441_5441_u32.to_be_bytes());
    put(&mut named, 108, &11_u32.to_be_bytes());
    put(&mut named, 112, b"/etc/shadow");
    refused(&c, "qcow2", named, &["/etc/shadow"]).await;
}

#[tokio::test]
async fn a3_a_qcow2_with_a_backing_file_under_every_name() {
    let c = cloud().await;
    for declared in maru_image_model::DISK_FORMATS {
        refused(&c, declared, overlay(), &["refused"]).await;
    }
    refused(&c, "qcow2", overlay(), &["/etc/shadow", "flatten"]).await;
}

#[tokio::test]
async fn a3_what_was_declared_is_not_what_came() {
    let c = cloud().await;
    let good = empty(1 << 20, None).unwrap();
    refused(&c, "raw", good.clone(), &["declared as raw", "qcow2"]).await;
    refused(&c, "qcow2", vec![0; 4096], &["declared as qcow2", "raw"]).await;
    refused(&c, "iso", good.clone(), &["declared as iso"]).await;
    refused(&c, "gpt", vec![0; 4096], &["declared as gpt"]).await;
    refused(&c, "ploop", vec![0; 4096], &["ploop", "cannot be inspected"]).await;
    let mut polyglot = good.clone();
    put(&mut polyglot, 446, &[0x80, 0, 0, 0, 0x83]);
    put(&mut polyglot, 510, &[0x55, 0xaa]);
    refused(&c, "qcow2", polyglot, &["more than one format"]).await;
    refused(&c, "qcow2", vec![], &["declared as qcow2"]).await;
}

#[tokio::test]
async fn a_cut_off_and_absurd_headers() {
    let c = cloud().await;
    let good = empty(1 << 30, None).unwrap();
    for length in [4, 8, 71, 90, 103] {
        refused(&c, "qcow2", good[..length].to_vec(), &["qcow2"]).await;
    }
    for (data, words) in [
        (with(24, &u64::MAX.to_be_bytes()), "larger than any"),
        (with(36, &u32::MAX.to_be_bytes()), "larger than any"),
        (with(20, &63_u32.to_be_bytes()), "cluster size"),
        (with(60, &u32::MAX.to_be_bytes()), "snapshots"),
        (with(56, &u32::MAX.to_be_bytes()), "reference counts"),
        (with(40, &(u64::MAX - 511).to_be_bytes()), "outside"),
        (with(72, &u64::MAX.to_be_bytes()), "refused"),
        (with(104, &[0x11, 0x11, 0x11, 0x11, 0xff, 0xff, 0xff, 0xff]), "refused"),
    ] {
        refused(&c, "qcow2", data, &[words]).await;
    }
    // Extensions that nest, repeat or never end must not keep the parser busy.
    let mut endless = good.clone();
    for at in (104..4088).step_by(8) {
        put(&mut endless, at, &[0x12, 0x34, 0x56, 0x78, 0, 0, 0, 0]);
    }
    let image = c.declared(A, "qcow2", json!({})).await;
    let begun = std::time::Instant::now();
    let status = c.upload(A, &image, endless).await.status;
    assert!(matches!(status, 204 | 400) && begun.elapsed().as_secs() < 5);
    let mut laughs = String::from("# Disk DescriptorFile\nversion=1\n");
    while laughs.len() < 3 << 20 {
        laughs.push_str("RW 1 SPARSE \"a.vmdk\"\n");
    }
    refused(&c, "vmdk", laughs.into_bytes(), &["names other files"]).await;
}

#[tokio::test]
async fn a_bombs_and_archives() {
    let c = cloud().await;
    for (magic, name) in [
        (&b"\x1f\x8b\x08..."[..], "gzip"),
        (b"PK\x03\x04....", "zip"),
        (b"\xfd7zXZ\0..", "xz"),
        (b"BZh91AY&SY", "bzip2"),
        (b"\x28\xb5\x2f\xfd....", "zstd"),
        (b"LUKS\xba\xbe\0\x02....", "luks"),
    ] {
        for declared in ["raw", "qcow2"] {
            let mut data = magic.to_vec();
            data.resize(4096, 0);
            refused(&c, declared, data, &[name]).await;
        }
    }
}

#[tokio::test]
async fn a_refusal_says_only_printable_words_of_the_tenants() {
    let c = cloud().await;
    let beneath = Beneath {
        path: Path::new("<script>alert(1)</script>\u{7}\n"),
        format: "raw",
    };
    let Ok(data) = empty(1 << 20, Some(beneath)) else {
        return refused(&c, "qcow2", overlay(), &["/etc/shadow"]).await;
    };
    let image = c.declared(A, "qcow2", json!({})).await;
    let answer = c.upload(A, &image, data).await;
    let text = answer.text();
    assert_eq!(answer.status, 400);
    assert!(!text.contains("<script>") && !text.contains('\u{7}'), "{text}");
}

#[tokio::test]
async fn what_is_good_is_kept_with_the_proven_format() {
    let c = cloud().await;
    let mut disk = vec![0; 8192];
    put(&mut disk, 446, &[0x80, 0, 0, 0, 0x83]);
    put(&mut disk, 510, &[0x55, 0xaa]);
    for (declared, data, proven, size) in [
        ("qcow2", empty(5 << 30, None).unwrap(), "qcow2", 5_u64 << 30),
        ("raw", vec![7; 5000], "raw", 5000),
        ("raw", disk.clone(), "raw", 8192),
        ("gpt", disk, "raw", 8192),
        ("ari", b"\x1f\x8b\x08...".to_vec(), "raw", 6),
    ] {
        let image = c.declared(A, declared, json!({})).await;
        let answer = c.upload(A, &image, data).await;
        assert_eq!(answer.status, 204, "{declared}: {}", answer.text());
        let stored = c
            .store
            .snapshot()
            .get::<maru_image_model::Image>(&image.as_str().into())
            .unwrap();
        assert_eq!(
            (stored.proven_format.as_deref(), stored.virtual_size),
            (Some(proven), Some(size))
        );
    }
    c.audit().await;
}

/// Headers changed at random (the same at each run): an answer of the API each time, and what is refused leaves nothing.
#[tokio::test]
async fn a_mutated_headers_never_break_the_service() {
    let c = cloud().await;
    let seeds = [
        empty(1 << 30, None).unwrap(),
        overlay(),
        b"KDMV\x01\0\0\0".repeat(512),
        b"vhdxfile".repeat(512),
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        // Xorshift.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    let formats = ["qcow2", "raw", "vmdk", "vhdx", "gpt"];
    let mut images = Vec::new();
    for format in formats {
        images.push(c.declared(A, format, json!({})).await);
    }
    let (mut taken, mut turned_down) = (0, 0);
    for _ in 0..250 {
        let mut data = seeds[next(seeds.len())].clone();
        for _ in 0..=next(6) {
            // Most of what matters stands in the first hundred bytes.
            let reach = if next(4) == 0 { data.len() } else { 120 };
            let at = next(reach.min(data.len()));
            data[at] = [0, 1, 4, 0x7f, 0xff, u8::try_from(next(256)).unwrap()][next(6)];
        }
        if next(8) == 0 {
            let length = next(data.len());
            data.truncate(length);
        }
        let which = if next(3) == 0 { next(formats.len()) } else { 0 };
        let answer = c.upload(A, &images[which], data.clone()).await;
        match answer.status {
            204 => {
                taken += 1;
                let stored = c
                    .store
                    .snapshot()
                    .get::<maru_image_model::Image>(&images[which].as_str().into())
                    .unwrap();
                let found = maru_block::inspect(&mut std::io::Cursor::new(&data)).unwrap();
                assert!(found.is_safe() && stored.proven_format.is_some(), "{found:?}");
                images[which] = c.declared(A, formats[which], json!({})).await;
            }
            400 => {
                turned_down += 1;
                assert!(answer.text().contains("refused"), "{}", answer.text());
                assert_eq!(c.status(&images[which]).await, "queued");
            }
            other => panic!("{other}: {}", answer.text()),
        }
    }
    assert!(taken > 5 && turned_down > 50, "{taken} taken, {turned_down} refused");
    c.audit().await;
}
