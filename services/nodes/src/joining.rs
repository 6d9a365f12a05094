//! Machines that join: one-time tokens, and whose key speaks for which node.
//!
//! ```text
//!  maru token ──► JoinToken ──redeem(name, key)──► used, JoinedNode(name) = key      in one transaction
//!                     │ again, same name and key (the answer was lost): the same once more
//!                     │ again, anything else: refused, says who used it
//!                     └ older than it says: refused
//! ```

use jiff::{SignedDuration, Timestamp};
use maru_base::{Error, Result};
use maru_compute_model::find_service;
use maru_store::{Kind, Registry, Snapshot, Store, Txn};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

maru_base::typed_id!(
    /// Id of a join token, the part of it that is no secret.
    TokenId
);
maru_base::typed_id!(
    /// Id of a joined node: its name.
    JoinedId
);
maru_base::typed_id!(
    /// Id of the cluster's CA; there is one.
    CaId
);

/// One machine's permission to join.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JoinToken {
    /// SHA-256 of its secret, hexadecimal.
    pub hash: String,
    /// The only name that it is good for, if it is bound to one: a node of that name may then join anew with another key.
    pub node: Option<String>,
    /// From when on it is good for nothing.
    pub expires: Timestamp,
    /// Who used it.
    pub used: Option<Used>,
}

/// Who used a token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Used {
    /// Under which name.
    pub node: String,
    /// With which key: SHA-256 of its SubjectPublicKeyInfo, hexadecimal.
    pub key: String,
    /// From where.
    pub from: String,
    /// When.
    pub at: Timestamp,
}

impl Kind for JoinToken {
    type Id = TokenId;
    const NAME: &'static str = "join_token";
    const SECRETS: &'static [&'static str] = &["hash"];
}

/// A node that has joined: its certificate is good as long as this is here and names its key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JoinedNode {
    /// SHA-256 of its key's SubjectPublicKeyInfo, hexadecimal.
    pub key: String,
    /// When it joined.
    pub at: Timestamp,
    /// From where.
    pub from: String,
}

impl Kind for JoinedNode {
    type Id = JoinedId;
    const NAME: &'static str = "joined_node";
}

/// The CA of the cluster: its control nodes sign with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterCa {
    /// Its certificate, PEM.
    pub certificate: String,
    /// Its private key, PEM.
    pub key: String,
}

impl Kind for ClusterCa {
    type Id = CaId;
    const NAME: &'static str = "cluster_ca";
    const SECRETS: &'static [&'static str] = &["key"];
}

/// Registers the kinds of this module.
pub fn register(registry: &mut Registry) {
    registry
        .register::<JoinToken>()
        .register::<JoinedNode>()
        .register::<ClusterCa>();
}

/// The CA, made the cluster's if it has none yet; what is returned is the cluster's.
///
/// # Errors
/// When the store cannot be written.
pub async fn settle_ca(store: &Store, own: ClusterCa) -> Result<ClusterCa> {
    let id = CaId::from("ca");
    store
        .plan(|snapshot| {
            let mut txn = Txn::new();
            match snapshot.get::<ClusterCa>(&id) {
                Some(there) => Ok((txn, (*there.value).clone())),
                None => {
                    txn.create(&id, &own);
                    Ok((txn, own.clone()))
                }
            }
        })
        .await
}

/// The cluster's CA, if it has one.
#[must_use]
pub fn ca(snapshot: &Snapshot) -> Option<ClusterCa> {
    snapshot
        .get::<ClusterCa>(&CaId::from("ca"))
        .map(|ca| (*ca.value).clone())
}

/// How long used and expired tokens are kept, for who asks why one is refused.
const KEPT: SignedDuration = SignedDuration::from_hours(24 * 7);

fn hash(secret: &str) -> String {
    Sha256::digest(secret.as_bytes())
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// Makes a token; gives its id and its secret, which is kept nowhere.
///
/// # Errors
/// When the name is none, or the store cannot be written.
pub async fn issue(store: &Store, node: Option<&str>, valid: SignedDuration) -> Result<(TokenId, String)> {
    if let Some(name) = node {
        check_name(name)?;
    }
    let id = TokenId::from(&maru_base::random::hex32()[..8]);
    let secret = maru_base::random::hex32();
    let now = maru_base::time::now();
    let token = JoinToken {
        hash: hash(&secret),
        node: node.map(str::to_owned),
        expires: now + valid,
        used: None,
    };
    store
        .plan(|snapshot| {
            let mut txn = Txn::new();
            for old in snapshot
                .list::<JoinToken>()
                .filter(|t| t.expires + KEPT < now)
                .take(100)
            {
                txn.delete(&old);
            }
            txn.create(&id, &token);
            Ok((txn, ()))
        })
        .await?;
    Ok((id, secret))
}

/// What a machine shows to join.
#[derive(Debug, Clone)]
pub struct Redeem<'a> {
    /// The token's id.
    pub token: &'a str,
    /// Its secret.
    pub secret: &'a str,
    /// The name that it wants.
    pub node: &'a str,
    /// Its key: SHA-256 of the SubjectPublicKeyInfo, hexadecimal.
    pub key: &'a str,
    /// Where it comes from.
    pub from: &'a str,
}

/// What may name a node: it goes into names of files and certificates.
fn check_name(name: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if (1..=63).contains(&name.len()) && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(good)
    {
        return Ok(());
    }
    Err(Error::invalid(
        "node",
        format!(
            "{name:?} cannot name a node: 1 to 63 letters, digits, '-', '.' and '_', the first a letter or a digit."
        ),
    ))
}

/// Uses a token: its node has joined when this returns.
///
/// # Errors
/// Why the machine is refused, and what would help.
pub async fn redeem(store: &Store, request: &Redeem<'_>) -> Result<()> {
    check_name(request.node)?;
    store
        .plan(|snapshot| plan_redeem(snapshot, request).map(|txn| (txn, ())))
        .await
}

fn plan_redeem(snapshot: &Snapshot, request: &Redeem<'_>) -> Result<Txn> {
    let again = "`maru token` on a control node makes another one";
    // A wrong id and a wrong secret are the same to who guesses.
    let unknown = || {
        Error::forbidden(format!(
            "This token is not of this cloud, or is forgotten by now; {again}."
        ))
    };
    let id = TokenId::from(request.token);
    let token = snapshot.get::<JoinToken>(&id).ok_or_else(unknown)?;
    if !bool::from(token.hash.as_bytes().ct_eq(hash(request.secret).as_bytes())) {
        return Err(unknown());
    }
    let mut txn = Txn::new();
    if let Some(used) = &token.used {
        // The machine did not get the answer, and asks with the key that it proved to have.
        if used.node == request.node && used.key == request.key {
            txn.unchanged(&token);
            return Ok(txn);
        }
        return Err(Error::forbidden(format!(
            "This token was used at {} by node {} from {}: a token lets one machine in; {again}.",
            used.at, used.node, used.from
        )));
    }
    let now = maru_base::time::now();
    if token.expires <= now {
        return Err(Error::forbidden(format!(
            "This token ended at {}; {again}.",
            token.expires
        )));
    }
    if let Some(only) = token.node.as_deref().filter(|only| *only != request.node) {
        return Err(Error::forbidden(format!(
            "This token is for node {only}, and this machine calls itself {}; give --node {only}, or {again}.",
            request.node
        )));
    }
    let joined = JoinedId::from(request.node);
    let there = snapshot.get::<JoinedNode>(&joined);
    if there.is_none() && find_service(snapshot, request.node).is_some() {
        return Err(Error::conflict(format!(
            "The node {} is a control node's own; give this machine another name with --node.",
            request.node
        )));
    }
    let value = JoinedNode {
        key: request.key.to_owned(),
        at: now,
        from: request.from.to_owned(),
    };
    match there {
        Some(other) if other.key != request.key && token.node.is_none() => {
            return Err(Error::conflict(format!(
                "A node {0} joined at {1} with another key. If this machine is it, made anew, use a token of `maru token --node {0}`; \
                 else give it another name with --node.",
                request.node, other.at
            )));
        }
        Some(other) => drop(txn.update(&other, &value)),
        None => drop(txn.create(&joined, &value)),
    }
    let mut used = (*token.value).clone();
    used.used = Some(Used {
        node: request.node.to_owned(),
        key: request.key.to_owned(),
        from: request.from.to_owned(),
        at: now,
    });
    txn.update(&token, &used);
    Ok(txn)
}

/// Whether a key speaks for a node.
///
/// # Errors
/// Why not, and what would help.
pub fn admit(snapshot: &Snapshot, node: &str, key: &str) -> Result<()> {
    match snapshot.get::<JoinedNode>(&JoinedId::from(node)) {
        Some(joined) if joined.key == key => Ok(()),
        Some(joined) => Err(Error::forbidden(format!(
            "Node {node} joined anew at {} with another key: this certificate is void.",
            joined.at
        ))),
        None => Err(Error::forbidden(format!(
            "Node {node} is not of this cloud, or not any more; `maru token` and `maru join` let it in."
        ))),
    }
}
