//! What the operator demands of passwords and log-ins, as Keystone's `[security_compliance]`.

use super::App;
use maru_base::{Error, Result};
use maru_identity_model::{Logins, Password, Secret, User};
use maru_store::Snapshot;
use serde_json::Value;

/// Microseconds of a day.
pub(crate) const DAY: i64 = 86_400 * 1_000_000;

/// The demands. The default demands nothing, as upstream.
#[derive(Debug, Clone)]
pub struct Compliance {
    /// Wrong passwords in a row after which a user is locked out; `None` for never.
    pub lockout_failure_attempts: Option<u32>,
    /// How long, in seconds.
    pub lockout_seconds: i64,
    /// A new password differs from this many before it, the present one included; 0 for no history.
    pub unique_last_password_count: usize,
    /// Days that a user keeps a password of its own choice before changing it.
    pub minimum_password_age: i64,
    /// What a password must match.
    pub password_regex: Option<PasswordRegex>,
    /// Days after which a password must be changed.
    pub password_expires_days: Option<i64>,
    /// A password that an administrator set is good for changing it, and nothing else.
    pub change_password_upon_first_use: bool,
    /// Days without a log-in after which a user counts as disabled.
    pub disable_user_account_days_inactive: Option<i64>,
}

impl Default for Compliance {
    fn default() -> Self {
        Self {
            lockout_failure_attempts: None,
            lockout_seconds: 1_800,
            unique_last_password_count: 0,
            minimum_password_age: 0,
            password_regex: None,
            password_expires_days: None,
            change_password_upon_first_use: false,
            disable_user_account_days_inactive: None,
        }
    }
}

/// A regular expression with look-around, as Python's, that a password must match from its beginning.
#[derive(Debug, Clone)]
pub struct PasswordRegex {
    regex: fancy_regex::Regex,
    text: String,
    description: Option<String>,
}

impl PasswordRegex {
    /// Reads one; `description` is what users are told instead of the expression.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, description: Option<String>) -> std::result::Result<Self, String> {
        let regex = fancy_regex::RegexBuilder::new(&format!("\\A(?:{text})"))
            .backtrack_limit(100_000)
            .build()
            .map_err(|e| e.to_string())?;
        Ok(Self {
            regex,
            text: text.to_owned(),
            description,
        })
    }
    /// The expression.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
    /// What users are told of it.
    #[must_use]
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }
    /// A password that makes the expression backtrack without end does not match.
    fn matches(&self, password: &Secret) -> bool {
        self.regex.is_match(password.reveal()).unwrap_or(false)
    }
}

/// Whether a user's option is on.
pub(crate) fn on(user: &User, option: &str) -> bool {
    user.options.get(option) == Some(&Value::Bool(true))
}

pub(crate) fn now() -> i64 {
    maru_base::time::now().as_microsecond()
}

/// Who sets a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SetBy {
    /// Whoever has it.
    User,
    /// Whoever may update users.
    Administrator,
}

impl App {
    fn compliance(&self) -> &Compliance {
        &self.settings.compliance
    }

    /// Refuses a new password that is not strong enough.
    pub(crate) fn strong(&self, password: &Secret) -> Result<()> {
        match &self.compliance().password_regex {
            Some(regex) if !regex.matches(password) => Err(Error::invalid(
                "password",
                match &regex.description {
                    Some(text) => format!("The password does not match the requirements: {text}"),
                    None => format!(
                        "The password does not match the requirements: it must match {}",
                        regex.text
                    ),
                },
            )),
            _ => Ok(()),
        }
    }

    /// Hashes a new password of a user, with what there is to be remembered about it.
    ///
    /// # Errors
    /// 400 when it is too weak.
    pub(crate) async fn new_password(
        &self,
        user: &User,
        password: Secret,
        by: SetBy,
        before: Option<&Password>,
    ) -> Result<Password> {
        self.strong(&password)?;
        let c = self.compliance();
        let mut made = self.passwords.hash(password).await?;
        made.set_at = now();
        made.self_service = by == SetBy::User;
        if !on(user, "ignore_password_expiry") {
            // On a whole second, as Keystone's.
            made.expires_at = c
                .password_expires_days
                .map(|days| made.set_at.saturating_add(days.saturating_mul(DAY)) / 1_000_000 * 1_000_000);
        }
        if by == SetBy::Administrator
            && c.change_password_upon_first_use
            && !on(user, "ignore_change_password_upon_first_use")
        {
            made.expires_at = Some(made.set_at);
        }
        made.earlier = before
            .map(|b| b.history(c.unique_last_password_count.saturating_sub(1)))
            .unwrap_or_default();
        Ok(made)
    }

    /// Refuses a change of one's own password that comes too early, or goes back to an earlier one.
    pub(crate) async fn may_change(&self, before: &Password, new: &Secret) -> Result<()> {
        let c = self.compliance();
        let age = now().saturating_sub(before.set_at);
        let least = c.minimum_password_age.saturating_mul(DAY);
        if before.self_service && age < least {
            let left = (least - age).div_ceil_days();
            return Err(Error::bad_request(format!(
                "The password must be used for {} days before it can be changed; that is in {left} days. An administrator can reset it.",
                c.minimum_password_age
            )));
        }
        for earlier in before.history(c.unique_last_password_count) {
            if self.passwords.check(new.clone(), Some(earlier.into())).await? {
                return Err(Error::invalid(
                    "password",
                    format!(
                        "The new password is one of the last {} of this user; choose one that is not.",
                        c.unique_last_password_count
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Whether a password must be changed before it gives a token.
    pub(crate) fn expired(user: &User, password: &Password) -> bool {
        password.expires_at.is_some_and(|end| end <= now()) && !on(user, "ignore_password_expiry")
    }

    /// Whether a user is enabled: its flag, and that it has logged in lately.
    pub(crate) fn enabled(&self, snapshot: &Snapshot, id: &maru_base::UserId, user: &User) -> bool {
        let Some(days) = self.compliance().disable_user_account_days_inactive else {
            return user.enabled;
        };
        let asleep = || {
            snapshot
                .get::<Logins>(id)
                .and_then(|l| l.active_on)
                .is_some_and(|day| today() - day > days)
        };
        user.enabled && (on(user, "ignore_user_inactivity") || !asleep())
    }
}

/// Days since 1970.
pub(crate) fn today() -> i64 {
    now() / DAY
}

/// Rounds up to days.
trait DivCeilDays {
    fn div_ceil_days(self) -> i64;
}
impl DivCeilDays for i64 {
    fn div_ceil_days(self) -> i64 {
        (self + DAY - 1) / DAY
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keystones_expressions_work_and_none_runs_for_ever() {
        let regex = PasswordRegex::parse(r"^(?=.*\d)(?=.*[a-zA-Z]).{7,}$", None).unwrap();
        let matches = |text: &str| regex.matches(&Secret::new(text));
        assert!(matches("abcdef1") && matches("1234567z"));
        assert!(!matches("abcdefg") && !matches("1234567") && !matches("a1"));
        // From its beginning, as Python's match().
        let regex = PasswordRegex::parse("b+", None).unwrap();
        assert!(regex.matches(&Secret::new("bbx")) && !regex.matches(&Secret::new("abb")));
        assert!(PasswordRegex::parse("(", None).is_err());
        // Attack class G: an expression that backtracks is given up, and does not match.
        let regex = PasswordRegex::parse(r"(?=(a+)+\1b)x", None).unwrap();
        assert!(!regex.matches(&Secret::new("a".repeat(4_000))));
    }
}
