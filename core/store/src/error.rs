//! What can go wrong with a commit.

use crate::Conflict;

/// Why [`crate::Store::commit`] did not commit.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Something changed meanwhile: read again, plan again.
    #[error("the state changed meanwhile")]
    Conflict(#[source] Conflict),
    /// Too many guards, operations or bytes.
    #[error("the request is too large for one transaction: {what} {have}, at most {limit}")]
    TooLarge {
        /// `guards`, `operations` or `bytes`.
        what: &'static str,
        /// How many.
        have: usize,
        /// The limit.
        limit: usize,
    },
    /// The transaction itself is wrong (a key twice, two spaces).
    #[error("the transaction is malformed: {0}")]
    Malformed(String),
    /// The engine cannot be reached or did not answer, and whether the transaction committed could not be found out.
    #[error("the store did not answer: {0}")]
    Unavailable(String),
}

impl CommitError {
    /// Whether planning again on a fresh snapshot may succeed.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict(_))
    }
    /// The guard key in conflict, if that is what it is.
    #[must_use]
    pub fn conflict_key(&self) -> Option<&crate::Key> {
        match self {
            Self::Conflict(Conflict::Guard { key, .. } | Conflict::Exceeded { key, .. }) => Some(key),
            _ => None,
        }
    }
    /// The conflict behind an error that [`crate::Store::plan`] returned, if that is what it is: a service turns
    /// [`Conflict::Exceeded`] into its own over-quota answer.
    #[must_use]
    pub fn conflict_of(error: &maru_base::Error) -> Option<&Conflict> {
        let mut next = std::error::Error::source(error);
        while let Some(cause) = next {
            if let Some(Self::Conflict(conflict)) = cause.downcast_ref::<Self>() {
                return Some(conflict);
            }
            next = cause.source();
        }
        None
    }
}

impl From<CommitError> for maru_base::Error {
    fn from(e: CommitError) -> Self {
        let kind = match &e {
            CommitError::Conflict(_) => maru_base::ErrorKind::Conflict,
            CommitError::TooLarge { .. } => maru_base::ErrorKind::TooLarge,
            CommitError::Malformed(_) => maru_base::ErrorKind::Internal,
            CommitError::Unavailable(_) => maru_base::ErrorKind::Unavailable,
        };
        let message = match &e {
            CommitError::Conflict(_) => "The resource was changed by another request meanwhile; try again.".to_owned(),
            CommitError::Malformed(_) => "The request could not be stored.".to_owned(),
            other => other.to_string(),
        };
        Self::new(kind, message).with_source(e)
    }
}
