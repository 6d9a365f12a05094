//! The handle over the engine in memory: what a service relies on.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use maru_store::{
    Class, CommitError, Conflict, Engine, Entry, Guard, Index, Key, Kind, Op, Registry, Revision, Space, Store, Txn,
    WatchItem,
    engine::{Commit, Mem, Outcome, Request},
    limits,
};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

maru_base::typed_id!(
    /// Id of a thing.
    ThingId
);

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
struct Thing {
    name: String,
    project: String,
}

impl Kind for Thing {
    type Id = ThingId;
    const NAME: &'static str = "thing";
    fn indexes() -> Vec<Index<Self>> {
        vec![Index {
            name: "project",
            values: |t| vec![t.project.clone()],
        }]
    }
}

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
struct Note(String);

impl Kind for Note {
    type Id = ThingId;
    const NAME: &'static str = "note";
    const CLASS: Class = Class::Stored;
}

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
struct Person {
    full_name: String,
    #[serde(flatten)]
    unknown: serde_json::Map<String, serde_json::Value>,
}

impl Kind for Person {
    type Id = ThingId;
    const NAME: &'static str = "person";
    const VERSION: u32 = 3;
    const SPACE: Space = Space::Identity;
    fn upgrade(from: u32, mut value: serde_json::Value) -> Result<serde_json::Value, String> {
        match from {
            1 => Ok(serde_json::json!({ "name": value["n"] })),
            2 => Ok(serde_json::json!({ "full_name": value["name"].take() })),
            _ => Err(format!("no way from {from}")),
        }
    }
}

fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.register::<Thing>().register::<Note>().register::<Person>();
    registry
}

fn store() -> Store {
    Store::in_memory(registry())
}

fn thing(name: &str, project: &str) -> Thing {
    Thing {
        name: name.to_owned(),
        project: project.to_owned(),
    }
}

#[tokio::test]
async fn objects_are_created_found_updated_and_deleted() {
    let store = store();
    let id = ThingId::from("a/b c");
    let mut txn = Txn::new();
    txn.create(&id, &thing("one", "p")).claim("thing", "p", "one", &id);
    store.commit(txn).await.unwrap();
    let snapshot = store.snapshot();
    let object = snapshot.get::<Thing>(&id).unwrap();
    assert_eq!(
        (object.id.as_str(), object.name.as_str(), object.created),
        ("a/b c", "one", object.revision)
    );
    assert_eq!(snapshot.owner("thing", "p", "one").as_deref(), Some("a/b c"));
    assert_eq!(snapshot.find::<Thing>("project", "p").count(), 1);

    let mut txn = Txn::new();
    txn.update(&object, &thing("one", "q"));
    store.commit(txn.clone()).await.unwrap();
    assert!(matches!(
        store.commit(txn).await,
        Err(CommitError::Conflict(Conflict::Guard { index: 0, .. }))
    ));
    let snapshot = store.snapshot();
    assert_eq!(snapshot.find::<Thing>("project", "p").count(), 0);
    let object = snapshot.find::<Thing>("project", "q").next().unwrap();
    assert!(object.revision > object.created);

    let mut txn = Txn::new();
    txn.delete(&object).release("thing", "p", "one");
    store.commit(txn).await.unwrap();
    assert_eq!(store.snapshot().count::<Thing>(), 0);
    assert_eq!(snapshot.count::<Thing>(), 1, "a snapshot does not change");
}

#[tokio::test]
async fn counters_merge_and_stop_at_their_limit() {
    let store = store();
    let key = Key::of(&["counter", "p", "ports"]);
    for _ in 0..3 {
        let mut txn = Txn::new();
        txn.add(key.clone(), 2, Some(6));
        store.commit(txn).await.unwrap();
    }
    let refused = store
        .plan(|_| {
            let mut txn = Txn::new();
            txn.add(key.clone(), 1, Some(6));
            Ok((txn, ()))
        })
        .await
        .unwrap_err();
    let exceeded = Conflict::Exceeded {
        key: key.clone(),
        used: 6,
        wanted: 1,
        limit: 6,
    };
    assert_eq!(CommitError::conflict_of(&refused), Some(&exceeded));
    let mut txn = Txn::new();
    txn.add(key.clone(), -100, Some(0));
    store.commit(txn).await.unwrap();
    assert_eq!(store.snapshot().counter(&key), 0);
}

#[tokio::test]
async fn limits_and_malformed_transactions_are_refused_by_name() {
    let store = store();
    let mut txn = Txn::new();
    for n in 0..=limits::OPS {
        txn.op(Op::Put(Key::of(&["x", &n.to_string()]), "v".into()));
    }
    let refused = store.commit(txn).await.unwrap_err();
    assert!(
        matches!(
            refused,
            CommitError::TooLarge {
                what: "operations",
                have: 1025,
                limit: 1024
            }
        ),
        "{refused}"
    );
    let mut txn = Txn::new();
    txn.op(Op::Put(Key::of(&["x"]), vec![b'x'; limits::BYTES].into()));
    assert!(matches!(
        store.commit(txn).await,
        Err(CommitError::TooLarge { what: "bytes", .. })
    ));
    let mut txn = Txn::new();
    txn.op(Op::Put(Key::of(&["x"]), "1".into()))
        .op(Op::Delete(Key::of(&["x"])));
    assert!(matches!(store.commit(txn).await, Err(CommitError::Malformed(_))));
    // One space a transaction, also past the typed calls.
    let mut txn = Txn::new();
    txn.create(&ThingId::from("a"), &thing("a", "p"))
        .op(Op::Put(Key::of(&["person", "b"]), "1".into()));
    assert!(matches!(store.commit(txn).await, Err(CommitError::Malformed(_))));
}

#[tokio::test(start_paused = true)]
async fn plan_tries_again_on_a_conflict_and_sees_the_new_state() {
    let store = store();
    let id = ThingId::from("a");
    let mut txn = Txn::new();
    txn.create(&id, &thing("0", "p"));
    store.commit(txn).await.unwrap();
    let add = || async {
        store
            .plan(|s| {
                let read = s.get::<Thing>(&id).unwrap();
                let next = (read.name.parse::<u32>().unwrap() + 1).to_string();
                let mut txn = Txn::new();
                txn.update(&read, &thing(&next, "p"));
                Ok((txn, ()))
            })
            .await
            .unwrap();
    };
    futures_util::future::join_all((0..50).map(|_| add())).await;
    assert_eq!(store.snapshot().get::<Thing>(&id).unwrap().name, "50");
}

#[tokio::test]
async fn a_watch_sees_whole_transactions_and_ends_with_the_store() {
    let store = store();
    let from = store.snapshot().revision();
    let mut watch = store.watch(&Key::prefix(&["thing"]), from);
    let mut txn = Txn::new();
    txn.create(&ThingId::from("a"), &thing("a", "p"))
        .create(&ThingId::from("b"), &thing("b", "p"));
    txn.claim("thing", "p", "a", "a");
    let revision = store.commit(txn).await.unwrap();
    match watch.next().await.unwrap() {
        WatchItem::Changes(at, changes) => {
            assert_eq!(at, revision);
            let names: Vec<_> = changes
                .iter()
                .map(|c| c.new_as::<Thing>().unwrap().name.clone())
                .collect();
            assert_eq!(names, ["a", "b"]);
        }
        other => panic!("{other:?}"),
    }
    let mut txn = Txn::new();
    txn.guard(Guard::Absent(Key::of(&["y"])))
        .op(Op::Put(Key::of(&["x"]), "v".into()));
    let revision = store.commit(txn).await.unwrap();
    assert!(matches!(watch.next().await, Some(WatchItem::Progress(at)) if at == revision));
    drop(store);
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn stored_kinds_are_paged_from_the_engine_and_not_mirrored() {
    let store = store();
    let mut txn = Txn::new();
    for n in 0..10 {
        txn.create(&ThingId::from(format!("n{n}")), &Note(n.to_string()));
    }
    store.commit(txn).await.unwrap();
    assert_eq!(store.snapshot().count::<Note>(), 0);
    let page = store.page::<Note>(Some(&"n3".into()), 3).await.unwrap();
    assert_eq!(
        page.iter().map(|o| o.id.as_str()).collect::<Vec<_>>(),
        ["n4", "n5", "n6"]
    );
}

#[test]
fn a_store_in_memory_needs_no_runtime() {
    let store = store();
    assert_eq!(store.snapshot().incarnation().len(), 32);
}

#[tokio::test]
async fn old_values_are_upgraded_step_by_step_and_unknown_fields_survive() {
    let store = store();
    let put = |id: &str, json: &'static str| Op::Put(Key::of(&["person", id]), json.into());
    let mut txn = Txn::new();
    txn.op(put("old", r#"{"v":1,"d":{"n":"Kim"}}"#))
        .op(put("middle", r#"{"v":2,"d":{"name":"Lee"}}"#));
    txn.op(put("newer", r#"{"v":3,"d":{"full_name":"Choi","shoe_size":42}}"#));
    store.commit(txn).await.unwrap();
    let names: Vec<_> = store.snapshot().list::<Person>().map(|p| p.full_name.clone()).collect();
    assert_eq!(names, ["Lee", "Choi", "Kim"]);
    let read = store.snapshot().get::<Person>(&"newer".into()).unwrap();
    let mut txn = Txn::new();
    txn.update(
        &read,
        &Person {
            full_name: "Jung".to_owned(),
            ..(*read.value).clone()
        },
    );
    store.commit(txn).await.unwrap();
    assert_eq!(
        store.snapshot().get::<Person>(&"newer".into()).unwrap().unknown["shoe_size"],
        42
    );
    // The digest knows that upgraded values are the same objects.
    assert!(store.digest().await.unwrap().agrees());
}

#[tokio::test]
async fn a_value_of_a_later_release_stops_the_start_and_is_named() {
    let engine: Arc<dyn Engine> = Arc::new(Mem::new());
    let key = Key::of(&["person", "later"]);
    let ops = vec![Op::Put(key, r#"{"v":4,"d":{}}"#.into())];
    engine
        .commit(Request {
            id: 1,
            guards: Vec::new(),
            ops,
        })
        .await;
    let refused = Store::open(engine, registry()).await.err().unwrap();
    assert!(
        refused.chain().contains("person/later") && refused.chain().contains("version 4"),
        "{}",
        refused.chain()
    );
}

#[tokio::test]
async fn a_slow_watcher_expires_and_blocks_nobody() {
    let store = store();
    let mut watch = store.watch(&Key::prefix(&["x"]), store.snapshot().revision());
    for n in 0..20_000 {
        let mut txn = Txn::new();
        txn.op(Op::Put(Key::of(&["x", "y"]), n.to_string().into()));
        store.commit(txn).await.unwrap();
    }
    assert!(matches!(watch.next().await, Some(WatchItem::Expired)));
    assert!(watch.next().await.is_none());
}

/// Loses every answer, after committing or instead of it.
struct Forgetful {
    below: Mem,
    calls: AtomicU64,
}

#[async_trait::async_trait]
impl Engine for Forgetful {
    async fn commit(&self, request: Request) -> Outcome {
        match self.calls.fetch_add(1, Ordering::SeqCst) % 4 {
            0 => self.below.commit(request).await,
            1 => Outcome::Unknown("lost before".to_owned()),
            2 => match self.below.commit(request).await {
                Outcome::Committed(_) => Outcome::Unknown("lost after".to_owned()),
                other => other,
            },
            _ => self.below.commit(request).await,
        }
    }
    async fn resolve(&self, id: u128) -> Result<Option<Revision>, String> {
        // Sometimes even this cannot be asked.
        if maru_base::random::below(2) == 0 {
            return Err("cannot be asked".to_owned());
        }
        self.below.resolve(id).await
    }
    async fn range(&self, prefix: &Key, after: Option<&Key>, limit: usize) -> Result<(Revision, Vec<Entry>), String> {
        self.below.range(prefix, after, limit).await
    }
    async fn watch(&self, from: Revision) -> Result<tokio::sync::mpsc::Receiver<Arc<Commit>>, String> {
        self.below.watch(from).await
    }
    async fn revision(&self) -> Result<Revision, String> {
        self.below.revision().await
    }
    async fn compact(&self, revision: Revision) -> Result<(), String> {
        self.below.compact(revision).await
    }
    fn name(&self) -> &'static str {
        "forgetful"
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_unknown_is_found_out_and_nothing_happens_twice() {
    let engine = Arc::new(Forgetful {
        below: Mem::new(),
        calls: AtomicU64::new(0),
    });
    let store = Store::open(engine, registry()).await.unwrap();
    let counter = Key::of(&["counter"]);
    let adds = (0..200).map(|_| {
        let mut txn = Txn::new();
        txn.add(counter.clone(), 1, None);
        store.commit(txn)
    });
    let done = futures_util::future::join_all(adds)
        .await
        .into_iter()
        .filter(Result::is_ok)
        .count();
    assert!(done > 150, "{done}");
    assert_eq!(store.snapshot().counter(&counter), i64::try_from(done).unwrap());
}
