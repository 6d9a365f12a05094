//! Trunks: what a port of a server carries besides its own network.

use super::fake::{Fake, NODE, Plane, run};
use super::{network, port, server};
use maru_agent_api::observed::Report;
use maru_agent_api::slice::{Item, ItemKey, Port, TrunkLink};
use std::sync::Arc;

/// A port that the server's port carries; its id comes before its parent's.
fn carried(vlan: u16, host: Option<&str>) -> Item {
    let Item::Port(parent) = port("port") else {
        unreachable!("it is a port")
    };
    Item::Port(Port {
        id: "a-sub".into(),
        host: host.map(str::to_owned),
        device_owner: "trunk:subport".into(),
        trunk: host.map(|_| TrunkLink {
            parent: "port".into(),
            vlan,
        }),
        ..parent
    })
}

fn count(fake: &Fake, step: &str) -> usize {
    fake.state().journal.iter().filter(|j| *j == step).count()
}

/// Whether the plane heard that the subport is up.
fn up(plane: &Plane) -> bool {
    plane
        .reports
        .lock()
        .unwrap()
        .iter()
        .any(|r| matches!(r, Report::Port(p) if p.id == "a-sub" && p.up))
}

#[tokio::test(start_paused = true)]
async fn a_subport_is_made_after_its_parent_and_leaves_with_the_trunk() {
    let (fake, plane) = (Fake::new(), Arc::new(Plane::default()));
    plane.set(1, network());
    plane.set(1, carried(7, Some(NODE)));
    plane.set(1, port("port"));
    plane.set(1, Item::Server(server()));
    let _agent = run(&fake, &plane).await;
    plane.until("the subport is up", up).await;
    assert!(fake.state().ports["a-sub"]);

    // Another VLAN id: made anew, and the parent is left alone.
    let parents = count(&fake, "tap port");
    plane.set(2, carried(8, Some(NODE)));
    plane.until("it is made anew", |_| count(&fake, "tap a-sub") == 2).await;
    assert_eq!(count(&fake, "tap port"), parents);

    // The parent is made anew: what it carries as well.
    let Item::Port(parent) = port("port") else {
        unreachable!("it is a port")
    };
    plane.set(
        3,
        Item::Port(Port {
            dns_name: "other".into(),
            ..parent
        }),
    );
    plane
        .until("both are made anew", |_| {
            count(&fake, "tap port") == parents + 1 && count(&fake, "tap a-sub") == 3
        })
        .await;

    // It left the trunk and stays a neighbour.
    plane.set(4, carried(8, None));
    plane
        .until("it is gone", |_| !fake.state().ports.contains_key("a-sub"))
        .await;
    assert!(fake.state().ports["port"], "its parent stays");

    // It comes back, and is deleted.
    plane.set(5, carried(9, Some(NODE)));
    plane
        .until("it is back", |_| fake.state().ports.get("a-sub") == Some(&true))
        .await;
    plane.gone(6, ItemKey::Port("a-sub".into()));
    plane
        .until("it is removed", |_| !fake.state().ports.contains_key("a-sub"))
        .await;
}
