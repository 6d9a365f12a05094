//! Transactions per second of the embedded engine: 64 clients, each transaction one 1 KiB object and one guard.
//! Then how long a store with 100,000 objects takes to open. One JSON object a line.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use maru_store::{Guard, Index, Key, Kind, Op, Registry, Store, Txn, engine::redb};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

maru_base::typed_id!(
    /// Id.
    Id
);

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
struct Object {
    name: String,
    project: String,
    metadata: BTreeMap<String, String>,
    fill: String,
}

impl Kind for Object {
    type Id = Id;
    const NAME: &'static str = "object";
    fn indexes() -> Vec<Index<Self>> {
        vec![Index {
            name: "project",
            values: |o| vec![o.project.clone()],
        }]
    }
}

fn object(n: usize) -> Object {
    let metadata = (0..8).map(|i| (format!("key{i}"), format!("value {n}"))).collect();
    Object {
        name: format!("object {n}"),
        project: format!("p{}", n % 50),
        metadata,
        fill: "x".repeat(700),
    }
}

fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.register::<Object>();
    registry
}

async fn open(path: &std::path::Path) -> Store {
    let engine = redb::Redb::open(path, redb::Options::default()).unwrap();
    Store::open(Arc::new(engine), registry()).await.unwrap()
}

fn line(name: &str, value: f64, unit: &str, promise: f64, holds: bool) {
    println!(r#"{{"name":"{name}","value":{value:.1},"unit":"{unit}","promise":{promise},"holds":{holds}}}"#);
}

#[tokio::main]
async fn main() {
    let clients = std::env::args().nth(1).map_or(64, |n| n.parse().unwrap());
    let folder = std::env::args().nth(2).map_or_else(std::env::temp_dir, PathBuf::from);
    let path = folder.join(format!("maru-bench-{}.redb", std::process::id()));
    let store = open(&path).await;
    let seconds = Duration::from_secs(5);
    let start = Instant::now();
    let run = |client: usize| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut done = 0;
            while start.elapsed() < seconds {
                let mut txn = Txn::new();
                txn.create(&Id::new_uuid(), &object(client));
                store.commit(txn).await.unwrap();
                done += 1;
            }
            done
        })
    };
    let tasks: Vec<_> = (0..clients).map(run).collect();
    let mut total = 0;
    for task in tasks {
        total += task.await.unwrap();
    }
    let rate = f64::from(total) / start.elapsed().as_secs_f64();
    line(
        "store commits, one 1 KiB object and one guard, 64 clients",
        rate,
        "1/s",
        5000.0,
        rate >= 5000.0,
    );

    // Fill up to 100,000 objects, then open again.
    let have = store.snapshot().count::<Object>();
    for batch in (have..100_000).collect::<Vec<_>>().chunks(500) {
        let mut txn = Txn::new();
        txn.guard(Guard::Present(Key::from_raw("incarnation")));
        for n in batch {
            txn.put(&Id::new_uuid(), &object(*n));
        }
        txn.op(Op::Put(Key::of(&["filled"]), "1".into()));
        store.commit(txn).await.unwrap();
    }
    let have = store.snapshot().count::<Object>();
    drop(store);
    let start = Instant::now();
    let store = open(&path).await;
    let ms = start.elapsed().as_secs_f64() * 1e3;
    assert_eq!(store.snapshot().count::<Object>(), have);
    line(
        &format!("store open with {have} objects"),
        ms,
        "ms",
        1000.0,
        ms <= 1000.0,
    );
    line(
        "store file",
        std::fs::metadata(&path).unwrap().len() as f64 / 1e6,
        "MB",
        0.0,
        true,
    );
    drop(store);
    let _ = std::fs::remove_file(&path);
}
