//! Histories: concurrent clients do random things and note what they were told and when; afterwards all transactions
//! are replayed in revision order on a model of a few lines. Every answer must be the model's, and the order must be one
//! that real time allows.

use super::{agrees, open};
use crate::{
    Engine, Guard, Key, Op, Revision, Store,
    engine::{Outcome, Request},
};
use futures_util::future::join_all;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

const CLIENTS: usize = 8;
const STEPS: usize = 60;
const KEYS: u64 = 4;
const LIMIT: i64 = 12;

/// One thing that a client did. `start` and `end` are ticks of one clock.
struct Event {
    start: u64,
    end: u64,
    what: What,
}

enum What {
    Wrote(Request, Outcome),
    /// A snapshot's revision, and the values of all keys and the counter in it.
    Read(Revision, Vec<Option<(Revision, String)>>),
}

fn key(n: u64) -> Key {
    Key::of(&["h", &n.to_string()])
}

fn counter() -> Key {
    Key::of(&["counter", "h"])
}

fn all_keys() -> impl Iterator<Item = Key> {
    (0..KEYS).map(key).chain([counter()])
}

fn read(store: &Store) -> What {
    let snapshot = store.snapshot();
    let text = |(revision, value): (Revision, bytes::Bytes)| (revision, String::from_utf8_lossy(&value).into_owned());
    What::Read(
        snapshot.revision(),
        all_keys().map(|k| snapshot.raw(&k).map(text)).collect(),
    )
}

/// A random transaction, mostly planned on a snapshot, as services do.
fn random_request(store: &Store, value: u64) -> Request {
    let below = maru_base::random::below;
    let k = key(below(KEYS));
    let seen = store.snapshot().raw(&k).map(|(revision, _)| revision);
    let guard = match (below(4), seen) {
        (0, _) => Some(Guard::Absent(k.clone())),
        (1, _) => Some(Guard::Present(k.clone())),
        (2, Some(revision)) => Some(Guard::At(k.clone(), revision)),
        _ => None,
    };
    let mut guards: Vec<_> = guard.into_iter().collect();
    if below(10) == 0 {
        guards.push(Guard::RangeEmpty(Key::prefix(&["h"])));
    }
    let mut ops = vec![if below(5) == 0 {
        Op::Delete(k.clone())
    } else {
        Op::Put(k.clone(), value.to_string().into())
    }];
    if below(3) == 0 {
        let delta = if below(3) == 0 { -2 } else { 1 };
        ops.push(Op::Add {
            key: counter(),
            delta,
            limit: Some(LIMIT),
        });
    }
    if below(3) == 0 {
        let other = key(below(KEYS));
        if other != k {
            ops.push(Op::Put(other, value.to_string().into()));
        }
    }
    Request {
        id: maru_base::random::u128(),
        guards,
        ops,
    }
}

async fn client(store: Store, clock: Arc<AtomicU64>) -> Vec<Event> {
    let mut events = Vec::with_capacity(STEPS);
    for _ in 0..STEPS {
        let start = clock.fetch_add(1, Ordering::SeqCst);
        let what = if maru_base::random::below(4) == 0 {
            store.sync().await.unwrap();
            read(&store)
        } else {
            let request = random_request(&store, start);
            let outcome = store.engine().commit(request.clone()).await;
            if let Outcome::Committed(revision) = outcome {
                store.wait(revision).await;
            }
            What::Wrote(request, outcome)
        };
        events.push(Event {
            start,
            end: clock.fetch_add(1, Ordering::SeqCst),
            what,
        });
    }
    events
}

type Model = BTreeMap<Key, (Revision, String)>;

fn holds(model: &Model, guard: &Guard) -> bool {
    match guard {
        Guard::Absent(k) => !model.contains_key(k),
        Guard::Present(k) => model.contains_key(k),
        Guard::At(k, revision) => model.get(k).is_some_and(|(r, _)| r == revision),
        Guard::RangeEmpty(prefix) => !model.keys().any(|k| k.under(prefix)),
    }
}

fn counted(model: &Model, key: &Key) -> i64 {
    model.get(key).map_or(0, |(_, v)| v.parse().unwrap())
}

fn would_exceed(model: &Model, op: &Op) -> bool {
    matches!(op, Op::Add { key, delta, limit: Some(limit) } if *delta > 0 && counted(model, key) + delta > *limit)
}

fn allowed(model: &Model, request: &Request) -> bool {
    request.guards.iter().all(|g| holds(model, g)) && !request.ops.iter().any(|op| would_exceed(model, op))
}

fn apply(model: &mut Model, request: &Request, revision: Revision) {
    for op in &request.ops {
        match op {
            Op::Put(k, v) => drop(model.insert(k.clone(), (revision, String::from_utf8_lossy(v).into_owned()))),
            Op::Delete(k) => drop(model.remove(k)),
            Op::Add { key, delta, .. } => {
                let sum = (counted(model, key) + delta).max(0);
                model.insert(key.clone(), (revision, sum.to_string()));
            }
        }
    }
}

/// Checks the events of all clients against the model.
fn check(events: &[Event]) {
    // The written order: revisions are unique.
    let mut writes: BTreeMap<Revision, &Event> = BTreeMap::new();
    for event in events {
        if let What::Wrote(_, Outcome::Committed(revision)) = event.what {
            assert!(
                writes.insert(revision, event).is_none(),
                "two transactions have revision {revision}"
            );
        }
    }
    // Real time: what ended before another began has the lower revision.
    let mut latest_start = 0;
    for (revision, event) in &writes {
        assert!(
            event.end > latest_start,
            "revision {revision} ended before an earlier revision began"
        );
        latest_start = latest_start.max(event.start);
    }
    // Replay: each committed one was allowed where it stands. All states are kept for what follows.
    let mut states: Vec<(Revision, Model)> = vec![(0, Model::new())];
    for (revision, event) in &writes {
        let What::Wrote(request, _) = &event.what else { continue };
        let mut model = states.last().unwrap().1.clone();
        assert!(
            allowed(&model, request),
            "revision {revision} should have been a conflict: {request:?} on {model:?}"
        );
        apply(&mut model, request, *revision);
        states.push((*revision, model));
    }
    let revisions: Vec<_> = states.iter().map(|(r, _)| *r).collect();
    let place = |revision: Revision| revisions.partition_point(|r| *r <= revision) - 1;
    // For each moment, the lowest state that what begins then may see, and the highest that what ended then may have seen.
    let lowest = |start: u64| {
        writes
            .iter()
            .filter(|(_, e)| e.end < start)
            .map(|(r, _)| *r)
            .max()
            .map_or(0, place)
    };
    let highest = |end: u64| {
        writes
            .iter()
            .filter(|(_, e)| e.start < end)
            .map(|(r, _)| *r)
            .max()
            .map_or(0, place)
    };
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for event in events {
        match &event.what {
            What::Read(revision, values) => {
                let at = place(*revision);
                assert!(
                    at >= lowest(event.start),
                    "a read at {revision} misses what was acknowledged before it"
                );
                for (k, value) in all_keys().zip(values) {
                    assert_eq!(states[at].1.get(&k), value.as_ref(), "{k} at {revision}");
                }
                *seen.entry("reads").or_default() += 1;
            }
            What::Wrote(request, Outcome::Conflict(_)) => {
                let window = lowest(event.start)..=highest(event.end);
                let justified = states[window].iter().any(|(_, model)| !allowed(model, request));
                assert!(justified, "a conflict that no state explains: {request:?}");
                *seen.entry("conflicts").or_default() += 1;
            }
            What::Wrote(request, Outcome::Unknown(why)) => panic!("unknown: {why} {request:?}"),
            What::Wrote(..) => *seen.entry("commits").or_default() += 1,
        }
    }
    for kind in ["reads", "conflicts", "commits"] {
        assert!(
            seen.get(kind).is_some_and(|n| *n > 10),
            "too few {kind} to mean something: {seen:?}"
        );
    }
}

pub async fn histories_replay_on_a_model(engine: Arc<dyn Engine>) {
    let stores = [open(&engine).await, open(&engine).await];
    let clock = Arc::new(AtomicU64::new(1));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| tokio::spawn(client(stores[n % 2].clone(), Arc::clone(&clock))))
        .collect();
    let events: Vec<_> = join_all(clients).await.into_iter().flat_map(Result::unwrap).collect();
    check(&events);
    for store in &stores {
        agrees(store).await;
    }
}
