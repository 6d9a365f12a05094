//! The embedded engine on a disk that fails: whatever happens, what was acknowledged is there after opening again, and
//! nothing that was refused.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use maru_store::{
    CommitError, Engine, Guard, Key, Op, Store,
    conformance::{self, faults::Disk, history},
    engine::{
        Outcome, Request,
        redb::{Options, Redb},
    },
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// An engine over the disk, and how often it called for the end of the process.
fn engine(disk: &Disk) -> (Arc<dyn Engine>, Arc<AtomicUsize>) {
    let ends = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&ends);
    let on_failure = Arc::new(move |_: &str| {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let options = Options {
        on_failure,
        log_commits: 50,
        ..Options::default()
    };
    (Arc::new(Redb::with_backend(disk.backend(), options).unwrap()), ends)
}

fn put(n: u64) -> Request {
    let key = Key::of(&["f", &n.to_string()]);
    Request {
        id: u128::from(n),
        guards: vec![Guard::Absent(key.clone())],
        ops: vec![
            Op::Put(key, "x".repeat(500).into()),
            Op::Add {
                key: Key::of(&["count"]),
                delta: 1,
                limit: None,
            },
        ],
    }
}

/// Puts until the engine stops (or `most`); answers what was acknowledged and what became unknown.
async fn put_until_it_stops(engine: &Arc<dyn Engine>, from: u64, most: u64) -> (BTreeMap<u64, u64>, Vec<u64>) {
    let (mut acknowledged, mut unknown) = (BTreeMap::new(), Vec::new());
    let mut next = from;
    while next < from + most && unknown.is_empty() {
        let group: Vec<_> = (next..next + 4).collect();
        next += 4;
        let outcomes = futures_util::future::join_all(group.iter().map(|n| engine.commit(put(*n)))).await;
        for (n, outcome) in group.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Committed(revision) => drop(acknowledged.insert(n, revision)),
                Outcome::Unknown(_) => unknown.push(n),
                Outcome::Conflict(c) => panic!("{c:?}"),
            }
        }
    }
    (acknowledged, unknown)
}

/// Opens again after the power cut and compares.
async fn check(disk: &Disk, acknowledged: &BTreeMap<u64, u64>, what: &str) -> u64 {
    let (engine, ends) = engine(disk);
    let (revision, entries) = engine.range(&Key::prefix(&["f"]), None, usize::MAX).await.unwrap();
    for (n, at) in acknowledged {
        assert!(
            *at <= revision,
            "{what}: revision {revision} is before an acknowledged one"
        );
        let entry = entries.iter().find(|e| e.key == Key::of(&["f", &n.to_string()]));
        assert_eq!(entry.map(|e| e.modified), Some(*at), "{what}: {n} was acknowledged");
        let resolved = engine.resolve(u128::from(*n)).await.unwrap();
        assert!(resolved.is_none() || resolved == Some(*at));
    }
    // All or nothing: the counter counts exactly the objects.
    let store = Store::open(Arc::clone(&engine), conformance::registry()).await.unwrap();
    assert_eq!(
        usize::try_from(store.snapshot().counter(&Key::of(&["count"]))).unwrap(),
        entries.len(),
        "{what}"
    );
    conformance::agrees(&store).await;
    assert_eq!(ends.load(Ordering::SeqCst), 0);
    store.snapshot().revision()
}

async fn rounds(what: &str, rounds: u64, inject: impl Fn(&Disk)) {
    let disk = Disk::new();
    let mut acknowledged = BTreeMap::new();
    let mut stopped = 0;
    for round in 0..rounds {
        let (engine, ends) = engine(&disk);
        inject(&disk);
        let (acks, unknown) = put_until_it_stops(&engine, round * 1_000, 120).await;
        acknowledged.extend(acks);
        if !unknown.is_empty() {
            stopped += 1;
            assert!(
                engine.resolve(1).await.is_err() && engine.revision().await.is_err(),
                "{what}: it went on"
            );
            assert!(matches!(engine.commit(put(u64::MAX)).await, Outcome::Unknown(_)));
        }
        let (engine, was_stopped) = (engine, !unknown.is_empty());
        // The writer has ended when the engine is dropped; only then are the calls for the end all counted.
        drop(engine);
        assert_eq!(ends.load(Ordering::SeqCst), usize::from(was_stopped), "{what}");
        disk.power_cut();
        check(&disk, &acknowledged, what).await;
    }
    assert!(
        stopped * 3 >= rounds,
        "{what}: the fault hit only {stopped} of {rounds} rounds"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_syncs_lose_nothing_acknowledged() {
    rounds("failed sync", 25, |disk| {
        disk.fail_sync(1 + maru_base::random::below(30))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn torn_writes_lose_nothing_acknowledged() {
    rounds("torn write", 25, |disk| {
        disk.tear_write(1 + maru_base::random::below(150))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_loses_nothing_acknowledged() {
    let disk = Disk::new();
    let (first, _) = engine(&disk);
    let (acknowledged, unknown) = put_until_it_stops(&first, 0, 40).await;
    assert!(unknown.is_empty());
    let room = disk.used() + 1;
    disk.fill_at(room);
    let (more, unknown) = put_until_it_stops(&first, 1_000, 100_000).await;
    assert!(!unknown.is_empty(), "the disk was never full");
    drop(first);
    disk.power_cut();
    let all: BTreeMap<_, _> = acknowledged.into_iter().chain(more).collect();
    check(&disk, &all, "full disk").await;
    // With room again it goes on.
    let (again, _) = engine(&disk);
    assert!(matches!(again.commit(put(u64::MAX)).await, Outcome::Committed(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_fails_is_unavailable_to_the_caller() {
    let disk = Disk::new();
    let (engine, ends) = engine(&disk);
    let store = Store::open(engine, conformance::registry()).await.unwrap();
    disk.fail_sync(1);
    let mut txn = maru_store::Txn::new();
    txn.op(Op::Put(Key::of(&["x"]), "v".into()));
    assert!(matches!(store.commit(txn).await, Err(CommitError::Unavailable(_))));
    assert!(store.snapshot().raw(&Key::of(&["x"])).is_none());
    assert_eq!(ends.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_hold_on_the_simulated_disk() {
    history::histories_replay_on_a_model(engine(&Disk::new()).0).await;
}

#[tokio::test]
async fn one_process_opens_the_file_and_history_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let options = || Options {
        log_commits: 20,
        ..Options::default()
    };
    let engine = Redb::open(&path, options()).unwrap();
    assert!(Redb::open(&path, options()).is_err(), "opened twice");
    let mut revisions = Vec::new();
    for n in 0..60 {
        match engine.commit(put(n)).await {
            Outcome::Committed(revision) => revisions.push(revision),
            other => panic!("{other:?}"),
        }
    }
    drop(engine);
    let engine = Redb::open(&path, options()).unwrap();
    assert_eq!(engine.resolve(59).await.unwrap(), revisions.last().copied());
    assert_eq!(engine.resolve(3).await.unwrap(), None, "ids are kept for ever");
    let mut commits = engine.watch(revisions[49]).await.unwrap();
    for expected in &revisions[50..] {
        assert_eq!(commits.recv().await.unwrap().revision, *expected);
    }
    assert!(engine.watch(revisions[5]).await.is_err(), "history is kept for ever");
}
