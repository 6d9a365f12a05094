//! Names of namespaces and devices. Pure; everything that is made can be told apart by name alone.
//!
//! Linux limits a device name to 15 bytes (IFNAMSIZ with its NUL).

use maru_base::{Error, Result};

/// The device in a responder namespace.
pub(crate) const RESPONDER_DEVICE: &str = "dh0";

/// The bridge of a network: `br` and the segment number (24 bits, so at most 10 bytes).
#[must_use]
pub fn bridge_name(vni: u32) -> String {
    format!("br{vni}")
}

/// The tap of a port: `tap` and the first 11 characters of its id, as upstream names it.
#[must_use]
pub fn tap_name(port_id: &str) -> String {
    format!("tap{}", short(port_id))
}

/// The first 11 characters of an id.
fn short(id: &str) -> &str {
    id.get(..11).unwrap_or(id)
}

/// In Maru's namespace: the bridge's end of a router's link.
pub(crate) fn router_peer(port_id: &str) -> String {
    format!("rt-{}", short(port_id))
}

/// In a router's namespace: an interface towards tenants.
pub(crate) fn router_interface(port_id: &str) -> String {
    format!("qr-{}", short(port_id))
}

/// In a router's namespace: the gateway.
pub(crate) fn router_gateway(port_id: &str) -> String {
    format!("qg-{}", short(port_id))
}

/// In Maru's namespace: the bridge's end of a responder's link.
pub(crate) fn responder_peer(vni: u32) -> String {
    format!("dp-{vni}")
}

/// In Maru's namespace: the bridge's end of the way to the host.
pub(crate) fn external_peer(vni: u32) -> String {
    format!("up-{vni}")
}

/// In the host's namespace: the end of an external network that has the gateway's address.
pub(crate) fn external_host(instance: &str, vni: u32) -> String {
    format!("{instance}-{vni:x}")
}

/// The namespace of a router.
pub(crate) fn router_namespace(instance: &str, router_id: &str) -> String {
    format!("{instance}-r-{router_id}")
}

/// The namespace of a network's responder.
pub(crate) fn responder_namespace(instance: &str, network_id: &str) -> String {
    format!("{instance}-d-{network_id}")
}

/// A locally administered MAC address derived from the network's id (FNV-1a), the same after every restart.
pub(crate) fn responder_mac(network_id: &str) -> String {
    let hash = network_id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    });
    let [_, _, _, a, b, c, d, e] = hash.to_be_bytes();
    format!("0a:{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}")
}

/// Refuses instance names that could not be told apart or would make device names too long.
pub(crate) fn check_instance(instance: &str) -> Result<()> {
    let good = (1..=8).contains(&instance.len())
        && instance.starts_with(|c: char| c.is_ascii_lowercase())
        && instance.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    if good {
        return Ok(());
    }
    Err(Error::invalid(
        "instance",
        format!(
            "The instance name {instance:?} is refused: it must be 1 to 8 characters of a-z and 0-9, beginning with a letter."
        ),
    ))
}

/// Refuses ids that could name another file or another object.
pub(crate) fn check_id(what: &str, id: &str) -> Result<()> {
    let good = (1..=64).contains(&id.len())
        && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        && !id.starts_with('-');
    if good {
        return Ok(());
    }
    Err(Error::bad_request(format!(
        "The {what} id {id:?} is refused: it must be 1 to 64 letters, digits and dashes."
    )))
}
