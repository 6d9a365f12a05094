//! Kills a writer with -9 at random moments, again and again over one file, and compares what it had been told was
//! committed with what is there. `MARU_STORE_KILLS=n` for more rounds than the usual 50; with `MARU_SOAK=directory` a line for
//! each kill is kept there in `store-kills.txt`, and a run that was cut short goes on from there (on a new store).
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use maru_store::{
    Key, Registry, Store, Txn,
    conformance::{self, Item, ItemId, item},
    engine::redb::{Options, Redb},
};
use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

/// The file that the writer process opens.
const FILE: &str = "MARU_STORE_CRASH_FILE";
const TASKS: usize = 8;
/// Every so many steps the object is deleted instead of written.
const DELETE: i64 = 7;

fn registry() -> Registry {
    conformance::registry()
}

async fn open(path: &Path) -> Store {
    // A short log, so that its dropping is killed too.
    let options = Options {
        log_commits: 200,
        ..Options::default()
    };
    Store::open(Arc::new(Redb::open(path, options).unwrap()), registry())
        .await
        .unwrap()
}

fn counter(task: usize) -> Key {
    Key::of(&["counter", "crash", &task.to_string()])
}

/// Step `n` of a task: writes or deletes its object and counts.
fn step(task: usize, n: i64) -> Txn {
    let id = ItemId::from(format!("{task}"));
    let mut txn = Txn::new();
    if n % DELETE == 0 {
        txn.op(maru_store::Op::Delete(Key::of(&["item", &id])));
    } else {
        txn.put(&id, &item(&"x".repeat(1 + usize::try_from(n * 37 % 900).unwrap()), n));
    }
    txn.add(counter(task), 1, None);
    txn
}

/// Not a test of its own: what the killed process runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writer_process() {
    let Some(path) = std::env::var_os(FILE) else { return };
    let store = open(Path::new(&path)).await;
    let tasks: Vec<tokio::task::JoinHandle<()>> = (0..TASKS)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                loop {
                    // The counter is the number of steps done, whatever came of the last one before the kill.
                    let n = store.snapshot().counter(&counter(task)) + 1;
                    let revision = store.commit(step(task, n)).await.unwrap();
                    let line = format!("\nACK {task} {n} {revision}\n");
                    let mut out = std::io::stdout().lock();
                    out.write_all(line.as_bytes()).unwrap();
                    out.flush().unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// Runs the writer for about `life`, kills it, and answers the last acknowledged step and revision per task.
fn run_and_kill(path: &Path, life: Duration) -> HashMap<usize, (i64, u64)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer_process", "--nocapture", "--test-threads=1"])
        .env(FILE, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        let mut acks = HashMap::new();
        // A line that the kill cut short was not an acknowledgement.
        for line in out.lines().map_while(Result::ok) {
            let parts: Vec<_> = line.split(' ').collect();
            if let ["ACK", task, n, revision] = parts[..]
                && let (Ok(task), Ok(n), Ok(revision)) = (task.parse(), n.parse(), revision.parse())
            {
                acks.insert(task, (n, revision));
            }
        }
        acks
    });
    // The moment of the kill is what is being tested; nothing waits for it to be long enough.
    std::thread::park_timeout(life);
    child.kill().unwrap();
    child.wait().unwrap();
    let mut acks = reader.join().unwrap();
    // A last line without its end may be a cut number; the pipe takes whole lines, so this only drops what is doubtful.
    acks.retain(|task, _| *task < TASKS);
    acks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_writer_is_killed() {
    let rounds: u64 = std::env::var("MARU_STORE_KILLS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(50);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let kept = std::env::var_os("MARU_SOAK").map(PathBuf::from);
    let journal = kept.as_deref().unwrap_or(folder.path()).join("store-kills.txt");
    let before = std::fs::read_to_string(&journal).map_or(0, |t| t.lines().count() as u64);
    let mut journal = std::fs::File::options()
        .create(true)
        .append(true)
        .open(journal)
        .unwrap();
    let (mut acknowledged, mut lost) = (0, 0);
    let mut steps = HashMap::new();
    for round in before + 1..=rounds {
        let so_far = (acknowledged, lost);
        let life = Duration::from_micros(5_000 + maru_base::random::below(150_000));
        let owned = path.clone();
        let acks = tokio::task::spawn_blocking(move || run_and_kill(&owned, life))
            .await
            .unwrap();
        let store = open(&path).await;
        let snapshot = store.snapshot();
        for (task, (n, revision)) in acks {
            acknowledged += n - steps.insert(task, n).unwrap_or(0);
            let done = snapshot.counter(&counter(task));
            // The step after the last acknowledged one may have been committed too, no other.
            if done < n || done > n + 1 || snapshot.revision() < revision {
                lost += 1;
                let _ = writeln!(
                    std::io::stderr(),
                    "round {round}: task {task} was told {n}@{revision}, there is {done}"
                );
            }
        }
        for task in 0..TASKS {
            let done = snapshot.counter(&counter(task));
            let found = snapshot.get::<Item>(&ItemId::from(format!("{task}"))).map(|o| o.n);
            assert_eq!(
                found,
                (done % DELETE != 0).then_some(done),
                "half a transaction is there, round {round}"
            );
        }
        conformance::agrees(&store).await;
        let (acknowledged, lost) = (acknowledged - so_far.0, lost - so_far.1);
        writeln!(journal, "kill {round}: {acknowledged} acknowledged, lost: {lost}").unwrap();
    }
    // Straight to the file, past the capture of the test harness: the count is part of the report.
    let _ = writeln!(
        std::io::stderr(),
        "store kills: {rounds}, lost: {lost} (of {acknowledged} acknowledged)"
    );
    assert_eq!(lost, 0);
    assert!(
        acknowledged >= i64::try_from(rounds.saturating_sub(before)).unwrap(),
        "the writer hardly wrote: {acknowledged}"
    );
}
