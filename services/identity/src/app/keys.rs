//! Sealing and opening tokens: Fernet (<https://github.com/fernet/spec>) with keys that live in the store.

use super::App;
use base64::Engine;
use fernet::Fernet;
use maru_base::{Error, Result};
use maru_identity_model::{KeyRing, Payload, Secret, decode_token};
use maru_store::{Revision, Snapshot};
use std::sync::{Arc, Mutex, PoisonError};

/// Longest token looked at, in bytes.
const MAX_TOKEN: usize = 1_024;

/// The opened keys of one revision of the ring.
struct Opened {
    revision: Revision,
    primary: Fernet,
    others: Vec<Fernet>,
}

/// The keys that this process uses; follows the ring in the store.
#[derive(Default)]
pub(crate) struct Keys(Mutex<Option<Arc<Opened>>>);

impl Keys {
    fn of(&self, snapshot: &Snapshot) -> Option<Arc<Opened>> {
        let ring = snapshot.get::<KeyRing>(&KeyRing::the())?;
        let mut opened = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = opened.as_ref().filter(|o| o.revision == ring.revision) {
            return Some(Arc::clone(known));
        }
        let primary = Fernet::new(ring.primary.reveal())?;
        let others = std::iter::once(&ring.staged)
            .chain(&ring.secondary)
            .filter_map(|k| Fernet::new(k.reveal()));
        let fresh = Arc::new(Opened {
            revision: ring.revision,
            primary,
            others: others.collect(),
        });
        *opened = Some(Arc::clone(&fresh));
        Some(fresh)
    }
    /// Seals a payload into a token.
    pub(crate) fn seal(&self, snapshot: &Snapshot, payload: &Payload) -> Result<Secret> {
        self.seal_bytes(snapshot, &payload.encode())
    }
    /// Opens a token. `None` when it is not one of ours.
    pub(crate) fn open(&self, snapshot: &Snapshot, token: &str) -> Option<Payload> {
        decode_token(&self.open_bytes(snapshot, token)?).ok()
    }
    /// Seals bytes.
    pub(crate) fn seal_bytes(&self, snapshot: &Snapshot, bytes: &[u8]) -> Result<Secret> {
        let keys = self.of(snapshot).ok_or_else(|| {
            Error::unavailable("There is no key to sign tokens with: the cloud has not been bootstrapped yet.")
        })?;
        // The envelope's own time stamp is not looked at: the payload says when the token ends.
        let token = keys.primary.encrypt(bytes);
        Ok(Secret::new(token.trim_end_matches('=')))
    }
    /// Opens what was sealed. `None` when it was not by us.
    pub(crate) fn open_bytes(&self, snapshot: &Snapshot, token: &str) -> Option<Vec<u8>> {
        if token.len() > MAX_TOKEN || !token.is_ascii() {
            return None;
        }
        let keys = self.of(snapshot)?;
        let mut padded = token.trim_end_matches('=').to_owned();
        while !padded.len().is_multiple_of(4) {
            padded.push('=');
        }
        std::iter::once(&keys.primary)
            .chain(&keys.others)
            .find_map(|k| k.decrypt(&padded).ok())
    }
}

/// A fresh Fernet key.
pub(crate) fn fresh_key() -> Secret {
    let mut raw = [0_u8; 32];
    maru_base::random::fill(&mut raw);
    Secret::new(base64::engine::general_purpose::URL_SAFE.encode(raw))
}

/// A fresh ring.
pub(crate) fn fresh_ring() -> KeyRing {
    KeyRing {
        staged: fresh_key(),
        primary: fresh_key(),
        secondary: Vec::new(),
        rotated_at: maru_base::time::micros_z(maru_base::time::now()),
    }
}

/// Rotates the token keys: the staged key becomes the primary, a fresh one is staged, the oldest go. Tokens sealed with
/// a key that is kept stay good.
///
/// # Errors
/// When the store does not commit.
pub async fn rotate_keys(app: &App) -> Result<()> {
    app.plan(|snapshot, txn| {
        match snapshot.get::<KeyRing>(&KeyRing::the()) {
            Some(ring) => {
                let at = maru_base::time::micros_z(maru_base::time::now());
                txn.update(&ring, &ring.rotated(fresh_key(), app.settings.secondary_keys, at));
            }
            None => {
                txn.create(&KeyRing::the(), &fresh_ring());
            }
        }
        Ok(())
    })
    .await
}
