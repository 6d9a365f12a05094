//! More than a password: time-based one-time passwords (RFC 6238), the rules of users that want several methods, and the
//! receipts that carry what was proven from one request to the next.

use super::{App, Outcome, compliance::now, micros, tokens::refused};
use hmac::{Hmac, Mac};
use maru_base::{Error, Result, UserId};
use maru_identity_model::{Credential, Methods, Receipt, Revocation, Secret, User, decode_receipt, domain};
use maru_store::{Object, Snapshot};
use serde_json::{Value, json};

/// How long one passcode holds, in seconds.
const STEP: i64 = 30;
/// Digits of a passcode.
const DIGITS: u32 = 6;
/// How long a receipt is good, in microseconds (upstream's default).
const RECEIPT_LIFE: i64 = 300 * 1_000_000;

/// Base32 (RFC 4648), in either case, with or without padding and blanks.
fn base32(text: &str) -> Option<Vec<u8>> {
    let (mut out, mut bits, mut have) = (Vec::new(), 0_u32, 0);
    for c in text.bytes().filter(|c| !c.is_ascii_whitespace() && *c != b'=') {
        let value = match c.to_ascii_uppercase() {
            c @ b'A'..=b'Z' => c - b'A',
            c @ b'2'..=b'7' => c - b'2' + 26,
            _ => return None,
        };
        bits = (bits << 5) | u32::from(value);
        have += 5;
        if have >= 8 {
            have -= 8;
            out.push(u8::try_from((bits >> have) & 0xff).unwrap_or(0));
        }
    }
    (!out.is_empty()).then_some(out)
}

/// The passcode of a step.
fn passcode(key: &[u8], step: i64) -> Secret {
    let digest = Hmac::<sha1::Sha1>::new_from_slice(key)
        .map(|m| m.chain_update(step.to_be_bytes()).finalize().into_bytes().to_vec())
        .unwrap_or_default();
    let at = usize::from(digest.last().copied().unwrap_or(0) & 0xf);
    let word = digest
        .get(at..at + 4)
        .and_then(|b| <[u8; 4]>::try_from(b).ok())
        .map_or(0, u32::from_be_bytes);
    let number = (word & 0x7fff_ffff) % 10_u32.pow(DIGITS);
    Secret::new(format!("{number:06}"))
}

/// The step for which a passcode is that of one of the user's seeds: the present one, or the one before it.
pub(crate) fn totp_step(snapshot: &Snapshot, user: Option<&Object<User>>, given: &Secret) -> Option<i64> {
    let present = maru_base::time::now().as_second() / STEP;
    let seeds: Vec<Vec<u8>> = user
        .map(|u| {
            snapshot
                .find::<Credential>("user", &u.id)
                .filter(|c| c.kind == "totp")
                .filter_map(|c| base32(c.blob.reveal()))
                .take(16)
                .collect()
        })
        .unwrap_or_default();
    let mut found = None;
    for seed in &seeds {
        for step in [present - 1, present] {
            if passcode(seed, step) == *given {
                found = Some(step);
            }
        }
    }
    found
}

/// The combinations of methods of which a user wants one; none for a user that does not care.
pub(crate) fn rules(user: &User) -> Vec<Vec<&str>> {
    if user.options.get("multi_factor_auth_enabled") == Some(&Value::Bool(false)) {
        return Vec::new();
    }
    let Some(Value::Array(rules)) = user.options.get("multi_factor_auth_rules") else {
        return Vec::new();
    };
    rules
        .iter()
        .filter_map(Value::as_array)
        .map(|rule| rule.iter().filter_map(Value::as_str).collect::<Vec<_>>())
        .filter(|rule| !rule.is_empty())
        .collect()
}

/// Whether these methods are enough for a user.
pub(crate) fn enough(user: &User, methods: Methods) -> bool {
    let rules = rules(user);
    rules.is_empty() || rules.iter().any(|rule| methods.cover(rule))
}

/// Checks the options of a user as a request gives them: booleans, and rules of methods that there are.
///
/// # Errors
/// 400 naming the option.
pub(crate) fn check_options(options: &serde_json::Map<String, Value>) -> Result<()> {
    let bad = |name: &str, why: &str| {
        Err(Error::invalid(
            "options",
            format!("Invalid input for field 'options': {name} is {why}."),
        ))
    };
    for (name, value) in options {
        if name != "multi_factor_auth_rules" {
            if !value.is_boolean() && !value.is_null() {
                return bad(name, "a boolean");
            }
            continue;
        }
        let rules = match value {
            Value::Null => continue,
            Value::Array(rules) if rules.len() <= 32 => rules,
            _ => return bad(name, "a list of at most 32 lists of methods"),
        };
        for rule in rules {
            let methods: Option<Vec<&str>> = rule
                .as_array()
                .filter(|r| !r.is_empty() && r.len() <= 8)
                .and_then(|r| r.iter().map(Value::as_str).collect());
            match methods {
                Some(methods) if methods.iter().all(|m| Methods::known(m)) => {}
                _ => {
                    return bad(
                        name,
                        "a list of lists of methods: password, token, totp, application_credential, oauth1",
                    );
                }
            }
        }
    }
    Ok(())
}

impl App {
    /// Marks a one-time password as used; refuses one that was.
    pub(crate) async fn use_up(&self, id: &UserId, step: i64) -> Result<()> {
        self.store
            .plan(|snapshot| {
                let mut txn = maru_store::Txn::new();
                let mut fresh = false;
                super::lockout::plan_logins(snapshot, &mut txn, id, |l| {
                    fresh = l.totp_step.is_none_or(|used| used < step);
                    l.totp_step = l.totp_step.max(Some(step));
                });
                if fresh { Ok((txn, ())) } else { Err(refused()) }
            })
            .await
    }

    /// Opens a receipt.
    ///
    /// # Errors
    /// 401 when it is none of ours, has expired, or its user was revoked since.
    pub(crate) fn receipt(&self, text: &str) -> Result<Receipt> {
        let snapshot = self.snapshot();
        self.keys
            .open_bytes(&snapshot, text)
            .and_then(|bytes| decode_receipt(&bytes).ok())
            .filter(|r| {
                r.expires_at > now()
                    && r.incarnation == snapshot.incarnation()
                    && snapshot
                        .get::<Revocation>(&Revocation::user(&r.user_id))
                        .is_none_or(|v| v.revision <= r.revision)
            })
            .ok_or_else(|| {
                Error::unauthorized("Could not find auth receipt: it has expired or never was one; authenticate anew.")
            })
    }

    /// What a user has proven so far, with what would be enough.
    pub(crate) fn ask_for_more(&self, user: &Object<User>, methods: Methods) -> Result<Outcome> {
        let snapshot = self.snapshot();
        let home = domain(&snapshot, &user.domain_id)
            .filter(|d| d.enabled)
            .ok_or_else(refused)?;
        let issued_at = now();
        let receipt = Receipt {
            incarnation: snapshot.incarnation(),
            revision: snapshot.revision(),
            issued_at,
            expires_at: issued_at + RECEIPT_LIFE,
            methods,
            user_id: user.id.clone(),
        };
        let body = json!({"receipt": {"methods": methods.names(),
                "user": {"domain": {"id": user.domain_id, "name": home.name}, "id": user.id, "name": user.name},
                "expires_at": micros(receipt.expires_at), "issued_at": micros(issued_at)},
            "required_auth_methods": rules(user)});
        Ok(Outcome::Receipt(
            self.keys.seal_bytes(&snapshot, &receipt.encode())?,
            body,
        ))
    }
}

/// The passcode of a seed for now and `ahead` steps later: for tests.
#[must_use]
pub fn passcode_for_tests(seed: &str, ahead: i64) -> String {
    let step = maru_base::time::now().as_second() / STEP + ahead;
    base32(seed).map_or_else(String::new, |key| passcode(&key, step).reveal().to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// RFC 6238, appendix B (SHA-1), the last six digits of each.
    #[test]
    fn the_passcodes_of_the_specification() {
        let key = b"12345678901234567890";
        for (time, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000_i64, "353130"),
        ] {
            assert_eq!(passcode(key, time / STEP).reveal(), code, "{time}");
        }
    }

    /// RFC 4648, section 10.
    #[test]
    fn seeds_are_base32() {
        for (text, bytes) in [
            ("MY======", "f"),
            ("MZXQ====", "fo"),
            ("mzxw6", "foo"),
            ("MZXW 6YTB OI==", "foobar"),
        ] {
            assert_eq!(base32(text).unwrap(), bytes.as_bytes());
        }
        assert_eq!(base32("M1"), None);
        assert_eq!(base32(""), None);
    }
}
