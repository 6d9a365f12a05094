//! Ports: a tap each, or (a subport) a VLAN device over the tap of its trunk's port.

use super::{Driver, gone_is_fine, kernel};
use crate::model::PortLink;
use crate::nl::Link;
use crate::{names, ns, tap};
use maru_agent_api::slice::{Network, Port};
use maru_base::{Error, Result};
use nix::errno::Errno;
use std::os::fd::OwnedFd;

/// The same of a VLAN device, whose driver is not in every kernel.
fn vlan_refused(port: &str, e: Errno) -> Error {
    if e == Errno::EOPNOTSUPP {
        return Error::unavailable(format!(
            "Subport {port} needs the kernel's 8021q (CONFIG_VLAN_8021Q), which is not there; `modprobe 8021q` loads it where it \
             is a module. Its trunk's other ports are not concerned."
        ));
    }
    kernel(format!("VLAN device of subport {port}"), e)
}

impl Driver {
    pub(crate) fn ensure_port(&mut self, port: &Port, network: &Network) -> Result<PortLink> {
        names::check_id("port", &port.id)?;
        let name = names::tap_name(&port.id);
        let alias = format!("port:{}", port.id);
        let refused = |e| kernel(format!("Tap {name} of port {}", port.id), e);
        let bridge_name = names::bridge_name(network.vni);
        let bridge = self.maru_link(&bridge_name)?.ok_or_else(|| {
            Error::unavailable(format!(
                "Port {} waits: bridge {bridge_name} of its network is not there yet.",
                port.id
            ))
        })?;
        let mut mtu = network.mtu.clamp(68, 65_535);
        let below = match &port.trunk {
            None => None,
            Some(trunk) => {
                let parent = self.tap(&trunk.parent).map_err(|_| {
                    Error::unavailable(format!(
                        "Subport {} waits: its trunk's port {} is not on this node yet.",
                        port.id, trunk.parent
                    ))
                })?;
                mtu = mtu.min(parent.mtu);
                Some((parent.index, trunk.vlan))
            }
        };
        let mut there = self.maru_link(&name)?;
        // A port that became a subport, or left its trunk, or has another VLAN id now.
        if let Some(link) = there.take_if(|l| l.alias == alias && l.vlan != below) {
            gone_is_fine(self.maru.del_link(link.index)).map_err(refused)?;
        }
        let mut created = false;
        let link = match there {
            Some(link) => link,
            None => {
                created = true;
                match below {
                    Some((below, id)) => {
                        self.maru
                            .add_vlan(&name, below, id, mtu, &alias)
                            .map_err(|e| vlan_refused(&port.id, e))?;
                    }
                    None => ns::in_namespace(&self.home.path(), || tap::create(&name))?.map_err(refused)?,
                }
                let link = self.maru_link(&name)?.ok_or(Errno::ENODEV).map_err(refused)?;
                self.maru.set_alias(link.index, &alias).map_err(refused)?;
                Link {
                    alias: alias.clone(),
                    ..link
                }
            }
        };
        if link.alias.is_empty() {
            // A crash between making and naming it.
            self.maru.set_alias(link.index, &alias).map_err(refused)?;
        } else if link.alias != alias {
            return Err(Error::conflict(format!(
                "Tap {name} belongs to {}: two ports share their first 11 characters.",
                link.alias
            )));
        }
        if link.mtu != mtu {
            self.maru.set_mtu(link.index, mtu).map_err(refused)?;
        }
        if link.master != bridge.index {
            // Never up on a bridge for which its firewall was not made.
            if link.up {
                self.maru.set_up(link.index, false).map_err(refused)?;
            }
            self.maru.set_master(link.index, bridge.index).map_err(refused)?;
        }
        Ok(PortLink { tap: name, created })
    }

    pub(crate) fn port_up(&mut self, port_id: &str, up: bool) -> Result<()> {
        let name = names::tap_name(port_id);
        let link = self.tap(port_id)?;
        if link.up == up {
            return Ok(());
        }
        self.maru
            .set_up(link.index, up)
            .map_err(|e| kernel(format!("Tap {name}"), e))
    }

    fn tap(&mut self, port_id: &str) -> Result<Link> {
        names::check_id("port", port_id)?;
        let name = names::tap_name(port_id);
        self.maru_link(&name)?
            .filter(|l| l.alias == format!("port:{port_id}"))
            .ok_or_else(|| Error::not_found(format!("There is no tap for port {port_id} on this node.")))
    }

    pub(crate) fn open_tap(&mut self, port_id: &str) -> Result<OwnedFd> {
        let link = self.tap(port_id)?;
        ns::in_namespace(&self.home.path(), || tap::open(&link.name))?
            .map_err(|e| kernel(format!("Opening tap {} of port {port_id}", link.name), e))
    }

    pub(crate) fn remove_port(&mut self, port_id: &str) -> Result<()> {
        match self.tap(port_id) {
            Ok(link) => {
                gone_is_fine(self.maru.del_link(link.index)).map_err(|e| kernel(format!("Removing {}", link.name), e))
            }
            Err(e) if e.kind() == maru_base::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }
}
