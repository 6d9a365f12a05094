//! The whole contract between the control plane and one machine.
//!
//! Three parts, and nothing else crosses:
//!
//! 1. **The slice of intent** ([`slice`]): what this node shall have. A stream ([`Delivery`]): first the full set, then
//!    [`Delivery::Synced`], then deltas. Nothing is removed before `Synced`; a reconnect may always get the full set
//!    again. Every item carries the store's revision; an agent never obeys an item older than the one it has seen.
//! 2. **The observed state** ([`observed`]): what the agent sees, under its session and a growing sequence number.
//! 3. **Byte lanes** ([`lane`]): console, log, image pull. Authorised, bounded, never changing intent.
//!
//! In `maru up` the contract is an in-process [`ControlPlane`]; after `maru join` it will be a gRPC stream. The
//! simulator (`node/sim`) implements the same contract without a machine.

pub mod lane;
pub mod observed;
pub mod slice;

use async_trait::async_trait;
use maru_base::Result;
use observed::Report;
use slice::{Item, ItemKey};
use tokio::sync::mpsc;

maru_base::typed_id!(
    /// Name of a node, its host name; unique in the cloud. Nova's `host`.
    NodeName
);

/// One message of the intent stream.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Delivery {
    /// This item is (now) so, as of this store revision.
    Set(u64, Box<Item>),
    /// This item is no longer the node's, as of this store revision.
    Gone(u64, ItemKey),
    /// The full set has been delivered: what the agent has and was not set may now be removed.
    Synced(u64),
}

/// A session of one agent process with the control plane. Reports of an older session are refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Session {
    /// The node.
    pub node: NodeName,
    /// A random number of this connection.
    pub id: u64,
    /// The store's incarnation. A restore begins a new one, in which revisions count anew: what was seen of older ones compares with
    /// nothing in it, and orders of older ones are void.
    #[serde(default)]
    pub incarnation: String,
}

/// What the agent calls. One implementation in process (services/nodes), one over the wire later.
#[async_trait]
pub trait ControlPlane: Send + Sync + 'static {
    /// Begins a session: says what the node is and takes the stream of its slice.
    async fn connect(&self, hello: observed::Hello) -> Result<(Session, mpsc::Receiver<Delivery>)>;
    /// Reports observed state; returns when it is stored. `sequence` grows by one with each call of a session, and a
    /// repeated one is ignored.
    async fn report(&self, session: &Session, sequence: u64, reports: Vec<Report>) -> Result<()>;
    /// Says that the node lives; costs no write.
    async fn heartbeat(&self, session: &Session) -> Result<()>;
    /// Opens the bytes of a blob (an image) for reading.
    async fn pull(&self, session: &Session, digest: &str) -> Result<lane::ByteStream>;
    /// Hands over the door through which the control plane opens lanes into this node.
    async fn offer_lanes(&self, session: &Session, lanes: std::sync::Arc<dyn lane::Lanes>) -> Result<()>;
}
