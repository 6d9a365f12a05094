//! What the rules of a mapping may be: Keystone's JSON schema of them, versions 1.0 and 2.0.

use maru_base::{Error, Result};
use serde_json::{Map, Value};

/// The forms of rules: in 2.0 a project names its domain.
pub const MAPPING_VERSIONS: &[&str] = &["1.0", "2.0"];

/// Most rules of a mapping, and most parts of one side of a rule: upstream has no bound, a log-in that goes through them wants one.
const MOST: usize = 1_000;

fn wrong(at: &str, wanted: &str) -> Error {
    Error::invalid("mapping", format!("Invalid input for field 'mapping.{at}': {wanted}."))
}

fn object<'a>(value: &'a Value, at: &str, known: &[&str]) -> Result<&'a Map<String, Value>> {
    let map = value.as_object().ok_or_else(|| wrong(at, "an object is wanted"))?;
    match map.keys().find(|k| !known.contains(&k.as_str())) {
        Some(other) => Err(wrong(
            &format!("{at}.{other}"),
            &format!("it is not known; known: {}", known.join(", ")),
        )),
        None => Ok(map),
    }
}

fn list<'a>(value: &'a Value, at: &str, least: usize) -> Result<&'a [Value]> {
    value
        .as_array()
        .map(Vec::as_slice)
        .filter(|items| (least..=MOST).contains(&items.len()))
        .ok_or_else(|| wrong(at, &format!("a list of {least} to {MOST} is wanted")))
}

fn text(value: &Value, at: &str) -> Result<()> {
    if value.is_string() {
        Ok(())
    } else {
        Err(wrong(at, "a string is wanted"))
    }
}

/// Checks `{"rules": [...]}` against the schema.
///
/// # Errors
/// 400 that names the member.
pub fn check_mapping(rules: &Value, version: &str) -> Result<()> {
    for (n, rule) in list(rules, "rules", 1)?.iter().enumerate() {
        let at = format!("rules[{n}]");
        let map = object(rule, &at, &["local", "remote"])?;
        let side = |name: &str| {
            map.get(name)
                .ok_or_else(|| wrong(&format!("{at}.{name}"), "it is a required property"))
        };
        for (i, local) in list(side("local")?, &format!("{at}.local"), 0)?.iter().enumerate() {
            check_local(local, &format!("{at}.local[{i}]"), version)?;
        }
        for (i, remote) in list(side("remote")?, &format!("{at}.remote"), 1)?.iter().enumerate() {
            check_remote(remote, &format!("{at}.remote[{i}]"))?;
        }
    }
    Ok(())
}

fn check_domain(value: &Value, at: &str) -> Result<()> {
    for (name, value) in object(value, at, &["id", "name"])? {
        text(value, &format!("{at}.{name}"))?;
    }
    Ok(())
}

fn check_local(value: &Value, at: &str, version: &str) -> Result<()> {
    let known = ["user", "projects", "group", "groups", "group_ids", "domain"];
    for (name, value) in object(value, at, &known)? {
        let at = format!("{at}.{name}");
        match name.as_str() {
            "user" => check_user(value, &at)?,
            "projects" => check_projects(value, &at, version)?,
            "group" => check_group(value, &at)?,
            "domain" => check_domain(value, &at)?,
            _ => text(value, &at)?,
        }
    }
    Ok(())
}

fn check_user(value: &Value, at: &str) -> Result<()> {
    for (name, value) in object(value, at, &["id", "name", "email", "domain", "type"])? {
        let at = format!("{at}.{name}");
        match name.as_str() {
            "domain" => check_domain(value, &at)?,
            "type" if !matches!(value.as_str(), Some("ephemeral" | "local")) => {
                return Err(wrong(&at, "ephemeral or local is wanted"));
            }
            _ => text(value, &at)?,
        }
    }
    Ok(())
}

fn check_projects(value: &Value, at: &str, version: &str) -> Result<()> {
    let known: &[&str] = if version == "2.0" {
        &["name", "roles", "domain"]
    } else {
        &["name", "roles"]
    };
    for (i, project) in list(value, at, 0)?.iter().enumerate() {
        let at = format!("{at}[{i}]");
        let map = object(project, &at, known)?;
        let part = |name: &str| {
            map.get(name)
                .ok_or_else(|| wrong(&format!("{at}.{name}"), "it is a required property"))
        };
        text(part("name")?, &format!("{at}.name"))?;
        if let Some(domain) = map.get("domain") {
            check_domain(domain, &format!("{at}.domain"))?;
        }
        for (i, role) in list(part("roles")?, &format!("{at}.roles"), 0)?.iter().enumerate() {
            let at = format!("{at}.roles[{i}]");
            let map = object(role, &at, &["name"])?;
            let name = map.get("name").ok_or_else(|| wrong(&at, "it names a role"))?;
            text(name, &format!("{at}.name"))?;
        }
    }
    Ok(())
}

fn check_group(value: &Value, at: &str) -> Result<()> {
    let map = object(value, at, &["id", "name", "domain"])?;
    match (map.get("id"), map.get("name"), map.get("domain")) {
        (Some(id), None, None) => text(id, &format!("{at}.id")),
        (None, Some(name), Some(domain)) => {
            text(name, &format!("{at}.name"))?;
            check_domain(domain, &format!("{at}.domain"))
        }
        _ => Err(wrong(at, "a group is named by id, or by name and domain")),
    }
}

fn check_remote(value: &Value, at: &str) -> Result<()> {
    let conditions = ["any_one_of", "not_any_of", "blacklist", "whitelist"];
    let map = object(
        value,
        at,
        &["type", "regex", "any_one_of", "not_any_of", "blacklist", "whitelist"],
    )?;
    let kind = map
        .get("type")
        .ok_or_else(|| wrong(&format!("{at}.type"), "it is a required property"))?;
    text(kind, &format!("{at}.type"))?;
    let given: Vec<&str> = conditions.into_iter().filter(|c| map.contains_key(*c)).collect();
    if given.len() > 1 {
        return Err(wrong(at, &format!("one of {} is wanted", given.join(" and "))));
    }
    if let Some(condition) = given.first() {
        let at = format!("{at}.{condition}");
        for (i, item) in list(&map[*condition], &at, 0)?.iter().enumerate() {
            text(item, &format!("{at}[{i}]"))?;
        }
    }
    match map.get("regex") {
        None => Ok(()),
        Some(Value::Bool(_)) if matches!(given.first(), Some(&("any_one_of" | "not_any_of"))) => Ok(()),
        Some(_) => Err(wrong(
            &format!("{at}.regex"),
            "a boolean beside any_one_of or not_any_of is wanted",
        )),
    }
}
