//! Paths and documents. Pure.

use crate::{GuestView, ec2, netdata};
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, PAD};
use base64::{Engine, alphabet};
use maru_agent_api::slice::GuestMetadata;
use serde_json::{Map, Value, json};

/// OpenStack versions, oldest first.
const VERSIONS: &[&str] = &[
    "2012-08-10",
    GRIZZLY,
    HAVANA,
    LIBERTY,
    NEWTON_ONE,
    NEWTON_TWO,
    "2017-02-22",
    "2018-08-27",
    "2020-10-14",
];
const GRIZZLY: &str = "2013-04-04";
const HAVANA: &str = "2013-10-17";
const LIBERTY: &str = "2015-10-15";
const NEWTON_ONE: &str = "2016-06-30";
const NEWTON_TWO: &str = "2016-10-06";

/// The longest password in bytes that a guest may post: what Nova's database takes, four columns of 255.
pub const PASSWORD_LIMIT: usize = 4 * 255;

/// How the guest asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    /// GET or HEAD.
    Read,
    /// POST with this body.
    Post(Vec<u8>),
    /// Anything else.
    Other,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Media type.
    pub kind: &'static str,
    /// Body.
    pub body: Vec<u8>,
    /// The guest's new password, to be kept; the answer holds only if that went well.
    pub password: Option<Vec<u8>>,
}

const TEXT: &str = "text/plain; charset=UTF-8";
const JSON: &str = "application/json";

impl Answer {
    pub(crate) fn text(body: impl Into<Vec<u8>>) -> Self {
        Self {
            status: 200,
            kind: TEXT,
            body: body.into(),
            password: None,
        }
    }
    fn json(value: &Value) -> Self {
        Self {
            status: 200,
            kind: JSON,
            body: value.to_string().into_bytes(),
            password: None,
        }
    }
    pub(crate) fn refuse(status: u16, why: &str) -> Self {
        Self {
            status,
            kind: TEXT,
            body: why.as_bytes().to_vec(),
            password: None,
        }
    }
    pub(crate) fn missing() -> Self {
        Self::refuse(404, "There is no such metadata.")
    }
}

/// The answer to a request of this guest. `seed` is 512 fresh random bytes; `password` what the guest posted before.
#[must_use]
pub fn respond(method: &Method, path: &str, guest: &GuestView, seed: &[u8], password: Option<&[u8]>) -> Answer {
    let Some(tokens) = tokens(path) else {
        return Answer::missing();
    };
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let is_password = matches!(tokens.as_slice(), ["openstack", version, "password"] if since(version, GRIZZLY));
    match method {
        Method::Other => return Answer::refuse(405, "Only GET and HEAD are answered here, and POST of the password."),
        Method::Post(_) if !is_password => {
            return Answer::refuse(405, "Only the password can be posted.");
        }
        Method::Post(body) => return post_password(body, password),
        Method::Read => {}
    }
    if is_password {
        return Answer::text(password.unwrap_or_default());
    }
    match tokens.as_slice() {
        ["openstack"] => Answer::text(format!("{}\nlatest", VERSIONS.join("\n"))),
        ["openstack", "content", key] => key_index(key)
            .and_then(|i| injected(guest).get(i).cloned())
            .map_or_else(Answer::missing, |(_, c)| Answer::text(c)),
        ["openstack", version] if known(version) => Answer::text(list(guest, version).join("\n")),
        ["openstack", version, name] if known(version) => {
            document(guest, version, name, seed).unwrap_or_else(Answer::missing)
        }
        ["openstack", ..] => Answer::missing(),
        ["ec2", rest @ ..] => ec2::respond(guest, rest),
        rest => ec2::respond(guest, rest),
    }
}

fn post_password(body: &[u8], password: Option<&[u8]>) -> Answer {
    if password.is_some_and(|p| !p.is_empty()) {
        return Answer::refuse(409, "The password is set already; it can be posted once.");
    }
    if body.len() > PASSWORD_LIMIT {
        return Answer::refuse(400, "The password is too long: 1020 bytes are taken.");
    }
    Answer {
        password: Some(body.to_vec()),
        ..Answer::text("")
    }
}

/// The parts of a path: percent signs resolved, `//`, `.` and `..` too. `None` if it is no path.
fn tokens(path: &str) -> Option<Vec<String>> {
    let mut tokens: Vec<String> = Vec::new();
    for part in path.split('?').next()?.split('/') {
        let part = unescape(part)?;
        match part.as_str() {
            "" | "." => {}
            ".." => {
                tokens.pop();
            }
            _ => tokens.push(part),
        }
    }
    Some(tokens)
}

fn unescape(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(b) = rest.next() {
        if b == b'%' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(b);
        }
    }
    String::from_utf8(bytes).ok()
}

fn known(version: &str) -> bool {
    version == "latest" || VERSIONS.contains(&version)
}

/// Whether a known version is `first` or newer. Versions are dates, so their text orders them; `latest` comes after all.
fn since(version: &str, first: &str) -> bool {
    known(version) && version >= first
}

/// What a version's folder lists.
fn list(guest: &GuestView, version: &str) -> Vec<&'static str> {
    let mut names = vec!["meta_data.json"];
    if user_data(&guest.server.metadata).is_some() {
        names.push("user_data");
    }
    for (name, first) in [
        ("password", GRIZZLY),
        ("vendor_data.json", HAVANA),
        ("network_data.json", LIBERTY),
        ("vendor_data2.json", NEWTON_TWO),
    ] {
        if since(version, first) {
            names.push(name);
        }
    }
    names
}

fn document(guest: &GuestView, version: &str, name: &str, seed: &[u8]) -> Option<Answer> {
    if !list(guest, version).contains(&name) {
        return None;
    }
    Some(match name {
        "meta_data.json" => Answer::json(&meta_data(guest, version, seed)),
        "user_data" => Answer {
            kind: "application/octet-stream",
            ..Answer::text(user_data(&guest.server.metadata)?)
        },
        "network_data.json" => Answer::json(&netdata::network_data(guest)),
        "vendor_data.json" | "vendor_data2.json" => Answer::json(&json!({})),
        _ => return None,
    })
}

/// The user's data, decoded.
pub(crate) fn user_data(metadata: &GuestMetadata) -> Option<Vec<u8>> {
    metadata.user_data.as_deref().and_then(decode64)
}

/// The name that a guest is told: Nova adds its own domain.
pub(crate) fn hostname(guest: &GuestView) -> String {
    format!("{}.novalocal", guest.server.hostname)
}

/// Injected files: path and contents, in order.
fn injected(guest: &GuestView) -> Vec<(String, Vec<u8>)> {
    let files = &guest.server.metadata.files;
    files
        .iter()
        .filter_map(|(path, text)| Some((path.clone(), decode64(text)?)))
        .collect()
}

fn key_index(key: &str) -> Option<usize> {
    (key.len() == 4).then(|| key.parse().ok())?
}

fn meta_data(guest: &GuestView, version: &str, seed: &[u8]) -> Value {
    let (server, metadata) = (&guest.server, &guest.server.metadata);
    let mut doc = Map::new();
    let mut set = |key: &str, value: Value| {
        doc.insert(key.to_owned(), value);
    };
    set("uuid", json!(server.id));
    if !metadata.meta.is_empty() {
        set("meta", json!(metadata.meta));
    }
    let files: Vec<Value> = injected(guest)
        .iter()
        .enumerate()
        .map(|(i, (path, _))| json!({ "path": path, "content_path": format!("/content/{i:04}") }))
        .collect();
    if !files.is_empty() {
        set("files", json!(files));
    }
    if let Some(password) = &metadata.admin_pass {
        set("admin_pass", json!(password));
    }
    if !metadata.public_keys.is_empty() {
        let keys: Map<String, Value> = metadata
            .public_keys
            .iter()
            .map(|(n, k)| (n.clone(), json!(k)))
            .collect();
        set("public_keys", Value::Object(keys));
        let keys = metadata
            .public_keys
            .iter()
            .map(|(n, k)| json!({ "name": n, "type": "ssh", "data": k }));
        set("keys", keys.collect());
    }
    set("hostname", json!(hostname(guest)));
    set("name", json!(server.name));
    set("launch_index", json!(metadata.launch_index));
    set("availability_zone", json!(metadata.availability_zone));
    if since(version, GRIZZLY) {
        set("random_seed", json!(encode64(seed)));
    }
    if since(version, LIBERTY) {
        set("project_id", json!(server.project_id));
    }
    if since(version, NEWTON_ONE) {
        set("devices", json!([]));
    }
    if since(version, "2020-10-14") {
        set("dedicated_cpus", json!([]));
    }
    Value::Object(doc)
}

/// All files of a config drive: path and contents, in the order of their paths.
#[must_use]
pub fn files(guest: &GuestView, seed: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut files = ec2::files(guest);
    for version in VERSIONS.iter().chain(&["latest"]) {
        for name in list(guest, version).into_iter().filter(|n| *n != "password") {
            if let Some(answer) = document(guest, version, name, seed) {
                files.push((format!("openstack/{version}/{name}"), answer.body));
            }
        }
    }
    for (i, (_, contents)) in injected(guest).into_iter().enumerate() {
        files.push((format!("openstack/content/{i:04}"), contents));
    }
    files.sort();
    files
}

/// Base64 as users send it: padding may lack, line breaks may be there.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    PAD.with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

fn encode64(bytes: &[u8]) -> String {
    LENIENT.encode(bytes)
}

fn decode64(text: &str) -> Option<Vec<u8>> {
    let text: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    LENIENT.decode(text).ok()
}

#[cfg(test)]
#[path = "content_tests.rs"]
pub(crate) mod tests;
