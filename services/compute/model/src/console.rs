//! Rights to the remote console of a server: who has the token may look at its screen, or its serial line, for a while.

use crate::ServerId;
use jiff::{SignedDuration, Timestamp};
use maru_store::{Index, Kind, Object, Snapshot, Txn};
use serde::{Deserialize, Serialize};

maru_base::typed_id!(
    /// The SHA-256 of a console's token, in hexadecimal digits: the token itself is not kept.
    ConsoleTokenId
);

/// How long a token is good, as upstream's (`[consoleauth] token_ttl`).
pub const LIFETIME: SignedDuration = SignedDuration::from_mins(10);
/// Most tokens of one server; the oldest give way.
const MOST: usize = 20;

/// What is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConsoleType {
    /// The screen, by VNC (RFB) over a WebSocket.
    Novnc,
    /// The serial line, as it is, over a WebSocket.
    Serial,
}

impl ConsoleType {
    /// The word of the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Novnc => "novnc",
            Self::Serial => "serial",
        }
    }
}

/// A token. It goes with its server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleToken {
    /// The server.
    pub server_id: ServerId,
    /// What it shows.
    pub kind: ConsoleType,
    /// No console is opened with it from then on; one that is open stays.
    pub expires: Timestamp,
}

impl Kind for ConsoleToken {
    type Id = ConsoleTokenId;
    const NAME: &'static str = "console_token";
    fn indexes() -> Vec<Index<Self>> {
        vec![Index {
            name: "server",
            values: |t| vec![t.server_id.to_string()],
        }]
    }
}

/// Plans a token; those of the server that are over, or too many, go.
pub fn plan_console_token(
    snapshot: &Snapshot,
    txn: &mut Txn,
    id: &ConsoleTokenId,
    server: &ServerId,
    kind: ConsoleType,
    now: Timestamp,
) {
    let (mut good, over): (Vec<_>, Vec<_>) = snapshot
        .find::<ConsoleToken>("server", server)
        .partition(|t| t.expires > now);
    good.sort_by_key(|t| t.expires);
    let many = (good.len() + 1).saturating_sub(MOST);
    for token in over.iter().chain(&good[..many]) {
        txn.delete(token);
    }
    let token = ConsoleToken {
        server_id: server.clone(),
        kind,
        expires: now + LIFETIME,
    };
    txn.create(id, &token);
}

/// The token, if it is good.
#[must_use]
pub fn good_console_token(snapshot: &Snapshot, id: &ConsoleTokenId, now: Timestamp) -> Option<Object<ConsoleToken>> {
    snapshot.get::<ConsoleToken>(id).filter(|t| t.expires > now)
}

/// Plans that the tokens of a server go.
pub(crate) fn forget_consoles(snapshot: &Snapshot, txn: &mut Txn, server: &ServerId) {
    for token in snapshot.find::<ConsoleToken>("server", server) {
        txn.delete(&token);
    }
}
