//! What is on a node and not in the store: adopted, or discarded (docs/adr/0004).
//!
//! A node tells of it after a restore, or of what another cloud left there. Nothing happens to it until the administrator says what.
//! Every refusal names the thing, says why, and what would help; where removing it is a way out, with the command that does it.

use super::Cloud;
use anyhow::{Context, Result, bail};
use maru_base::{Error, ErrorKind};
use maru_compute_model::{Adopted, Origin, PowerState, Server, ServerId};
use maru_identity_model::Project;
use maru_store::{Snapshot, Txn};
use serde_json::{Value, json};

impl Cloud {
    /// The command that adopts or discards an unknown thing of this cloud, to be given as it is to a shell.
    pub(super) fn command(&self, verb: &str, what: &str, id: &str, node: Option<&str>) -> String {
        let mut command = format!("maru {verb} {what} {id}");
        if let Some(node) = node {
            command.push_str(&format!(" --node {}", quoted(node)));
        }
        if let Some(data) = &self.data {
            command.push_str(&format!(" --data {}", quoted(&data.display().to_string())));
        }
        command
    }

    /// Takes an unknown thing back into the store, or removes it from its node. `node` says which, if several have one.
    ///
    /// # Errors
    /// When no node reports such a thing, the cloud knows it, or it cannot come back.
    pub async fn unknown(&self, what: &str, id: &str, node: Option<&str>, adopt: bool) -> Result<Value> {
        let _mine = self.unknown_turn.lock().await;
        let reporting: Vec<String> = self
            .views()
            .into_iter()
            .filter(|v| v.unknown.iter().any(|u| u.what == what && u.id == id))
            .map(|v| v.node)
            .collect();
        let verb = if adopt { "adopt" } else { "discard" };
        let on = match (node, reporting.as_slice()) {
            (Some(node), all) if all.iter().any(|n| n == node) => node,
            (None, [one]) => one,
            (None, [first, ..]) => bail!(
                "{what} {id} is on several nodes ({}), each of which may have its own; say which is meant: `{}`",
                reporting.join(", "),
                self.command(verb, what, id, Some(first))
            ),
            _ => bail!(self.not_reported(what, id, node)),
        };
        if !adopt {
            let discarded = self.hub.discard(on, what, id).await;
            discarded.with_context(|| format!("{what} {id} on node {on} is not discarded"))?;
            return Ok(json!({ "discarded": format!("{what} {id}"), "node": on }));
        }
        if what != "server" {
            let with = match what {
                "disk" => {
                    "it is left of a server that is on no node; what it holds can be copied from the node's data directory first"
                }
                "volume" | "volume-snapshot" => {
                    "its bytes are kept under volumes/ in the node's data directory, from where they can be copied first"
                }
                _ => "it comes back by itself with the first server on it that is adopted",
            };
            bail!(
                "{what} {id} on node {on} is not adopted: only servers are, and {with}. To remove it for good: `{}`",
                self.command("discard", what, id, node)
            );
        }
        self.adopt(on, id, node).await
    }

    /// Why there is nothing to adopt or discard.
    fn not_reported(&self, what: &str, id: &str, node: Option<&str>) -> String {
        let snapshot = self.store.snapshot();
        let on = node.map_or_else(|| "no node reports".to_owned(), |n| format!("node {n} does not report"));
        if what == "server"
            && let Some(server) = snapshot.get::<Server>(&ServerId::from(id))
        {
            let at = server.host.as_deref().unwrap_or("no node yet");
            return format!(
                "server {id} ({}) is known to the cloud, on {at}, and {on} another of that id: there is nothing to adopt or discard. \
                 To see it: `openstack server show {id}`; to delete it: `openstack server delete {id}`",
                server.name
            );
        }
        let away = match self.nodes_away().as_slice() {
            [] => String::new(),
            [one] => format!("; what is on {one} is not known before it connects"),
            [first, rest @ ..] => format!(
                "; what is on {first} and {} more is not known before they connect",
                rest.len()
            ),
        };
        format!("{on} an unknown {what} {id}; `maru status --all` lists what is unknown{away}")
    }

    /// Takes a guest back into the store as its node remembers it.
    async fn adopt(&self, node: &str, id: &str, named: Option<&str>) -> Result<Value> {
        let discard = self.command("discard", "server", id, named);
        let lanes = self
            .hub
            .lanes(node)
            .with_context(|| format!("server {id} on node {node} is not adopted"))?;
        let text = lanes.origin(id).await.with_context(|| {
            format!("server {id} on node {node} is not adopted: the node does not answer where it comes from")
        })?;
        let Ok(origin) = serde_json::from_str::<Origin>(&text) else {
            bail!(
                "server {id} on node {node} is not adopted: the node does not remember where it comes from (owner, name, flavor, ports), \
                 because its record is lost, or another cloud or version made it. It can only be removed, with its disks, for good: `{discard}`"
            );
        };
        let name = &origin.server.name;
        let figures = lanes.diagnostics(id).await;
        let figures = figures.with_context(|| {
            format!(
                "server {id} ({name}) on node {node} is not adopted: the node cannot say what the guest does; try again"
            )
        })?;
        let Some(power) = power_of(&figures) else {
            bail!(
                "server {id} ({name}) on node {node} is not adopted: the node does not say what the guest does; try again"
            );
        };
        let request = maru_base::RequestId::generate();
        let server = ServerId::from(id);
        let plan = |snapshot: &Snapshot| plan(snapshot, &server, &origin, (node, power), &request);
        let mut outcome = self.store.plan(plan).await;
        // A race for an address or the last room is lost at the commit, which does not say what was taken: the next plan does.
        if let Err(e) = &outcome
            && e.kind() == ErrorKind::Conflict
            && let Err(named) = plan(&self.store.sync().await?)
        {
            outcome = Err(named);
        }
        let adopted = match outcome {
            Ok(adopted) => adopted,
            Err(e) if matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::Internal) => {
                return Err(e).with_context(|| format!("server {id} ({name}) on node {node} is not adopted"));
            }
            Err(e) => bail!(
                "server {id} ({name}) on node {node} is not adopted. {e} To remove the guest and its disks for good instead: `{discard}`"
            ),
        };
        self.hub.known(node, "server", id);
        tracing::info!(server = id, node, request_id = %request, "adopted");
        let mut value = serde_json::to_value(&adopted)?;
        value["adopted"] = format!("server {id}").into();
        value["node"] = node.into();
        Ok(value)
    }
}

/// The transaction of an adoption.
fn plan(
    snapshot: &Snapshot,
    id: &ServerId,
    origin: &Origin,
    at: (&str, PowerState),
    request: &str,
) -> maru_base::Result<(Txn, Adopted)> {
    let mut txn = Txn::new();
    let server = &origin.server;
    let projects = origin.ports.iter().map(|(_, p)| &p.project_id);
    for project in std::iter::once(&server.project_id).chain(projects) {
        if snapshot.get::<Project>(project).is_none() {
            return Err(Error::not_found(format!(
                "It belongs to project {project}, which the store does not have: the project is younger than the backup, or was deleted \
                 since. Restore a later backup that has it."
            )));
        }
        maru_network_model::keys::alive::<Project>(&mut txn, project);
    }
    let adopted = maru_compute_model::plan_adopt(snapshot, &mut txn, id, origin, at, request, &server.user_id)?;
    Ok((txn, adopted))
}

/// What a guest does, as its node's figures say.
fn power_of(figures: &Value) -> Option<PowerState> {
    Some(match figures["state"].as_str()? {
        "running" => PowerState::Running,
        "paused" => PowerState::Paused,
        "suspended" => PowerState::Suspended,
        "shutdown" => PowerState::Shutdown,
        "crashed" => PowerState::Crashed,
        "pending" | "nostate" => PowerState::Nostate,
        _ => return None,
    })
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_shell_as_they_are() {
        assert_eq!(quoted("/var/lib/maru-2"), "/var/lib/maru-2");
        assert_eq!(quoted("/srv/my cloud's"), r"'/srv/my cloud'\''s'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn every_state_that_a_node_can_say_is_understood() {
        for (said, power) in [
            ("running", PowerState::Running),
            ("paused", PowerState::Paused),
            ("suspended", PowerState::Suspended),
            ("shutdown", PowerState::Shutdown),
            ("crashed", PowerState::Crashed),
            ("pending", PowerState::Nostate),
        ] {
            assert_eq!(power_of(&json!({ "state": said })), Some(power));
        }
        assert_eq!(power_of(&Value::Null), None);
    }
}
