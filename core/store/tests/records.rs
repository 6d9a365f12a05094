//! Records in files.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use maru_store::record::{FileRecords, MemRecords, Records, Retention};
use serde_json::{Value, json};
use std::{fs, path::PathBuf};

fn open(folder: &tempfile::TempDir) -> FileRecords {
    FileRecords::open(folder.path(), Retention::default()).unwrap()
}

async fn both_reads(records: &dyn Records) {
    for n in 0..10 {
        records
            .append("server-event", if n % 2 == 0 { "even" } else { "odd" }, json!(n))
            .await
            .unwrap();
    }
    records.append("audit", "even", json!("elsewhere")).await.unwrap();
    assert_eq!(
        records.of_subject("server-event", "even", 3).await.unwrap(),
        [json!(4), json!(6), json!(8)]
    );
    assert_eq!(records.tail("server-event", 2).await.unwrap(), [json!(8), json!(9)]);
    records.append("server-event", "even", json!(10)).await.unwrap();
    assert_eq!(
        records.of_subject("server-event", "even", 1).await.unwrap(),
        [json!(10)]
    );
    assert!(
        records
            .of_subject("server-event", "nobody", 9)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(records.tail("nothing", 9).await.unwrap().is_empty());
}

#[tokio::test]
async fn records_are_found_by_subject_and_by_stream() {
    let folder = tempfile::tempdir().unwrap();
    both_reads(&open(&folder)).await;
    both_reads(&MemRecords::new()).await;
    let again = open(&folder);
    assert_eq!(again.of_subject("server-event", "odd", 99).await.unwrap().len(), 5);
    assert_eq!(again.tail("audit", 9).await.unwrap(), [json!("elsewhere")]);
}

fn last_segment(folder: &tempfile::TempDir) -> PathBuf {
    let mut all: Vec<_> = fs::read_dir(folder.path().join("audit"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    all.sort();
    all.pop().unwrap()
}

#[tokio::test]
async fn a_torn_tail_is_dropped_wherever_it_was_torn() {
    let folder = tempfile::tempdir().unwrap();
    let records = open(&folder);
    records.append("audit", "a", json!("kept")).await.unwrap();
    let kept = fs::metadata(last_segment(&folder)).unwrap().len();
    records.append("audit", "a", json!("torn")).await.unwrap();
    drop(records);
    let whole = fs::read(last_segment(&folder)).unwrap();
    for cut in usize::try_from(kept).unwrap()..whole.len() {
        fs::write(last_segment(&folder), &whole[..cut]).unwrap();
        let records = open(&folder);
        assert_eq!(records.tail("audit", 9).await.unwrap(), [json!("kept")], "cut at {cut}");
        records.append("audit", "a", json!("after")).await.unwrap();
        assert_eq!(
            records.of_subject("audit", "a", 9).await.unwrap(),
            [json!("kept"), json!("after")]
        );
        drop(records);
        fs::write(last_segment(&folder), &whole).unwrap();
    }
    // A bit that flipped is a torn tail too.
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    fs::write(last_segment(&folder), &flipped).unwrap();
    assert_eq!(open(&folder).tail("audit", 9).await.unwrap(), [json!("kept")]);
}

#[tokio::test]
async fn the_oldest_segments_go_by_size_and_by_age() {
    let folder = tempfile::tempdir().unwrap();
    let small = Retention {
        bytes: 8_000,
        days: 3,
        segment_bytes: 1_000,
    };
    let records = FileRecords::open(folder.path(), small).unwrap();
    for n in 0..300 {
        records
            .append("audit", "a", json!({ "n": n, "fill": "x".repeat(80) }))
            .await
            .unwrap();
    }
    let kept = records.of_subject("audit", "a", 999).await.unwrap();
    assert!(kept.len() > 30 && kept.len() < 150, "{}", kept.len());
    assert_eq!(kept.last().unwrap()["n"], 299);
    let files = fs::read_dir(folder.path().join("audit")).unwrap().count();
    assert!((5..=12).contains(&files), "{files}");
    maru_base::time::advance(4 * 86_400);
    for n in 0..40 {
        records
            .append("audit", "a", json!({ "n": n + 300, "fill": "x".repeat(80) }))
            .await
            .unwrap();
    }
    let oldest = records.of_subject("audit", "a", 999).await.unwrap()[0]["n"]
        .as_i64()
        .unwrap();
    assert!(oldest >= 285, "{oldest}");
}

#[tokio::test]
async fn many_at_once_share_a_sync_and_none_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let records = open(&folder);
    let appends = (0..200).map(|n| records.append("audit", "a", json!(n)));
    for done in futures_util::future::join_all(appends).await {
        done.unwrap();
    }
    let all: Vec<Value> = open(&folder).tail("audit", 999).await.unwrap();
    assert_eq!(all.len(), 200);
}
