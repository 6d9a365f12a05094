//! Refusals with upstream's type names; clients choose what to do by them.

use maru_base::{Error, ErrorKind};
use std::fmt::Display;

/// A refusal of a kind, with the name that Neutron's clients know it by.
pub fn refuse(kind: ErrorKind, code: &'static str, message: impl Into<String>) -> Error {
    Error::new(kind, message).with_code(code)
}
/// 400 `InvalidInput`.
pub fn invalid_input(message: impl Display) -> Error {
    refuse(
        ErrorKind::BadRequest,
        "InvalidInput",
        format!("Invalid input for operation: {message}."),
    )
}
/// 400 `BadRequest` of one resource.
pub fn bad_request(resource: &str, message: impl Display) -> Error {
    refuse(
        ErrorKind::BadRequest,
        "BadRequest",
        format!("Bad {resource} request: {message}."),
    )
}
/// 409 with its code.
pub fn conflict(code: &'static str, message: impl Into<String>) -> Error {
    refuse(ErrorKind::Conflict, code, message)
}
/// 404 with its code.
pub fn not_found(code: &'static str, what: &str, id: impl Display) -> Error {
    refuse(ErrorKind::NotFound, code, format!("{what} {id} could not be found."))
}
/// 404.
pub fn network_not_found(id: impl Display) -> Error {
    not_found("NetworkNotFound", "Network", id)
}
/// 404.
pub fn subnet_not_found(id: impl Display) -> Error {
    not_found("SubnetNotFound", "Subnet", id)
}
/// 404.
pub fn port_not_found(id: impl Display) -> Error {
    not_found("PortNotFound", "Port", id)
}
/// 404.
pub fn router_not_found(id: impl Display) -> Error {
    not_found("RouterNotFound", "Router", id)
}
/// 404.
pub fn floating_ip_not_found(id: impl Display) -> Error {
    not_found("FloatingIPNotFound", "Floating IP", id)
}
/// 404.
pub fn group_not_found(id: impl Display) -> Error {
    not_found("SecurityGroupNotFound", "Security group", id)
}
/// 404.
pub fn rule_not_found(id: impl Display) -> Error {
    not_found("SecurityGroupRuleNotFound", "Security group rule", id)
}
/// 404.
pub fn agent_not_found(id: impl Display) -> Error {
    not_found("AgentNotFound", "Agent", id)
}
/// 409 `OverQuota` that names what is used up.
pub fn over_quota(resource: &str, used: i64, wanted: i64, limit: i64) -> Error {
    conflict(
        "OverQuota",
        format!(
            "Quota exceeded for resources: ['{resource}']. {used} of {limit} are used, {wanted} more were asked for; \
             delete some or ask an administrator to raise the quota."
        ),
    )
}
