//! Patches of an image: JSON pointers of one name, in the two media types that Glance takes.
//!
//! `application/openstack-images-v2.1-json-patch` is RFC 6902 with three operations, of which `add` also replaces;
//! `…-v2.0-json-patch` is an early draft of it, `{"replace": "/name", "value": …}`, where `add` only adds.

use super::attributes::{blank, check_writable, is_base, owner_of, set};
use maru_auth::Caller;
use maru_base::{Error, ProjectId, Result};
use maru_image_model::Image;
use serde_json::{Map, Value};

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Add,
    Replace,
    Remove,
}

const VERBS: &[(&str, Verb)] = &[("add", Verb::Add), ("remove", Verb::Remove), ("replace", Verb::Replace)];

/// One operation, checked as far as it can be without the image.
#[derive(Debug)]
pub(crate) struct PatchOp {
    verb: Verb,
    name: String,
    value: Value,
    /// Whether it came in the older media type.
    draft: bool,
}

impl PatchOp {
    /// Reads a whole patch.
    pub(crate) fn parse(body: &Value, draft: bool) -> Result<Vec<Self>> {
        body.as_array()
            .ok_or_else(|| Error::bad_request("Request body must be a JSON array of operation objects."))?
            .iter()
            .enumerate()
            .map(|(i, op)| Self::read(i, op, draft))
            .collect()
    }

    fn read(i: usize, op: &Value, draft: bool) -> Result<Self> {
        let map = op
            .as_object()
            .ok_or_else(|| Error::invalid(i.to_string(), "Operations must be JSON objects."))?;
        let (verb, path) = if draft { draft_verb(i, map)? } else { verb(i, map)? };
        let path = path
            .as_str()
            .ok_or_else(|| Error::invalid(format!("{i}.path"), "The path of an operation must be a string."))?;
        let parts = pointer(i, path)?;
        let name = parts.first().cloned().unwrap_or_default();
        if name == "locations" {
            return Err(locations(i, verb, path, &parts));
        }
        if parts.len() != 1 {
            return Err(wrong_pointer(i, path));
        }
        let value = match verb {
            Verb::Remove => Value::Null,
            _ => map.get("value").cloned().ok_or_else(|| {
                Error::invalid(
                    format!("{i}.value"),
                    format!("The operation on {path} requires a member named \"value\"."),
                )
            })?,
        };
        if name == "id" {
            return Err(Error::forbidden("Attribute 'id' is read-only.").with_field("id"));
        }
        check_writable(&name)?;
        if verb != Verb::Remove {
            if name == "owner" {
                owner_of(&value)?;
            } else {
                set(&mut blank(ProjectId::from("")), &name, &value)?;
            }
        }
        Ok(Self {
            verb,
            name,
            value,
            draft,
        })
    }

    /// Applies it.
    pub(crate) fn apply(&self, image: &mut Image, caller: &Caller) -> Result<()> {
        let name = self.name.as_str();
        let there = is_base(name) || image.properties.contains_key(name);
        let missing = || Error::conflict(format!("Property {name} does not exist.")).with_field(name);
        match self.verb {
            Verb::Add if self.draft && there => {
                return Err(Error::conflict(format!("Property {name} already present.")).with_field(name));
            }
            Verb::Replace | Verb::Remove if !there => return Err(missing()),
            Verb::Remove if is_base(name) => {
                return Err(Error::forbidden(format!("Property {name} may not be removed.")).with_field(name));
            }
            Verb::Remove => {
                image.properties.remove(name);
                return Ok(());
            }
            Verb::Add | Verb::Replace => {}
        }
        if name == "owner" {
            let owner = owner_of(&self.value)?;
            if owner != image.owner && !caller.is_admin() {
                return Err(Error::forbidden("Owner can't be updated by non admin.").with_field("owner"));
            }
            image.owner = owner;
            return Ok(());
        }
        set(image, name, &self.value)
    }
}

fn verb(i: usize, map: &Map<String, Value>) -> Result<(Verb, &Value)> {
    let at = format!("{i}.op");
    let word = map.get("op").and_then(Value::as_str).ok_or_else(|| {
        Error::invalid(
            at.clone(),
            "Unable to find `op` in the operation. It must be one of the following: add, remove, replace.",
        )
    })?;
    let verb = VERBS.iter().find(|(w, _)| *w == word).map(|(_, v)| *v).ok_or_else(|| {
        Error::invalid(
            at,
            format!("Invalid operation: `{word}`. It must be one of the following: add, remove, replace."),
        )
    })?;
    let path = map
        .get("path")
        .ok_or_else(|| Error::invalid(format!("{i}.path"), "Unable to find 'path' in the operation."))?;
    Ok((verb, path))
}

fn draft_verb(i: usize, map: &Map<String, Value>) -> Result<(Verb, &Value)> {
    let mut found = VERBS.iter().filter_map(|(w, v)| map.get(*w).map(|path| (*v, path)));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        _ => Err(Error::invalid(
            i.to_string(),
            "Operation objects must contain exactly one member named \"add\", \"remove\", or \"replace\".",
        )),
    }
}

fn wrong_pointer(i: usize, path: &str) -> Error {
    Error::invalid(
        format!("{i}.path"),
        format!("Invalid JSON pointer for this resource: '{path}'."),
    )
}

/// The parts of a JSON pointer, unescaped.
fn pointer(i: usize, path: &str) -> Result<Vec<String>> {
    let refuse = |why: &str| Error::invalid(format!("{i}.path"), format!("Pointer `{path}` {why}."));
    let rest = path
        .strip_prefix('/')
        .ok_or_else(|| refuse("does not start with \"/\""))?;
    let mut parts = Vec::new();
    for part in rest.split('/') {
        if part.trim().is_empty() {
            return Err(refuse("has an empty token"));
        }
        let mut escapes = part.split('~').skip(1);
        if !escapes.all(|after| after.starts_with('0') || after.starts_with('1')) {
            return Err(refuse("contains \"~\" not part of a recognized escape sequence"));
        }
        parts.push(part.replace("~1", "/").replace("~0", "~").trim().to_owned());
    }
    Ok(parts)
}

/// Locations are not shown, so they cannot be changed.
fn locations(i: usize, verb: Verb, path: &str, parts: &[String]) -> Error {
    let (depth, word) = match verb {
        Verb::Add => (2, "add"),
        Verb::Remove => (2, "remove"),
        Verb::Replace => (1, "update"),
    };
    if parts.len() != depth {
        return wrong_pointer(i, path);
    }
    Error::forbidden(format!(
        "It's not allowed to {word} locations if locations are invisible."
    ))
    .with_field("locations")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pointers() {
        assert_eq!(pointer(0, "/a").unwrap(), ["a"]);
        assert_eq!(pointer(0, "/ a~1b~0c ").unwrap(), ["a/b~c"]);
        assert_eq!(pointer(0, "/~01").unwrap(), ["~1"]);
        assert_eq!(pointer(0, "/locations/-").unwrap(), ["locations", "-"]);
        for bad in ["", "a", "/", "//a", "/a/", "/a//b", "/ /", "/a~", "/a~2", "/~"] {
            assert!(pointer(0, bad).is_err(), "{bad}");
        }
    }
}
