//! What every resource of Neutron has besides its own attributes.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Neutron's standard attributes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// Free text.
    pub description: String,
    /// Tags, sorted, each once.
    pub tags: Vec<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Raised by each change; what `If-Match: revision_number=N` asks for.
    pub revision_number: u64,
}

impl Meta {
    /// Those of a new object.
    #[must_use]
    pub fn new(description: impl Into<String>) -> Self {
        let now = maru_base::time::now();
        Self {
            description: description.into(),
            tags: Vec::new(),
            created_at: now,
            updated_at: now,
            revision_number: 0,
        }
    }
    /// With these tags.
    #[must_use]
    pub fn with_tags(mut self, tags: impl IntoIterator<Item = String>) -> Self {
        self.set_tags(tags);
        self
    }
    /// Replaces the tags.
    pub fn set_tags(&mut self, tags: impl IntoIterator<Item = String>) {
        self.tags = tags.into_iter().collect();
        self.tags.sort();
        self.tags.dedup();
    }
    /// Notes a change.
    pub fn touch(&mut self) {
        self.updated_at = maru_base::time::now();
        self.revision_number += 1;
    }
}
