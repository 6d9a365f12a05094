//! The reconciler runtime, in paused time: dedupe, one run per key, resync, back-off, panics that stay where they are,
//! the end.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use futures_util::future::BoxFuture;
use maru_base::{Error, Result};
use maru_control::{ControllerStats, Next, Reconciler, Runtime};
use maru_store::{Kind, Registry, Snapshot, Store, Txn};
use std::{
    collections::{HashMap, HashSet},
    io::Write,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinHandle,
    time::Instant,
};

maru_base::typed_id!(
    /// Id of a thing.
    ThingId
);

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
struct Thing {
    n: u64,
}

impl Kind for Thing {
    type Id = ThingId;
    const NAME: &'static str = "thing";
}

fn store() -> Store {
    let mut registry = Registry::new();
    registry.register::<Thing>();
    Store::in_memory(registry)
}

async fn put(store: &Store, id: &str, n: u64) {
    let mut txn = Txn::new();
    txn.put(&ThingId::from(id), &Thing { n });
    store.commit(txn).await.unwrap();
}

type Work = Arc<dyn Fn(String) -> BoxFuture<'static, Result<Next>> + Send + Sync>;

/// A reconciler that does what the test says and reports each run when it begins.
struct Probe {
    name: &'static str,
    workers: usize,
    begun: mpsc::UnboundedSender<(String, Instant)>,
    work: Work,
    all_panics: AtomicU32,
    keys_panic: AtomicU32,
}

#[async_trait::async_trait]
impl Reconciler for Probe {
    fn name(&self) -> &'static str {
        self.name
    }
    fn kinds(&self) -> Vec<&'static str> {
        vec![Thing::NAME]
    }
    fn keys_for(&self, _: &Snapshot, _: &str, id: &str) -> Vec<String> {
        if take_one(&self.keys_panic) {
            panic!("no keys for {id}");
        }
        vec![id.to_owned()]
    }
    fn all(&self, snapshot: &Snapshot) -> Vec<String> {
        if take_one(&self.all_panics) {
            panic!("no list");
        }
        snapshot.list::<Thing>().map(|t| t.id.to_string()).collect()
    }
    async fn reconcile(&self, _: &Store, key: &str) -> Result<Next> {
        self.begun.send((key.to_owned(), Instant::now())).ok();
        (self.work)(key.to_owned()).await
    }
    fn workers(&self) -> usize {
        self.workers
    }
}

/// Counts down; true until it is at zero.
fn take_one(left: &AtomicU32) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
        .is_ok()
}

struct Rig {
    store: Store,
    begun: mpsc::UnboundedReceiver<(String, Instant)>,
    stop: watch::Sender<bool>,
    running: JoinHandle<()>,
    stats: Vec<Arc<ControllerStats>>,
}

impl Rig {
    fn start(
        store: Store,
        workers: usize,
        work: impl Fn(String) -> BoxFuture<'static, Result<Next>> + Send + Sync + 'static,
    ) -> Self {
        Self::with(store, workers, work, |_| {})
    }

    fn with(
        store: Store,
        workers: usize,
        work: impl Fn(String) -> BoxFuture<'static, Result<Next>> + Send + Sync + 'static,
        change: impl FnOnce(&mut Probe),
    ) -> Self {
        let (begun, seen) = mpsc::unbounded_channel();
        let mut probe = Probe {
            name: "probe",
            workers,
            begun,
            work: Arc::new(work),
            all_panics: AtomicU32::new(0),
            keys_panic: AtomicU32::new(0),
        };
        change(&mut probe);
        let mut runtime = Runtime::new(store.clone());
        runtime.add(Arc::new(probe));
        let stats = runtime.stats();
        let (stop, stopped) = watch::channel(false);
        Self {
            store,
            begun: seen,
            stop,
            running: tokio::spawn(runtime.run(stopped)),
            stats,
        }
    }

    /// The next run that begins, within two (paused) minutes.
    async fn next(&mut self) -> (String, Instant) {
        tokio::time::timeout(Duration::from_secs(120), self.begun.recv())
            .await
            .expect("no run began")
            .expect("the runtime is gone")
    }

    /// No run begins in this time.
    async fn quiet(&mut self, time: Duration) {
        let run = tokio::time::timeout(time, self.begun.recv()).await;
        assert!(run.is_err(), "an unexpected run: {run:?}");
    }

    async fn end(self) {
        self.stop.send_replace(true);
        self.running.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn changes_during_a_run_make_one_more_run() {
    let gate = Arc::new(Semaphore::new(0));
    let open = Arc::clone(&gate);
    let mut rig = Rig::start(store(), 4, move |_| {
        let gate = Arc::clone(&gate);
        Box::pin(async move {
            gate.acquire().await.unwrap().forget();
            Ok(Next::Done)
        })
    });
    put(&rig.store, "a", 0).await;
    assert_eq!(rig.next().await.0, "a");
    for n in 1..=10 {
        put(&rig.store, "a", n).await;
    }
    rig.quiet(Duration::from_secs(1)).await;
    open.add_permits(10);
    assert_eq!(rig.next().await.0, "a");
    rig.quiet(Duration::from_secs(30)).await;
    assert_eq!(rig.stats[0].runs(), 2);
    assert_eq!(rig.stats[0].depth(), 0);
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_key_runs_once_at_a_time_and_keys_run_side_by_side() {
    #[derive(Default)]
    struct Seen {
        now: HashMap<String, u32>,
        most_of_one_key: u32,
        most: u32,
    }
    let seen = Arc::new(Mutex::new(Seen::default()));
    let watch = Arc::clone(&seen);
    let mut rig = Rig::start(store(), 8, move |key| {
        let seen = Arc::clone(&watch);
        Box::pin(async move {
            {
                let mut s = seen.lock().unwrap();
                let n = s.now.entry(key.clone()).or_default();
                *n += 1;
                let n = *n;
                s.most_of_one_key = s.most_of_one_key.max(n);
                let all = s.now.values().sum();
                s.most = s.most.max(all);
            }
            tokio::time::sleep(Duration::from_millis(7)).await;
            *seen.lock().unwrap().now.get_mut(&key).unwrap() -= 1;
            Ok(Next::Done)
        })
    });
    for n in 0..40 {
        for id in ["a", "b", "c", "d"] {
            put(&rig.store, id, n).await;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut keys = HashSet::new();
    while keys.len() < 4 {
        keys.insert(rig.next().await.0);
    }
    {
        let seen = seen.lock().unwrap();
        assert_eq!(seen.most_of_one_key, 1);
        assert_eq!(seen.most, 4);
    }
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn every_key_is_looked_at_at_the_start_and_at_each_resync() {
    let store = store();
    put(&store, "a", 1).await;
    put(&store, "b", 1).await;
    let begun = Instant::now();
    let mut rig = Rig::start(store, 1, |_| Box::pin(async { Ok(Next::Done) }));
    for round in 0..3_u64 {
        let mut keys = vec![rig.next().await.0, rig.next().await.0];
        keys.sort();
        assert_eq!(keys, ["a", "b"]);
        assert_eq!(begun.elapsed().as_secs(), round * 60);
    }
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_look_after_a_time_comes_then_and_a_change_comes_sooner() {
    let mut rig = Rig::start(store(), 1, |_| {
        Box::pin(async { Ok(Next::After(Duration::from_secs(20))) })
    });
    put(&rig.store, "a", 1).await;
    let first = rig.next().await.1;
    assert_eq!(rig.next().await.1.duration_since(first).as_secs(), 20);
    tokio::time::sleep(Duration::from_secs(3)).await;
    put(&rig.store, "a", 2).await;
    assert_eq!(rig.next().await.1.duration_since(first).as_secs(), 23);
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_failing_key_backs_off_and_does_not_hold_up_others() {
    let failing = Arc::new(AtomicBool::new(true));
    let still = Arc::clone(&failing);
    let mut rig = Rig::start(store(), 1, move |key| {
        let fail = key == "bad" && still.load(Ordering::SeqCst);
        Box::pin(async move {
            if fail {
                return Err(Error::unavailable("not yet"));
            }
            Ok(Next::Done)
        })
    });
    put(&rig.store, "bad", 1).await;
    let mut at = vec![rig.next().await.1];
    for _ in 0..7 {
        let (key, when) = rig.next().await;
        assert_eq!(key, "bad");
        at.push(when);
    }
    let waits: Vec<Duration> = at.windows(2).map(|w| w[1] - w[0]).collect();
    for (i, wait) in waits.iter().enumerate() {
        let full = Duration::from_millis(50 << i);
        // The timer's grain is a millisecond.
        assert!(
            *wait >= full / 2 && *wait <= full + Duration::from_millis(2),
            "wait {i} was {wait:?}: {waits:?}"
        );
    }
    put(&rig.store, "good", 1).await;
    let asked = Instant::now();
    assert_eq!(rig.next().await, ("good".to_owned(), asked));
    failing.store(false, Ordering::SeqCst);
    assert_eq!(rig.next().await.0, "bad");
    rig.quiet(Duration::from_secs(30)).await;
    assert_eq!((rig.stats[0].failures(), rig.stats[0].panics()), (8, 0));
    rig.end().await;
}

/// Log lines of this process, as JSON.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn find(&self, what: &str) -> Vec<serde_json::Value> {
        String::from_utf8(self.0.lock().unwrap().clone())
            .unwrap()
            .lines()
            .filter(|l| l.contains(what))
            .map(|l| serde_json::from_str(l).unwrap())
            .collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_one_key_is_logged_with_its_stack_and_others_go_on() {
    let lines = Lines::default();
    let log = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_writer(move || log.clone())
        .finish();
    // For all threads: what another thread's test has registered meanwhile would hide lines from a thread's own.
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let left = Arc::new(AtomicU32::new(3));
    // One worker only: were it lost with its panic, nothing would run after it.
    let mut rig = Rig::start(store(), 1, move |key| {
        let left = Arc::clone(&left);
        Box::pin(async move {
            tokio::task::yield_now().await;
            assert!(key != "bad" || !take_one(&left), "the key {key} is too much");
            Ok(Next::Done)
        })
    });
    put(&rig.store, "bad", 1).await;
    let first = rig.next().await.1;
    put(&rig.store, "good", 1).await;
    assert_eq!(rig.next().await.0, "good");
    for _ in 0..2 {
        assert_eq!(rig.next().await.0, "bad");
    }
    let (key, last) = rig.next().await;
    assert_eq!(key, "bad");
    assert!(last - first >= Duration::from_millis(25 + 50 + 100), "no back-off");
    rig.quiet(Duration::from_secs(30)).await;
    assert_eq!(
        (rig.stats[0].panics(), rig.stats[0].failures(), rig.stats[0].runs()),
        (3, 3, 5)
    );
    let told = lines.find("the key bad is too much");
    assert_eq!(told.len(), 3);
    let fields = &told[0]["fields"];
    assert_eq!(fields["controller"], "probe");
    assert_eq!(fields["key"], "bad");
    assert_eq!(fields["panic"], "the key bad is too much");
    assert!(fields["location"].as_str().unwrap().contains("tests/runtime.rs:"));
    assert!(fields["backtrace"].as_str().unwrap().contains("runtime"));
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_one_controller_leaves_the_others_alone() {
    let store = store();
    let (begun, mut seen) = mpsc::unbounded_channel();
    let mut runtime = Runtime::new(store.clone());
    for name in ["broken", "sound"] {
        let (only_sound, _) = mpsc::unbounded_channel();
        runtime.add(Arc::new(Probe {
            name,
            workers: 1,
            begun: if name == "sound" { begun.clone() } else { only_sound },
            work: Arc::new(move |key| {
                Box::pin(async move {
                    assert_eq!(name, "sound", "{key}");
                    Ok(Next::Done)
                })
            }),
            all_panics: AtomicU32::new(if name == "broken" { u32::MAX } else { 0 }),
            keys_panic: AtomicU32::new(0),
        }));
    }
    let stats = runtime.stats();
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(runtime.run(stopped));
    for n in 0..50 {
        put(&store, "a", n).await;
        let run = tokio::time::timeout(Duration::from_secs(5), seen.recv()).await;
        assert!(run.is_ok_and(|r| r.is_some()), "the sound controller stopped at {n}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(stats[0].panics() > 1 && stats[1].panics() == 0);
    stop.send_replace(true);
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_finding_keys_loses_no_change() {
    let store = store();
    put(&store, "before", 1).await;
    let mut rig = Rig::with(
        store,
        1,
        |_| Box::pin(async { Ok(Next::Done) }),
        |probe| {
            probe.all_panics = AtomicU32::new(2);
            probe.keys_panic = AtomicU32::new(1);
        },
    );
    // The first two lists panic; the third, two seconds later, finds what was there.
    let begun = Instant::now();
    assert_eq!(rig.next().await.0, "before");
    assert_eq!(begun.elapsed().as_secs(), 2);
    // The watch panics over this change; the resync finds it.
    put(&rig.store, "lost", 1).await;
    let mut keys = HashSet::new();
    while keys.len() < 2 {
        keys.insert(rig.next().await.0);
    }
    assert!(keys.contains("lost"));
    assert_eq!(rig.stats[0].panics(), 3);
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_drops_what_runs_and_begins_nothing_more() {
    struct Dropped(Arc<AtomicBool>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let dropped = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&dropped);
    let mut rig = Rig::start(store(), 2, move |_| {
        let held = Dropped(Arc::clone(&flag));
        Box::pin(async move {
            let _held = held;
            std::future::pending::<()>().await;
            Ok(Next::Done)
        })
    });
    put(&rig.store, "a", 1).await;
    rig.next().await;
    rig.stop.send_replace(true);
    (&mut rig.running).await.unwrap();
    assert!(dropped.load(Ordering::SeqCst));
    put(&rig.store, "b", 1).await;
    assert!(rig.begun.recv().await.is_none(), "a run after the end");
}

#[tokio::test(start_paused = true)]
async fn a_lost_owner_is_a_stop() {
    let rig = Rig::start(store(), 1, |_| Box::pin(async { Ok(Next::Done) }));
    drop(rig.stop);
    tokio::time::timeout(Duration::from_secs(5), rig.running)
        .await
        .expect("it runs on without an owner")
        .unwrap();
}
