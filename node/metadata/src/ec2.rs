//! The EC2 tree: folders are listed with a slash after each folder within, as Amazon's service of 2009 does.

use crate::GuestView;
use crate::content::{Answer, hostname, user_data};
use serde_json::{Map, Value, json};
use std::net::IpAddr;

const VERSIONS: &[&str] = &[
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-10-10",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
];

/// Eight hexadecimal digits that stand for a UUID in EC2's shorter ids.
fn short(id: &str) -> String {
    let digits: String = id.chars().filter(char::is_ascii_hexdigit).take(8).collect();
    format!("{digits:0>8}")
}

fn since(version: &str, first: &str) -> bool {
    version >= first
}

/// `meta-data` of a version; a folder with `_name` is listed under that name.
fn tree(guest: &GuestView, version: &str) -> Map<String, Value> {
    let (server, metadata) = (&guest.server, &guest.server.metadata);
    let address = guest
        .nics
        .iter()
        .flat_map(|n| &n.port.fixed_ips)
        .find_map(|(_, ip)| match ip {
            IpAddr::V4(ip) => Some(ip.to_string()),
            IpAddr::V6(_) => None,
        });
    let mut data = Map::new();
    let mut set = |key: &str, value: Value| {
        data.insert(key.to_owned(), value);
    };
    let image = server.disks.iter().find_map(|d| match &d.source {
        maru_agent_api::slice::DiskSource::Image { image_id, .. } => Some(image_id.as_str()),
        maru_agent_api::slice::DiskSource::Blank | maru_agent_api::slice::DiskSource::Volume { .. } => None,
    });
    set("ami-id", json!(format!("ami-{}", short(image.unwrap_or_default()))));
    set("ami-launch-index", json!(metadata.launch_index));
    set("ami-manifest-path", json!("FIXME"));
    set("instance-id", json!(format!("i-{}", short(&server.id))));
    set("hostname", json!(hostname(guest)));
    set("local-ipv4", json!(address.unwrap_or_default()));
    set("reservation-id", json!(format!("r-{}", short(&server.id))));
    set("security-groups", json!(metadata.security_groups));
    if let Some((name, key)) = metadata.public_keys.first() {
        set(
            "public-keys",
            json!({ "0": { "_name": format!("0={name}"), "openssh-key": key } }),
        );
    }
    if since(version, "2007-01-19") {
        set("local-hostname", json!(hostname(guest)));
        set("public-hostname", json!(hostname(guest)));
        set(
            "public-ipv4",
            json!(guest.floating.first().map(ToString::to_string).unwrap_or_default()),
        );
    }
    if since(version, "2007-08-29") {
        set("instance-type", json!(metadata.instance_type));
    }
    if since(version, "2007-12-15") {
        set("block-device-mapping", json!({ "ami": "vda", "root": "/dev/vda" }));
    }
    if since(version, "2008-02-01") {
        set("placement", json!({ "availability-zone": metadata.availability_zone }));
    }
    if since(version, "2008-09-01") {
        set("instance-action", json!("none"));
    }
    data
}

fn print(value: &Value) -> String {
    match value {
        Value::Object(folder) => {
            let each = folder
                .iter()
                .filter(|(key, _)| *key != "_name")
                .map(|(key, value)| match value {
                    Value::Object(inner) => inner.get("_name").map_or_else(|| format!("{key}/"), print),
                    _ => key.clone(),
                });
            each.collect::<Vec<_>>().join("\n")
        }
        Value::Array(items) => items.iter().map(print).collect::<Vec<_>>().join("\n"),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The answer for the parts after the host (or after `ec2`).
pub(crate) fn respond(guest: &GuestView, tokens: &[&str]) -> Answer {
    let Some((version, rest)) = tokens.split_first() else {
        return Answer::text(format!("{}\nlatest", VERSIONS.join("\n")));
    };
    let version = if *version == "latest" { "2009-04-04" } else { *version };
    if !VERSIONS.contains(&version) {
        return Answer::missing();
    }
    let user_data = user_data(&guest.server.metadata);
    match rest {
        [] => Answer::text(if user_data.is_some() {
            "meta-data/\nuser-data"
        } else {
            "meta-data/"
        }),
        ["user-data"] => user_data.map_or_else(Answer::missing, |d| Answer {
            kind: "application/octet-stream",
            ..Answer::text(d)
        }),
        ["meta-data", path @ ..] => {
            let mut value = Value::Object(tree(guest, version));
            for key in path {
                match value.get_mut(*key).filter(|_| *key != "_name") {
                    Some(inner) => value = inner.take(),
                    None => return Answer::missing(),
                }
            }
            Answer::text(print(&value))
        }
        _ => Answer::missing(),
    }
}

/// The EC2 part of a config drive.
pub(crate) fn files(guest: &GuestView) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for version in ["2009-04-04", "latest"] {
        let mut data = tree(guest, "2009-04-04");
        if let Some(Value::Object(key)) = data.get_mut("public-keys").and_then(|k| k.get_mut("0")) {
            key.remove("_name");
        }
        files.push((
            format!("ec2/{version}/meta-data.json"),
            Value::Object(data).to_string().into_bytes(),
        ));
        if let Some(data) = user_data(&guest.server.metadata) {
            files.push((format!("ec2/{version}/user-data"), data));
        }
    }
    files
}
