//! Keys: parts joined by `/`, each part escaped so that no part can forge a separator.

use std::{fmt, sync::Arc};

/// A store key such as `server/6f1c…` or `uniq/project/default/admin`.
///
/// Within a part, `%`, `/` and bytes below 0x21 are written as `%XX`; so keys of one prefix sort by their parts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Key(Arc<str>);

impl Key {
    /// A key from its parts, each escaped.
    pub fn of<P: AsRef<str>>(parts: &[P]) -> Self {
        let mut text = String::with_capacity(parts.iter().map(|p| p.as_ref().len() + 1).sum());
        for (i, part) in parts.iter().enumerate() {
            if i > 0 {
                text.push('/');
            }
            escape(part.as_ref(), &mut text);
        }
        Self(text.into())
    }
    /// The prefix under which all keys that begin with these whole parts lie (ends with `/`).
    pub fn prefix<P: AsRef<str>>(parts: &[P]) -> Self {
        Self(format!("{}/", Self::of(parts)).into())
    }
    /// A key from its stored text.
    pub fn from_raw(text: impl Into<String>) -> Self {
        Self(text.into().into())
    }
    /// The stored text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// The first part, as stored (escaped).
    #[must_use]
    pub(crate) fn head(&self) -> &str {
        self.0.split_once('/').map_or(&*self.0, |(head, _)| head)
    }
    /// What follows the first part, unescaped: the id of an object's key.
    #[must_use]
    pub(crate) fn tail(&self) -> Option<String> {
        self.0.split_once('/').map(|(_, tail)| unescape(tail))
    }
    /// Whether this key lies under `prefix` (see [`Key::prefix`]).
    #[must_use]
    pub fn under(&self, prefix: &Self) -> bool {
        self.0.starts_with(&*prefix.0)
    }
    /// The parts, unescaped.
    #[must_use]
    pub fn parts(&self) -> Vec<String> {
        self.0.split('/').map(unescape).collect()
    }
}

fn escape(part: &str, out: &mut String) {
    for c in part.chars() {
        if c == '%' || c == '/' || c <= ' ' || c == '\u{7f}' {
            out.push_str(&format!("%{:02X}", c as u32));
        } else {
            out.push(c);
        }
    }
}

fn unescape(part: &str) -> String {
    let mut out = String::with_capacity(part.len());
    let mut rest = part;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        match rest
            .get(at + 1..at + 3)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok())
        {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &rest[at + 3..];
            }
            None => {
                out.push('%');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::borrow::Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}
impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_survive_and_never_forge_a_separator(a in ".{0,20}", b in ".{0,20}") {
            let key = Key::of(&[&a, &b]);
            prop_assert_eq!(key.parts(), vec![a.clone(), b]);
            prop_assert!(key.under(&Key::prefix(&[&a])));
        }
    }
}
