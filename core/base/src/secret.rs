//! Text that must never be shown.

use serde::{Deserialize, Serialize};

/// A password, hash, key or token. `Debug` shows `[secret]`, there is no `Display`, comparison takes constant time.
///
/// It serialises as itself: only stored values and what a node is told hold one, wire types do not.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
    /// The secret itself: for the one place that hashes, compares or sends it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.0.as_bytes(), other.0.as_bytes());
        a.len() == b.len() && a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
    }
}
impl Eq for Secret {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        let s = Secret::new("hunter2");
        assert_eq!(format!("{s:?} {:?}", Some(&s)), "[secret] Some([secret])");
        assert!(s == Secret::new("hunter2") && s != Secret::new("hunter3") && s != Secret::new("hunter"));
    }
}
