//! Passwords: bcrypt off the async threads, at most one a core, the same time whether or not there is such a user.

use maru_base::{Error, Result};
use maru_identity_model::{Password, Secret};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Longest password taken, in bytes (Keystone's default).
pub(crate) const MAX_PASSWORD: usize = 4_096;
/// What bcrypt looks at.
const BCRYPT_BYTES: usize = 72;

/// Hashes and checks passwords.
pub(crate) struct Hasher {
    cost: u32,
    permits: Arc<Semaphore>,
}

impl Hasher {
    pub(crate) fn new(cost: u32, at_once: usize) -> Self {
        Self {
            cost: cost.clamp(4, 31),
            permits: Arc::new(Semaphore::new(at_once.max(1))),
        }
    }
    /// Hashes a new password.
    pub(crate) async fn hash(&self, password: Secret) -> Result<Password> {
        let cost = self.cost;
        self.blocking(move || {
            let (text, reduced) = reduce(&password);
            let mut salt = [0_u8; 16];
            maru_base::random::fill(&mut salt);
            bcrypt::hash_with_salt(text.reveal(), cost, salt)
                .map(|parts| Password::of(Secret::new(parts.format_for_version(bcrypt::Version::TwoB)), reduced))
                .map_err(|_| Error::bad_request("The password cannot be hashed: it contains a NUL character."))
        })
        .await?
    }
    /// Whether this is the password. Without a stored one it takes the time of a check and says no.
    pub(crate) async fn check(&self, password: Secret, stored: Option<Password>) -> Result<bool> {
        let cost = self.cost;
        self.blocking(move || {
            let (text, reduced) = reduce(&password);
            match stored.filter(|stored| stored.reduced == reduced) {
                Some(stored) => bcrypt::verify(text.reveal(), stored.hash.reveal()).unwrap_or(false),
                None => {
                    let _ = std::hint::black_box(bcrypt::hash_with_salt(text.reveal(), cost, [7; 16]));
                    false
                }
            }
        })
        .await
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let gone = |e: maru_base::BoxError| Error::internal("The password could not be checked.", e);
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(|e| gone(e.into()))?;
        tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        })
        .await
        .map_err(|e| gone(e.into()))
    }
}

/// bcrypt ignores what follows 72 bytes: a longer password goes through SHA-256 first, so that all of it counts.
fn reduce(password: &Secret) -> (Secret, bool) {
    use base64::Engine;
    use sha2::Digest;
    let text = password.reveal();
    if text.len() <= BCRYPT_BYTES {
        return (password.clone(), false);
    }
    let digest = sha2::Sha256::digest(text.as_bytes());
    (
        Secret::new(base64::engine::general_purpose::STANDARD.encode(digest)),
        true,
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn passwords_are_checked_whole_and_keystone_hashes_work() {
        let hasher = Hasher::new(4, 2);
        let long = "x".repeat(100);
        for text in ["s3cret", "ünïcödé", &long, &"y".repeat(72)] {
            let stored = hasher.hash(Secret::new(text)).await.unwrap();
            assert!(stored.hash.reveal().starts_with("$2b$04$"));
            assert!(hasher.check(Secret::new(text), Some(stored.clone())).await.unwrap());
            assert!(
                !hasher
                    .check(Secret::new(format!("{text}z")), Some(stored))
                    .await
                    .unwrap()
            );
        }
        // From the test vectors of the algorithm's authors, in both spellings of the version.
        for version in ["2a", "2b"] {
            let hash = Secret::new(format!(
                "${version}$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"
            ));
            assert!(
                hasher
                    .check(Secret::new("U*U"), Some(Password::of(hash, false)))
                    .await
                    .unwrap()
            );
        }
        assert!(!hasher.check(Secret::new("U*U"), None).await.unwrap());
        assert!(
            hasher.hash(Secret::new("a\0b")).await.is_err() || !hasher.check(Secret::new("a"), None).await.unwrap()
        );
    }
}
