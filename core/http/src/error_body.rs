//! Error bodies: each OpenStack service has its own form, and clients parse them.

use crate::{Microversion, Microversions};
use maru_base::{Error, ErrorKind};
use serde_json::{Value, json};

/// The form of a service's error bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorStyle {
    /// Keystone: `{"error": {"code": 404, "message": ..., "title": "Not Found"}}`.
    Identity,
    /// Nova, Cinder: `{"itemNotFound": {"code": 404, "message": ...}}`.
    Compute,
    /// Neutron: `{"NeutronError": {"type": ..., "message": ..., "detail": ""}}`.
    Network,
    /// Glance: an HTML page as webob renders it.
    Image,
    /// Placement: `{"errors": [{"status": 404, "request_id": ..., "title": ..., "detail": ...}]}`, from microversion 1.23
    /// with a `code`.
    Errors,
}

/// The microversions that an error's body is shaped by: the service's range, and the one negotiated, if it came so far.
#[derive(Default, Clone, Copy)]
pub(crate) struct Versions {
    pub(crate) range: Option<Microversions>,
    pub(crate) negotiated: Option<Microversion>,
}

/// Since when Placement's errors have a code, and the one of those that name none.
const CODES_SINCE: Microversion = Microversion::new(1, 23);
const NO_CODE: &str = "placement.undefined_code";

/// Content type and text of an error's body.
pub(crate) fn render(style: ErrorStyle, error: &Error, request_id: &str, versions: Versions) -> (&'static str, String) {
    let status = error.kind().status();
    let message = error.message();
    let json_text = |v: Value| ("application/json", v.to_string());
    match style {
        ErrorStyle::Identity => {
            json_text(json!({"error": {"code": status, "message": message, "title": title(error.kind())}}))
        }
        ErrorStyle::Compute => {
            let mut inner = serde_json::Map::new();
            inner.insert("code".into(), status.into());
            inner.insert("message".into(), message.into());
            let name = error.code().unwrap_or_else(|| compute_name(error.kind()));
            json_text(json!({ name: inner }))
        }
        ErrorStyle::Network => {
            let code = error.code().unwrap_or(match error.kind() {
                ErrorKind::BadRequest => "HTTPBadRequest",
                ErrorKind::Forbidden => "PolicyNotAuthorized",
                ErrorKind::NotFound => "HTTPNotFound",
                ErrorKind::Conflict => "Conflict",
                _ => "HTTPInternalServerError",
            });
            json_text(json!({"NeutronError": {"type": code, "message": message, "detail": ""}}))
        }
        ErrorStyle::Image => {
            let title = title(error.kind());
            let text = escape(message);
            (
                "text/html; charset=UTF-8",
                format!(
                    "<html>\n <head>\n  <title>{status} {title}</title>\n </head>\n <body>\n  <h1>{status} {title}</h1>\n  {text}<br /><br />\n\n\n </body>\n</html>"
                ),
            )
        }
        ErrorStyle::Errors => {
            let mut item = json!({
                "status": status, "request_id": request_id, "title": title(error.kind()), "detail": message,
            });
            if versions.negotiated.is_some_and(|v| v >= CODES_SINCE) {
                item["code"] = error.code().unwrap_or(NO_CODE).into();
            }
            if let (ErrorKind::NotAcceptable, None, Some(range)) = (error.kind(), versions.negotiated, versions.range) {
                item["min_version"] = range.min.to_string().into();
                item["max_version"] = range.max.to_string().into();
            }
            json_text(json!({ "errors": [item] }))
        }
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// The standard title of a status.
pub(crate) fn title(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::BadRequest => "Bad Request",
        ErrorKind::Unauthorized => "Unauthorized",
        ErrorKind::Forbidden => "Forbidden",
        ErrorKind::NotFound => "Not Found",
        ErrorKind::MethodNotAllowed => "Method Not Allowed",
        ErrorKind::NotAcceptable => "Not Acceptable",
        ErrorKind::Timeout => "Request Timeout",
        ErrorKind::Conflict => "Conflict",
        ErrorKind::Gone => "Gone",
        ErrorKind::PreconditionFailed => "Precondition Failed",
        ErrorKind::TooLarge => "Request Entity Too Large",
        ErrorKind::AddressTooLong => "Request-URI Too Long",
        ErrorKind::UnsupportedMedia => "Unsupported Media Type",
        ErrorKind::RangeNotSatisfiable => "Requested Range Not Satisfiable",
        ErrorKind::TooMany => "Too Many Requests",
        ErrorKind::Internal => "Internal Server Error",
        ErrorKind::NotImplemented => "Not Implemented",
        ErrorKind::Unavailable => "Service Unavailable",
    }
}

fn compute_name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::BadRequest => "badRequest",
        ErrorKind::Unauthorized => "unauthorized",
        ErrorKind::Forbidden => "forbidden",
        ErrorKind::NotFound => "itemNotFound",
        ErrorKind::MethodNotAllowed => "badMethod",
        ErrorKind::Conflict => "conflictingRequest",
        ErrorKind::TooLarge | ErrorKind::TooMany => "overLimit",
        ErrorKind::UnsupportedMedia => "badMediaType",
        ErrorKind::NotImplemented => "notImplemented",
        ErrorKind::Unavailable => "serviceUnavailable",
        _ => "computeFault",
    }
}
