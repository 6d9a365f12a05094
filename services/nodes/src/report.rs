//! What becomes of an agent's reports: the services' planners write what is observed and what follows from it.

use maru_agent_api::{
    NodeName, Session,
    observed::{Hello, PowerState, Report, ServerEvent, ServerState},
    slice::ItemKey,
};
use maru_base::{Error, ErrorKind, Result};
use maru_compute_model as compute;
use maru_network_model as network;
use maru_store::{Store, Txn, record::Records};
use maru_volume_model as volume;

/// A node has connected.
pub(crate) async fn node_up(store: &Store, hello: &Hello) -> Result<()> {
    let facts = compute::NodeFacts {
        name: hello.node.to_string(),
        hypervisor_type: hello.hypervisor_type.clone(),
        hypervisor_version: hello.hypervisor_version,
        accelerator: hello.accelerator.clone(),
        cpu_model: hello.cpu_model.clone(),
        arch: hello.arch.clone(),
        vcpus: hello.vcpus,
        memory_mib: hello.memory_mib,
        disk_gib: hello.disk_gib,
        address: hello.address.clone(),
    };
    store
        .plan(|snapshot| {
            let mut txn = Txn::new();
            compute::plan_node_up(snapshot, &mut txn, &facts)?;
            network::plan_upsert_agent(snapshot, &mut txn, &facts.name, true, compute::DEFAULT_ZONE);
            let room = Some(facts.disk_gib);
            volume::plan_upsert_backend(snapshot, &mut txn, &facts.name, room, true, compute::DEFAULT_ZONE);
            Ok((txn, ()))
        })
        .await
}

/// A node fell silent, or was heard of again.
pub(crate) async fn set_alive(store: &Store, node: &str, up: bool) -> Result<()> {
    store
        .plan(|snapshot| {
            let mut txn = Txn::new();
            if let Some(service) = compute::find_service(snapshot, node)
                && service.up != up
            {
                if up {
                    compute::plan_node_up(snapshot, &mut txn, &service.facts)?;
                } else {
                    compute::plan_node_down(snapshot, &mut txn, node)?;
                }
            }
            network::plan_upsert_agent(snapshot, &mut txn, node, up, compute::DEFAULT_ZONE);
            volume::plan_upsert_backend(snapshot, &mut txn, node, None, up, compute::DEFAULT_ZONE);
            Ok((txn, ()))
        })
        .await
}

/// Stores one report. A node may speak only of what is its own.
pub(crate) async fn apply(
    store: &Store,
    records: &dyn Records,
    Session { node, id: session, .. }: &Session,
    report: Report,
) -> Result<()> {
    let session = *session;
    match report {
        Report::Server(state) => server(store, node, state).await,
        Report::ServerRemoved(id) => server_removed(store, node, id).await,
        Report::Port(state) => {
            let seen = network::ObservedPort {
                host: node.to_string(),
                revision: state.revision,
                up: state.up,
                session,
                fault: state.fault,
            };
            let id = network::PortId::from(state.id);
            store
                .plan(|snapshot| {
                    let mut txn = Txn::new();
                    network::plan_observe_port(snapshot, &mut txn, &id, &seen);
                    Ok((txn, ()))
                })
                .await
        }
        Report::Volume(state) => {
            let seen = volume::VolumeSeen {
                revision: state.revision,
                content: state.content,
                size: state.size,
                offered_at: state.offered_at,
                exports: state.exports,
                fault: state.fault,
                fault_final: state.fault_final,
            };
            let id = volume::VolumeId::from(state.id);
            store
                .plan(|snapshot| {
                    let mut txn = Txn::new();
                    volume::plan_observe_volume(snapshot, &mut txn, node, &id, &seen);
                    Ok((txn, ()))
                })
                .await
        }
        Report::VolumeSnapshot(state) => {
            let seen = volume::SnapshotSeen {
                made: state.made,
                fault: state.fault,
                fault_final: state.fault_final,
            };
            let id = volume::SnapshotId::from(state.id);
            store
                .plan(|snapshot| {
                    let mut txn = Txn::new();
                    volume::plan_observe_snapshot(snapshot, &mut txn, node, &id, &seen);
                    Ok((txn, ()))
                })
                .await
        }
        Report::Removed(key) => removed(store, node, key).await,
        Report::Event(event) => story(store, records, node, event).await,
        Report::Unknown(thing) => {
            tracing::warn!(%node, what = thing.what, id = thing.id, "unknown to the store, kept: {}", thing.description);
            Ok(())
        }
        // Kept in memory by the hub.
        Report::Resources(_) => Ok(()),
    }
}

async fn server(store: &Store, node: &NodeName, state: ServerState) -> Result<()> {
    let id = compute::ServerId::from(state.id);
    let seen = compute::Observation {
        revision: state.revision,
        power: match state.power {
            PowerState::Nostate => compute::PowerState::Nostate,
            PowerState::Running => compute::PowerState::Running,
            PowerState::Paused => compute::PowerState::Paused,
            PowerState::Shutdown => compute::PowerState::Shutdown,
            PowerState::Crashed => compute::PowerState::Crashed,
            PowerState::Suspended => compute::PowerState::Suspended,
        },
        reboots: state.reboots,
        rebuilds: state.rebuilds,
        resizes: state.resizes,
        fault: state.fault,
        fault_final: state.fault_final,
        attached: state.attached,
    };
    store
        .plan(|snapshot| {
            let mut txn = Txn::new();
            if owns(snapshot, node, &id) {
                compute::plan_observe_server(snapshot, &mut txn, &id, &seen)?;
            }
            Ok((txn, ()))
        })
        .await
}

async fn server_removed(store: &Store, node: &NodeName, id: String) -> Result<()> {
    let id = compute::ServerId::from(id);
    store
        .plan(|snapshot| {
            let mut txn = Txn::new();
            if owns(snapshot, node, &id) {
                compute::plan_server_removed(snapshot, &mut txn, &id)?;
            }
            Ok((txn, ()))
        })
        .await
}

/// Whether a server is (assigned to be) on a node.
fn owns(snapshot: &maru_store::Snapshot, node: &NodeName, id: &compute::ServerId) -> bool {
    snapshot
        .get::<compute::Server>(id)
        .is_some_and(|s| s.host.as_deref() == Some(node.as_str()))
}

async fn removed(store: &Store, node: &NodeName, key: ItemKey) -> Result<()> {
    let what = match key {
        ItemKey::Server(id) => return server_removed(store, node, id).await,
        ItemKey::SecurityGroup(_) => return Ok(()),
        ItemKey::Port(id) => network::Removed::Port(id.into()),
        ItemKey::Network(id) => network::Removed::Network(id.into()),
        ItemKey::Router(id) => network::Removed::Router(id.into()),
        ItemKey::Volume(id) => {
            let id = volume::VolumeId::from(id);
            return store
                .plan(|snapshot| {
                    let mut txn = Txn::new();
                    volume::plan_volume_removed(snapshot, &mut txn, node, &id)?;
                    Ok((txn, ()))
                })
                .await;
        }
        ItemKey::VolumeSnapshot(id) => {
            let id = volume::SnapshotId::from(id);
            return store
                .plan(|snapshot| {
                    let mut txn = Txn::new();
                    volume::plan_snapshot_removed(snapshot, &mut txn, node, &id)?;
                    Ok((txn, ()))
                })
                .await;
        }
    };
    store
        .plan(|snapshot| {
            let mut txn = Txn::new();
            network::plan_removed(snapshot, &mut txn, node, &what)?;
            Ok((txn, ()))
        })
        .await
}

async fn story(store: &Store, records: &dyn Records, node: &NodeName, event: ServerEvent) -> Result<()> {
    // The last events of a server may come after it is gone or taken from the node; those of another node's never do.
    let elsewhere = store
        .snapshot()
        .get::<compute::Server>(&compute::ServerId::from(event.server.as_str()))
        .is_some_and(|s| s.host.as_deref().is_some_and(|host| host != node.as_str()));
    if elsewhere {
        tracing::warn!(%node, server = event.server, "an event of a server of another node, ignored");
        return Ok(());
    }
    let subject = event.server.clone();
    let mut record = serde_json::to_value(&event)
        .map_err(|e| Error::new(ErrorKind::Internal, "the event cannot be encoded").with_source(e))?;
    record["node"] = node.as_str().into();
    records.append("server-event", &subject, record).await
}
