//! The one error type. It is neutral to transport: the HTTP edge turns it into a status and a service's own body.

use std::borrow::Cow;

/// Any error, boxed.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;
/// A result with the one error type.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of refusal this is; each maps to one HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// 400: the request cannot be understood or is not valid.
    BadRequest,
    /// 401: no, expired or revoked token.
    Unauthorized,
    /// 403: known caller, not allowed (or out of quota, where the service says so with 403).
    Forbidden,
    /// 404: there is no such thing, or the caller may not know of it.
    NotFound,
    /// 405.
    MethodNotAllowed,
    /// 406.
    NotAcceptable,
    /// 408: the client did not send its request in time.
    Timeout,
    /// 409: the request is fine, the present state is not.
    Conflict,
    /// 410.
    Gone,
    /// 412: a precondition that the caller named does not hold.
    PreconditionFailed,
    /// 413: more bytes, items or quota than allowed.
    TooLarge,
    /// 414.
    AddressTooLong,
    /// 415: body in a media type that is not understood.
    UnsupportedMedia,
    /// 416.
    RangeNotSatisfiable,
    /// 429.
    TooMany,
    /// 500: our fault; the log has the chain under the request id.
    Internal,
    /// 501: documented upstream, not served here.
    NotImplemented,
    /// 503: not now; try again.
    Unavailable,
}

impl ErrorKind {
    /// The HTTP status of this kind.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NotAcceptable => 406,
            Self::Timeout => 408,
            Self::Conflict => 409,
            Self::Gone => 410,
            Self::PreconditionFailed => 412,
            Self::TooLarge => 413,
            Self::AddressTooLong => 414,
            Self::UnsupportedMedia => 415,
            Self::RangeNotSatisfiable => 416,
            Self::TooMany => 429,
            Self::Internal => 500,
            Self::NotImplemented => 501,
            Self::Unavailable => 503,
        }
    }
    /// The kind of this HTTP status, if one has it.
    #[must_use]
    pub fn of_status(status: u16) -> Option<Self> {
        const ALL: [ErrorKind; 18] = [
            ErrorKind::BadRequest,
            ErrorKind::Unauthorized,
            ErrorKind::Forbidden,
            ErrorKind::NotFound,
            ErrorKind::MethodNotAllowed,
            ErrorKind::NotAcceptable,
            ErrorKind::Timeout,
            ErrorKind::Conflict,
            ErrorKind::Gone,
            ErrorKind::PreconditionFailed,
            ErrorKind::TooLarge,
            ErrorKind::AddressTooLong,
            ErrorKind::UnsupportedMedia,
            ErrorKind::RangeNotSatisfiable,
            ErrorKind::TooMany,
            ErrorKind::Internal,
            ErrorKind::NotImplemented,
            ErrorKind::Unavailable,
        ];
        ALL.into_iter().find(|kind| kind.status() == status)
    }
}

/// An error: a kind, a message a user can act on, and where it came from.
///
/// `Display` shows the message alone; the chain is in [`std::error::Error::source`] and goes to the log.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    code: Option<Cow<'static, str>>,
    field: Option<String>,
    message: String,
    source: Option<BoxError>,
}

impl Error {
    /// An error of `kind` with a message for the user: what was refused, why, what would help.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            code: None,
            field: None,
            message: message.into(),
            source: None,
        }))
    }
    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadRequest, message)
    }
    /// 400 that names the field at fault.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        let mut e = Self::new(ErrorKind::BadRequest, message);
        e.0.field = Some(field.into());
        e
    }
    /// 401.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unauthorized, message)
    }
    /// 403.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Forbidden, message)
    }
    /// 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }
    /// 409.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }
    /// 413.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::TooLarge, message)
    }
    /// 500 with its cause; the user sees `message`, the log sees the chain.
    pub fn internal(message: impl Into<String>, source: impl Into<BoxError>) -> Self {
        Self::new(ErrorKind::Internal, message).with_source(source)
    }
    /// 501.
    pub fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotImplemented, message)
    }
    /// 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// Sets the service's own name of this error (Neutron's `type`, e.g. `OverQuota`).
    #[must_use]
    pub fn with_code(mut self, code: impl Into<Cow<'static, str>>) -> Self {
        self.0.code = Some(code.into());
        self
    }
    /// Names the field at fault.
    #[must_use]
    pub fn with_field(mut self, field: impl Into<String>) -> Self {
        self.0.field = Some(field.into());
        self
    }
    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }
    /// The kind.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }
    /// The service's own name of this error, if it set one.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }
    /// The field at fault, if one is.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        self.0.field.as_deref()
    }
    /// The message for the user.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }
    /// The whole chain in one line, for the log.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.0.message.clone();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|e| e as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_never_repeats_the_cause_and_the_chain_has_it() {
        let e = Error::internal("the port was not stored", std::io::Error::other("disk full"));
        assert_eq!(e.to_string(), "the port was not stored");
        assert_eq!(e.chain(), "the port was not stored: disk full");
        assert_eq!(e.kind().status(), 500);
    }
}
