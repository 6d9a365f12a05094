//! The real answering of DHCP, metadata and router solicitations; and what they are answered with, made of the slice.

use crate::desired::NetworkView;
use crate::drivers::{Answers, Guests};
use maru_agent_api::slice::Server;
use maru_base::{Error, Result};
use maru_dhcp::{Advertiser, Mac, RaView, ResponderConfig};
use maru_link::{Responder, RouterLinks};
use maru_metadata::{Directory, GuestView, Nic};
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What answers for one network.
struct Running {
    responder: Responder,
    dhcp: maru_dhcp::Responder,
    guests: Guests,
    _metadata: maru_metadata::Server,
}

/// All responders of the node.
#[derive(Default)]
pub(crate) struct Responders {
    networks: Mutex<HashMap<String, Running>>,
    /// Router advertisements, by router and interface port.
    routers: Mutex<HashMap<String, HashMap<String, Advertiser>>>,
}

impl Responders {
    fn networks(&self) -> MutexGuard<'_, HashMap<String, Running>> {
        self.networks.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn routers(&self) -> MutexGuard<'_, HashMap<String, HashMap<String, Advertiser>>> {
        self.routers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answers for Responders {
    fn network(
        &self,
        network_id: &str,
        responder: &Responder,
        dhcp: Arc<maru_dhcp::NetworkView>,
        guests: Guests,
        directory: &Arc<dyn Directory>,
    ) -> Result<()> {
        let mut all = self.networks();
        if let Some(running) = all.get_mut(network_id).filter(|r| r.responder == *responder) {
            running.dhcp.update(dhcp);
            running.guests = guests;
            return Ok(());
        }
        all.remove(network_id);
        let netns = Some(responder.netns.path());
        let config = ResponderConfig {
            netns: netns.clone(),
            device: responder.device.clone(),
            mac: responder.mac.clone(),
        };
        let started = Running {
            responder: responder.clone(),
            dhcp: maru_dhcp::Responder::start(&config, dhcp)?,
            guests,
            _metadata: maru_metadata::Server::start(netns, &responder.device, network_id, Arc::clone(directory))?,
        };
        all.insert(network_id.to_owned(), started);
        Ok(())
    }

    fn network_gone(&self, id: &str) {
        self.networks().remove(id);
    }

    fn router(&self, id: &str, links: &RouterLinks, views: Vec<(String, String, RaView)>) -> Result<()> {
        let mut all = self.routers();
        let mut before = all.remove(id).unwrap_or_default();
        let mut now = HashMap::new();
        for (port, device, view) in views {
            let advertiser = match before.remove(&port) {
                Some(running) => {
                    running.update(view);
                    running
                }
                None => Advertiser::start(Some(links.netns.path()), &device, view)?,
            };
            now.insert(port, advertiser);
        }
        if !now.is_empty() {
            all.insert(id.to_owned(), now);
        }
        Ok(())
    }

    fn router_gone(&self, id: &str) {
        self.routers().remove(id);
    }

    fn guest(&self, network_id: &str, source: IpAddr) -> Option<Arc<GuestView>> {
        self.networks().get(network_id)?.guests.get(&source).cloned()
    }

    fn stop_all(&self) {
        self.networks().clear();
        self.routers().clear();
    }
}

/// What the interfaces of a router advertise: interface port, device, content.
pub(crate) fn advertised(view: &NetworkView, links: &RouterLinks) -> Vec<(String, String, RaView)> {
    let each = links.interfaces.iter().filter_map(|interface| {
        let network = view.networks.get(&interface.network_id)?;
        let (_, port) = view.ports.get(&interface.port_id)?;
        let subnets: Vec<&str> = port.fixed_ips.iter().map(|(s, _)| s.as_str()).collect();
        let advertised = RaView::new(network, Mac::parse(&interface.mac)?, &subnets)?;
        Some((interface.port_id.clone(), interface.device.clone(), advertised))
    });
    each.collect()
}

fn guest_view(view: &NetworkView, server: &Server) -> GuestView {
    let nics = server.ports.iter().filter_map(|id| {
        let (_, port) = view.ports.get(id)?;
        let network = view.networks.get(&port.network_id)?.clone();
        Some(Nic {
            port: port.clone(),
            network,
        })
    });
    let floating = view.routers.iter().flat_map(|r| &r.floating_ips);
    GuestView {
        server: server.clone(),
        nics: nics.collect(),
        floating: floating
            .filter(|f| server.ports.contains(&f.port_id))
            .map(|f| f.floating)
            .collect(),
    }
}

/// The guests of each network by address: the fixed ones, and the link-local one that IPv6 makes of the MAC address.
pub(crate) fn guests(view: &NetworkView) -> HashMap<String, Guests> {
    let mut all: HashMap<String, Guests> = HashMap::new();
    for server in &view.servers {
        let guest = Arc::new(guest_view(view, server));
        for nic in &guest.nics {
            let network = all.entry(nic.network.id.clone()).or_default();
            for (_, address) in &nic.port.fixed_ips {
                network.insert(*address, Arc::clone(&guest));
            }
            if let Some(mac) = Mac::parse(&nic.port.mac) {
                network.insert(mac.link_local().into(), Arc::clone(&guest));
            }
        }
    }
    all
}

/// The config drive of a server; called once for each making of its disks, since it has fresh random bytes.
pub(crate) fn config_drive(view: &NetworkView, server: &Server) -> Result<Vec<u8>> {
    let mut seed = [0; 512];
    maru_base::random::fill(&mut seed);
    maru_metadata::config_drive(&guest_view(view, server), &seed)
}

/// The guests' passwords, a file each; and who is who, for the metadata servers.
pub(crate) struct Register {
    pub answers: Arc<dyn Answers>,
    pub dir: PathBuf,
}

fn io(e: std::io::Error) -> Error {
    Error::internal("the guest's password cannot be kept or read", e)
}

impl Register {
    fn file(&self, server: &str) -> Result<PathBuf> {
        let plain = !server.is_empty() && server.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if plain {
            return Ok(self.dir.join(server));
        }
        Err(Error::bad_request(format!("{server:?} is not a server's id")))
    }

    /// Forgets a server's password.
    pub(crate) async fn forget(&self, server: &str) -> Result<()> {
        match tokio::fs::remove_file(self.file(server)?).await {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io(e)),
            _ => Ok(()),
        }
    }
}

#[async_trait::async_trait]
impl Directory for Register {
    fn guest(&self, network_id: &str, source: IpAddr) -> Option<Arc<GuestView>> {
        self.answers.guest(network_id, source)
    }

    async fn password(&self, server_id: &str) -> Result<Option<Vec<u8>>> {
        match tokio::fs::read(self.file(server_id)?).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(io(e)),
        }
    }

    async fn set_password(&self, server_id: &str, password: Vec<u8>) -> Result<()> {
        let path = self.file(server_id)?;
        let temporary = self.dir.join(format!(".{}", maru_base::random::hex32()));
        tokio::fs::create_dir_all(&self.dir).await.map_err(io)?;
        tokio::fs::write(&temporary, password).await.map_err(io)?;
        // A link, not a rename: it fails if another post was first.
        let kept = tokio::fs::hard_link(&temporary, &path).await;
        let _ = tokio::fs::remove_file(&temporary).await;
        match kept {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(Error::conflict("the password is set already; it can be posted once"))
            }
            other => other.map_err(io),
        }
    }
}
