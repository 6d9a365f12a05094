//! Upload speed beside `cat file | tee >(md5sum) >(sha512sum) > copy` on the same folder, in MB/s. One JSON object a
//! line; the medians of three alternating runs.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use futures_util::TryStreamExt;
use maru_blob::{Blobs, DirBlobs};
use std::{path::PathBuf, process::Command, time::Instant};
use tokio_util::io::ReaderStream;

fn median(mut runs: Vec<f64>) -> f64 {
    runs.sort_by(f64::total_cmp);
    runs[runs.len() / 2]
}

#[tokio::main]
async fn main() {
    let megabytes: u64 = std::env::args().nth(1).map_or(512, |n| n.parse().unwrap());
    let parent = std::env::args().nth(2).map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = parent.join(format!("maru-blob-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let source = folder.join("source");
    let mut block = vec![0_u8; 1 << 20];
    maru_base::random::fill(&mut block);
    {
        let mut file = std::fs::File::create(&source).unwrap();
        for _ in 0..megabytes {
            std::io::Write::write_all(&mut file, &block).unwrap();
        }
        file.sync_all().unwrap();
    }
    let blobs = DirBlobs::open(folder.join("blobs"), "here").await.unwrap();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let start = Instant::now();
        // The pipe's checksums must be done too, and the copy on the disk, as ours are.
        let script = "cd \"$1\" && cat source | tee >(md5sum >m) >(sha512sum >s) >copy; \
                      until [ -s m ] && [ -s s ]; do :; done; sync copy; rm m s copy";
        assert!(
            Command::new("bash")
                .args(["-c", script, "bash"])
                .arg(&folder)
                .status()
                .unwrap()
                .success()
        );
        theirs.push(megabytes as f64 * 1.048576 / start.elapsed().as_secs_f64());

        let start = Instant::now();
        let file = tokio::fs::File::open(&source).await.unwrap();
        let info = maru_blob::put(&blobs, ReaderStream::with_capacity(file, 128 << 10).into_stream())
            .await
            .unwrap();
        ours.push(megabytes as f64 * 1.048576 / start.elapsed().as_secs_f64());
        blobs.delete(&info.digest).await.unwrap();
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!(r#"{{"name":"blob upload","value":{ours:.0},"unit":"MB/s","tee":{theirs:.0}}}"#);
    let ratio = ours / theirs;
    println!(
        r#"{{"name":"blob upload beside tee","value":{ratio:.2},"unit":"ratio","promise":0.8,"holds":{}}}"#,
        ratio >= 0.8
    );
    std::fs::remove_dir_all(&folder).unwrap();
}
