//! One race per rule: many tasks over two mirrors of one engine.

use super::{Item, ItemId, agrees, item, open};
use crate::{CommitError, Conflict, Engine, Guard, Key, Op, Snapshot, Store, Txn};
use futures_util::future::join_all;
use maru_base::{Error, Result};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

async fn two(engine: &Arc<dyn Engine>) -> [Store; 2] {
    [open(engine).await, open(engine).await]
}

/// Runs `many` tasks, half over each mirror.
async fn race<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    stores: &[Store; 2],
    many: usize,
    run: impl Fn(usize, Store) -> F,
) -> Vec<T> {
    let tasks: Vec<_> = (0..many).map(|n| tokio::spawn(run(n, stores[n % 2].clone()))).collect();
    join_all(tasks)
        .await
        .into_iter()
        .map(std::result::Result::unwrap)
        .collect()
}

async fn end(stores: &[Store; 2]) {
    for store in stores {
        agrees(store).await;
    }
}

pub async fn one_of_many_creates_wins(engine: Arc<dyn Engine>) {
    let stores = two(&engine).await;
    for round in 0..10 {
        let id = ItemId::from(format!("{round}"));
        let won = race(&stores, 16, |n, store| {
            let id = id.clone();
            async move {
                let mut txn = Txn::new();
                txn.create(&id, &item("p", n as i64));
                match store.commit(txn).await {
                    Ok(_) => Some(n as i64),
                    Err(e) => {
                        assert!(e.is_conflict(), "{e}");
                        None
                    }
                }
            }
        });
        let winners: Vec<_> = won.await.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1);
        assert_eq!(stores[0].sync().await.unwrap().get::<Item>(&id).unwrap().n, winners[0]);
    }
    end(&stores).await;
}

pub async fn no_update_is_lost(engine: Arc<dyn Engine>) {
    let stores = two(&engine).await;
    let mut txn = Txn::new();
    txn.create(&"a".into(), &item("p", 0));
    stores[0].commit(txn).await.unwrap();
    stores[1].sync().await.unwrap();
    let done = race(&stores, 8, |_, store| async move {
        for _ in 0..10 {
            let add = |s: &Snapshot| {
                let read = s.get::<Item>(&"a".into()).unwrap();
                let mut txn = Txn::new();
                txn.update(&read, &item("p", read.n + 1));
                Ok((txn, ()))
            };
            store.plan(add).await.unwrap();
        }
    });
    done.await;
    assert_eq!(stores[1].sync().await.unwrap().get::<Item>(&"a".into()).unwrap().n, 80);
    end(&stores).await;
}

pub async fn a_child_never_outlives_its_parent(engine: Arc<dyn Engine>) {
    let stores = two(&engine).await;
    for round in 0..15 {
        let parent = ItemId::from(format!("parent{round}"));
        let mut txn = Txn::new();
        txn.create(&parent, &item("", 0));
        stores[0].commit(txn).await.unwrap();
        stores[1].sync().await.unwrap();
        let children = Key::prefix(&["child", &parent]);
        let done = race(&stores, 6, |n, store| {
            let (parent, children) = (parent.clone(), children.clone());
            async move {
                let mut txn = Txn::new();
                if n < 4 {
                    txn.alive::<Item>(&parent)
                        .op(Op::Put(Key::of(&["child", &parent, &n.to_string()]), "c".into()));
                } else {
                    let Some(read) = store.snapshot().get::<Item>(&parent) else {
                        return;
                    };
                    txn.guard(Guard::RangeEmpty(children)).delete(&read);
                }
                let _ = store.commit(txn).await;
            }
        });
        done.await;
        let snapshot = stores[0].sync().await.unwrap();
        let lives = snapshot.get::<Item>(&parent).is_some();
        assert!(lives || snapshot.raw_under(&children).next().is_none(), "round {round}");
    }
    end(&stores).await;
}

/// Ranges of a parent that must not overlap; item `n` covers `n..n+10`.
fn plan_range(snapshot: &Snapshot, parent: &str, n: i64) -> Result<(Txn, ())> {
    if snapshot.find::<Item>("parent", parent).any(|o| (o.n - n).abs() < 10) {
        return Err(Error::conflict("it overlaps"));
    }
    let mut txn = Txn::new();
    txn.over_set(snapshot, parent)
        .create(&ItemId::new_uuid(), &item(parent, n));
    Ok((txn, ()))
}

pub async fn a_rule_over_a_set_holds(engine: Arc<dyn Engine>) {
    let stores = two(&engine).await;
    for round in 0..8 {
        let parent = format!("net{round}");
        let done = race(&stores, 12, |n, store| {
            let parent = parent.clone();
            async move { store.plan(|s| plan_range(s, &parent, n as i64 * 3)).await.is_ok() }
        });
        assert!(done.await.into_iter().any(|ok| ok));
        let snapshot = stores[0].sync().await.unwrap();
        let mut all: Vec<_> = snapshot.find::<Item>("parent", &parent).map(|o| o.n).collect();
        all.sort_unstable();
        assert!(all.windows(2).all(|w| w[1] - w[0] >= 10), "{all:?}");
    }
    end(&stores).await;
}

pub async fn the_last_admin_stays(engine: Arc<dyn Engine>) {
    let stores = two(&engine).await;
    for round in 0..8 {
        let group = format!("admins{round}");
        let mut txn = Txn::new();
        for n in 0..6 {
            txn.create(&ItemId::from(format!("{group}-{n}")), &item(&group, n));
        }
        stores[0].commit(txn).await.unwrap();
        stores[1].sync().await.unwrap();
        let done = race(&stores, 6, |n, store| {
            let group = group.clone();
            async move {
                let leave = |s: &Snapshot| {
                    if s.find::<Item>("parent", &group).count() < 2 {
                        return Err(Error::conflict("the last one stays"));
                    }
                    let read = s.get::<Item>(&ItemId::from(format!("{group}-{n}"))).unwrap();
                    let mut txn = Txn::new();
                    txn.over_set(s, &group).delete(&read);
                    Ok((txn, ()))
                };
                store.plan(leave).await.is_ok()
            }
        });
        let left = done.await.into_iter().filter(|ok| *ok).count();
        assert_eq!(
            (
                left,
                stores[1].sync().await.unwrap().find::<Item>("parent", &group).count()
            ),
            (5, 1)
        );
    }
    end(&stores).await;
}

pub async fn a_name_has_one_owner(engine: Arc<dyn Engine>) {
    let stores = two(&engine).await;
    for round in 0..10 {
        let name = format!("name{round}");
        let done = race(&stores, 10, |_, store| {
            let name = name.clone();
            async move {
                let id = ItemId::new_uuid();
                let mut txn = Txn::new();
                txn.create(&id, &item("p", 0)).claim("item", "p", &name, &id);
                store.commit(txn).await.ok().map(|_| id)
            }
        });
        let owners: Vec<_> = done.await.into_iter().flatten().collect();
        assert_eq!(owners.len(), 1);
        let snapshot = stores[0].sync().await.unwrap();
        assert_eq!(snapshot.owner("item", "p", &name).as_deref(), Some(owners[0].as_str()));
        assert_eq!(snapshot.count::<Item>(), round + 1, "a refused one left its object");
    }
    end(&stores).await;
}

pub async fn counters_never_pass_their_limit(engine: Arc<dyn Engine>) {
    let stores = two(&engine).await;
    let counter = Key::of(&["counter", "p", "ports"]);
    let done = race(&stores, 64, |_, store| {
        let counter = counter.clone();
        async move {
            let id = ItemId::new_uuid();
            let mut txn = Txn::new();
            txn.create(&id, &item("p", 0)).add(counter, 1, Some(40));
            match store.commit(txn).await {
                Ok(_) => true,
                Err(CommitError::Conflict(Conflict::Exceeded { limit: 40, .. })) => false,
                Err(e) => panic!("{e:?}"),
            }
        }
    });
    assert_eq!(done.await.into_iter().filter(|ok| *ok).count(), 40);
    let snapshot = stores[0].sync().await.unwrap();
    assert_eq!((snapshot.counter(&counter), snapshot.count::<Item>()), (40, 40));
    end(&stores).await;
}

pub async fn unlimited_counters_never_conflict(engine: Arc<dyn Engine>) {
    let stores = two(&engine).await;
    let counter = Key::of(&["counter", "p", "servers"]);
    let done = race(&stores, 32, |n, store| {
        let counter = counter.clone();
        async move {
            for _ in 0..4 {
                let mut txn = Txn::new();
                txn.add(counter.clone(), if n % 2 == 0 { 3 } else { 1 }, None);
                store.commit(txn).await.unwrap();
            }
        }
    });
    done.await;
    assert_eq!(stores[1].sync().await.unwrap().counter(&counter), 16 * 4 * 4);
    end(&stores).await;
}

pub async fn pairs_are_never_seen_apart(engine: Arc<dyn Engine>) {
    let stores = two(&engine).await;
    let put = |n: i64| {
        let mut txn = Txn::new();
        txn.put(&"left".into(), &item("pair", n))
            .put(&"right".into(), &item("pair", n));
        txn
    };
    stores[0].commit(put(0)).await.unwrap();
    stores[1].sync().await.unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = stores
        .iter()
        .map(|store| {
            let (store, over) = (store.clone(), Arc::clone(&over));
            tokio::spawn(async move {
                let mut last = 0;
                while !over.load(Ordering::Relaxed) {
                    let s = store.snapshot();
                    let n = |id: &str| s.get::<Item>(&id.into()).unwrap().n;
                    assert_eq!(n("left"), n("right"));
                    assert_eq!(
                        s.find::<Item>("parent", "pair").count(),
                        2,
                        "an index is of another revision"
                    );
                    assert!(s.revision() >= last, "a mirror went back");
                    last = s.revision();
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    race(&stores, 4, |n, store| async move {
        for m in 0..25 {
            store.commit(put((n * 100 + m) as i64)).await.unwrap();
        }
    })
    .await;
    over.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    end(&stores).await;
}
