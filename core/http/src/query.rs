//! Query strings: ordered, repeated keys kept.

use maru_base::{Error, Result};

/// A parsed query string.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Parses `a=1&b=2&a=3`; `+` is a space, `%XX` a byte. Bytes that are not UTF-8 are refused.
    ///
    /// # Errors
    /// 400 when the text is not valid UTF-8 after decoding.
    pub fn parse(text: &str) -> Result<Self> {
        let decode = |s: &str| {
            percent_encoding::percent_decode_str(&s.replace('+', " "))
                .decode_utf8()
                .map(std::borrow::Cow::into_owned)
                .map_err(|_| Error::bad_request("The query string is not valid UTF-8."))
        };
        let mut pairs = Vec::new();
        for piece in text.split('&').filter(|p| !p.is_empty()) {
            let (k, v) = piece.split_once('=').unwrap_or((piece, ""));
            pairs.push((decode(k)?, decode(v)?));
        }
        Ok(Self(pairs))
    }
    /// The last value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
    /// All values of a key, in order.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }
    /// Whether a key is there.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(k, _)| k == key)
    }
    /// All pairs, in order.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }
    /// A boolean as OpenStack reads them (`1 t true on y yes`, `0 f false off n no`, any case).
    ///
    /// # Errors
    /// 400 that names the key when the value is neither.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        let Some(text) = self.get(key) else { return Ok(None) };
        match text.to_ascii_lowercase().as_str() {
            "1" | "t" | "true" | "on" | "y" | "yes" => Ok(Some(true)),
            "0" | "f" | "false" | "off" | "n" | "no" => Ok(Some(false)),
            _ => Err(Error::invalid(
                key,
                format!("Invalid value for {key}: '{text}' is not a boolean (true or false)."),
            )),
        }
    }
    /// A whole number that is not negative.
    ///
    /// # Errors
    /// 400 that names the key.
    pub fn number(&self, key: &str) -> Result<Option<u64>> {
        let Some(text) = self.get(key) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| {
            Error::invalid(
                key,
                format!("Invalid value for {key}: '{text}' is not a non-negative integer."),
            )
        })
    }
    /// The query string again, without the given keys.
    #[must_use]
    pub fn encode_without(&self, without: &[&str]) -> String {
        Self::encode(
            self.0
                .iter()
                .filter(|(k, _)| !without.contains(&k.as_str()))
                .map(|(k, v)| (k.as_str(), v.as_str())),
        )
    }
    /// A query string of these pairs.
    #[must_use]
    pub fn encode<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
        let mut out = String::new();
        for (k, v) in pairs {
            if !out.is_empty() {
                out.push('&');
            }
            out.push_str(&Self::encode_part(k));
            out.push('=');
            out.push_str(&Self::encode_part(v));
        }
        out
    }
    /// A text as one part of a path or query: everything but letters, digits and `-` in percent form.
    #[must_use]
    pub fn encode_part(text: &str) -> String {
        use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
        const LEFT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-');
        utf8_percent_encode(text, LEFT).to_string()
    }
}
