//! Request bodies of the form `{"user": {...}}`: read member by member, so that every 400 names its field, and so that
//! no message ever shows a value (it may be a password).

use maru_base::{Error, Result};
use maru_http::Request;
use maru_identity_model::Secret;
use serde_json::{Map, Value};

/// Longest id taken, in bytes.
const MAX_ID: usize = 64;

/// The members of a request's object that have not been read yet.
pub(crate) struct Fields {
    map: Map<String, Value>,
}

fn wrong(name: &str, wanted: &str) -> Error {
    Error::invalid(name, format!("Invalid input for field '{name}': {wanted}."))
}

impl Fields {
    /// Reads `{"<what>": {...}}`.
    pub(crate) async fn read(request: &mut Request, what: &'static str) -> Result<Self> {
        let body = request.json_value().await?;
        let Value::Object(mut outer) = body else {
            return Err(wrong(what, "an object is wanted"));
        };
        let inner = outer.remove(what);
        if let Some(other) = outer.keys().next() {
            return Err(wrong(
                other,
                "it is not known beside the resource; additional properties are not allowed",
            ));
        }
        match inner {
            Some(Value::Object(map)) => Ok(Self { map }),
            None => Err(wrong(what, "it is a required property")),
            Some(_) => Err(wrong(what, "an object is wanted")),
        }
    }
    /// Reads `{"<what>": [{...}, ...]}`: one object at least, `most` at most.
    pub(crate) async fn read_many(request: &mut Request, what: &'static str, most: usize) -> Result<Vec<Self>> {
        let Value::Object(mut outer) = request.json_value().await? else {
            return Err(wrong(what, "an object is wanted"));
        };
        let inner = outer.remove(what);
        if let Some(other) = outer.keys().next() {
            return Err(wrong(other, "additional properties are not allowed"));
        }
        let Some(Value::Array(items)) = inner else {
            return Err(wrong(what, "a list of objects is a required property"));
        };
        if items.is_empty() || items.len() > most {
            return Err(wrong(what, &format!("1 to {most} objects are wanted")));
        }
        items
            .into_iter()
            .map(|item| match item {
                Value::Object(map) => Ok(Self { map }),
                _ => Err(wrong(what, "a list of objects is wanted")),
            })
            .collect()
    }
    /// Refuses an update that changes nothing.
    pub(crate) fn not_empty(&self, what: &str) -> Result<()> {
        if self.map.is_empty() {
            Err(wrong(what, "name one property at least"))
        } else {
            Ok(())
        }
    }
    /// A string of `min` to `max` characters. Null is refused.
    pub(crate) fn string(&mut self, name: &str, min: usize, max: usize) -> Result<Option<String>> {
        match self.map.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => {
                let n = text.chars().count();
                if n < min || n > max {
                    return Err(wrong(name, &format!("{min} to {max} characters are wanted")));
                }
                Ok(Some(text))
            }
            Some(_) => Err(wrong(name, "a string is wanted")),
        }
    }
    /// A name: not blank, at most `max` characters, without blanks around it.
    pub(crate) fn name(&mut self, max: usize) -> Result<Option<String>> {
        let Some(name) = self.string("name", 1, max)? else {
            return Ok(None);
        };
        let trimmed = name.trim();
        if trimmed.is_empty() {
            return Err(wrong("name", "it must not be blank"));
        }
        Ok(Some(trimmed.to_owned()))
    }
    /// A name that must be there.
    pub(crate) fn required_name(&mut self, max: usize) -> Result<String> {
        self.name(max)?
            .ok_or_else(|| wrong("name", "it is a required property"))
    }
    /// A string that must be there.
    pub(crate) fn required(&mut self, name: &str, max: usize) -> Result<String> {
        self.string(name, 1, max)?
            .ok_or_else(|| wrong(name, "it is a required property"))
    }
    /// A string or null; null is `Some(None)`.
    pub(crate) fn nullable(&mut self, name: &str) -> Result<Option<Option<String>>> {
        match self.map.remove(name) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(None)),
            Some(Value::String(text)) => Ok(Some(Some(text))),
            Some(_) => Err(wrong(name, "a string or null is wanted")),
        }
    }
    /// Checks a member that stays among the extras: a string or null, if it is there.
    pub(crate) fn extra_text(&self, name: &str) -> Result<()> {
        match self.map.get(name) {
            None | Some(Value::Null | Value::String(_)) => Ok(()),
            Some(_) => Err(wrong(name, "a string or null is wanted")),
        }
    }
    /// An id or null.
    pub(crate) fn id(&mut self, name: &str) -> Result<Option<Option<String>>> {
        let id = self.nullable(name)?;
        if let Some(Some(text)) = &id
            && (text.is_empty() || text.len() > MAX_ID || text.chars().any(char::is_control))
        {
            return Err(wrong(name, &format!("an id of 1 to {MAX_ID} characters is wanted")));
        }
        Ok(id)
    }
    /// A boolean.
    pub(crate) fn bool(&mut self, name: &str) -> Result<Option<bool>> {
        match self.map.remove(name) {
            None => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(b)),
            Some(_) => Err(wrong(name, "a boolean is wanted")),
        }
    }
    /// An integer in a range.
    pub(crate) fn integer(&mut self, name: &str, least: i64, most: i64) -> Result<Option<i64>> {
        match self.map.remove(name) {
            None => Ok(None),
            Some(v) => match v.as_i64().filter(|n| (least..=most).contains(n)) {
                Some(n) => Ok(Some(n)),
                None => Err(wrong(name, &format!("an integer from {least} to {most} is wanted"))),
            },
        }
    }
    /// A password: a string of at most 4,096 bytes, or null.
    pub(crate) fn password(&mut self, name: &str) -> Result<Option<Option<Secret>>> {
        let Some(text) = self.nullable(name)? else {
            return Ok(None);
        };
        if text.as_ref().is_some_and(|t| t.len() > crate::app::MAX_PASSWORD) {
            return Err(wrong(
                name,
                &format!("at most {} bytes are wanted", crate::app::MAX_PASSWORD),
            ));
        }
        Ok(Some(text.map(Secret::new)))
    }
    /// The member `options`: an object; `immutable` in it is a boolean or null.
    pub(crate) fn options(&mut self, known: &[&str]) -> Result<Option<Map<String, Value>>> {
        match self.map.remove("options") {
            None => Ok(None),
            Some(Value::Object(map)) => {
                if let Some(other) = map.keys().find(|k| !known.contains(&k.as_str())) {
                    let wanted = format!("the option '{other}' is not known; known: {}", known.join(", "));
                    return Err(wrong("options", &wanted));
                }
                if map.get("immutable").is_some_and(|v| !v.is_boolean() && !v.is_null()) {
                    return Err(wrong("options", "immutable is a boolean"));
                }
                Ok(Some(map))
            }
            Some(_) => Err(wrong("options", "an object is wanted")),
        }
    }
    /// The member `tags`: at most 80 different tags.
    pub(crate) fn tags(&mut self) -> Result<Option<Vec<String>>> {
        self.map.remove("tags").map(|v| tags(&v)).transpose()
    }
    /// A member as it is.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name)
    }
    /// All that was not read.
    pub(crate) fn all(self) -> Map<String, Value> {
        self.map
    }
    /// Refuses whatever was not read.
    pub(crate) fn nothing_else(self) -> Result<()> {
        match self.map.keys().next() {
            Some(other) => Err(wrong(other, "additional properties are not allowed")),
            None => Ok(()),
        }
    }
    /// What is left: attributes that the resource keeps without knowing them.
    pub(crate) fn rest(mut self) -> Map<String, Value> {
        for read_only in ["id", "links", "password_expires_at", "federated"] {
            self.map.remove(read_only);
        }
        self.map
    }
}

/// Reads a body that is an object with these members alone.
pub(crate) async fn read_flat(request: &mut Request, known: &[&str]) -> Result<Map<String, Value>> {
    let Value::Object(map) = request.json_value().await? else {
        return Err(wrong("body", "an object is wanted"));
    };
    match map.keys().find(|k| !known.contains(&k.as_str())) {
        Some(other) => Err(wrong(other, "additional properties are not allowed")),
        None => Ok(map),
    }
}

/// A list of tags.
pub(crate) fn tags(value: &Value) -> Result<Vec<String>> {
    let Value::Array(items) = value else {
        return Err(wrong("tags", "a list of strings is wanted"));
    };
    if items.len() > 80 {
        return Err(wrong("tags", "at most 80 tags are wanted"));
    }
    let mut tags = Vec::with_capacity(items.len());
    for item in items {
        let Value::String(t) = item else {
            return Err(wrong("tags", "a list of strings is wanted"));
        };
        check_tag(t)?;
        if tags.contains(t) {
            return Err(wrong("tags", "the same tag is there twice"));
        }
        tags.push(t.clone());
    }
    tags.sort_unstable();
    Ok(tags)
}

/// Whether a text can be a tag.
pub(crate) fn check_tag(t: &str) -> Result<()> {
    if t.is_empty() || t.chars().count() > 255 || t.contains([',', '/']) {
        return Err(wrong("tags", "a tag has 1 to 255 characters, none of them ',' or '/'"));
    }
    Ok(())
}

/// Puts options into options: null removes one.
pub(crate) fn merge_options(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (k, v) in from {
        if v.is_null() {
            into.remove(&k);
        } else {
            into.insert(k, v);
        }
    }
}
