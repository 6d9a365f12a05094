//! Reading JSON bodies: what is wrong is named with its place in the body.
//!
//! Upstream checks bodies against JSON schemas that differ by microversion; here each handler reads what it takes, and a
//! refusal has the form of a schema's: `JSON does not validate: 'total' is a required property (in inventories.VCPU)`.

use maru_base::{Error, ErrorKind, Result};
use maru_http::Request;
use serde_json::{Map, Value};

/// The largest number of a column upstream.
pub(super) const MAX_INT: i64 = 0x7fff_ffff;

/// The body as JSON; the content type must say so.
///
/// # Errors
/// 415 for another content type, 400 for what is no JSON, 413.
pub(super) async fn body(request: &mut Request) -> Result<Value> {
    let kind = request.header("content-type").unwrap_or("None");
    let essence = kind.split(';').next().unwrap_or("").trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(Error::new(
            ErrorKind::UnsupportedMedia,
            format!("The media type {essence} is not supported, use application/json."),
        ));
    }
    let bytes = request.bytes().await?;
    serde_json::from_slice(&bytes).map_err(|e| Error::bad_request(format!("Malformed JSON: {e}.")))
}

/// A value and its place in the body.
#[derive(Clone)]
pub(super) struct Node<'a> {
    pub(super) value: &'a Value,
    path: String,
}

/// An object whose keys have been checked.
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: String,
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

impl<'a> Node<'a> {
    /// The whole body.
    pub(super) fn root(value: &'a Value) -> Self {
        Self {
            value,
            path: String::new(),
        }
    }
    /// A refusal of this value.
    pub(super) fn fail(&self, why: &str) -> Error {
        refuse(&self.path, why)
    }
    fn wrong(&self, kind: &str) -> Error {
        let mut text = self.value.to_string();
        if text.chars().count() > 100 {
            text = text.chars().take(100).chain("...".chars()).collect();
        }
        self.fail(&format!("{} is not of type '{kind}'", text.replace('"', "'")))
    }
    /// An object with these keys and no others.
    pub(super) fn fields(&self, required: &[&str], optional: &[&str]) -> Result<Fields<'a>> {
        let map = self.value.as_object().ok_or_else(|| self.wrong("object"))?;
        for key in map.keys() {
            if !required.contains(&key.as_str()) && !optional.contains(&key.as_str()) {
                return Err(refuse(
                    &join(&self.path, key),
                    &format!("Additional properties are not allowed ('{key}' was unexpected)"),
                ));
            }
        }
        for key in required {
            if !map.contains_key(*key) {
                return Err(refuse(
                    &join(&self.path, key),
                    &format!("'{key}' is a required property"),
                ));
            }
        }
        Ok(Fields {
            map,
            path: self.path.clone(),
        })
    }
    /// An object whose keys are data, each of which must pass `fits` (`form` says of what form).
    pub(super) fn entries(&self, fits: impl Fn(&str) -> bool, form: &str) -> Result<Vec<(&'a str, Node<'a>)>> {
        let map = self.value.as_object().ok_or_else(|| self.wrong("object"))?;
        map.iter()
            .map(|(key, value)| {
                let path = join(&self.path, key);
                if !fits(key) {
                    return Err(refuse(
                        &path,
                        &format!("Additional properties are not allowed ('{key}' was unexpected: it is not {form})"),
                    ));
                }
                Ok((key.as_str(), Node { value, path }))
            })
            .collect()
    }
    /// An array.
    pub(super) fn items(&self) -> Result<Vec<Node<'a>>> {
        let list = self.value.as_array().ok_or_else(|| self.wrong("array"))?;
        Ok(list
            .iter()
            .enumerate()
            .map(|(at, value)| Node {
                value,
                path: format!("{}[{at}]", self.path),
            })
            .collect())
    }
    /// A text of `least` to `most` characters.
    pub(super) fn text(&self, least: usize, most: usize) -> Result<&'a str> {
        let text = self.value.as_str().ok_or_else(|| self.wrong("string"))?;
        let n = text.chars().count();
        if n < least {
            return Err(self.fail(&format!("'{text}' is too short: {least} characters at least")));
        }
        if n > most {
            return Err(self.fail(&format!("the text is too long: {n} characters, {most} at most")));
        }
        Ok(text)
    }
    /// A text of capital letters, digits and underscores.
    pub(super) fn name(&self, most: usize) -> Result<&'a str> {
        let text = self.text(1, most)?;
        if !is_name(text) {
            return Err(self.fail(&format!("'{text}' does not match '^[A-Z0-9_]+$'")));
        }
        Ok(text)
    }
    /// A UUID, in its dashed lower-case form.
    pub(super) fn uuid(&self) -> Result<String> {
        let text = self.value.as_str().ok_or_else(|| self.wrong("string"))?;
        canonical(text).ok_or_else(|| self.fail(&format!("'{text}' is not a 'uuid'")))
    }
    /// A whole number between two.
    pub(super) fn integer(&self, least: i64, most: i64) -> Result<i64> {
        let number = match (self.value.as_i64(), self.value.as_f64()) {
            (Some(n), _) => n,
            // 2.0 is a whole number; larger ones than these are not exact.
            #[allow(clippy::cast_possible_truncation)]
            (None, Some(f)) if f.fract() == 0.0 && f.abs() < 9e15 => f as i64,
            (None, Some(f)) if f.fract() == 0.0 && f > 0.0 => {
                return Err(self.fail(&format!("{} is greater than the maximum of {most}", self.value)));
            }
            _ => return Err(self.wrong("integer")),
        };
        if number < least {
            return Err(self.fail(&format!("{number} is less than the minimum of {least}")));
        }
        if number > most {
            return Err(self.fail(&format!("{number} is greater than the maximum of {most}")));
        }
        Ok(number)
    }
    /// A whole number that is not negative, as the model keeps it.
    pub(super) fn count(&self, least: i64, most: i64) -> Result<u64> {
        self.integer(least, most).map(i64::unsigned_abs)
    }
    /// A number.
    pub(super) fn number(&self, most: f64) -> Result<f64> {
        let number = self.value.as_f64().ok_or_else(|| self.wrong("number"))?;
        if number > most {
            return Err(self.fail(&format!("{number} is greater than the maximum of {most}")));
        }
        Ok(number)
    }
}

impl<'a> Fields<'a> {
    /// The value of a key, if it is there.
    pub(super) fn get(&self, key: &str) -> Option<Node<'a>> {
        self.map.get(key).map(|value| Node {
            value,
            path: join(&self.path, key),
        })
    }
    /// The value of a key that must be there.
    pub(super) fn need(&self, key: &str) -> Result<Node<'a>> {
        self.get(key)
            .ok_or_else(|| refuse(&join(&self.path, key), &format!("'{key}' is a required property")))
    }
}

fn refuse(path: &str, why: &str) -> Error {
    let place = if path.is_empty() {
        "at the top of the body".to_owned()
    } else {
        format!("in {path}")
    };
    Error::invalid(path, format!("JSON does not validate: {why} ({place})."))
}

/// Capital letters, digits and underscores.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

/// Thirty-six hexadecimal digits and dashes: the form of a UUID in a key.
pub(super) fn is_uuid_key(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

/// The dashed lower-case form of a UUID that may lack its dashes.
pub(super) fn canonical(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    if digits.len() != 32 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let d = digits.to_ascii_lowercase();
    Some(format!(
        "{}-{}-{}-{}-{}",
        &d[..8],
        &d[8..12],
        &d[12..16],
        &d[16..20],
        &d[20..]
    ))
}

/// A UUID in its usual form; what has another form names nothing and stays as it is.
pub(super) fn id(text: &str) -> String {
    canonical(text).unwrap_or_else(|| text.to_owned())
}
