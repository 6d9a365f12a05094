//! Remote consoles: `POST /servers/{id}/remote-consoles` gives an address with a token, and whoever opens that address has the
//! server's screen or serial line over a WebSocket. noVNC's own page, of the distribution's package, is served beside it.
//!
//! ```text
//!  POST remote-consoles ─► token (its hash is kept, 10 minutes) ─► GET /console?token=… ─► 101 ─► the node's lane
//! ```

use crate::{
    App,
    api::{
        servers::{find, target},
        wire::{self, invalid, since},
    },
};
use maru_base::{Error, ErrorKind, Result, hex, random, time};
use maru_compute_model::{ConsoleToken, ConsoleTokenId, ConsoleType, Server, good_console_token, plan_console_token};
use maru_http::{Reply, Request};
use maru_store::{Object, Txn};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{path::Path, sync::Arc};

/// Where Debian's package `novnc` lies.
const NOVNC: &str = "/usr/share/novnc";
/// The largest of its files by far is a few hundred kilobytes.
const FILE_MAX: u64 = 4 << 20;

fn id_of(token: &str) -> ConsoleTokenId {
    ConsoleTokenId::from(hex(&Sha256::digest(token.as_bytes())))
}

/// What a type of console of the API is here.
///
/// # Errors
/// 400 for those that the hypervisor has not.
fn kind_of(kind: &str) -> Result<ConsoleType> {
    match kind {
        "novnc" => Ok(ConsoleType::Novnc),
        "serial" => Ok(ConsoleType::Serial),
        other => Err(Error::bad_request(format!(
            "Unavailable console type {other}. There are novnc and serial."
        ))),
    }
}

/// Makes a token, and gives the address to open with it.
async fn open(app: &App, request: &Request, id: &str, kind: ConsoleType) -> Result<String> {
    // A UUID, as upstream's tokens are.
    let token = random::uuid();
    let now = time::now();
    app.store
        .plan(|snapshot| {
            let server = find(snapshot, request, id)?;
            request.authorize_rule("os_compute_api:os-remote-consoles", &target(&server))?;
            if server.host.is_none() || !server.placed {
                return Err(Error::conflict(format!("Instance {id} is not ready")));
            }
            let mut txn = Txn::new();
            plan_console_token(snapshot, &mut txn, &id_of(&token), &server.id, kind, now);
            Ok((txn, ()))
        })
        .await?;
    let base = &request.base;
    let (scheme, rest) = base.split_once("://").unwrap_or(("http", base));
    Ok(match kind {
        ConsoleType::Novnc => {
            // noVNC's `path` has no slash before it.
            let prefix = rest.split_once('/').map_or("", |(_, prefix)| prefix);
            let path = format!("{prefix}/console?token={token}");
            let path = path.replace('/', "%2F").replace('?', "%3F").replace('=', "%3D");
            format!("{base}/console/novnc/vnc_lite.html?path={path}")
        }
        ConsoleType::Serial => {
            let scheme = if scheme == "https" { "wss" } else { "ws" };
            format!("{scheme}://{rest}/console?token={token}")
        }
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoteBody {
    protocol: String,
    #[serde(rename = "type")]
    kind: String,
}

/// `POST /servers/{id}/remote-consoles`, since 2.6.
pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    since(&request, 6)?;
    let body: RemoteBody = wire::body(&mut request, "remote_console").await?;
    let kinds: &[&str] = match body.protocol.as_str() {
        "vnc" => &["novnc", "xvpvnc"],
        "spice" => &["spice-html5"],
        "rdp" => &["rdp-html5"],
        "serial" => &["serial"],
        "mks" if request.at_least(2, 8) => &["webmks"],
        other => {
            return Err(invalid(
                "remote_console.protocol",
                format!("'{other}' is not one of ['vnc', 'spice', 'rdp', 'serial', 'mks']"),
            ));
        }
    };
    if !kinds.contains(&body.kind.as_str()) {
        return Err(invalid(
            "remote_console.type",
            format!("'{}' is not of protocol {}: {kinds:?}", body.kind, body.protocol),
        ));
    }
    let kind = kind_of(&body.kind)?;
    let url = open(&app, &request, request.param("id"), kind).await?;
    Reply::json(
        200,
        &json!({"remote_console": {"protocol": body.protocol, "type": body.kind, "url": url}}),
    )
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TypeBody {
    #[serde(rename = "type")]
    kind: String,
}

/// The actions of before 2.6: `os-getVNCConsole`, `os-getSPICEConsole`, `os-getRDPConsole`, `os-getSerialConsole`.
pub(crate) async fn act(app: &App, request: &Request, id: &str, action: &str, value: Value) -> Result<Reply> {
    wire::until(request, 5)?;
    let body: TypeBody = wire::typed(action, value)?;
    let kinds: &[&str] = match action {
        "os-getVNCConsole" => &["novnc", "xvpvnc"],
        "os-getSPICEConsole" => &["spice-html5"],
        "os-getRDPConsole" => &["rdp-html5"],
        _ => &["serial"],
    };
    if !kinds.contains(&body.kind.as_str()) {
        return Err(invalid(
            &format!("{action}.type"),
            format!("'{}' is not one of {kinds:?}", body.kind),
        ));
    }
    let url = open(app, request, id, kind_of(&body.kind)?).await?;
    Reply::json(200, &json!({"console": {"type": body.kind, "url": url}}))
}

/// The token that is good now, and its server.
async fn good(app: &App, token: &str) -> Result<(Object<ConsoleToken>, Object<Server>)> {
    let snapshot = app.store.current().await?;
    let refuse = || Error::not_found("The token is unknown or has expired; ask for another console.");
    let token = good_console_token(&snapshot, &id_of(token), time::now()).ok_or_else(refuse)?;
    let server = snapshot.get::<Server>(&token.server_id).ok_or_else(refuse)?;
    Ok((token, server))
}

/// `GET /os-console-auth-tokens/{token}`, since 2.31 for every type: where the console is. There is no address to connect to besides
/// this cloud's own.
pub(crate) async fn token(app: Arc<App>, request: Request) -> Result<Reply> {
    let (token, server) = good(&app, request.param("token")).await?;
    if !request.at_least(2, 31) {
        return Err(Error::unauthorized(format!(
            "The requested console type {} is told of since microversion 2.31.",
            token.kind.as_str()
        )));
    }
    Reply::json(
        200,
        &json!({"console": {
            "instance_uuid": server.id.as_str(), "host": server.host, "port": null, "internal_access_path": null,
        }}),
    )
}

/// `GET /console?token=…`: the console itself. Who has the token needs no other.
pub(crate) async fn connect(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let token = request.query.get("token").unwrap_or_default().to_owned();
    let (token, server) = good(&app, &token).await?;
    let id = server.id.as_str();
    let Some(host) = server.host.as_deref().filter(|_| server.placed) else {
        return Err(Error::conflict(format!("Instance {id} is not ready")));
    };
    if !request.asks_for_websocket() {
        return Err(Error::bad_request(
            "This address is for WebSockets (RFC 6455). Open it with noVNC, or another client that speaks them.",
        ));
    }
    let slot = app.slots.take(id)?;
    let console = app.consoles.console(host, id, token.kind).await?;
    request.join_websocket(console, slot)
}

/// `GET /console/novnc/{file}`: noVNC, where its package is installed.
pub(crate) async fn novnc(_: Arc<App>, request: Request) -> Result<Reply> {
    let name = request.param("file");
    let good = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b))
        && !name.split('/').any(|part| part.is_empty() || part.starts_with('.'));
    let missing = |why: &str| Error::not_found(format!("There is no file {name:?} of noVNC here: {why}."));
    if !good {
        return Err(missing("that is no name of one"));
    }
    if !Path::new(NOVNC).is_dir() {
        return Err(missing(
            "the control node lacks the package novnc; `apt-get install novnc` brings it, and any other client that speaks RFB over a \
             WebSocket does as well",
        ));
    }
    let path = Path::new(NOVNC).join(name);
    let about = tokio::fs::metadata(&path).await;
    if !about.is_ok_and(|m| m.is_file() && m.len() <= FILE_MAX) {
        return Err(missing("the package has none"));
    }
    let bytes = tokio::fs::read(&path)
        .await
        .map_err(|e| Error::new(ErrorKind::Internal, "A file of noVNC cannot be read.").with_source(e))?;
    let kind = match path.extension().and_then(|e| e.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("json") => "application/json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("woff") => "font/woff",
        Some("ttf") => "font/ttf",
        _ => "application/octet-stream",
    };
    // The page's address has the token in it.
    Ok(Reply::bytes(200, kind, bytes)
        .header("referrer-policy", "no-referrer")
        .header("x-content-type-options", "nosniff"))
}
