//! Sessions: whose reports are taken, how often, and what is only kept in memory.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::{DEADLINE, Discards, World, net, port, racing, server, world};
use maru_agent_api::{
    ControlPlane, Session,
    observed::{PortState, PowerState, Report, Resources, ServerEvent, ServerState, UnknownThing},
    slice::{Item, ItemKey},
};
use maru_base::ErrorKind;
use maru_compute_model as compute;
use maru_network_model as network;
use maru_store::record::Records;
use std::sync::Arc;

fn state(id: &str, power: PowerState, revision: u64) -> Report {
    Report::Server(ServerState {
        id: id.to_owned(),
        revision,
        power,
        reboots: 0,
        rebuilds: 0,
        resizes: 0,
        fault: None,
        fault_final: false,
        attached: Vec::new(),
    })
}

fn port_state(id: &str, up: bool) -> Report {
    Report::Port(PortState {
        id: id.to_owned(),
        revision: 1,
        up,
        fault: None,
    })
}

fn event(server: &str, what: &str) -> Report {
    Report::Event(ServerEvent {
        server: server.to_owned(),
        request_id: "req-1".to_owned(),
        event: what.to_owned(),
        start_us: 1,
        finish_us: 2,
        ok: true,
        message: None,
    })
}

fn unknown(what: &str, id: &str) -> Report {
    Report::Unknown(UnknownThing {
        what: what.to_owned(),
        id: id.to_owned(),
        description: "found here".to_owned(),
    })
}

/// A server on `here` and one on `there`, each with a port.
async fn two_servers() -> World {
    with_two_servers(world().await).await
}

async fn with_two_servers(world: World) -> World {
    for (at, host) in ["here", "there"].iter().enumerate() {
        let at = u8::try_from(at).unwrap();
        let id = format!("s-{host}");
        let p = port("n", host, &id, "compute:nova", &[], at + 1);
        world
            .write(|txn| {
                txn.put(&network::NetworkId::from("n"), &net(1450));
                txn.put(&network::PortId::from(format!("p-{host}")), &p);
                txn.put(
                    &compute::ServerId::from(id.as_str()),
                    &server(&id, Some(host), true, &[format!("p-{host}")]),
                );
            })
            .await;
    }
    world
}

fn seen(world: &World, id: &str) -> Option<compute::PowerState> {
    world
        .store
        .snapshot()
        .get::<compute::ObservedServer>(&compute::ObservedServerId::from(id))
        .map(|o| o.power)
}

async fn events(world: &World, server: &str) -> usize {
    world
        .records
        .of_subject("server-event", server, 100)
        .await
        .unwrap()
        .len()
}

#[tokio::test]
async fn only_the_newest_session_is_heard() {
    let world = two_servers().await;
    let nobody = Session {
        node: "here".into(),
        id: 1,
        incarnation: String::new(),
    };
    let refused = world.hub.heartbeat(&nobody).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Gone);
    let (old, mut stream) = world.connect("here", 1).await;
    stream.synced().await;
    world
        .hub
        .report(&old, 1, vec![state("s-here", PowerState::Running, 1)])
        .await
        .unwrap();
    assert_eq!(seen(&world, "s-here"), Some(compute::PowerState::Running));

    let (new, mut fresh) = world.connect("here", 2).await;
    fresh.synced().await;
    for refused in [
        world
            .hub
            .report(&old, 2, vec![state("s-here", PowerState::Crashed, 9)])
            .await
            .unwrap_err(),
        world.hub.heartbeat(&old).await.unwrap_err(),
        world
            .hub
            .offer_lanes(&old, Arc::new(Discards::default()))
            .await
            .unwrap_err(),
        world.hub.pull(&old, "d1").await.err().unwrap(),
    ] {
        assert_eq!(refused.kind(), ErrorKind::Gone);
        assert!(refused.message().contains("connect again"), "{refused}");
    }
    assert_eq!(seen(&world, "s-here"), Some(compute::PowerState::Running));
    // The old stream ends, so that its agent notices.
    let ended = tokio::time::timeout(DEADLINE, async { while stream.stream.recv().await.is_some() {} });
    ended.await.expect("the old stream did not end");
    // Sequences begin anew.
    world
        .hub
        .report(&new, 1, vec![state("s-here", PowerState::Shutdown, 9)])
        .await
        .unwrap();
    assert_eq!(seen(&world, "s-here"), Some(compute::PowerState::Shutdown));
    world.hub.heartbeat(&new).await.unwrap();
}

#[tokio::test]
async fn a_repeated_sequence_is_ignored() {
    let world = with_two_servers(racing().await).await;
    let (session, _stream) = world.connect("here", 1).await;
    world
        .hub
        .report(&session, 1, vec![event("s-here", "spawn")])
        .await
        .unwrap();
    world
        .hub
        .report(&session, 1, vec![event("s-here", "spawn")])
        .await
        .unwrap();
    assert_eq!(events(&world, "s-here").await, 1);
    world
        .hub
        .report(&session, 2, vec![event("s-here", "running")])
        .await
        .unwrap();
    world
        .hub
        .report(&session, 1, vec![event("s-here", "late")])
        .await
        .unwrap();
    assert_eq!(events(&world, "s-here").await, 2);
    // Many copies at the same time are one.
    let copies = (0..16).map(|_| {
        let report = vec![port_state("p-here", true), event("s-here", "again")];
        world.hub.report(&session, 3, report)
    });
    for outcome in futures_util::future::join_all(copies).await {
        outcome.unwrap();
    }
    assert_eq!(events(&world, "s-here").await, 3);
}

/// A report that is being stored when a new session begins is either stored before it or refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_session_ends_between_reports_never_within_one() {
    let world = Arc::new(with_two_servers(racing().await).await);
    for round in 0..40_u64 {
        let (old, _stream) = world.connect("here", 2 * round + 1).await;
        let reporting = tokio::spawn({
            let world = Arc::clone(&world);
            async move {
                world
                    .hub
                    .report(&old, 1, vec![port_state("p-here", false), port_state("p-here", true)])
                    .await
            }
        });
        let (new, _stream) = world.connect("here", 2 * round + 2).await;
        world
            .hub
            .report(&new, 1, vec![port_state("p-here", false)])
            .await
            .unwrap();
        if let Err(refused) = reporting.await.unwrap() {
            assert_eq!(refused.kind(), ErrorKind::Gone);
        }
        let snapshot = world.store.snapshot();
        let observed = snapshot
            .get::<network::ObservedPort>(&network::PortId::from("p-here"))
            .unwrap();
        assert_eq!(
            (observed.session, observed.up),
            (new.id, false),
            "the old session had the last word"
        );
    }
}

/// A node speaks only of what is its own (class D, and the contract's third sentence).
#[tokio::test]
async fn a_node_speaks_only_of_its_own() {
    let world = two_servers().await;
    let (session, mut agent) = world.connect("here", 1).await;
    world
        .hub
        .report(
            &session,
            1,
            vec![
                state("s-there", PowerState::Crashed, 1),
                state("s-nobody", PowerState::Crashed, 1),
                Report::ServerRemoved("s-there".to_owned()),
                Report::Removed(ItemKey::Server("s-there".to_owned())),
                Report::Removed(ItemKey::Port("p-there".to_owned())),
                port_state("p-there", true),
                port_state("p-nobody", true),
                event("s-there", "forged"),
            ],
        )
        .await
        .unwrap();
    let snapshot = world.store.snapshot();
    assert_eq!(seen(&world, "s-there"), None);
    assert!(snapshot.get::<compute::Server>(&"s-there".into()).is_some());
    assert!(snapshot.get::<network::ObservedPort>(&"p-there".into()).is_none());
    assert!(snapshot.get::<network::ObservedPort>(&"p-nobody".into()).is_none());
    assert_eq!(events(&world, "s-there").await, 0);
    // Nor does it hear of the other's server; of its port as a neighbour it does.
    agent.synced().await;
    assert!(!agent.items.contains_key(&ItemKey::Server("s-there".to_owned())));
    assert!(
        matches!(&agent.items[&ItemKey::Port("p-there".to_owned())], Item::Port(p) if p.host.as_deref() == Some("there"))
    );
    // Nor may it read images that no server of its own is made from.
    assert_eq!(
        world.hub.pull(&session, "d2").await.err().unwrap().kind(),
        ErrorKind::Forbidden
    );
    assert_eq!(
        world.hub.pull(&session, "d1").await.err().unwrap().kind(),
        ErrorKind::NotFound
    );
}

/// An image that a node is told to pull it may read while it is told so, and no longer; no other image, and no other node.
#[tokio::test]
async fn a_node_pulls_what_it_is_told_to_pull_while_it_is_told() {
    let world = two_servers().await;
    let (session, _agent) = world.connect("here", 1).await;
    let (there, _other) = world.connect("there", 1).await;
    let lanes = Arc::new(Discards::default());
    *lanes.1.lock().unwrap() = Some((Arc::clone(&world.hub), session.clone()));
    world.hub.offer_lanes(&session, lanes.clone()).await.unwrap();
    let refused = |e: maru_base::Error| e.kind();
    // The bytes of `d2` are nowhere: a right to them ends in 404, none in 403.
    let pulled = world.hub.cache_image("here", "d2", "qcow2").await;
    assert_eq!(refused(pulled.unwrap_err()), ErrorKind::NotFound);
    assert_eq!(
        refused(world.hub.pull(&session, "d2").await.err().unwrap()),
        ErrorKind::Forbidden
    );
    // Told of one, it asks with another node's session, or for another image.
    *lanes.1.lock().unwrap() = Some((Arc::clone(&world.hub), there));
    let pulled = world.hub.cache_image("here", "d3", "qcow2").await;
    assert_eq!(refused(pulled.unwrap_err()), ErrorKind::Forbidden);
    let away = world.hub.cache_image("nowhere", "d2", "qcow2").await;
    assert_eq!(refused(away.unwrap_err()), ErrorKind::Unavailable);
}

/// What the store does not know is kept, shown, and removed only when an operator says so.
#[tokio::test]
async fn unknown_things_are_kept() {
    let world = two_servers().await;
    let (session, _stream) = world.connect("here", 1).await;
    let before = world.store.snapshot().revision();
    let found = vec![
        unknown("server", "x"),
        unknown("network", "y"),
        unknown("server", "x"),
        unknown("disk", "z"),
    ];
    world.hub.report(&session, 1, found).await.unwrap();
    let view = || world.hub.views().into_iter().find(|v| v.node == "here").unwrap();
    let ids = || {
        view()
            .unknown
            .iter()
            .map(|u| format!("{} {}", u.what, u.id))
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(), ["disk z", "network y", "server x"]);
    assert_eq!(world.store.snapshot().revision(), before, "something was written");
    assert_eq!(
        maru_nodes::slice::of(&world.store.snapshot(), &"here".into())
            .gone
            .len(),
        0
    );

    // Without a lane nothing can be removed, and it stays.
    assert_eq!(
        world.hub.discard("here", "server", "x").await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert_eq!(
        world.hub.discard("nowhere", "server", "x").await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    let lanes = Arc::new(Discards::default());
    world.hub.offer_lanes(&session, lanes.clone()).await.unwrap();
    world.hub.discard("here", "server", "x").await.unwrap();
    assert_eq!(*lanes.0.lock().unwrap(), ["server x"]);
    assert_eq!(ids(), ["disk z", "network y"]);
    world
        .hub
        .report(&session, 2, vec![Report::Removed(ItemKey::Network("y".to_owned()))])
        .await
        .unwrap();
    assert_eq!(ids(), ["disk z"]);
    // A new session says anew what it finds.
    let (session, _stream) = world.connect("here", 2).await;
    assert!(ids().is_empty());
    assert!(world.hub.lanes("here").is_err(), "lanes of the old session");
    world.hub.report(&session, 1, vec![unknown("disk", "z")]).await.unwrap();
    assert_eq!(ids(), ["disk z"]);
}

#[tokio::test]
async fn room_is_kept_in_memory() {
    let world = world().await;
    let (session, _stream) = world.connect("here", 1).await;
    let before = world.store.snapshot().revision();
    let room = Resources {
        memory_used_mib: 1,
        disk_used_gib: 2,
        disk_free_gib: 3,
        load: "0 0 0".to_owned(),
        running: 4,
    };
    for n in 1..5 {
        world
            .hub
            .report(&session, n, vec![Report::Resources(room.clone())])
            .await
            .unwrap();
        world.hub.heartbeat(&session).await.unwrap();
    }
    assert_eq!(world.hub.views()[0].resources, Some(room));
    assert_eq!(
        world.store.snapshot().revision(),
        before,
        "heartbeats and figures cost no write"
    );
}

/// An agent that does not read: what waits for it is bounded, others are not held up, and when it reads again it hears
/// how things are, not all that has been.
#[tokio::test]
async fn a_slow_agent_waits_alone() {
    let world = world().await;
    let (_, mut slow) = world.connect("slow", 1).await;
    let (_, mut quick) = world.connect("quick", 2).await;
    for n in 0..8_000_u32 {
        let (name, id) = (format!("v{n}"), compute::ServerId::from(format!("s{}", n % 50)));
        let s = server(&name, Some("slow"), true, &[]);
        world
            .write(|txn| {
                txn.put(&id, &s);
            })
            .await;
    }
    quick.catch_up(&world, "quick").await;
    // A bounded number waits in the stream; the rest was never queued.
    slow.catch_up(&world, "slow").await;
    assert!(
        slow.heard < 4_000,
        "{} deliveries were kept for an agent that did not read",
        slow.heard
    );
    for n in 0..50_u32 {
        let Item::Server(s) = &slow.items[&ItemKey::Server(format!("s{n}"))] else {
            panic!("no server")
        };
        assert_eq!(s.name, format!("v{}", 7_950 + n));
    }
}

/// After a lost connection the full set comes again, also what went while nobody listened.
#[tokio::test]
async fn a_reconnect_hears_everything_again() {
    let world = two_servers().await;
    let (_, mut first) = world.connect("here", 1).await;
    first.synced().await;
    drop(first);
    let deleting = {
        let mut s = server("s-here", Some("here"), true, &[]);
        s.task = Some(compute::Task::Deleting);
        s
    };
    world
        .write(|txn| {
            txn.put(&compute::ServerId::from("s-here"), &deleting);
            txn.put(
                &compute::ServerId::from("s-new"),
                &server("s-new", Some("here"), true, &[]),
            );
        })
        .await;
    let (session, mut again) = world.connect("here", 2).await;
    again.synced().await;
    assert!(again.items.contains_key(&ItemKey::Server("s-new".to_owned())));
    assert!(again.gone.contains(&ItemKey::Server("s-here".to_owned())));
    // What the node has removed is forgotten, once.
    world
        .hub
        .report(&session, 1, vec![Report::ServerRemoved("s-here".to_owned())])
        .await
        .unwrap();
    assert!(
        world
            .store
            .snapshot()
            .get::<compute::Server>(&"s-here".into())
            .is_none()
    );
    world
        .hub
        .report(&session, 2, vec![Report::ServerRemoved("s-here".to_owned())])
        .await
        .unwrap();
}
