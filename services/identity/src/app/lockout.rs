//! Lock-outs: how many wrong passwords in a row a user may be tried with.
//!
//! ```text
//! hash, all at once ─► turnstile of the name, one at a time ─► locked? ─ yes ─► no
//!                                                                │ no
//!                              right: clear what is remembered ◄─┴─► wrong: count, commit, no
//! ```
//!
//! Passwords are hashed in parallel, but what they came to is told one after the other: whoever guesses a hundred at once
//! learns no more than who guesses in a row, because a right guess that comes after the last allowed wrong one is refused
//! like any other. The count is in the store, so it outlives this process; a success commits nothing unless there is
//! something to clear. Between control nodes the count is compared and swapped: each node may be one verdict ahead.
//!
//! A name that is not there goes through the same turnstile and writes a key of nobody's, and so does a locked user: an
//! answer tells by neither its text nor its time whether there is such a user (attack class C10).

use super::{
    App,
    compliance::{now, on, today},
};
use maru_base::{Error, Result, UserId};
use maru_identity_model::{Logins, User};
use maru_store::{Object, Snapshot, Txn};
use std::hash::{BuildHasher, Hash, RandomState};
use tokio::sync::Semaphore;

/// Turnstiles; different names may share one.
const SLOTS: usize = 256;

/// Lets verdicts about one name through one at a time.
pub(crate) struct Turnstiles {
    slots: Vec<Semaphore>,
    hasher: RandomState,
}

impl Default for Turnstiles {
    fn default() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| Semaphore::new(1)).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl Turnstiles {
    async fn enter(&self, name: impl Hash) -> Result<tokio::sync::SemaphorePermit<'_>> {
        let at = usize::try_from(self.hasher.hash_one(name) % SLOTS as u64).unwrap_or(0);
        self.slots[at]
            .acquire()
            .await
            .map_err(|e| Error::internal("The password could not be checked.", e))
    }
}

impl App {
    fn locked(&self, logins: Option<&Logins>, limit: u32) -> bool {
        let span = self.settings.compliance.lockout_seconds.saturating_mul(1_000_000);
        logins.is_some_and(|l| l.failed >= limit && now() < l.failed_at.saturating_add(span))
    }

    /// What a check of a user's password (or other knowledge) comes to, under the lock-out. `name` is what was asked for,
    /// `user` what was found by it. A right one ends the count only if it is `enough` for a token: else a known password
    /// would give any number of guesses at the second factor.
    ///
    /// # Errors
    /// When the store does not take the count; nothing is told then.
    pub(crate) async fn verdict(
        &self,
        name: &str,
        user: Option<&Object<User>>,
        good: bool,
        enough: bool,
    ) -> Result<bool> {
        let c = &self.settings.compliance;
        let good = good && user.is_some();
        if let Some(limit) = c.lockout_failure_attempts {
            let key = user.map_or(name, |u| u.id.as_str());
            let _turn = self.turnstiles.enter(key).await?;
            let counted = user.filter(|u| !on(u, "ignore_lockout_failure_attempts"));
            let seen = match counted {
                Some(u) => self.store.current().await?.get::<Logins>(&u.id),
                None => None,
            };
            let locked = self.locked(seen.as_ref().map(|l| &*l.value), limit);
            if locked || !good {
                match counted.filter(|_| !locked) {
                    Some(u) => self.count(&u.id, limit).await?,
                    None => self.count_nobody().await?,
                }
                return Ok(false);
            }
            if let Some(u) = counted.filter(|_| enough && seen.is_some_and(|l| l.failed > 0)) {
                self.remember(&u.id, |l| l.failed = 0).await?;
            }
        }
        if let Some(u) = user.filter(|_| good && c.disable_user_account_days_inactive.is_some()) {
            let snapshot = self.snapshot();
            // A user who has been away too long does not come back by logging in.
            if self.enabled(&snapshot, &u.id, u)
                && snapshot.get::<Logins>(&u.id).and_then(|l| l.active_on) != Some(today())
            {
                self.remember(&u.id, |l| l.active_on = Some(today())).await?;
            }
        }
        Ok(good)
    }

    async fn count(&self, id: &UserId, limit: u32) -> Result<()> {
        let span = self.settings.compliance.lockout_seconds.saturating_mul(1_000_000);
        self.remember(id, |l| {
            // A lock-out that is over begins anew.
            if l.failed >= limit && now() >= l.failed_at.saturating_add(span) {
                l.failed = 0;
            }
            l.failed = l.failed.saturating_add(1);
            l.failed_at = now();
        })
        .await
    }

    /// Takes as long as counting.
    async fn count_nobody(&self) -> Result<()> {
        self.store
            .plan(|_| {
                let mut txn = Txn::new();
                txn.bump_epoch("logins");
                Ok((txn, ()))
            })
            .await
    }

    async fn remember(&self, id: &UserId, mut change: impl FnMut(&mut Logins)) -> Result<()> {
        self.store
            .plan(|snapshot| {
                let mut txn = Txn::new();
                plan_logins(snapshot, &mut txn, id, &mut change);
                Ok((txn, ()))
            })
            .await
    }
}

/// Changes what is remembered of a user's log-ins, within another transaction.
pub(crate) fn plan_logins(snapshot: &Snapshot, txn: &mut Txn, id: &UserId, mut change: impl FnMut(&mut Logins)) {
    if snapshot.get::<User>(id).is_none() {
        return;
    }
    let read = snapshot.get::<Logins>(id);
    let mut value = read.as_ref().map(|l| (*l.value).clone()).unwrap_or_default();
    change(&mut value);
    if value.failed == 0 {
        value.failed_at = 0;
    }
    match read {
        Some(read) if value == Logins::default() => {
            txn.delete(&read);
        }
        Some(read) => {
            txn.update(&read, &value);
        }
        None if value == Logins::default() => {}
        None => {
            // The user's deletion takes this with it, whether it comes before or after.
            txn.alive::<User>(id);
            txn.create(id, &value);
        }
    }
}
