//! The slice of intent: what one node shall have. A pure function of the store's snapshot.

use ipnet::IpNet;
use maru_base::Secret;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Names one item of a slice.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ItemKey {
    /// A virtual machine of this node.
    Server(String),
    /// A network that has a port here or a router here.
    Network(String),
    /// A port: of a server here, of a router here, or (declared neighbour) elsewhere on a network that is here.
    Port(String),
    /// A security group of a port here, or a remote group of one of its rules.
    SecurityGroup(String),
    /// A router that this node hosts.
    Router(String),
    /// A volume whose bytes are here.
    Volume(String),
    /// A snapshot of a volume, whose bytes are here.
    VolumeSnapshot(String),
}

/// One item of a slice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Item {
    /// See [`Server`].
    Server(Server),
    /// See [`Network`].
    Network(Network),
    /// See [`Port`].
    Port(Port),
    /// See [`SecurityGroup`].
    SecurityGroup(SecurityGroup),
    /// See [`Router`].
    Router(Router),
    /// See [`Volume`].
    Volume(Volume),
    /// See [`VolumeSnapshot`].
    VolumeSnapshot(VolumeSnapshot),
}

impl Item {
    /// The item's name.
    #[must_use]
    pub fn key(&self) -> ItemKey {
        match self {
            Self::Server(x) => ItemKey::Server(x.id.clone()),
            Self::Network(x) => ItemKey::Network(x.id.clone()),
            Self::Port(x) => ItemKey::Port(x.id.clone()),
            Self::SecurityGroup(x) => ItemKey::SecurityGroup(x.id.clone()),
            Self::Router(x) => ItemKey::Router(x.id.clone()),
            Self::Volume(x) => ItemKey::Volume(x.id.clone()),
            Self::VolumeSnapshot(x) => ItemKey::VolumeSnapshot(x.id.clone()),
        }
    }
}

/// The power state that a server shall have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Power {
    /// Running.
    Running,
    /// Powered off (gracefully first, then hard); the disk stays.
    Stopped,
    /// In memory, not scheduled.
    Paused,
    /// Memory saved to disk, no process.
    Suspended,
}

/// A virtual machine that shall be on this node.
///
/// Removing the item from the slice means: stop it and remove its disks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Server {
    /// Nova's server id.
    pub id: String,
    /// Project that owns it.
    pub project_id: String,
    /// User that made it.
    pub user_id: String,
    /// Display name.
    pub name: String,
    /// Host name inside the guest.
    pub hostname: String,
    /// The request that last changed the intent; follows the work into the agent's log.
    pub request_id: String,
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The disks, the first one is the boot disk.
    pub disks: Vec<Disk>,
    /// Ids of its ports in the order of its NICs.
    pub ports: Vec<String>,
    /// The power state it shall have.
    pub power: Power,
    /// Raised with each reboot request; the agent reboots when it is higher than the one it last carried out.
    pub reboot: Reboot,
    /// Raised when the boot disk shall be made anew from `disks[0]` (rebuild).
    pub rebuild: u64,
    /// Changes of its size: processors, memory, disks.
    #[serde(default)]
    pub resize: Resize,
    /// Whether a config drive is attached.
    pub config_drive: bool,
    /// What the metadata service and the config drive say.
    pub metadata: GuestMetadata,
    /// Seconds a graceful stop may take before the hard one; 0 is hard at once.
    pub stop_timeout: u32,
    /// Where it comes from, in the control plane's words: kept with the guest, obeyed in nothing, given back by
    /// [`crate::lane::Lanes::origin`] when the store no longer knows the server.
    #[serde(default)]
    pub origin: String,
}

/// A counted reboot request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reboot {
    /// How many reboots were asked so far.
    pub count: u64,
    /// Whether the newest is a hard one.
    pub hard: bool,
}

/// Counted requests for another size. The agent carries one out when `count` is higher than what it last did: it stops the guest,
/// deals with the disks, brings them to their sizes and starts the guest anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Resize {
    /// How many were asked so far.
    pub count: u64,
    /// The number under which the disks are kept as they were before the first of these changes; `None` lets go of what was kept.
    pub kept: Option<u64>,
    /// Whether the kept disks shall be the disks again; else they are put aside.
    pub restore: bool,
}

/// A disk of a server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Disk {
    /// Stable name within the server: `root`, `ephemeral0`, `swap`, or a volume id.
    pub name: String,
    /// What it is made from.
    pub source: DiskSource,
    /// Size in bytes; 0 keeps the image's own size.
    pub size: u64,
    /// `virtio`, `scsi`, `ide`, `usb`.
    pub bus: String,
    /// `disk` or `cdrom`.
    pub device: String,
}

/// What a disk is made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum DiskSource {
    /// An overlay over a base image, pulled by digest and cached.
    Image {
        /// Glance's image id (for logs).
        image_id: String,
        /// sha512 of the blob.
        digest: String,
        /// `qcow2` or `raw`: the format that inspection proved, never guessed again.
        format: String,
    },
    /// An empty disk.
    Blank,
    /// A volume. Its bytes outlive the server.
    Volume {
        /// Cinder's volume id.
        id: String,
        /// Whether the guest may only read it.
        readonly: bool,
        /// `None`: it is of this node, an item of the slice too, and opened as a file by this server alone. Else it is
        /// reached through its holder's export.
        remote: Option<RemoteVolume>,
        /// What the guest may do with it in a second: `total_bytes_sec`, `read_iops_sec`, `write_bytes_sec_max` (a burst), ...
        #[serde(default)]
        limits: std::collections::BTreeMap<String, u64>,
    },
}

/// How a server reaches a volume that its node does not open as a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteVolume {
    /// The node that holds the bytes.
    pub holder: String,
    /// Where the holder offers them, address and port; `None` until it has said so.
    pub address: Option<String>,
    /// What the export is called ([`VolumeExport::name`]).
    pub export: String,
    /// What opens it: 64 hexadecimal digits, known to the two ends alone.
    pub key: Secret,
    /// Bytes of the disk as of the holder's last word: the guest is told when they have grown.
    pub size: u64,
}

/// One server's way to a volume that this node holds: an NBD export over TLS with a key of its own.
///
/// Taking it out of [`Volume::exports`] means: cut whoever uses it, and never let it be opened again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeExport {
    /// Its name: another one with every attachment and with every node that uses it.
    pub name: String,
    /// What opens it: 64 hexadecimal digits, known to the two ends alone.
    pub key: Secret,
    /// Whether it may only be read.
    pub readonly: bool,
}

/// A volume whose bytes shall be on this node.
///
/// Removing the item from the slice means: remove the bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    /// Cinder's volume id.
    pub id: String,
    /// The request that last changed the intent.
    pub request_id: String,
    /// Bytes of the disk; it grows, and never shrinks.
    pub size: u64,
    /// Which making of the bytes: when it is raised they are made anew from `source`.
    pub content: u64,
    /// What they are made from.
    pub source: VolumeSource,
    /// Who may reach it, other than one server of this node that opens it as a file.
    #[serde(default)]
    pub exports: Vec<VolumeExport>,
}

/// What a volume's bytes are made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum VolumeSource {
    /// Nothing: it reads as zeroes.
    Blank,
    /// An image, pulled by digest.
    Image {
        /// sha512 of the blob.
        digest: String,
        /// `qcow2` or `raw`: the format that inspection proved.
        format: String,
    },
    /// A copy of another volume of this node, as of one moment.
    Volume(String),
    /// A copy of a snapshot of this node.
    Snapshot(String),
    /// A backup, pulled by digest.
    Backup {
        /// sha512 of the blob.
        digest: String,
    },
}

/// A snapshot that shall be on this node: a copy of a volume as of one moment, made once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VolumeSnapshot {
    /// Cinder's snapshot id.
    pub id: String,
    /// The volume that it is a copy of.
    pub volume_id: String,
    /// The request that made it.
    pub request_id: String,
}

/// What a guest is told about itself.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct GuestMetadata {
    /// Public keys by name.
    pub public_keys: Vec<(String, String)>,
    /// The server's own metadata.
    pub meta: std::collections::BTreeMap<String, String>,
    /// The user's data, base64 as Nova keeps it.
    pub user_data: Option<String>,
    /// Availability zone.
    pub availability_zone: String,
    /// Order among the servers of one multi-create.
    pub launch_index: u32,
    /// Initial password, if the API made one.
    pub admin_pass: Option<String>,
    /// Flavor name, the EC2 `instance-type`.
    pub instance_type: String,
    /// Names of the security groups, for EC2's `security-groups`.
    pub security_groups: Vec<String>,
    /// Files to inject (old `personality`), path and base64 contents.
    pub files: Vec<(String, String)>,
}

/// A network that is present on this node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Neutron's network id.
    pub id: String,
    /// Segment number: VXLAN id and bridge name are derived from it. Unique in the cloud.
    pub vni: u32,
    /// Conntrack zone, one a network, 1..=65535, unique on the node's cloud.
    pub zone: u16,
    /// Bytes.
    pub mtu: u32,
    /// Whether this is the external network, joined to the uplink.
    pub external: bool,
    /// Administrative state.
    pub admin_up: bool,
    /// Its subnets.
    pub subnets: Vec<Subnet>,
}

/// A subnet of a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subnet {
    /// Neutron's subnet id.
    pub id: String,
    /// Its block.
    pub cidr: IpNet,
    /// The gateway's address, if it has one.
    pub gateway: Option<IpAddr>,
    /// Whether addresses are given by DHCP.
    pub dhcp: bool,
    /// DNS servers to hand out.
    pub dns: Vec<IpAddr>,
    /// Routes to hand out: destination, next hop.
    pub routes: Vec<(IpNet, IpAddr)>,
    /// How IPv6 guests get addresses, if this is an IPv6 subnet: `slaac`, `dhcpv6-stateful`, `dhcpv6-stateless`.
    pub ipv6_address_mode: Option<String>,
    /// How router advertisements are sent.
    pub ipv6_ra_mode: Option<String>,
    /// Address of the DHCP and metadata port of this subnet (a `network:dhcp` port), where the agent answers.
    pub dhcp_address: Option<IpAddr>,
}

/// A port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Port {
    /// Neutron's port id. The tap is named `tap` and its first 11 characters.
    pub id: String,
    /// Its network.
    pub network_id: String,
    /// Project that owns it.
    pub project_id: String,
    /// The node it is on; another node's port is a neighbour.
    pub host: Option<String>,
    /// The server or router it belongs to.
    pub device_id: String,
    /// `compute:nova`, `network:router_interface`, `network:router_gateway`, `network:dhcp`, `network:floatingip`.
    pub device_owner: String,
    /// MAC address, lower case with colons.
    pub mac: String,
    /// Its addresses: subnet id and address.
    pub fixed_ips: Vec<(String, IpAddr)>,
    /// Other addresses it may use: block and MAC (its own if `None`).
    pub allowed_address_pairs: Vec<(IpNet, Option<String>)>,
    /// Security groups; meaningless when `port_security` is off.
    pub security_groups: Vec<String>,
    /// Anti-spoofing and security groups on.
    pub port_security: bool,
    /// Administrative state; down means no traffic at all.
    pub admin_up: bool,
    /// Extra DHCP options: name or number, value, IP version.
    pub extra_dhcp_opts: Vec<(String, String, u8)>,
    /// The fully qualified name handed out by DHCP.
    pub dns_name: String,
    /// What binds its traffic.
    #[serde(default)]
    pub qos: PortQos,
    /// For a subport: where its frames come in instead of by a tap of its own.
    #[serde(default)]
    pub trunk: Option<TrunkLink>,
}

/// How a subport reaches its guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrunkLink {
    /// The parent port, of the same node.
    pub parent: String,
    /// The VLAN id of its frames on the parent's tap, 1 to 4094.
    pub vlan: u16,
}

/// What binds a port's traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PortQos {
    /// Into the guest.
    pub ingress: Option<RateLimit>,
    /// Out of the guest.
    pub egress: Option<RateLimit>,
    /// The mark of packets out of the guest (DSCP, RFC 2474).
    pub dscp: Option<u8>,
}

/// At most so much in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    /// Kilobits in a second.
    pub kbps: u32,
    /// Kilobits at once; 0 leaves it to the node.
    pub burst_kbits: u32,
}

/// A security group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SecurityGroup {
    /// Its id.
    pub id: String,
    /// Whether answers are let in by connection tracking.
    pub stateful: bool,
    /// Its rules.
    pub rules: Vec<Rule>,
    /// Addresses of all ports in this group, for rules that name it as remote.
    pub members: Vec<IpAddr>,
}

/// One rule of a security group: everything is denied, rules allow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Its id.
    pub id: String,
    /// `true`: into the guest.
    pub ingress: bool,
    /// 4 or 6.
    pub ip_version: u8,
    /// IP protocol number; `None` is any.
    pub protocol: Option<u8>,
    /// Lowest port, or ICMP type.
    pub port_min: Option<u16>,
    /// Highest port, or ICMP code.
    pub port_max: Option<u16>,
    /// Remote block.
    pub remote_cidr: Option<IpNet>,
    /// Remote group.
    pub remote_group: Option<String>,
}

/// A router that this node hosts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Router {
    /// Neutron's router id.
    pub id: String,
    /// Administrative state.
    pub admin_up: bool,
    /// Its gateway onto an external network.
    pub gateway: Option<Gateway>,
    /// Interface ports (they are items of the slice too).
    pub interfaces: Vec<String>,
    /// Extra routes: destination, next hop.
    pub routes: Vec<(IpNet, IpAddr)>,
    /// Floating IPs of ports behind it.
    pub floating_ips: Vec<FloatingIp>,
    /// Ports of floating addresses that lead to ports behind it.
    #[serde(default)]
    pub forwardings: Vec<Forwarding>,
    /// Protocols that it reads along with.
    #[serde(default)]
    pub helpers: Vec<ConntrackHelper>,
    /// Addresses behind it that it says on its gateway's network are reached through it (RFC 4389), and the only ones that
    /// connections from there may be opened to. `None`: it says so of none, and routes to all.
    #[serde(default)]
    pub ndp_proxies: Option<Vec<Ipv6Addr>>,
}

/// A protocol that a router reads along with, so that the connections which it opens are translated like its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConntrackHelper {
    /// Its id.
    pub id: String,
    /// What Linux calls it: `ftp`, `tftp`, `Q.931`, ...
    pub name: String,
    /// IP protocol number: 6 (TCP) or 17 (UDP).
    pub protocol: u8,
    /// The port on which its connections begin.
    pub port: u16,
}

/// One port of a floating address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forwarding {
    /// Its id.
    pub id: String,
    /// The outer address.
    pub floating: Ipv4Addr,
    /// IP protocol number: 6 (TCP) or 17 (UDP).
    pub protocol: u8,
    /// The outer port.
    pub external_port: u16,
    /// The inner address.
    pub fixed: Ipv4Addr,
    /// The inner port.
    pub internal_port: u16,
}

/// A router's way out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gateway {
    /// The gateway port (an item of the slice too).
    pub port_id: String,
    /// The external network.
    pub network_id: String,
    /// Whether tenants' addresses are translated to the gateway's.
    pub snat: bool,
}

/// A floating IP: one to one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FloatingIp {
    /// Its id.
    pub id: String,
    /// The outer address.
    pub floating: Ipv4Addr,
    /// The inner address.
    pub fixed: Ipv4Addr,
    /// The port it leads to.
    pub port_id: String,
}
