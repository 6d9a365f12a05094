//! `POST /servers/{id}/action`: one address, one action a request.

use crate::{
    App,
    api::{
        consoles,
        server_view::{self, Shape},
        servers::{Wrapped, find, target},
        wire::{self, Count, Flag, given, invalid, present},
    },
    app::{
        server_actions as app,
        server_images::{self, Wanted},
        shelve,
    },
};
use maru_base::{Error, Result};
use maru_compute_model::{Backup, network};
use maru_http::{Reply, Request};
use maru_image_model::ImageId;
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
struct AddFixedIpBody {
    #[serde(rename = "networkId")]
    network: Value,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveFixedIpBody {
    address: String,
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

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BackupBody {
    name: String,
    backup_type: String,
    rotation: Count,
    #[serde(default, deserialize_with = "given")]
    metadata: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UnshelveBody {
    #[serde(default, deserialize_with = "present")]
    availability_zone: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    host: Option<String>,
}

/// Actions that upstream has and this cloud does not serve yet.
const LATER: &[&str] = &[
    "migrate",
    "os-migrateLive",
    "evacuate",
    "os-getVNCConsole",
    "os-getSPICEConsole",
    "os-getRDPConsole",
    "os-getSerialConsole",
    "os-getMKSConsole",
    "injectNetworkInfo",
    "resetNetwork",
    "restore",
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
            let wanted = Wanted {
                name: &body.name,
                metadata: &metadata,
                backup: None,
            };
            let image = server_images::create(&app, &request, &id, wanted).await?;
            image_answer(&request, &image)
        }
        "createBackup" => {
            let body: BackupBody = wire::typed("createBackup", value)?;
            wire::check_name("createBackup.name", &body.name)?;
            let metadata = body.metadata.unwrap_or_default();
            crate::app::servers::check_metadata(&metadata)?;
            let rotation = u32::try_from(body.rotation.0).map_err(|_| {
                invalid(
                    "createBackup.rotation",
                    format!("{} is not a number from 0 to {}", body.rotation.0, u32::MAX),
                )
            })?;
            let wanted = Wanted {
                name: &body.name,
                metadata: &metadata,
                backup: Some(Backup {
                    kind: body.backup_type,
                    rotation,
                }),
            };
            let image = server_images::create(&app, &request, &id, wanted).await?;
            if rotation == 0 {
                // It goes with the others as soon as it is made.
                return Ok(Reply::empty(202));
            }
            image_answer(&request, &image)
        }
        "shelve" => shelve::shelve(&app, &request, &id).await,
        "shelveOffload" => shelve::offload(&app, &request, &id).await,
        "unshelve" => {
            let to = unshelve_to(&request, value)?;
            shelve::unshelve(&app, &request, &id, to).await
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
        "os-getVNCConsole" | "os-getSPICEConsole" | "os-getRDPConsole" | "os-getSerialConsole" => {
            consoles::act(&app, &request, &id, &name, value).await
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
        "addFixedIp" => {
            let body: AddFixedIpBody = wire::typed("addFixedIp", value)?;
            let network = match &body.network {
                Value::String(id) if wire::is_uuid(id) => id.clone(),
                other => {
                    return Err(invalid(
                        "addFixedIp.networkId",
                        format!("{other} is not the id of a network"),
                    ));
                }
            };
            wire::until(&request, 43)?;
            let rule = "os_compute_api:os-multinic:add";
            app::addresses(&app, &request, &id, rule, |snapshot, txn, server| {
                network::plan_add_address(snapshot, txn, server, &network)
            })
            .await
        }
        "removeFixedIp" => {
            let body: RemoveFixedIpBody = wire::typed("removeFixedIp", value)?;
            let ip = body.address.parse().map_err(|_| {
                invalid(
                    "removeFixedIp.address",
                    format!("'{}' is not an IP address", body.address),
                )
            })?;
            wire::until(&request, 43)?;
            let rule = "os_compute_api:os-multinic:remove";
            app::addresses(&app, &request, &id, rule, |snapshot, txn, server| {
                network::plan_remove_address(snapshot, txn, server, ip)
            })
            .await
        }
        "trigger_crash_dump" => {
            wire::since(&request, 17)?;
            if !value.is_null() {
                return Err(invalid("trigger_crash_dump", "It is null: there is nothing to say."));
            }
            app::crash_dump(&app, &request, &id).await
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

/// Where the image is that was asked for: in the body since 2.45.
fn image_answer(request: &Request, image: &ImageId) -> Result<Reply> {
    if request.at_least(2, 45) {
        return Reply::json(202, &json!({"image_id": image.as_str()}));
    }
    let location = format!("{}/images/{image}", request.base.replace("/compute", "/image/v2"));
    Ok(Reply::empty(202).header("location", &location))
}

/// The body of `unshelve`: nothing looked at before 2.77, a zone from then on, a host or no zone since 2.91.
fn unshelve_to(request: &Request, value: Value) -> Result<shelve::Where> {
    if value.is_null() || !request.at_least(2, 77) {
        return Ok(shelve::Where::default());
    }
    let body: UnshelveBody = wire::typed("unshelve", value)?;
    let newer = request.at_least(2, 91);
    if body.host.is_some() && !newer {
        return Err(invalid(
            "unshelve.host",
            "Additional properties are not allowed ('host' was unexpected)",
        ));
    }
    match &body.availability_zone {
        None if !newer => {
            return Err(invalid(
                "unshelve.availability_zone",
                "'availability_zone' is a required property",
            ));
        }
        Some(None) if !newer => return Err(invalid("unshelve.availability_zone", "None is not of type 'string'")),
        Some(Some(zone)) => wire::check_name("unshelve.availability_zone", zone)?,
        _ => {}
    }
    Ok(shelve::Where {
        zone: body.availability_zone,
        host: body.host,
    })
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
