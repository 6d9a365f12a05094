//! What holds without any race.

use super::{Item, ItemId, Page, agrees, item, open, within};
use crate::{
    CommitError, Conflict, Engine, Guard, Key, Op, Store, Txn, WatchItem,
    engine::{Mem, Outcome, Request},
    limits,
};
use std::sync::Arc;

fn key(text: &str) -> Key {
    Key::from_raw(text)
}

fn put(text: &str) -> Op {
    Op::Put(key(text), text.to_owned().into())
}

/// Commits on the engine itself.
async fn send(engine: &Arc<dyn Engine>, guards: Vec<Guard>, ops: Vec<Op>) -> Outcome {
    engine
        .commit(Request {
            id: maru_base::random::u128(),
            guards,
            ops,
        })
        .await
}

fn revision_of(outcome: Outcome) -> u64 {
    match outcome {
        Outcome::Committed(revision) => revision,
        other => panic!("{other:?}"),
    }
}

pub async fn guards_decide_and_name_the_first_that_fails(engine: Arc<dyn Engine>) {
    let first = revision_of(send(&engine, vec![Guard::Absent(key("a/1"))], vec![put("a/1")]).await);
    let holds = [
        Guard::Absent(key("a/2")),
        Guard::Present(key("a/1")),
        Guard::At(key("a/1"), first),
        Guard::RangeEmpty(key("b/")),
        // A prefix is whole parts: `a/1` is not under `a/1/`.
        Guard::RangeEmpty(key("a/1/")),
    ];
    let fails = [
        Guard::Absent(key("a/1")),
        Guard::Present(key("a/2")),
        Guard::At(key("a/1"), first + 1),
        Guard::At(key("a/2"), first),
        Guard::RangeEmpty(key("a/")),
    ];
    assert!(matches!(
        send(&engine, holds.to_vec(), Vec::new()).await,
        Outcome::Committed(_)
    ));
    for fail in &fails {
        let mut guards = holds.to_vec();
        guards.push(fail.clone());
        guards.push(Guard::Present(key("also/missing")));
        let expected = Outcome::Conflict(Conflict::Guard {
            index: holds.len(),
            key: fail.key().clone(),
        });
        assert_eq!(send(&engine, guards, vec![put("never")]).await, expected, "{fail:?}");
    }
    // A deleted key is absent again, and its range empty.
    let second = revision_of(send(&engine, Vec::new(), vec![Op::Delete(key("a/1"))]).await);
    assert!(second > first);
    let gone = vec![Guard::Absent(key("a/1")), Guard::RangeEmpty(key("a/"))];
    let third = revision_of(send(&engine, gone, vec![put("a/1")]).await);
    let (_, entries) = engine.range(&key("a/"), None, 10).await.unwrap();
    assert_eq!(
        (entries.len(), entries[0].created, entries[0].modified),
        (1, third, third)
    );
    assert!(engine.range(&key("never"), None, 10).await.unwrap().1.is_empty());
}

pub async fn a_transaction_is_all_or_nothing(engine: Arc<dyn Engine>) {
    let store = open(&engine).await;
    let mut txn = Txn::new();
    txn.create(&"a".into(), &item("p", 1))
        .claim("item", "p", "a", "a")
        .add(key("counter/p"), 1, Some(1));
    let revision = store.commit(txn.clone()).await.unwrap();
    let snapshot = store.snapshot();
    let read = snapshot.get::<Item>(&"a".into()).unwrap();
    assert_eq!(
        (read.created, read.revision, snapshot.counter(&key("counter/p"))),
        (revision, revision, 1)
    );

    // Fails at its last operation: nothing of it is there.
    let mut txn = Txn::new();
    txn.create(&"b".into(), &item("p", 2))
        .claim("item", "p", "b", "b")
        .add(key("counter/p"), 1, Some(1));
    assert!(matches!(
        store.commit(txn).await,
        Err(CommitError::Conflict(Conflict::Exceeded { used: 1, .. }))
    ));
    let snapshot = store.sync().await.unwrap();
    assert!(snapshot.get::<Item>(&"b".into()).is_none() && snapshot.owner("item", "p", "b").is_none());
    agrees(&store).await;
}

pub async fn a_key_appears_once(engine: Arc<dyn Engine>) {
    let store = open(&engine).await;
    for second in [
        put("x"),
        Op::Delete(key("x")),
        Op::Add {
            key: key("x"),
            delta: 1,
            limit: None,
        },
    ] {
        let mut txn = Txn::new();
        txn.op(put("x")).op(second);
        assert!(matches!(store.commit(txn).await, Err(CommitError::Malformed(_))));
    }
    assert!(store.sync().await.unwrap().raw(&key("x")).is_none());
}

pub async fn limits_hold_on_every_engine(engine: Arc<dyn Engine>) {
    let store = open(&engine).await;
    // All limits at once fit.
    let mut most = Txn::new();
    let fill = (limits::BYTES - limits::OPS * 64) / limits::OPS;
    for n in 0..limits::OPS {
        most.op(Op::Put(Key::of(&["most", &n.to_string()]), vec![b'x'; fill].into()));
    }
    for n in 0..limits::GUARDS {
        most.guard(Guard::Absent(Key::of(&["none", &n.to_string()])));
    }
    store.commit(most.clone()).await.unwrap();
    assert_eq!(store.snapshot().raw_under(&key("most/")).count(), limits::OPS);
    // One more of each does not, and the error names it.
    let refused = |txn: Txn| {
        let store = store.clone();
        async move {
            match store.commit(txn).await {
                Err(CommitError::TooLarge { what, .. }) => what,
                other => panic!("{other:?}"),
            }
        }
    };
    let mut txn = most.clone();
    txn.op(put("one/more"));
    assert_eq!(refused(txn).await, "operations");
    let mut txn = most.clone();
    txn.guard(Guard::Absent(key("one/more")));
    assert_eq!(refused(txn).await, "guards");
    let mut txn = Txn::new();
    txn.op(Op::Put(key("x"), vec![b'x'; limits::BYTES].into()));
    assert_eq!(refused(txn).await, "bytes");
    agrees(&store).await;
}

pub async fn unknown_is_resolved_by_id(engine: Arc<dyn Engine>) {
    let request = Request {
        id: maru_base::random::u128(),
        guards: Vec::new(),
        ops: vec![put("a")],
    };
    let revision = revision_of(engine.commit(request.clone()).await);
    assert_eq!(engine.resolve(request.id).await.unwrap(), Some(revision));
    assert_eq!(engine.resolve(maru_base::random::u128()).await.unwrap(), None);
    // What conflicted was not committed.
    let conflict = Request {
        id: maru_base::random::u128(),
        guards: vec![Guard::Absent(key("a"))],
        ops: vec![put("b")],
    };
    assert!(matches!(engine.commit(conflict.clone()).await, Outcome::Conflict(_)));
    assert_eq!(engine.resolve(conflict.id).await.unwrap(), None);
}

pub async fn counters_add_and_stop(engine: Arc<dyn Engine>) {
    let store = open(&engine).await;
    let counter = key("counter/p/ports");
    let add = |delta, limit| {
        let (store, counter) = (store.clone(), counter.clone());
        async move {
            let mut txn = Txn::new();
            txn.add(counter, delta, limit);
            store.commit(txn).await
        }
    };
    add(3, Some(3)).await.unwrap();
    let refused = add(1, Some(3)).await.unwrap_err();
    let expected = Conflict::Exceeded {
        key: counter.clone(),
        used: 3,
        wanted: 1,
        limit: 3,
    };
    assert!(
        matches!(&refused, CommitError::Conflict(c) if *c == expected),
        "{refused:?}"
    );
    add(1, None).await.unwrap();
    // Giving back is never refused, though above the limit; below zero it stops.
    add(-1, Some(0)).await.unwrap();
    assert_eq!(store.snapshot().counter(&counter), 3);
    add(-10, None).await.unwrap();
    assert_eq!(store.snapshot().counter(&counter), 0);
    agrees(&store).await;
}

pub async fn a_rename_deletes_and_puts_in_one_transaction(engine: Arc<dyn Engine>) {
    let store = open(&engine).await;
    let mut txn = Txn::new();
    txn.create(&"a".into(), &item("p", 1)).claim("item", "p", "old", "a");
    store.commit(txn).await.unwrap();
    let read = store.snapshot().get::<Item>(&"a".into()).unwrap();
    let mut txn = Txn::new();
    txn.update(&read, &item("p", 2))
        .release("item", "p", "old")
        .claim("item", "p", "new/ with % signs", "a");
    store.commit(txn).await.unwrap();
    let snapshot = store.snapshot();
    assert_eq!(snapshot.owner("item", "p", "new/ with % signs").as_deref(), Some("a"));
    assert!(snapshot.owner("item", "p", "old").is_none());
    // The object is the same one, written again.
    let again = snapshot.get::<Item>(&"a".into()).unwrap();
    assert!(again.created == read.created && again.revision > read.revision);
    agrees(&store).await;
}

pub async fn a_watch_sees_whole_transactions(engine: Arc<dyn Engine>) {
    let store = open(&engine).await;
    let mut watch = store.watch(&Key::prefix(&["item"]), store.snapshot().revision());
    let mut txn = Txn::new();
    txn.create(&"a".into(), &item("p", 1))
        .create(&"b".into(), &item("p", 2))
        .op(put("other"));
    let first = store.commit(txn).await.unwrap();
    let a = store.snapshot().get::<Item>(&"a".into()).unwrap();
    let b = store.snapshot().get::<Item>(&"b".into()).unwrap();
    let mut txn = Txn::new();
    txn.update(&a, &item("q", 3)).delete(&b);
    let second = store.commit(txn).await.unwrap();
    let mut txn = Txn::new();
    txn.op(put("other"));
    let third = store.commit(txn).await.unwrap();

    let mut seen = Vec::new();
    let progress = loop {
        match within("a change", watch.next()).await.unwrap() {
            WatchItem::Changes(revision, changes) => {
                let n = |i: &Option<Arc<Item>>| i.as_ref().map(|i| i.n);
                let mut all: Vec<_> = changes
                    .iter()
                    .map(|c| {
                        (
                            c.key.as_str().to_owned(),
                            n(&c.old_as::<Item>()),
                            n(&c.new_as::<Item>()),
                        )
                    })
                    .collect();
                all.sort();
                seen.push((revision, all));
            }
            WatchItem::Progress(revision) if revision >= third => break revision,
            WatchItem::Progress(_) => {}
            WatchItem::Expired => panic!("expired"),
        }
    };
    let (a, b) = ("item/a".to_owned(), "item/b".to_owned());
    let expected = [
        (first, vec![(a.clone(), None, Some(1)), (b.clone(), None, Some(2))]),
        (second, vec![(a, Some(1), Some(3)), (b, Some(2), None)]),
    ];
    assert_eq!((seen.as_slice(), progress), (expected.as_slice(), third));
}

pub async fn a_watcher_resumes_and_expires_when_history_is_gone(engine: Arc<dyn Engine>) {
    let mut revisions = Vec::new();
    for n in 0..10 {
        revisions.push(revision_of(
            send(&engine, Vec::new(), vec![Op::Put(key("a"), n.to_string().into())]).await,
        ));
    }
    let mut commits = within("the watch", engine.watch(revisions[4])).await.unwrap();
    for (n, expected) in revisions.iter().enumerate().skip(5) {
        let commit = within("a commit", commits.recv()).await.unwrap();
        let (changed, old, new) = &commit.changes[0];
        let text = |e: &Option<crate::Entry>| e.as_ref().map(|e| String::from_utf8_lossy(&e.value).into_owned());
        assert_eq!((commit.revision, changed.as_str()), (*expected, "a"));
        assert_eq!((text(old), text(new)), (Some((n - 1).to_string()), Some(n.to_string())));
    }
    drop(commits);
    within("compaction", engine.compact(revisions[7])).await.unwrap();
    let gone = match engine.watch(revisions[2]).await {
        Err(_) => true,
        // An engine may learn it only when it asks: then the watch ends at once.
        Ok(mut commits) => within("the end", commits.recv()).await.is_none(),
    };
    assert!(gone, "history before the compaction was served");
    let mut commits = within("the watch", engine.watch(revisions[8])).await.unwrap();
    assert_eq!(within("a commit", commits.recv()).await.unwrap().revision, revisions[9]);
}

pub async fn stored_kinds_are_paged(engine: Arc<dyn Engine>) {
    let store = open(&engine).await;
    let mut txn = Txn::new();
    for n in 0..25 {
        txn.create(&ItemId::from(format!("{n:02}")), &Page(n.to_string()));
    }
    store.commit(txn).await.unwrap();
    assert_eq!(store.snapshot().count::<Page>(), 0);
    let (mut seen, mut marker) = (Vec::new(), None);
    loop {
        let page = store.page::<Page>(marker.as_ref(), 10).await.unwrap();
        let Some(last) = page.last() else { break };
        marker = Some(last.id.clone());
        seen.extend(page.into_iter().map(|o| o.value.0.clone()));
    }
    assert_eq!(seen, (0..25).map(|n| n.to_string()).collect::<Vec<_>>());
    agrees(&store).await;
}

pub async fn a_write_answers_when_the_mirror_has_it(engine: Arc<dyn Engine>) {
    let store = open(&engine).await;
    for n in 0..50 {
        let id = ItemId::from(format!("{n}"));
        let mut txn = Txn::new();
        txn.create(&id, &item("p", n));
        let revision = store.commit(txn).await.unwrap();
        let snapshot = store.snapshot();
        assert!(snapshot.revision() >= revision);
        assert_eq!(snapshot.get::<Item>(&id).unwrap().revision, revision);
    }
    assert_eq!(store.snapshot().find::<Item>("parent", "p").count(), 50);
}

pub async fn two_mirrors_agree(engine: Arc<dyn Engine>) {
    let (one, two) = (open(&engine).await, open(&engine).await);
    for n in 0..20 {
        let (writer, reader) = if n % 2 == 0 { (&one, &two) } else { (&two, &one) };
        let mut txn = Txn::new();
        txn.put(&ItemId::from(format!("{}", n % 7)), &item("p", n));
        let revision = writer.commit(txn).await.unwrap();
        let snapshot = within("the other mirror", reader.sync()).await.unwrap();
        assert!(snapshot.revision() >= revision);
        assert_eq!(snapshot.get::<Item>(&ItemId::from(format!("{}", n % 7))).unwrap().n, n);
    }
    agrees(&one).await;
    agrees(&two).await;
}

pub async fn a_new_mirror_loads_what_is_there(engine: Arc<dyn Engine>) {
    let store = open(&engine).await;
    for n in 0..30 {
        let mut txn = Txn::new();
        txn.put(&ItemId::from(format!("{}", n % 11)), &item(&format!("p{}", n % 3), n))
            .op(put(&format!("raw/{n}")));
        store.commit(txn).await.unwrap();
    }
    let before = store.snapshot();
    drop(store);
    let store = open(&engine).await;
    let after = store.snapshot();
    let all = |s: &crate::Snapshot| {
        s.list::<Item>()
            .map(|o| (o.id.clone(), o.created, o.revision, (*o.value).clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(all(&before), all(&after));
    assert_eq!(after.raw_under(&key("raw/")).count(), 30);
    assert_eq!(before.incarnation(), after.incarnation());
    let mut txn = Txn::new();
    txn.put(&"late".into(), &item("p", 0));
    assert!(store.commit(txn).await.unwrap() > before.revision());
    agrees(&store).await;
}

pub async fn an_incarnation_is_begun_once(engine: Arc<dyn Engine>) {
    let (one, two) = tokio::join!(open(&engine), open(&engine));
    one.sync().await.unwrap();
    two.sync().await.unwrap();
    assert_eq!(one.snapshot().incarnation(), two.snapshot().incarnation());
    assert_eq!(one.snapshot().incarnation().len(), 32);
}

pub async fn a_backup_restores_into_a_new_incarnation(engine: Arc<dyn Engine>) {
    let store = open(&engine).await;
    for n in 0..40 {
        let mut txn = Txn::new();
        txn.put(&ItemId::from(format!("{n}")), &item("p", n))
            .op(Op::Put(Key::of(&["bytes", &n.to_string()]), vec![0xff, 0].into()));
        store.commit(txn).await.unwrap();
    }
    let path = std::env::temp_dir().join(format!("maru-backup-{}", maru_base::random::hex32()));
    let taken = store.backup(&path).await.unwrap();
    assert_eq!(taken.incarnation, store.snapshot().incarnation());

    // Into another engine; what the engine under test restores is covered by its other tests.
    let other: Arc<dyn Engine> = Arc::new(Mem::new());
    Store::restore(&other, &path).await.unwrap();
    let restored = open(&other).await;
    assert_ne!(restored.snapshot().incarnation(), taken.incarnation);
    let all = |s: &Store| {
        s.snapshot()
            .list::<Item>()
            .map(|o| (o.id.clone(), o.n))
            .collect::<Vec<_>>()
    };
    assert_eq!(all(&restored), all(&store));
    assert_eq!(restored.snapshot().raw(&key("bytes/7")).unwrap().1, vec![0xff_u8, 0]);
    assert!(
        Store::restore(&engine, &path).await.is_err(),
        "restored over a store that is not empty"
    );

    // A backup that is not whole is refused as a whole.
    let whole = std::fs::read(&path).unwrap();
    let changed = String::from_utf8_lossy(&whole)
        .replacen(r#"n\":7"#, r#"n\":8"#, 1)
        .into_bytes();
    assert_ne!(changed, whole);
    for damage in [whole[..whole.len() / 2].to_vec(), changed, Vec::new()] {
        std::fs::write(&path, damage).unwrap();
        let empty: Arc<dyn Engine> = Arc::new(Mem::new());
        assert!(Store::restore(&empty, &path).await.is_err());
        assert!(empty.range(&key(""), None, 9).await.unwrap().1.is_empty());
    }
    std::fs::remove_file(&path).unwrap();
}

pub async fn the_level_is_never_lowered(engine: Arc<dyn Engine>) {
    let store = open(&engine).await;
    store.raise_level(crate::LEVEL).await.unwrap();
    assert_eq!(store.level(), crate::LEVEL);
    assert!(store.raise_level(crate::LEVEL - 1).await.is_err());
    assert!(store.raise_level(crate::LEVEL + 1).await.is_err());
    drop(store);
    // A newer release raised it: this one refuses to start.
    send(
        &engine,
        Vec::new(),
        vec![Op::Put(key("cluster/level"), (crate::LEVEL + 1).to_string().into())],
    )
    .await;
    let refused = Store::open(engine, super::registry()).await.err().unwrap();
    assert!(refused.chain().contains("newer release"), "{}", refused.chain());
}
