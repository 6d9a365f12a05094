//! DHCP and metadata of each network, answered in its responder namespace.

use crate::{Inner, desired::NetworkView};
use maru_agent_api::slice::Server;
use maru_base::{Error, Result};
use maru_dhcp::{Advertiser, RaView, ResponderConfig};
use maru_link::{Responder, RouterLinks};
use maru_metadata::{GuestView, Guests};
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{sync::watch, task::AbortHandle};

/// What answers for one network.
struct Running {
    responder: Responder,
    dhcp: maru_dhcp::Responder,
    guests: watch::Sender<Arc<Guests>>,
    metadata: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.metadata.abort();
    }
}

/// All responders of the node.
#[derive(Default)]
pub(crate) struct Responders {
    networks: Mutex<HashMap<String, Running>>,
    /// Router advertisements, by the router's interface port.
    routers: Mutex<HashMap<String, HashMap<String, Advertiser>>>,
}

impl Responders {
    pub(crate) fn new() -> Self {
        Self::default()
    }
    fn networks(&self) -> MutexGuard<'_, HashMap<String, Running>> {
        self.networks.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn routers(&self) -> MutexGuard<'_, HashMap<String, HashMap<String, Advertiser>>> {
        self.routers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts what is missing and gives everyone what is known now.
    pub(crate) async fn ensure(&self, inner: &Inner, view: &NetworkView) -> Result<()> {
        for network in view.networks.values() {
            if network.external {
                continue;
            }
            let node = inner.config.node.as_str();
            let local = view
                .ports
                .values()
                .map(|(_, p)| p)
                .filter(|p| p.host.as_deref() == Some(node));
            let dhcp = Arc::new(maru_dhcp::NetworkView::new(network, local));
            let guests = Arc::new(guests(view, &network.id));
            let responder = inner.links.responder(&network.id, view.dhcp_port(&network.id));
            let running = {
                let mut all = self.networks();
                match all.get(&network.id) {
                    Some(r) if r.responder == responder => {
                        r.dhcp.update(Arc::clone(&dhcp));
                        r.guests
                            .send_if_modified(|old| std::mem::replace(old, Arc::clone(&guests)) != guests);
                        true
                    }
                    _ => {
                        all.remove(&network.id);
                        false
                    }
                }
            };
            if !running {
                let started = start(responder, dhcp, guests).await?;
                self.networks().insert(network.id.clone(), started);
            }
        }
        Ok(())
    }
    pub(crate) fn network_gone(&self, id: &str) {
        self.networks().remove(id);
    }
    /// Advertises IPv6 prefixes on the interfaces of a router.
    pub(crate) fn router(&self, view: &NetworkView, id: &str, links: &RouterLinks) -> Result<()> {
        let mut now = HashMap::new();
        let mut all = self.routers();
        let mut before = all.remove(id).unwrap_or_default();
        for interface in &links.interfaces {
            let (Some(network), Some((_, port)), Some(mac)) = (
                view.networks.get(&interface.network_id),
                view.ports.get(&interface.port_id),
                maru_dhcp::Mac::parse(&interface.mac),
            ) else {
                continue;
            };
            let subnets: Vec<&str> = port.fixed_ips.iter().map(|(s, _)| s.as_str()).collect();
            let Some(advertised) = RaView::new(network, mac, &subnets) else {
                continue;
            };
            let advertiser = match before.remove(&interface.port_id) {
                Some(a) => {
                    a.update(advertised);
                    a
                }
                None => Advertiser::start(Some(links.netns.path()), &interface.device, advertised)?,
            };
            now.insert(interface.port_id.clone(), advertiser);
        }
        if !now.is_empty() {
            all.insert(id.to_owned(), now);
        }
        Ok(())
    }
    pub(crate) fn router_gone(&self, id: &str) {
        self.routers().remove(id);
    }
    pub(crate) fn stop_all(&self) {
        self.networks().clear();
        self.routers().clear();
    }
}

async fn start(responder: Responder, dhcp: Arc<maru_dhcp::NetworkView>, guests: Arc<Guests>) -> Result<Running> {
    let netns = responder.netns.path();
    let socket = tokio::task::spawn_blocking(move || maru_link::in_namespace(&netns, socket))
        .await
        .map_err(|e| Error::internal("the metadata socket was not opened", e))??
        .map_err(|e| Error::internal(format!("no metadata socket in {}", responder.netns.name), e))?;
    let listener = tokio::net::TcpListener::from_std(socket)
        .map_err(|e| Error::internal("the metadata socket cannot be used", e))?;
    let config = ResponderConfig {
        netns: Some(responder.netns.path()),
        device: responder.device.clone(),
        mac: responder.mac.clone(),
    };
    let dhcp = maru_dhcp::Responder::start(&config, dhcp)?;
    let (guests, guests_view) = watch::channel(guests);
    let metadata = tokio::spawn(maru_metadata::serve(listener, guests_view)).abort_handle();
    Ok(Running {
        responder,
        dhcp,
        guests,
        metadata,
    })
}

/// The metadata socket of a responder; called inside its namespace.
fn socket() -> std::io::Result<std::net::TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let tcp = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    tcp.set_reuse_address(true)?;
    // Guests come to 169.254.169.254 and to fe80::a9fe:a9fe: one socket for both.
    tcp.set_only_v6(false)?;
    tcp.set_nonblocking(true)?;
    tcp.bind(&SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 80)).into())?;
    tcp.listen(128)?;
    Ok(tcp.into())
}

fn guest_view(view: &NetworkView, server: &Server) -> GuestView {
    let ports = server
        .ports
        .iter()
        .filter_map(|id| {
            let (_, port) = view.ports.get(id)?;
            Some((port.clone(), view.networks.get(&port.network_id)?.clone()))
        })
        .collect();
    GuestView {
        server: server.clone(),
        ports,
    }
}

fn guests(view: &NetworkView, network: &str) -> Guests {
    let mut out = Guests::new();
    for server in &view.servers {
        let guest = Arc::new(guest_view(view, server));
        for (port, _) in guest.ports.iter().filter(|(p, _)| p.network_id == network) {
            for (_, address) in &port.fixed_ips {
                out.insert(*address, Arc::clone(&guest));
            }
        }
    }
    out
}

/// The config drive of a server.
pub(crate) fn config_drive(view: &NetworkView, server: &Server) -> Result<Vec<u8>> {
    maru_metadata::config_drive(&guest_view(view, server))
}
