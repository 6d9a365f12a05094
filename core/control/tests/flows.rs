//! Stored step lists: they go on after every failure and crash, exactly once each; and the generator that says so finds
//! flows that do not.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use maru_base::{Error, Result};
use maru_control::{
    Flow, FlowRunner, FlowSpec, Next, Reconciler, Runtime, Step, StepResult, flow,
    testing::{Case, Fault, cases, run_case},
};
use maru_store::{Kind, Registry, Snapshot, Store, Txn};
use serde_json::json;
use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;

maru_base::typed_id!(
    /// Id of a house.
    HouseId
);

#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
struct House {
    walls: u32,
    paint: Option<String>,
    inspected: bool,
    fault: Option<String>,
}

impl Kind for House {
    type Id = HouseId;
    const NAME: &'static str = "house";
}

fn store() -> Store {
    let mut registry = Registry::new();
    registry.register::<House>().register::<Flow>();
    Store::in_memory(registry)
}

/// What is outside the store and survives a crash: a site where things are built.
#[derive(Default)]
struct Site {
    /// Names of what stands there: doing it again changes nothing.
    built: BTreeSet<String>,
    /// Deliveries: doing it again is a second bill.
    bills: u32,
    inspector_called: bool,
}

type Shared = Arc<Mutex<Site>>;

/// What is wrong with a build.
#[derive(Clone, Copy, PartialEq)]
enum Wrong {
    Nothing,
    /// A step has an effect outside that is not idempotent.
    BillsTwice,
    /// A step remembers something in the process only.
    RemembersInMemory,
    /// A step counts on being run only once per process.
    CountsRuns,
    /// A step ends only if it has never failed.
    GivesUp,
}

struct Build {
    name: &'static str,
    site: Shared,
    wrong: Wrong,
    memory: Arc<Mutex<Option<String>>>,
    runs: AtomicU32,
}

#[async_trait::async_trait]
impl Step for Build {
    fn name(&self) -> &'static str {
        self.name
    }
    async fn run(&self, snapshot: &Snapshot, flow: &Flow) -> Result<StepResult> {
        let id = HouseId::from(flow.subject.as_str());
        let Some(house) = snapshot.get::<House>(&id) else {
            return Ok(StepResult::End);
        };
        let runs = self.runs.fetch_add(1, Ordering::SeqCst);
        let mut next = (*house.value).clone();
        let mut data = None;
        match self.name {
            "walls" => {
                let mut site = self.site.lock().unwrap();
                site.built.insert("walls".to_owned());
                if self.wrong == Wrong::BillsTwice {
                    site.bills += 1;
                } else {
                    site.bills = 1;
                }
                next.walls += 4;
                if self.wrong == Wrong::CountsRuns {
                    next.walls += runs;
                }
            }
            "colour" => {
                *self.memory.lock().unwrap() = Some("blue".to_owned());
                data = Some(json!({"colour": "blue"}));
            }
            "paint" => {
                next.paint = if self.wrong == Wrong::RemembersInMemory {
                    self.memory.lock().unwrap().clone()
                } else {
                    flow.data["colour"].as_str().map(str::to_owned)
                };
            }
            "inspect" => {
                if self.wrong == Wrong::GivesUp && flow.attempts > 0 {
                    return Ok(StepResult::Wait(Duration::from_secs(1)));
                }
                let mut site = self.site.lock().unwrap();
                if !house.inspected {
                    site.inspector_called = true;
                    return Ok(StepResult::Wait(Duration::from_secs(1)));
                }
            }
            other => return Err(Error::bad_request(format!("no step {other}"))),
        }
        let mut txn = Txn::new();
        if next == *house.value {
            txn.unchanged(&house);
        } else {
            txn.update(&house, &next);
        }
        Ok(StepResult::Commit(txn, data))
    }
}

fn spec(site: &Shared, wrong: Wrong) -> FlowSpec {
    let memory = Arc::new(Mutex::new(None));
    FlowSpec {
        kind: "house-build",
        steps: ["walls", "colour", "paint", "inspect"]
            .into_iter()
            .map(|name| {
                Box::new(Build {
                    name,
                    site: Arc::clone(site),
                    wrong,
                    memory: Arc::clone(&memory),
                    runs: AtomicU32::new(0),
                }) as Box<dyn Step>
            })
            .collect(),
        max_attempts: 3,
        give_up: Some(Box::new(|snapshot, flow, error| {
            let mut txn = Txn::new();
            if let Some(house) = snapshot.get::<House>(&HouseId::from(flow.subject.as_str())) {
                let next = House {
                    fault: Some(error.to_string()),
                    ..(*house.value).clone()
                };
                txn.update(&house, &next);
            }
            Ok(txn)
        })),
    }
}

/// A store with one house whose flow has begun.
async fn world(site: &Shared) -> Store {
    let store = store();
    let mut txn = Txn::new();
    txn.create(&HouseId::from("h"), &House::default());
    flow::begin(&mut txn, &spec(site, Wrong::Nothing), "h", "req-1", json!({}));
    store.commit(txn).await.unwrap();
    store
}

/// The inspector comes when called.
async fn inspector(store: Store, site: Shared) -> Result<()> {
    if site.lock().unwrap().inspector_called
        && let Some(house) = store.snapshot().get::<House>(&HouseId::from("h"))
        && !house.inspected
    {
        let mut txn = Txn::new();
        let next = House {
            inspected: true,
            ..(*house.value).clone()
        };
        txn.update(&house, &next);
        store.commit(txn).await?;
    }
    Ok(())
}

/// Runs one case; what is wrong in the end, if anything is.
async fn verdict(case: &Case, wrong: Wrong) -> std::result::Result<(), String> {
    let site = Shared::default();
    let store = world(&site).await;
    let made = Arc::clone(&site);
    let plays = Arc::clone(&site);
    run_case(
        &store,
        "h",
        case,
        || spec(&made, wrong),
        move |store| inspector(store, Arc::clone(&plays)),
    )
    .await
    .map_err(|e| e.chain())?;
    let snapshot = store.snapshot();
    let house = snapshot.get::<House>(&HouseId::from("h")).unwrap();
    let want = House {
        walls: 4,
        paint: Some("blue".to_owned()),
        inspected: true,
        fault: None,
    };
    if *house.value != want {
        return Err(format!("{:?}", house.value));
    }
    if snapshot.count::<Flow>() != 0 {
        return Err("the flow is left".to_owned());
    }
    match site.lock().unwrap().bills {
        1 => Ok(()),
        n => Err(format!("{n} bills")),
    }
}

#[tokio::test(start_paused = true)]
async fn a_sound_flow_passes_every_generated_case() {
    let all = cases(&spec(&Shared::default(), Wrong::Nothing));
    assert_eq!(all.len(), 1 + 4 * 4, "one plain run and four faults for each step");
    for case in all {
        verdict(&case, Wrong::Nothing)
            .await
            .unwrap_or_else(|e| panic!("{case:?}: {e}"));
    }
}

/// The faults under which a wrong flow is found out.
async fn found(wrong: Wrong) -> Vec<(&'static str, Fault)> {
    let mut found = Vec::new();
    for case in cases(&spec(&Shared::default(), wrong)) {
        if verdict(&case, wrong).await.is_err() {
            found.push((case.step, case.fault));
        }
    }
    found
}

#[tokio::test(start_paused = true)]
async fn the_generator_finds_an_effect_that_must_not_be_repeated() {
    assert_eq!(
        found(Wrong::BillsTwice).await,
        [("walls", Fault::Repeat), ("walls", Fault::Panic)]
    );
}

#[tokio::test(start_paused = true)]
async fn the_generator_finds_a_step_that_remembers_only_in_memory() {
    assert_eq!(found(Wrong::RemembersInMemory).await, [("colour", Fault::Crash)]);
}

#[tokio::test(start_paused = true)]
async fn the_generator_finds_a_step_that_counts_its_runs() {
    assert_eq!(
        found(Wrong::CountsRuns).await,
        [("walls", Fault::Repeat), ("walls", Fault::Panic)]
    );
}

#[tokio::test(start_paused = true)]
async fn the_generator_finds_a_step_that_never_ends_after_a_failure() {
    assert_eq!(
        found(Wrong::GivesUp).await,
        [("inspect", Fault::Error), ("inspect", Fault::Panic)]
    );
}

#[tokio::test(start_paused = true)]
async fn an_unknown_step_is_told_and_the_flow_stays() {
    let site = Shared::default();
    let store = world(&site).await;
    let id = flow::flow_id("house-build", "h");
    let at = store.snapshot().get::<Flow>(&id).unwrap();
    let mut txn = Txn::new();
    txn.update(
        &at,
        &Flow {
            step: "roof".to_owned(),
            ..(*at.value).clone()
        },
    );
    store.commit(txn).await.unwrap();
    let runner = FlowRunner::new(Arc::new(spec(&site, Wrong::Nothing)));
    let error = runner.run(&store, "h").await.unwrap_err();
    assert!(error.message().contains("'roof'"), "{error}");
    assert!(store.snapshot().get::<Flow>(&id).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_subject_that_is_gone_ends_its_flow() {
    let site = Shared::default();
    let store = world(&site).await;
    let house = store.snapshot().get::<House>(&HouseId::from("h")).unwrap();
    let mut txn = Txn::new();
    txn.delete(&house);
    store.commit(txn).await.unwrap();
    let runner = FlowRunner::new(Arc::new(spec(&site, Wrong::Nothing)));
    assert_eq!(runner.run(&store, "h").await.unwrap(), Next::Done);
    assert_eq!(store.snapshot().count::<Flow>(), 0);
}

/// Always fails, by an error or by a panic.
struct Hopeless {
    panics: bool,
}

#[async_trait::async_trait]
impl Step for Hopeless {
    fn name(&self) -> &'static str {
        "hopeless"
    }
    async fn run(&self, _: &Snapshot, _: &Flow) -> Result<StepResult> {
        assert!(!self.panics, "a bug");
        Err(Error::unavailable("the quarry is closed"))
    }
}

struct Builder {
    runner: FlowRunner,
}

#[async_trait::async_trait]
impl Reconciler for Builder {
    fn name(&self) -> &'static str {
        "builder"
    }
    fn kinds(&self) -> Vec<&'static str> {
        vec![House::NAME, Flow::NAME]
    }
    fn keys_for(&self, snapshot: &Snapshot, kind: &str, id: &str) -> Vec<String> {
        match kind {
            "flow" => snapshot
                .get::<Flow>(&id.into())
                .map(|f| vec![f.subject.clone()])
                .unwrap_or_default(),
            _ => vec![id.to_owned()],
        }
    }
    fn all(&self, snapshot: &Snapshot) -> Vec<String> {
        snapshot.list::<Flow>().map(|f| f.subject.clone()).collect()
    }
    async fn reconcile(&self, store: &Store, key: &str) -> Result<Next> {
        self.runner.run(store, key).await
    }
}

/// Attempts are counted in the store, back off, and end in a fault on the subject; a step's panic is an attempt.
#[tokio::test(start_paused = true)]
async fn a_hopeless_step_backs_off_and_ends_as_a_fault() {
    for panics in [false, true] {
        let site = Shared::default();
        let store = store();
        let mut hopeless = spec(&site, Wrong::Nothing);
        hopeless.steps = vec![Box::new(Hopeless { panics })];
        hopeless.max_attempts = 8;
        let mut txn = Txn::new();
        txn.create(&HouseId::from("h"), &House::default());
        flow::begin(&mut txn, &hopeless, "h", "req-1", json!({}));
        store.commit(txn).await.unwrap();

        let mut runtime = Runtime::new(store.clone());
        runtime.add(Arc::new(Builder {
            runner: FlowRunner::new(Arc::new(hopeless)),
        }));
        let stats = runtime.stats();
        let (stop, stopped) = watch::channel(false);
        let begun = tokio::time::Instant::now();
        let running = tokio::spawn(runtime.run(stopped));
        let ended = store.until(|s| s.count::<Flow>() == 0);
        let snapshot = tokio::time::timeout(Duration::from_secs(600), ended)
            .await
            .expect("the flow did not end");
        // Seven waits of at least 25, 50, ... 1600 ms: the failures that a flow writes do not undo its back-off.
        assert!(
            begun.elapsed() >= Duration::from_millis(25 * 127),
            "{:?}",
            begun.elapsed()
        );
        let house = snapshot.get::<House>(&HouseId::from("h")).unwrap();
        let fault = house.fault.clone().unwrap();
        if panics {
            assert!(fault.contains("'hopeless'"), "{fault}");
        } else {
            assert_eq!(fault, "the quarry is closed");
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(stats[0].failures(), 8);
        assert_eq!(stats[0].panics(), if panics { 8 } else { 0 });
        stop.send_replace(true);
        running.await.unwrap();
    }
}

/// Log lines of this process.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Says something.
struct Talks;

#[async_trait::async_trait]
impl Step for Talks {
    fn name(&self) -> &'static str {
        "talks"
    }
    async fn run(&self, _: &Snapshot, _: &Flow) -> Result<StepResult> {
        tokio::task::yield_now().await;
        tracing::info!("said by the step");
        Ok(StepResult::Commit(Txn::new(), None))
    }
}

#[tokio::test(start_paused = true)]
async fn lines_of_a_flow_name_the_request_that_began_it() {
    let lines = Lines::default();
    let log = lines.clone();
    let subscriber = tracing_subscriber::fmt().json().with_writer(move || log.clone());
    tracing::subscriber::set_global_default(subscriber.finish()).unwrap();
    let mut talking = spec(&Shared::default(), Wrong::Nothing);
    talking.steps = vec![Box::new(Talks)];
    let store = store();
    let mut txn = Txn::new();
    flow::begin(&mut txn, &talking, "talker", "req-of-the-talker", json!({}));
    store.commit(txn).await.unwrap();
    FlowRunner::new(Arc::new(talking)).run(&store, "talker").await.unwrap();
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    for says in ["said by the step", "step ended"] {
        let found = text.lines().any(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["fields"]["message"] == says
                && line["span"]["request_id"] == "req-of-the-talker"
                && line["span"]["subject"] == "talker"
                && line["span"]["step"] == "talks"
        });
        assert!(found, "no line '{says}' in:\n{text}");
    }
}
