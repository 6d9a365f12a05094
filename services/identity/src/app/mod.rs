//! The rules and transactions of the identity service, by noun.

pub(crate) mod authenticate;
mod bootstrap;
pub(crate) mod cascade;
pub(crate) mod catalog;
pub(crate) mod compliance;
pub(crate) mod factors;
mod keys;
pub(crate) mod lockout;
pub(crate) mod oauth1;
mod passwords;
mod tokens;

pub(crate) use authenticate::Outcome;
pub use bootstrap::{Bootstrap, BootstrapReport, bootstrap};
pub use catalog::set_catalogue;
pub use compliance::{Compliance, PasswordRegex};
pub use factors::passcode_for_tests;
pub use keys::rotate_keys;
pub use oauth1::sign_for_tests;
pub(crate) use passwords::MAX_PASSWORD;
pub(crate) use tokens::{Delegated, Issue, Verified, micros, refused};
pub use tokens::{issue_for_tests, verifier};

use maru_base::Result;
use maru_identity_model::touch;
use maru_store::{Key, Snapshot, Store, Txn};
use std::sync::Arc;

/// What can be set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// bcrypt's cost: the logarithm of the rounds. Keystone's default is 12; tests use 4.
    pub bcrypt_cost: u32,
    /// How long a token lives, in seconds.
    pub token_seconds: i64,
    /// Passwords hashed at once: as many as there are cores.
    pub hashers: usize,
    /// Deepest nesting of projects below a domain.
    pub project_depth: usize,
    /// Fernet keys kept after their time as primary.
    pub secondary_keys: usize,
    /// What is demanded of passwords and log-ins.
    pub compliance: Compliance,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bcrypt_cost: 12,
            token_seconds: 3_600,
            hashers: std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
            project_depth: 5,
            secondary_keys: 2,
            compliance: Compliance::default(),
        }
    }
}

/// The identity service.
pub struct App {
    pub(crate) store: Store,
    pub(crate) settings: Settings,
    pub(crate) passwords: passwords::Hasher,
    pub(crate) keys: keys::Keys,
    pub(crate) cache: tokens::Cache,
    pub(crate) nonces: oauth1::Nonces,
    pub(crate) turnstiles: lockout::Turnstiles,
    pub(crate) epoch_key: Key,
}

impl App {
    /// The service over a store whose registry knows this service's kinds.
    #[must_use]
    pub fn new(store: Store, settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            store,
            passwords: passwords::Hasher::new(settings.bcrypt_cost, settings.hashers),
            keys: keys::Keys::default(),
            cache: tokens::Cache::default(),
            nonces: oauth1::Nonces::default(),
            turnstiles: lockout::Turnstiles::default(),
            epoch_key: maru_identity_model::epoch_key(),
            settings,
        })
    }
    /// The present state.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.store.snapshot()
    }
    /// Plans and commits one transaction that changes identity.
    pub(crate) async fn plan<T>(&self, mut plan: impl FnMut(&Snapshot, &mut Txn) -> Result<T>) -> Result<T> {
        self.store
            .plan(|snapshot| {
                let mut txn = Txn::new();
                let answer = plan(snapshot, &mut txn)?;
                touch(&mut txn);
                Ok((txn, answer))
            })
            .await
    }
}
