//! Key pairs: public keys of users.

use maru_base::UserId;
use maru_store::{Index, Kind};
use serde::{Deserialize, Serialize};

maru_base::typed_id!(
    /// Id of a key pair: user id and name joined by `:`.
    KeyPairId
);

/// The id of a user's key pair.
#[must_use]
pub fn keypair_id(user: &str, name: &str) -> KeyPairId {
    KeyPairId::from(format!("{user}:{name}"))
}

/// What a key pair is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyKind {
    /// SSH.
    Ssh,
    /// An X.509 certificate.
    X509,
}

/// A key pair; the private half is never stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPair {
    /// Its user.
    pub user_id: UserId,
    /// Its name, unique for the user.
    pub name: String,
    /// What it is for.
    pub kind: KeyKind,
    /// The public key as it was given.
    pub public_key: String,
    /// MD5 of the key, hexadecimal with colons (SHA-1 of the certificate for X.509).
    pub fingerprint: String,
    /// A number that the API shows as `id`.
    pub number: u32,
    /// When it was made.
    pub created: jiff::Timestamp,
}

impl Kind for KeyPair {
    type Id = KeyPairId;
    const NAME: &'static str = "keypair";
    fn indexes() -> Vec<Index<Self>> {
        vec![Index {
            name: "user",
            values: |k| vec![k.user_id.to_string()],
        }]
    }
}
