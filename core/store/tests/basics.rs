//! The handle over the engine in memory: what a service relies on.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use maru_store::{
    Class, CommitError, Conflict, Guard, Index, Key, Kind, Op, Registry, Store, Txn, WatchItem, limits,
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
        vec![Index { name: "project", values: |t| vec![t.project.clone()] }]
    }
}

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
struct Note(String);

impl Kind for Note {
    type Id = ThingId;
    const NAME: &'static str = "note";
    const CLASS: Class = Class::Stored;
}

fn store() -> Store {
    let mut registry = Registry::new();
    registry.register::<Thing>().register::<Note>();
    Store::in_memory(registry)
}

fn thing(name: &str, project: &str) -> Thing {
    Thing { name: name.to_owned(), project: project.to_owned() }
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
    assert_eq!((object.id.as_str(), object.name.as_str(), object.created), ("a/b c", "one", object.revision));
    assert_eq!(snapshot.owner("thing", "p", "one").as_deref(), Some("a/b c"));
    assert_eq!(snapshot.find::<Thing>("project", "p").count(), 1);

    let mut txn = Txn::new();
    txn.update(&object, &thing("one", "q"));
    store.commit(txn.clone()).await.unwrap();
    assert!(matches!(store.commit(txn).await, Err(CommitError::Conflict(Conflict::Guard { index: 0, .. }))));
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
    let exceeded = Conflict::Exceeded { key: key.clone(), used: 6, wanted: 1, limit: 6 };
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
    assert!(matches!(refused, CommitError::TooLarge { what: "operations", have: 1025, limit: 1024 }), "{refused}");
    let mut txn = Txn::new();
    txn.op(Op::Put(Key::of(&["x"]), vec![b'x'; limits::BYTES].into()));
    assert!(matches!(store.commit(txn).await, Err(CommitError::TooLarge { what: "bytes", .. })));
    let mut txn = Txn::new();
    txn.op(Op::Put(Key::of(&["x"]), "1".into())).op(Op::Delete(Key::of(&["x"])));
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
    txn.create(&ThingId::from("a"), &thing("a", "p")).create(&ThingId::from("b"), &thing("b", "p"));
    txn.claim("thing", "p", "a", "a");
    let revision = store.commit(txn).await.unwrap();
    match watch.next().await.unwrap() {
        WatchItem::Changes(at, changes) => {
            assert_eq!(at, revision);
            let names: Vec<_> = changes.iter().map(|c| c.new_as::<Thing>().unwrap().name.clone()).collect();
            assert_eq!(names, ["a", "b"]);
        }
        other => panic!("{other:?}"),
    }
    let mut txn = Txn::new();
    txn.guard(Guard::Absent(Key::of(&["y"]))).op(Op::Put(Key::of(&["x"]), "v".into()));
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
    assert_eq!(page.iter().map(|o| o.id.as_str()).collect::<Vec<_>>(), ["n4", "n5", "n6"]);
}

#[test]
fn a_store_in_memory_needs_no_runtime() {
    let store = store();
    assert_eq!(store.snapshot().incarnation().len(), 32);
}
