//! `POST /servers/{id}/action`: one address, one action a request.

use crate::{
    App,
    api::{
        server_view::{self, Shape},
        servers::{Wrapped, find, target},
        wire::{self, Count, Flag, given, invalid, present},
    },
    app::server_actions as app,
};
use maru_base::{Error, Result};
use maru_http::{Reply, Request};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// The body of `rebuild`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RebuildBody {
    #[serde(rename = "imageRef")]
    pub image: String,
    #[serde(default, deserialize_with = "given")]
    pub name: Option<String>,
    #[serde(rename = "adminPass")]
    #[serde(default, deserialize_with = "given")]
    pub admin_pass: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub metadata: Option<BTreeMap<String, String>>,
    #[serde(rename = "accessIPv4")]
    #[serde(default, deserialize_with = "given")]
    pub access_ipv4: Option<String>,
    #[serde(rename = "accessIPv6")]
    #[serde(default, deserialize_with = "given")]
    pub access_ipv6: Option<String>,
    #[serde(rename = "OS-DCF:diskConfig")]
    #[serde(default, deserialize_with = "given")]
    pub disk_config: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub preserve_ephemeral: Option<Flag>,
    #[serde(default, deserialize_with = "given")]
    pub personality: Option<Vec<crate::api::servers::FileBody>>,
    #[serde(default, deserialize_with = "present")]
    pub description: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    pub key_name: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    pub user_data: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    pub trusted_image_certificates: Option<Option<Vec<String>>>,
    #[serde(default, deserialize_with = "given")]
    pub hostname: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RebootBody {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateBody {
    state: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LockBody {
    #[serde(default, deserialize_with = "given")]
    locked_reason: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConsoleBody {
    length: Option<Count>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupNameBody {
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PasswordBody {
    #[serde(rename = "adminPass")]
    _admin_pass: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ImageBody {
    name: String,
    #[serde(default, deserialize_with = "given")]
    metadata: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResizeBody {
    #[serde(rename = "flavorRef")]
    flavor: Value,
    #[serde(rename = "OS-DCF:diskConfig")]
    #[serde(default, deserialize_with = "given")]
    disk_config: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RescueBody {
    #[serde(rename = "adminPass")]
    #[serde(default, deserialize_with = "given")]
    admin_pass: Option<String>,
    #[serde(default, deserialize_with = "given")]
    rescue_image_ref: Option<String>,
}

/// Actions that upstream has and this cloud does not serve yet.
const LATER: &[&str] = &[
    "createBackup",
    "migrate",
    "os-migrateLive",
    "evacuate",
    "shelve",
    "shelveOffload",
    "unshelve",
    "trigger_crash_dump",
    "os-getVNCConsole",
    "os-getSPICEConsole",
    "os-getRDPConsole",
    "os-getSerialConsole",
    "os-getMKSConsole",
    "injectNetworkInfo",
    "resetNetwork",
    "restore",
    "addFixedIp",
    "removeFixedIp",
];

/// The answer to an action.
pub(crate) async fn act(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let Value::Object(map) = request.json_value().await? else {
        return Err(Error::bad_request("The request body is not a JSON object."));
    };
    let mut entries = map.into_iter();
    let (Some((name, value)), None) = (entries.next(), entries.next()) else {
        return Err(Error::bad_request(
            "The request body has exactly one key, the name of the action.",
        ));
    };
    let id = request.param("id").to_owned();
    let server = find(&app.store.current().await?, &request, &id)?;
    let aim = target(&server);
    match name.as_str() {
        "os-stop" => app::power(&app, &request, &id, app::Change::Stop).await,
        "os-start" => app::power(&app, &request, &id, app::Change::Start).await,
        "pause" => app::power(&app, &request, &id, app::Change::Pause).await,
        "unpause" => app::power(&app, &request, &id, app::Change::Unpause).await,
        "suspend" => app::power(&app, &request, &id, app::Change::Suspend).await,
        "resume" => app::power(&app, &request, &id, app::Change::Resume).await,
        "reboot" => {
            let body: RebootBody = wire::typed("reboot", value)?;
            match body.kind.to_ascii_uppercase().as_str() {
                "SOFT" => app::power(&app, &request, &id, app::Change::Reboot).await,
                "HARD" => app::power(&app, &request, &id, app::Change::RebootHard).await,
                other => Err(invalid(
                    "reboot.type",
                    format!("'{other}' is not one of ['HARD', 'Hard', 'hard', 'SOFT', 'Soft', 'soft']"),
                )),
            }
        }
        "createImage" => {
            let body: ImageBody = wire::typed("createImage", value)?;
            wire::check_name("createImage.name", &body.name)?;
            let metadata = body.metadata.unwrap_or_default();
            crate::app::servers::check_metadata(&metadata)?;
            let image = crate::app::server_images::create(&app, &request, &id, &body.name, &metadata).await?;
            if request.at_least(2, 45) {
                return Reply::json(202, &json!({"image_id": image.as_str()}));
            }
            let location = format!("{}/images/{image}", request.base.replace("/compute", "/image/v2"));
            Ok(Reply::empty(202).header("location", &location))
        }
        "resize" => {
            let body: ResizeBody = wire::typed("resize", value)?;
            let flavor = match &body.flavor {
                Value::String(text) if !text.is_empty() => text.clone(),
                Value::Number(number) => number.to_string(),
                other => {
                    return Err(invalid(
                        "resize.flavorRef",
                        format!("{other} is not the id of a flavor"),
                    ));
                }
            };
            let auto = match &body.disk_config {
                Some(text) => Some(crate::app::servers::disk_config(Some(text), false)?),
                None => None,
            };
            crate::app::resize::resize(&app, &request, &id, &flavor, auto).await
        }
        "rescue" => {
            let body: RescueBody = if value.is_null() {
                RescueBody::default()
            } else {
                wire::typed("rescue", value)?
            };
            crate::app::rescue::rescue(&app, &request, &id, body.admin_pass, body.rescue_image_ref.as_deref()).await
        }
        "unrescue" => crate::app::rescue::unrescue(&app, &request, &id).await,
        "confirmResize" => crate::app::resize::confirm(&app, &request, &id).await,
        "revertResize" => crate::app::resize::revert(&app, &request, &id).await,
        "lock" => {
            let body: LockBody = if value.is_null() {
                LockBody::default()
            } else {
                wire::typed("lock", value)?
            };
            if body.locked_reason.is_some() && !request.at_least(2, 73) {
                return Err(invalid(
                    "lock.locked_reason",
                    "Additional properties are not allowed ('locked_reason' was unexpected)",
                ));
            }
            if let Some(reason) = &body.locked_reason {
                wire::check_text("lock.locked_reason", reason)?;
                if reason.is_empty() {
                    return Err(invalid("lock.locked_reason", "'' is too short"));
                }
            }
            app::lock(&app, &request, &id, body.locked_reason).await
        }
        "unlock" => app::unlock(&app, &request, &id).await,
        "os-resetState" => {
            let body: StateBody = wire::typed("os-resetState", value)?;
            app::reset_state(&app, &request, &id, &body.state).await
        }
        "forceDelete" => {
            request.authorize_rule("os_compute_api:os-deferred-delete:force", &aim)?;
            crate::app::servers::delete(&app, &request, &id).await?;
            Ok(Reply::empty(202))
        }
        "rebuild" => {
            let body: RebuildBody = wire::typed("rebuild", value)?;
            gate_rebuild(&request, &body)?;
            let admin_pass = app::rebuild(&app, &request, &id, body).await?;
            let snapshot = app.store.snapshot();
            let server = find(&snapshot, &request, &id)?;
            let mut shape = Shape::of(&request, true);
            shape.brief = !request.at_least(2, 75);
            let mut view = server_view::full(&snapshot, &shape, &server);
            view.admin_pass = Some(admin_pass);
            if request.at_least(2, 57) {
                view.rebuilt_user_data = Some(server.user_data.clone());
            }
            let location = format!("{}/v2.1/servers/{id}", request.base);
            Ok(Reply::json(202, &Wrapped { server: view })?.header("location", &location))
        }
        "os-getConsoleOutput" => {
            request.authorize_rule("os_compute_api:os-console-output", &aim)?;
            let body: ConsoleBody = if value.is_null() {
                ConsoleBody::default()
            } else {
                wire::typed("os-getConsoleOutput", value)?
            };
            // -1 and nothing ask for all.
            let lines = body.length.and_then(|c| usize::try_from(c.0).ok());
            let Some(host) = server.host.clone().filter(|_| server.placed) else {
                return Err(Error::conflict(format!("Instance {id} is not ready")));
            };
            let bytes = app.consoles.log(&host, &id, lines).await?;
            Reply::json(200, &json!({"output": console_text(&bytes)}))
        }
        "changePassword" => {
            request.authorize_rule("os_compute_api:os-admin-password", &aim)?;
            wire::typed::<PasswordBody>("changePassword", value)?;
            maru_compute_model::rules::check_action(request.caller()?, &id, &server, "changePassword")?;
            Err(Error::not_implemented(
                "The hypervisor cannot set a password inside the guest. Log in with a key pair, or rebuild with adminPass.",
            ))
        }
        "addFloatingIp" | "removeFloatingIp" => {
            request.authorize_rule("os_compute_api:os-floating-ips:add", &aim)?;
            crate::api::proxy::floating_ips::act(&app, &request, &server, name == "addFloatingIp", value).await
        }
        "addSecurityGroup" | "removeSecurityGroup" => {
            let body: GroupNameBody = wire::typed(&name, value)?;
            wire::check_name(&format!("{name}.name"), &body.name)?;
            app::security_group(&app, &request, &id, &body.name, name == "addSecurityGroup").await
        }
        other if LATER.contains(&other) => {
            request.authorize_rule("os_compute_api:servers:action", &aim)?;
            Err(Error::not_implemented(format!(
                "The action {other} is not served by this cloud yet."
            )))
        }
        other => Err(Error::bad_request(format!("There is no such action: {other}"))),
    }
}

fn gate_rebuild(request: &Request, body: &RebuildBody) -> Result<()> {
    let minor = request.version.minor;
    let gates: [(&str, bool, u16); 5] = [
        ("description", body.description.is_some(), 19),
        ("key_name", body.key_name.is_some(), 54),
        ("user_data", body.user_data.is_some(), 57),
        (
            "trusted_image_certificates",
            body.trusted_image_certificates.is_some(),
            63,
        ),
        ("hostname", body.hostname.is_some(), 90),
    ];
    for (field, there, from) in gates {
        if there && minor < from {
            return Err(invalid(
                &format!("rebuild.{field}"),
                format!("Additional properties are not allowed ('{field}' was unexpected)"),
            ));
        }
    }
    if body.personality.is_some() && minor >= 57 {
        return Err(invalid(
            "rebuild.personality",
            "Additional properties are not allowed ('personality' was unexpected)",
        ));
    }
    Ok(())
}

/// A console log as text: bytes that are not UTF-8 are replaced, characters that JSON clients choke on left out.
fn console_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t' | '\u{1b}'))
        .collect()
}
