//! What bodies of the older services (Nova, Cinder) share: lenient booleans and numbers, wrapped objects, errors in the form of
//! schema validation.

use maru_base::{Error, Result};
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

/// A boolean as the schemas of Nova and Cinder take it: JSON booleans, and the strings of oslo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flag(
    /// The value.
    pub bool,
);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        match Value::deserialize(d)? {
            Value::Bool(b) => Ok(Self(b)),
            Value::String(t) => match t.to_ascii_lowercase().as_str() {
                "true" | "1" | "on" | "yes" => Ok(Self(true)),
                "false" | "0" | "off" | "no" => Ok(Self(false)),
                _ => Err(de::Error::custom(format!("'{t}' is not a boolean (true or false)"))),
            },
            other => Err(de::Error::custom(format!("{other} is not a boolean (true or false)"))),
        }
    }
}

/// A whole number that may come as a string of digits; at most 2^31 - 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Count(
    /// The value.
    pub i64,
);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        let value = Value::deserialize(d)?;
        let n = match &value {
            Value::Number(n) => n.as_i64(),
            Value::String(t) => t.parse().ok(),
            _ => None,
        };
        let n = n.ok_or_else(|| de::Error::custom(format!("{value} is not a whole number in range")))?;
        if n > i64::from(i32::MAX) || n < -1 {
            return Err(de::Error::custom(format!("{n} is out of range")));
        }
        Ok(Self(n))
    }
}

impl Count {
    /// The number, which must be at least `min`.
    ///
    /// # Errors
    /// 400 that names the field.
    pub fn at_least(self, field: &str, min: u32) -> Result<u64> {
        u64::try_from(self.0)
            .ok()
            .filter(|n| *n >= u64::from(min))
            .ok_or_else(|| invalid(field, format!("{} is less than the minimum of {min}", self.0)))
    }
}

/// Tells an absent field from a null one (for `deserialize_with`).
///
/// # Errors
/// What the inner type refuses.
pub fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    d: D,
) -> std::result::Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(d).map(Some)
}

/// A field that may be absent but not null (for `deserialize_with`).
///
/// # Errors
/// What the inner type refuses.
pub fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> std::result::Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}

/// A text that may come as a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word(
    /// The text.
    pub String,
);

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        match Value::deserialize(d)? {
            Value::String(text) => Ok(Self(text)),
            Value::Number(n) => Ok(Self(n.to_string())),
            other => Err(de::Error::custom(format!("{other} is neither a string nor a number"))),
        }
    }
}

/// A 400 for a field, in the form of schema validation.
#[must_use]
pub fn invalid(field: &str, why: impl std::fmt::Display) -> Error {
    Error::invalid(field, format!("Invalid input for field/attribute {field}. {why}"))
}

/// The wrapper that most bodies have: `{"flavor": {...}}`. The one key is named by `key`.
///
/// # Errors
/// 400 that names the field.
pub async fn body<T: de::DeserializeOwned>(request: &mut crate::Request, key: &str) -> Result<T> {
    let Value::Object(mut map) = request.json_value().await? else {
        return Err(Error::bad_request("The request body is not a JSON object."));
    };
    let inner = map
        .remove(key)
        .ok_or_else(|| invalid(key, format!("'{key}' is a required property")))?;
    if let Some(extra) = map.keys().next() {
        return Err(invalid(
            extra,
            format!("Additional properties are not allowed ('{extra}' was unexpected)"),
        ));
    }
    typed(key, inner)
}

/// A typed value out of an untyped one; errors name the field below `root`.
///
/// # Errors
/// 400 that names the field.
pub fn typed<T: de::DeserializeOwned>(root: &str, value: Value) -> Result<T> {
    serde_path_to_error::deserialize(value).map_err(|e| {
        let path = e.path().to_string();
        let field = match path.as_str() {
            "." => root.to_owned(),
            item if item.starts_with('[') => format!("{root}{item}"),
            inner => format!("{root}.{inner}"),
        };
        let why = e.into_inner();
        invalid(&field, why)
    })
}

/// Whether a text is a UUID in its dashed or plain form.
#[must_use]
pub fn is_uuid(text: &str) -> bool {
    let digits = text.bytes().filter(u8::is_ascii_hexdigit).count();
    let dashes = text.bytes().filter(|b| *b == b'-').count();
    digits == 32 && (text.len() == 32 || (text.len() == 36 && dashes == 4))
}
