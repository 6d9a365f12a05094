//! Instance actions: what was asked of a server, by which request, and what came of it.

use crate::ServerId;
use maru_base::{ProjectId, UserId};
use maru_store::{Index, Kind, Snapshot, Txn};
use serde::{Deserialize, Serialize};

maru_base::typed_id!(
    /// Id of an action: server id and request id joined by `:`.
    ActionId
);

/// The id of an action.
#[must_use]
pub fn action_id(server: &str, request_id: &str) -> ActionId {
    ActionId::from(format!("{server}:{request_id}"))
}

/// One event within an action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionEvent {
    /// Upstream's names where there is one: `compute__do_build_and_run_instance`.
    pub event: String,
    /// When it began.
    pub start: jiff::Timestamp,
    /// When it ended.
    pub finish: Option<jiff::Timestamp>,
    /// `Success` or `Error`.
    pub result: Option<String>,
    /// The host it happened on.
    pub host: Option<String>,
    /// What went wrong.
    pub details: Option<String>,
}

/// One action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerAction {
    /// The server.
    pub server_id: ServerId,
    /// The request.
    pub request_id: String,
    /// `create`, `stop`, `reboot`, ...
    pub action: String,
    /// Who asked.
    pub user_id: UserId,
    /// For which project.
    pub project_id: ProjectId,
    /// When.
    pub start: jiff::Timestamp,
    /// When it last changed.
    pub updated: jiff::Timestamp,
    /// `Error` when it failed.
    pub message: Option<String>,
    /// Its events.
    pub events: Vec<ActionEvent>,
    /// Whether it is over.
    pub finished: bool,
    /// When its server was gone; a while later it is removed too.
    pub deleted: Option<jiff::Timestamp>,
}

impl Kind for ServerAction {
    type Id = ActionId;
    const NAME: &'static str = "server_action";
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "server",
                values: |a| vec![a.server_id.to_string()],
            },
            Index {
                name: "deleted",
                values: |a| a.deleted.iter().map(|_| "yes".to_owned()).collect(),
            },
        ]
    }
}

/// Records that something was asked of a server.
pub fn begin_action(
    txn: &mut Txn,
    server: &ServerId,
    project: &ProjectId,
    user: &UserId,
    request_id: &str,
    action: &str,
) {
    let now = maru_base::time::now();
    txn.put(
        &action_id(server, request_id),
        &ServerAction {
            server_id: server.clone(),
            request_id: request_id.to_owned(),
            action: action.to_owned(),
            user_id: user.clone(),
            project_id: project.clone(),
            start: now,
            updated: now,
            message: None,
            events: Vec::new(),
            finished: false,
            deleted: None,
        },
    );
}

/// Records an action that is done already, with its one event.
pub fn done_action(
    txn: &mut Txn,
    server: &ServerId,
    project: &ProjectId,
    user: &UserId,
    request_id: &str,
    action: &str,
    event: ActionEvent,
) {
    let now = maru_base::time::now();
    txn.put(
        &action_id(server, request_id),
        &ServerAction {
            server_id: server.clone(),
            request_id: request_id.to_owned(),
            action: action.to_owned(),
            user_id: user.clone(),
            project_id: project.clone(),
            start: event.start,
            updated: now,
            message: None,
            events: vec![event],
            finished: true,
            deleted: None,
        },
    );
}

/// A finished event that began at `start`.
#[must_use]
pub fn event(name: &str, start: jiff::Timestamp, host: Option<&str>, error: Option<&str>) -> ActionEvent {
    ActionEvent {
        event: name.to_owned(),
        start,
        finish: Some(maru_base::time::now()),
        result: Some(if error.is_none() { "Success" } else { "Error" }.to_owned()),
        host: host.map(str::to_owned),
        details: error.map(str::to_owned),
    }
}

/// Adds an event to the action of `request_id`; `finished` says whether the action is over. Nothing when there is none.
pub fn finish_action(
    snapshot: &Snapshot,
    txn: &mut Txn,
    server: &str,
    request_id: &str,
    event: ActionEvent,
    finished: bool,
) {
    let Some(action) = snapshot.get::<ServerAction>(&action_id(server, request_id)) else {
        return;
    };
    if action.finished {
        return;
    }
    let mut new = (*action.value).clone();
    if event.result.as_deref() == Some("Error") {
        new.message = Some("Error".to_owned());
    }
    new.updated = maru_base::time::now();
    new.finished = finished;
    new.events.push(event);
    txn.update(&action, &new);
}

/// Marks all actions of a server as those of a deleted one, but for the one of `request_id` when it gets an event
/// in the same transaction: that is given as `last`.
pub fn mark_deleted(snapshot: &Snapshot, txn: &mut Txn, server: &str, last: Option<(&str, ActionEvent)>) {
    let now = maru_base::time::now();
    for action in snapshot.find::<ServerAction>("server", server) {
        let mut new = (*action.value).clone();
        new.deleted = Some(now);
        if let Some((request_id, event)) = &last
            && new.request_id == *request_id
        {
            new.events.push(event.clone());
            new.updated = now;
        }
        new.finished = true;
        txn.update(&action, &new);
    }
}
