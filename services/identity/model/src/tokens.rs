//! What a token carries, the keys that seal it, and what ends it before its time.
//!
//! The payload inside the Fernet envelope, version 1, all numbers big-endian:
//!
//! ```text
//! u8  version = 1           16 bytes  incarnation of the store
//! u64 store revision        i64 issued at, microseconds     i64 expires at, microseconds
//! u8  methods (bit 0 password, bit 1 token, bit 4 TOTP; in version 2 also bit 2 application credential, bit 3 OAuth1)
//! id  user                  u8 scope: 0 none, 1 project + id, 2 domain + id, 3 system
//! u8  1 or 2                that many audit ids of 16 bytes: this token's, the first of its chain
//! version 2 = version 1 + u8 1 application credential, 2 trust, 3 OAuth1 access token, and its id: a token with some of a
//!             user's rights only
//! id  := 0x00 + 16 bytes (32 hexadecimal digits)  |  u8 length 1..=255 + UTF-8
//! ```
//!
//! A token is good as long as no [`Revocation`] that concerns it has a revision above its own: revisions are compared,
//! never clocks. A token of another incarnation (a restored backup) is not good.

use crate::{AccessTokenId, ApplicationCredentialId, Secret, TrustId};
use maru_base::{DomainId, ProjectId, UserId, typed_id};
use maru_store::{Kind, Revision, Space};
use serde::{Deserialize, Serialize};

typed_id!(
    /// Id of a token's audit trail, 22 characters of URL-safe Base64.
    AuditId
);
typed_id!(
    /// Id of a key ring; there is one, `fernet`.
    KeyRingId
);
typed_id!(
    /// What is revoked: `user:<id>`, `project:<id>`, `domain:<id>`.
    RevocationId
);

/// The Fernet keys: tokens are sealed with the primary, and opened with any. The staged one is the next primary, known
/// to every process before it is used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeyRing {
    /// The next primary.
    pub staged: Secret,
    /// Seals.
    pub primary: Secret,
    /// Earlier primaries, newest first.
    #[serde(default)]
    pub secondary: Vec<Secret>,
    /// When the keys were last rotated, RFC 3339.
    pub rotated_at: String,
}

impl KeyRing {
    /// The id of the one ring.
    #[must_use]
    pub fn the() -> KeyRingId {
        KeyRingId::from("fernet")
    }
    /// The ring after a rotation: staged becomes primary, primary becomes secondary, at most `keep` secondaries stay.
    #[must_use]
    pub fn rotated(&self, fresh: Secret, keep: usize, at: String) -> Self {
        let mut secondary = vec![self.primary.clone()];
        secondary.extend(self.secondary.iter().cloned());
        secondary.truncate(keep);
        Self {
            staged: fresh,
            primary: self.staged.clone(),
            secondary,
            rotated_at: at,
        }
    }
}

impl Kind for KeyRing {
    type Id = KeyRingId;
    const NAME: &'static str = "token-keys";
    const SECRETS: &'static [&'static str] = &["*"];
    const SPACE: Space = Space::Identity;
}

/// Tokens of a user, project or domain that are older than this object's revision are not good any more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Revocation {
    /// Why, for operators.
    pub reason: String,
    /// When, in microseconds since 1970; for what an API shows, never for the comparison.
    #[serde(default)]
    pub at: i64,
}

impl Revocation {
    /// The id for a user.
    #[must_use]
    pub fn user(id: &str) -> RevocationId {
        RevocationId::from(format!("user:{id}"))
    }
    /// The id for a project.
    #[must_use]
    pub fn project(id: &str) -> RevocationId {
        RevocationId::from(format!("project:{id}"))
    }
    /// The id for a domain.
    #[must_use]
    pub fn domain(id: &str) -> RevocationId {
        RevocationId::from(format!("domain:{id}"))
    }
}

impl Kind for Revocation {
    type Id = RevocationId;
    const NAME: &'static str = "revocation";
    const SPACE: Space = Space::Identity;
}

/// One token that was deleted, kept until it would have expired.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RevokedToken {
    /// When it would have expired, in seconds since 1970.
    pub expires_at: i64,
    /// When it was deleted, in microseconds since 1970.
    #[serde(default)]
    pub at: i64,
}

impl Kind for RevokedToken {
    type Id = AuditId;
    const NAME: &'static str = "revoked-token";
    const SPACE: Space = Space::Identity;
}

/// How a token was got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Methods(u8);

impl Methods {
    /// By password.
    pub const PASSWORD: Self = Self(1);
    /// By another token.
    pub const TOKEN: Self = Self(2);
    /// By an application credential.
    pub const APPLICATION_CREDENTIAL: Self = Self(4);
    /// By an OAuth1 access token.
    pub const OAUTH1: Self = Self(8);
    /// By a time-based one-time password.
    pub const TOTP: Self = Self(16);
    const NAMES: [(u8, &'static str); 5] = [
        (1, "password"),
        (2, "token"),
        (4, "application_credential"),
        (8, "oauth1"),
        (16, "totp"),
    ];

    /// From the bits of a payload: any of `allowed`, one at least.
    fn from_bits(bits: u8, allowed: u8) -> Option<Self> {
        (bits != 0 && bits & !allowed == 0).then_some(Self(bits))
    }
    /// Whether all of these names are among them.
    #[must_use]
    pub fn cover(self, names: &[&str]) -> bool {
        names
            .iter()
            .all(|name| Self::NAMES.iter().any(|(bit, n)| n == name && self.0 & bit != 0))
    }
    /// Whether there is a method of this name.
    #[must_use]
    pub fn known(name: &str) -> bool {
        Self::NAMES.iter().any(|(_, n)| *n == name)
    }

    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    /// The names in the API.
    #[must_use]
    pub fn names(self) -> Vec<String> {
        Self::NAMES
            .iter()
            .filter(|(bit, _)| self.0 & bit != 0)
            .map(|(_, n)| (*n).to_owned())
            .collect()
    }
}

/// What a token is scoped to.
pub type TokenScope = maru_auth::Scope;

/// What gives a token some of a user's rights instead of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delegation {
    /// An application credential.
    ApplicationCredential(ApplicationCredentialId),
    /// A trust.
    Trust(TrustId),
    /// An OAuth1 access token.
    AccessToken(AccessTokenId),
}

/// What a token carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// Incarnation of the store, 32 hexadecimal digits.
    pub incarnation: String,
    /// Revision of the store when it was issued.
    pub revision: Revision,
    /// When it was issued, microseconds since 1970.
    pub issued_at: i64,
    /// When it expires, microseconds since 1970.
    pub expires_at: i64,
    /// How it was got.
    pub methods: Methods,
    /// Whose.
    pub user_id: UserId,
    /// For what.
    pub scope: TokenScope,
    /// Its audit id, and that of the first token of its chain if it is another.
    pub audit_ids: Vec<[u8; 16]>,
    /// By what it was delegated, if it was.
    pub delegation: Option<Delegation>,
}

/// Why bytes are not a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// They end too early.
    #[error("the payload ends too early")]
    Short,
    /// Something follows.
    #[error("something follows the payload")]
    Long,
    /// Another version, or a value that no version has.
    #[error("the payload is of a form that is not known")]
    Form,
}

/// What a user has proven so far, when more is wanted: handed back with the next proof. Inside the envelope:
///
/// ```text
/// u8 0x81   16 bytes incarnation   u64 store revision   i64 issued at   i64 expires at   u8 methods   id user
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Incarnation of the store, 32 hexadecimal digits.
    pub incarnation: String,
    /// Revision of the store when it was issued.
    pub revision: Revision,
    /// When it was issued, microseconds since 1970.
    pub issued_at: i64,
    /// When it expires, microseconds since 1970.
    pub expires_at: i64,
    /// How.
    pub methods: Methods,
    /// Who.
    pub user_id: UserId,
}

/// First byte of a receipt; no token has it.
const RECEIPT: u8 = 0x81;

impl Receipt {
    /// The bytes to seal.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![RECEIPT];
        out.extend(unhex(&self.incarnation).unwrap_or([0; 16]));
        out.extend(self.revision.to_be_bytes());
        out.extend(self.issued_at.to_be_bytes());
        out.extend(self.expires_at.to_be_bytes());
        out.push(self.methods.0);
        put_id(&mut out, &self.user_id);
        out
    }
}

/// Reads a receipt. Any bytes may be given.
///
/// # Errors
/// When the bytes are not exactly one receipt.
pub fn decode_receipt(bytes: &[u8]) -> Result<Receipt, PayloadError> {
    let mut r = Reader(bytes);
    if r.byte()? != RECEIPT {
        return Err(PayloadError::Form);
    }
    let receipt = Receipt {
        incarnation: hex(r.array()?),
        revision: u64::from_be_bytes(r.array()?),
        issued_at: i64::from_be_bytes(r.array()?),
        expires_at: i64::from_be_bytes(r.array()?),
        methods: Methods::from_bits(r.byte()?, 0b1_1111).ok_or(PayloadError::Form)?,
        user_id: UserId::from(r.id()?),
    };
    if r.0.is_empty() {
        Ok(receipt)
    } else {
        Err(PayloadError::Long)
    }
}

const VERSION: u8 = 1;
/// The version of delegated tokens.
const DELEGATED: u8 = 2;

impl Payload {
    /// The bytes to seal.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        out.push(if self.delegation.is_some() { DELEGATED } else { VERSION });
        out.extend(unhex(&self.incarnation).unwrap_or([0; 16]));
        out.extend(self.revision.to_be_bytes());
        out.extend(self.issued_at.to_be_bytes());
        out.extend(self.expires_at.to_be_bytes());
        out.push(self.methods.0);
        put_id(&mut out, &self.user_id);
        match &self.scope {
            TokenScope::Unscoped => out.push(0),
            TokenScope::Project(id) => {
                out.push(1);
                put_id(&mut out, id);
            }
            TokenScope::Domain(id) => {
                out.push(2);
                put_id(&mut out, id);
            }
            TokenScope::System => out.push(3),
        }
        out.push(u8::try_from(self.audit_ids.len()).unwrap_or(0));
        for id in &self.audit_ids {
            out.extend(id);
        }
        match &self.delegation {
            None => {}
            Some(Delegation::ApplicationCredential(id)) => {
                out.push(1);
                put_id(&mut out, id);
            }
            Some(Delegation::Trust(id)) => {
                out.push(2);
                put_id(&mut out, id);
            }
            Some(Delegation::AccessToken(id)) => {
                out.push(3);
                put_id(&mut out, id);
            }
        }
        out
    }
    /// The audit id of this very token, as text.
    #[must_use]
    pub fn audit_id(&self) -> AuditId {
        AuditId::from(audit_text(self.audit_ids.first().unwrap_or(&[0; 16])))
    }
    /// All audit ids as text.
    #[must_use]
    pub fn audit_texts(&self) -> Vec<String> {
        self.audit_ids.iter().map(audit_text).collect()
    }
}

fn audit_text(id: &[u8; 16]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(id)
}

fn unhex(text: &str) -> Option<[u8; 16]> {
    if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return None;
    }
    Some(u128::from_str_radix(text, 16).ok()?.to_be_bytes())
}

fn put_id(out: &mut Vec<u8>, id: &str) {
    if let Some(raw) = unhex(id) {
        out.push(0);
        out.extend(raw);
    } else {
        // Ids of other forms are 64 bytes at most (checked where they are made).
        let bytes = &id.as_bytes()[..id.len().min(255)];
        out.push(u8::try_from(bytes.len()).unwrap_or(255));
        out.extend(bytes);
    }
}

/// Reads a payload. Any bytes may be given.
///
/// # Errors
/// When the bytes are not exactly one payload.
pub fn decode_token(bytes: &[u8]) -> Result<Payload, PayloadError> {
    let mut r = Reader(bytes);
    let version = r.byte()?;
    if version != VERSION && version != DELEGATED {
        return Err(PayloadError::Form);
    }
    let incarnation = hex(r.array()?);
    let revision = u64::from_be_bytes(r.array()?);
    let issued_at = i64::from_be_bytes(r.array()?);
    let expires_at = i64::from_be_bytes(r.array()?);
    let allowed = if version == DELEGATED { 0b1_1111 } else { 0b1_0011 };
    let methods = Methods::from_bits(r.byte()?, allowed).ok_or(PayloadError::Form)?;
    let user_id = UserId::from(r.id()?);
    let scope = match r.byte()? {
        0 => TokenScope::Unscoped,
        1 => TokenScope::Project(ProjectId::from(r.id()?)),
        2 => TokenScope::Domain(DomainId::from(r.id()?)),
        3 => TokenScope::System,
        _ => return Err(PayloadError::Form),
    };
    let count = r.byte()?;
    if !(1..=2).contains(&count) {
        return Err(PayloadError::Form);
    }
    let audit_ids = (0..count).map(|_| r.array()).collect::<Result<_, _>>()?;
    let delegation = if version == DELEGATED {
        Some(match r.byte()? {
            1 => Delegation::ApplicationCredential(ApplicationCredentialId::from(r.id()?)),
            2 => Delegation::Trust(TrustId::from(r.id()?)),
            3 => Delegation::AccessToken(AccessTokenId::from(r.id()?)),
            _ => return Err(PayloadError::Form),
        })
    } else {
        None
    };
    if !r.0.is_empty() {
        return Err(PayloadError::Long);
    }
    Ok(Payload {
        incarnation,
        revision,
        issued_at,
        expires_at,
        methods,
        user_id,
        scope,
        audit_ids,
        delegation,
    })
}

fn hex(raw: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(raw))
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, n: usize) -> Result<&[u8], PayloadError> {
        let (head, tail) = self.0.split_at_checked(n).ok_or(PayloadError::Short)?;
        self.0 = tail;
        Ok(head)
    }
    fn byte(&mut self) -> Result<u8, PayloadError> {
        self.array::<1>().map(|[b]| b)
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N], PayloadError> {
        self.take(N)?.try_into().map_err(|_| PayloadError::Short)
    }
    fn id(&mut self) -> Result<String, PayloadError> {
        match self.byte()? {
            0 => Ok(hex(self.array()?)),
            n => {
                let text = std::str::from_utf8(self.take(usize::from(n))?).map_err(|_| PayloadError::Form)?;
                // One id has one form: a text that fits the short form is never written long.
                if unhex(text).is_some() {
                    Err(PayloadError::Form)
                } else {
                    Ok(text.to_owned())
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn id() -> impl Strategy<Value = String> {
        prop_oneof!["[0-9a-f]{32}", "[a-zA-Z0-9_.-]{1,64}"]
    }

    proptest! {
        #[test]
        fn a_payload_survives(
            incarnation in "[0-9a-f]{32}", revision: u64, issued_at: i64, expires_at: i64, methods in 1_u8..=3,
            user in id(), scope in 0..4, other in id(), chain in prop::collection::vec(any::<[u8; 16]>(), 1..=2), by in 0..4, giver in id()) {
            let delegation = match by {
                0 => None,
                1 => Some(Delegation::ApplicationCredential(giver.into())),
                2 => Some(Delegation::Trust(giver.into())),
                _ => Some(Delegation::AccessToken(giver.into())),
            };
            let scope = match scope {
                0 => TokenScope::Unscoped,
                1 => TokenScope::Project(other.into()),
                2 => TokenScope::Domain(other.into()),
                _ => TokenScope::System,
            };
            let payload = Payload { incarnation, revision, issued_at, expires_at, methods: Methods(methods),
                user_id: user.into(), scope, audit_ids: chain, delegation };
            let bytes = payload.encode();
            prop_assert_eq!(decode_token(&bytes).unwrap(), payload);
            for cut in 0..bytes.len() {
                prop_assert!(decode_token(&bytes[..cut]).is_err());
            }
            let mut longer = bytes;
            longer.push(0);
            prop_assert_eq!(decode_token(&longer), Err(PayloadError::Long));
        }

        #[test]
        fn a_receipt_survives_and_is_no_token(
            incarnation in "[0-9a-f]{32}", revision: u64, issued_at: i64, expires_at: i64, methods in 1_u8..=31, user in id()) {
            let receipt = Receipt { incarnation, revision, issued_at, expires_at, methods: Methods(methods), user_id: user.into() };
            let bytes = receipt.encode();
            prop_assert_eq!(decode_receipt(&bytes).unwrap(), receipt);
            prop_assert!(decode_token(&bytes).is_err());
            for cut in 0..bytes.len() {
                prop_assert!(decode_receipt(&bytes[..cut]).is_err());
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_token(&bytes);
            let _ = decode_receipt(&bytes);
            if let Some(first) = bytes.first_mut() { *first = 1 + *first % 2; }
            if let Ok(payload) = decode_token(&bytes) {
                prop_assert_eq!(payload.encode(), bytes);
            }
        }
    }
}
