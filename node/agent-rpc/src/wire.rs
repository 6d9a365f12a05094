//! The messages, and errors as statuses.

use bytes::Bytes;
use maru_agent_api::{Delivery, Session, observed::Report};
use maru_base::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tonic::{Code, Status};

/// The gRPC service.
pub(crate) const SERVICE: &str = "maru.agent.v1.ControlPlane";
/// The largest message that is taken: a server's item with all that a user may give it is far below.
pub(crate) const LARGEST: usize = 64 << 20;

/// What the control plane sends on a session's stream.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Down {
    /// The first message.
    Connected(Session),
    /// Of the slice.
    Delivery(Delivery),
    /// A lane is wanted: the agent opens it by a call of its own.
    Lane { lane: String, ask: Ask },
}

/// What a lane is wanted for: the methods of [`maru_agent_api::lane::Lanes`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Ask {
    ConsoleLog { server: String, lines: Option<usize> },
    Vnc { server: String },
    Serial { server: String },
    DiskImage { server: String },
    VolumeBytes { id: String, format: String },
    Diagnostics { server: String },
    InjectNmi { server: String },
    Password { server: String },
    ClearPassword { server: String },
    CacheImage { digest: String, format: String },
    Origin { server: String },
    Discard { what: String, id: String },
}

/// Reports of one call.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Reports {
    pub session: Session,
    pub sequence: u64,
    pub reports: Vec<Report>,
}

/// Which blob is wanted.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Pull {
    pub session: Session,
    pub digest: String,
}

/// The first message of a lane.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LaneHeader {
    pub lane: String,
}

/// What a machine says to join.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The one-time token's id.
    pub token: String,
    /// Its secret.
    pub secret: String,
    /// The name that the node shall have.
    pub node: String,
    /// A certificate signing request (PKCS #10, PEM) with the node's key. Whom the certificate names is decided by the control plane.
    pub csr: String,
}

/// What a machine gets that has joined.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Joined {
    /// Its certificate, PEM.
    pub certificate: String,
    /// The CA's certificate, PEM.
    pub ca: String,
    /// Where the control plane's nodes take agents: `address:port`.
    pub control: Vec<String>,
}

/// A request to renew a certificate.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Renew {
    pub csr: String,
}

/// An error on the wire. Its chain stays in the log of where it happened.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WireError {
    status: u16,
    message: String,
}

impl From<&Error> for WireError {
    fn from(error: &Error) -> Self {
        Self {
            status: error.kind().status(),
            message: error.message().to_owned(),
        }
    }
}

impl From<WireError> for Error {
    fn from(error: WireError) -> Self {
        Self::new(
            ErrorKind::of_status(error.status).unwrap_or(ErrorKind::Internal),
            error.message,
        )
    }
}

/// Encodes a message.
pub(crate) fn encode<T: Serialize>(message: &T) -> Result<Bytes> {
    serde_json::to_vec(message)
        .map(Bytes::from)
        .map_err(|e| Error::internal("A message to the other end cannot be encoded.", e))
}

/// Decodes a message.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| {
        Error::bad_request("A message of the other end is not understood; are both of releases that fit?")
            .with_source(e)
    })
}

/// An error as a status: the whole of it in the details, its kind for those who only look at codes.
pub(crate) fn to_status(error: &Error) -> Status {
    let code = match error.kind() {
        ErrorKind::BadRequest => Code::InvalidArgument,
        ErrorKind::Unauthorized => Code::Unauthenticated,
        ErrorKind::Forbidden => Code::PermissionDenied,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Conflict => Code::Aborted,
        ErrorKind::Gone => Code::FailedPrecondition,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::NotImplemented => Code::Unimplemented,
        _ => Code::Internal,
    };
    let details = serde_json::to_vec(&WireError::from(error)).unwrap_or_default();
    Status::with_details(code, error.message(), details.into())
}

/// The error that a status carries. One that the other end did not make is of the connection: try again.
pub(crate) fn from_status(status: Status) -> Error {
    match serde_json::from_slice::<WireError>(status.details()) {
        Ok(error) => error.into(),
        Err(_) => Error::unavailable("The control plane cannot be reached over this connection.").with_source(status),
    }
}
