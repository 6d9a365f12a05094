//! The suite on etcd, and what only concerns a shared engine.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use maru_store::{
    CommitError, Engine, Key, Op, Store, Txn, WatchItem,
    conformance::{self, Item, ItemId, item, server::Server, within},
    engine::{Etcd, Outcome, Request},
};
use std::sync::Arc;

async fn connect(server: &Server) -> Arc<dyn Engine> {
    Arc::new(Etcd::connect(&[server.endpoint()], "maru").await.unwrap())
}

async fn fresh() -> (Arc<dyn Engine>, Server) {
    let server = Server::start().await;
    (connect(&server).await, server)
}

maru_store::conformance_suite!(fresh());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_with_low_limits_is_refused_with_the_flags_to_set() {
    for flags in [&["--max-txn-ops=4096"][..], &["--max-request-bytes=10485760"]] {
        let server = Server::start_with(flags).await;
        let refused = Etcd::connect(&[server.endpoint()], "maru").await.err().unwrap();
        assert!(
            refused.contains("--max-txn-ops=4096 --max-request-bytes=10485760"),
            "{refused}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_etcd_is_met_again_and_the_watch_goes_on() {
    let mut server = Server::start().await;
    // Two processes, as it were: each with its own connection.
    let (one, two) = (
        conformance::open(&connect(&server).await).await,
        conformance::open(&connect(&server).await).await,
    );
    let mut watch = two.watch(&Key::prefix(&["item"]), two.snapshot().revision());
    let mut expected = Vec::new();
    for n in 0..3 {
        let mut txn = Txn::new();
        txn.create(&ItemId::from(format!("{n}")), &item("p", n))
            .add(Key::of(&["count"]), 1, None);
        expected.push(within("a commit", commit_in_the_end(&one, txn)).await);
        server.kill();
        let refused = within("a refusal", two.current()).await;
        assert!(refused.is_err(), "a read was answered without etcd");
        server.run();
        assert!(server.ready().await);
    }
    for revision in expected {
        let seen = loop {
            match within("a change", watch.next()).await.unwrap() {
                WatchItem::Changes(revision, _) => break revision,
                WatchItem::Progress(_) => {}
                WatchItem::Expired => panic!("expired"),
            }
        };
        assert_eq!(seen, revision);
    }
    within("the other mirror", two.until(|s| s.count::<Item>() == 3)).await;
    assert_eq!(two.snapshot().counter(&Key::of(&["count"])), 3);
    conformance::agrees(&two).await;
}

/// Commits, however long etcd takes to come back. What became of each try is known, so none is made twice.
async fn commit_in_the_end(store: &Store, txn: Txn) -> u64 {
    loop {
        match store.commit(txn.clone()).await {
            Ok(revision) => return revision,
            Err(CommitError::Unavailable(_)) => {}
            Err(e) => panic!("{e:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_that_misses_a_transaction_loads_anew() {
    let (engine, server) = fresh().await;
    let store = conformance::open(&engine).await;
    let mut txn = Txn::new();
    txn.create(&"a".into(), &item("p", 1));
    store.commit(txn).await.unwrap();
    // Someone writes past Maru, without the clock: the next event does not fit.
    let mut foreign = etcd_client::Client::connect([server.endpoint()], None).await.unwrap();
    foreign.put("maru/k/alloc/1", "x", None).await.unwrap();
    let raw = Key::of(&["alloc", "1"]);
    within("the mirror to load anew", store.until(|s| s.raw(&raw).is_some())).await;
    let mut txn = Txn::new();
    txn.create(&"b".into(), &item("p", 2));
    store.commit(txn).await.unwrap();
    conformance::agrees(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_of_transactions_do_not_pile_up() {
    let (engine, server) = fresh().await;
    let store = conformance::open(&engine).await;
    for n in 0..300 {
        let mut txn = Txn::new();
        txn.op(Op::Put(Key::of(&["n"]), n.to_string().into()));
        store.commit(txn).await.unwrap();
    }
    let mut client = etcd_client::Client::connect([server.endpoint()], None).await.unwrap();
    let options = etcd_client::GetOptions::new().with_prefix().with_count_only();
    let ids = client.get("maru/t/", Some(options)).await.unwrap().count();
    assert!(ids < 100, "{ids}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_resolved_as_not_committed_never_commits_later() {
    let (engine, _server) = fresh().await;
    let key = Key::of(&["late"]);
    let ops = vec![Op::Put(key.clone(), "v".into())];
    let request = Request {
        id: 7,
        guards: Vec::new(),
        ops,
    };
    // As if its answer had been given up while it was still on its way.
    assert_eq!(engine.resolve(request.id).await.unwrap(), None);
    assert!(matches!(engine.commit(request.clone()).await, Outcome::Unknown(_)));
    assert_eq!(engine.resolve(request.id).await.unwrap(), None);
    assert!(engine.range(&key, None, 1).await.unwrap().1.is_empty());
}
