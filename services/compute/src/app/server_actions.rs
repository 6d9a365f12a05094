//! Changes of a server's intent, each one transaction.

use crate::{
    App,
    api::{
        server_actions::RebuildBody,
        servers::{find, target},
        wire::{self, invalid},
    },
    app::servers::{
        check_address, check_certificates, check_files, check_hostname, check_metadata, check_metadata_count,
        check_user_data, disk_config, flavor_of, image_for, random_password, shortest,
    },
};
use maru_base::{Error, Result};
use maru_compute_model::{
    KeyPair, Lock, Power, Server, ServerId, ServerKey, Task, VmState, begin_action, event, keypair_id, network, rules,
};
use maru_http::{Reply, Request};
use maru_store::{Object, Snapshot, Txn};

/// A change of the power intent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Stop,
    Start,
    Pause,
    Unpause,
    Suspend,
    Resume,
    Reboot,
    RebootHard,
}

impl Change {
    const fn rule(self) -> &'static str {
        match self {
            Self::Stop => "os_compute_api:servers:stop",
            Self::Start => "os_compute_api:servers:start",
            Self::Pause => "os_compute_api:os-pause-server:pause",
            Self::Unpause => "os_compute_api:os-pause-server:unpause",
            Self::Suspend => "os_compute_api:os-suspend-server:suspend",
            Self::Resume => "os_compute_api:os-suspend-server:resume",
            Self::Reboot | Self::RebootHard => "os_compute_api:servers:reboot",
        }
    }
    /// The name in refusals.
    const fn check(self) -> &'static str {
        match self {
            Self::RebootHard => "reboot_hard",
            other => other.action(),
        }
    }
    /// The name in the list of actions.
    const fn action(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Unpause => "unpause",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::Reboot | Self::RebootHard => "reboot",
        }
    }
    const fn task(self) -> Task {
        match self {
            Self::Stop => Task::PoweringOff,
            Self::Start => Task::PoweringOn,
            Self::Pause => Task::Pausing,
            Self::Unpause => Task::Unpausing,
            Self::Suspend => Task::Suspending,
            Self::Resume => Task::Resuming,
            Self::Reboot => Task::Rebooting,
            Self::RebootHard => Task::RebootingHard,
        }
    }
    const fn power(self) -> Power {
        match self {
            Self::Stop => Power::Stopped,
            Self::Pause => Power::Paused,
            Self::Suspend => Power::Suspended,
            _ => Power::Running,
        }
    }
}

/// Plans a change of a server that is loaded and authorised by `rule`.
async fn change<T, F>(app: &App, request: &Request, id: &str, rule: &str, mut f: F) -> Result<T>
where
    F: FnMut(&Snapshot, &mut Txn, &Object<Server>) -> Result<(Server, T)>,
{
    app.store
        .plan(|snapshot| {
            let server = find(snapshot, request, id)?;
            request.authorize_rule(rule, &target(&server))?;
            let mut txn = Txn::new();
            let (new, answer) = f(snapshot, &mut txn, &server)?;
            txn.update(&server, &new);
            Ok((txn, answer))
        })
        .await
}

/// Changes the power intent; the node carries it out.
pub(crate) async fn power(app: &App, request: &Request, id: &str, what: Change) -> Result<Reply> {
    let caller = request.caller()?.clone();
    change(app, request, id, what.rule(), |snapshot, txn, server| {
        rules::check_action(&caller, id, server, what.check())?;
        if !server.placed {
            return Err(Error::conflict(format!("Instance {id} is not ready")));
        }
        let mut new = (*server.value).clone();
        new.touch(&request.id, snapshot);
        new.task = Some(what.task());
        new.power = what.power();
        if matches!(what, Change::Reboot | Change::RebootHard) {
            new.reboot.count += 1;
            new.reboot.hard = what == Change::RebootHard;
        }
        begin_action(
            txn,
            &server.id,
            &server.project_id,
            &caller.user_id,
            &request.id,
            what.action(),
        );
        Ok((new, ()))
    })
    .await?;
    app.record(id, &request.id, what.action()).await;
    Ok(Reply::empty(202))
}

/// Locks a server against changes.
pub(crate) async fn lock(app: &App, request: &Request, id: &str, reason: Option<String>) -> Result<Reply> {
    let caller = request.caller()?.clone();
    change(
        app,
        request,
        id,
        "os_compute_api:os-lock-server:lock",
        |_, txn, server| {
            let mut new = (*server.value).clone();
            let by_admin = caller.project_id() != Some(&server.project_id);
            new.lock = Some(Lock {
                by_admin,
                reason: reason.clone(),
            });
            note(txn, server, &caller, request, "lock");
            Ok((new, ()))
        },
    )
    .await?;
    Ok(Reply::empty(202))
}

/// Unlocks a server; what an administrator locked, only an administrator unlocks.
pub(crate) async fn unlock(app: &App, request: &Request, id: &str) -> Result<Reply> {
    let caller = request.caller()?.clone();
    change(
        app,
        request,
        id,
        "os_compute_api:os-lock-server:unlock",
        |_, txn, server| {
            if server.lock.as_ref().is_some_and(|l| l.by_admin) {
                request.authorize_rule("os_compute_api:os-lock-server:unlock:unlock_override", &target(server))?;
            }
            let mut new = (*server.value).clone();
            new.lock = None;
            note(txn, server, &caller, request, "unlock");
            Ok((new, ()))
        },
    )
    .await?;
    Ok(Reply::empty(202))
}

/// Records an action that is over with its transaction.
pub(crate) fn note(
    txn: &mut Txn,
    server: &Object<Server>,
    caller: &maru_auth::Caller,
    request: &Request,
    action: &str,
) {
    let now = maru_base::time::now();
    let record = maru_compute_model::ServerAction {
        server_id: server.id.clone(),
        request_id: request.id.to_string(),
        action: action.to_owned(),
        user_id: caller.user_id.clone(),
        project_id: server.project_id.clone(),
        start: now,
        updated: now,
        message: None,
        events: vec![event(&format!("api_{action}"), now, None, None)],
        finished: true,
        deleted: None,
    };
    txn.put(&maru_compute_model::action_id(&server.id, &request.id), &record);
}

/// Sets a server's state by hand.
pub(crate) async fn reset_state(app: &App, request: &Request, id: &str, state: &str) -> Result<Reply> {
    let caller = request.caller()?.clone();
    let state = match state {
        "active" => VmState::Active,
        "error" => VmState::Error,
        other => {
            return Err(invalid(
                "os-resetState.state",
                format!("'{other}' is not one of ['active', 'error']"),
            ));
        }
    };
    change(
        app,
        request,
        id,
        "os_compute_api:os-admin-actions:reset_state",
        |_, txn, server| {
            let mut new = (*server.value).clone();
            new.vm_state = state;
            // A deletion that was accepted stays: its node may have removed the disks already.
            new.task = server.task.filter(|t| *t == Task::Deleting);
            new.updated = maru_base::time::now();
            if state == VmState::Active {
                new.fault = None;
            }
            note(txn, server, &caller, request, "resetState");
            Ok((new, ()))
        },
    )
    .await?;
    Ok(Reply::empty(202))
}

/// Makes the boot disk anew; gives the initial password.
pub(crate) async fn rebuild(app: &App, request: &Request, id: &str, body: RebuildBody) -> Result<String> {
    let caller = request.caller()?.clone();
    if let Some(name) = &body.name {
        wire::check_name("rebuild.name", name)?;
    }
    if let Some(metadata) = &body.metadata {
        check_metadata(metadata)?;
    }
    if let Some(Some(data)) = &body.user_data {
        check_user_data(data)?;
    }
    if let Some(Some(text)) = &body.description {
        wire::check_text("rebuild.description", text)?;
    }
    if let Some(name) = &body.hostname {
        check_hostname(name)?;
    }
    if body.preserve_ephemeral.is_some_and(|f| f.0) {
        return Err(Error::bad_request(
            "The current driver does not support preserving ephemeral partitions.",
        ));
    }
    if let Some(Some(certs)) = &body.trusted_image_certificates {
        check_certificates("rebuild.trusted_image_certificates", certs)?;
    }
    check_address("rebuild.accessIPv4", body.access_ipv4.as_deref(), true)?;
    check_address("rebuild.accessIPv6", body.access_ipv6.as_deref(), false)?;
    let password = body.admin_pass.clone().unwrap_or_else(random_password);
    let given = password.clone();
    let answer = change(
        app,
        request,
        id,
        "os_compute_api:servers:rebuild",
        |snapshot, txn, server| {
            rules::check_action(&caller, id, server, "rebuild")?;
            if !server.placed {
                return Err(Error::conflict(format!(
                    "Cannot 'rebuild' instance {id}: no host has it. Delete it and create it again."
                )));
            }
            let mut new = (*server.value).clone();
            new.touch(&request.id, snapshot);
            let image = image_for(snapshot, &caller, &body.image, &flavor_of(server))?;
            // The image may be another one: the host must fit it as if it were chosen anew (no filter is bypassed).
            let mut probe = new.clone();
            probe.image = Some(image.clone());
            check_host_fits(snapshot, &server.id, &probe)?;
            new.image = Some(image);
            new.root = None;
            if let Some(name) = &body.name {
                new.name.clone_from(name);
            }
            if let Some(metadata) = &body.metadata {
                check_metadata_count(snapshot, &server.project_id, metadata.len())?;
                new.metadata.clone_from(metadata);
            }
            if let Some(text) = &body.description {
                new.description.clone_from(text);
            }
            if let Some(name) = &body.hostname {
                new.hostname.clone_from(name);
            }
            if let Some(ip) = &body.access_ipv4 {
                new.access_ipv4 = Some(ip.clone()).filter(|t| !t.is_empty());
            }
            if let Some(ip) = &body.access_ipv6 {
                new.access_ipv6 = Some(shortest(ip)).filter(|t| !t.is_empty());
            }
            if let Some(data) = &body.user_data {
                new.user_data.clone_from(data);
            }
            if let Some(certs) = &body.trusted_image_certificates {
                new.trusted_certs.clone_from(certs);
            }
            if let Some(files) = &body.personality {
                check_files(snapshot, &server.project_id, files)?;
                new.files = files.iter().map(|f| (f.path.clone(), f.contents.clone())).collect();
            }
            match &body.key_name {
                None => {}
                Some(None) => new.key = None,
                Some(Some(name)) => {
                    let key = snapshot
                        .get::<KeyPair>(&keypair_id(&caller.user_id, name))
                        .ok_or_else(|| Error::bad_request("Invalid key_name provided."))?;
                    new.key = Some(ServerKey {
                        name: name.clone(),
                        public_key: key.public_key.clone(),
                    });
                }
            }
            new.auto_disk_config = disk_config(body.disk_config.as_deref(), new.auto_disk_config)?;
            new.admin_pass = Some(given.clone());
            // A stopped server is rebuilt and stays stopped; one in ERROR is rebuilt and runs.
            new.power = if server.vm_state == VmState::Stopped {
                Power::Stopped
            } else {
                Power::Running
            };
            new.rebuild += 1;
            new.task = Some(Task::Rebuilding);
            new.fault = None;
            begin_action(
                txn,
                &server.id,
                &server.project_id,
                &caller.user_id,
                &request.id,
                "rebuild",
            );
            Ok((new, password.clone()))
        },
    )
    .await?;
    app.record(id, &request.id, "rebuild").await;
    Ok(answer)
}

fn check_host_fits(snapshot: &Snapshot, id: &ServerId, probe: &Server) -> Result<()> {
    let Some(host) = probe.host.as_deref() else {
        return Ok(());
    };
    maru_compute_model::schedule::image_fits(snapshot, probe, host).map_err(|why| {
        Error::bad_request(format!(
            "No valid host was found: instance {id} is on {host}, and {why}."
        ))
    })
}

/// Changes the addresses of a server's ports, as `plan` says.
pub(crate) async fn addresses(
    app: &App,
    request: &Request,
    id: &str,
    rule: &str,
    plan: impl Fn(&Snapshot, &mut Txn, &Object<Server>) -> Result<()>,
) -> Result<Reply> {
    let caller = request.caller()?.clone();
    change(app, request, id, rule, |snapshot, txn, server| {
        rules::check_lock(&caller, id, server)?;
        plan(snapshot, txn, server)?;
        let mut new = (*server.value).clone();
        new.updated = maru_base::time::now();
        Ok((new, ()))
    })
    .await?;
    Ok(Reply::empty(202))
}

/// Interrupts a server's kernel, so that it dumps itself, if it is set up to.
pub(crate) async fn crash_dump(app: &App, request: &Request, id: &str) -> Result<Reply> {
    let caller = request.caller()?.clone();
    let server = find(&app.store.current().await?, request, id)?;
    request.authorize_rule("os_compute_api:servers:trigger_crash_dump", &target(&server))?;
    rules::check_action(&caller, id, &server, "trigger_crash_dump")?;
    let Some(host) = server.host.as_deref().filter(|_| server.placed) else {
        return Err(Error::conflict(format!("Instance {id} is not ready")));
    };
    app.consoles.inject_nmi(host, id).await?;
    app.store
        .plan(|_| {
            let mut txn = Txn::new();
            note(&mut txn, &server, &caller, request, "trigger_crash_dump");
            Ok((txn, ()))
        })
        .await?;
    Ok(Reply::empty(202))
}

/// Adds or removes a security group on all ports of a server.
pub(crate) async fn security_group(app: &App, request: &Request, id: &str, name: &str, add: bool) -> Result<Reply> {
    let caller = request.caller()?.clone();
    let rule = if add {
        "os_compute_api:os-security-groups:add"
    } else {
        "os_compute_api:os-security-groups:remove"
    };
    change(app, request, id, rule, |snapshot, txn, server| {
        rules::check_lock(&caller, id, server)?;
        let new = network::plan_security_group(snapshot, txn, server, name, add)?;
        Ok((new, ()))
    })
    .await?;
    Ok(Reply::empty(202))
}
