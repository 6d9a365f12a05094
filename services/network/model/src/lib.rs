//! Stored types, pure rules and planners of the network service (Neutron v2.0).
//!
//! Other services compose the planners (`plan_…`) into a transaction of their own. A planner reads a snapshot, adds
//! guards and operations to the [`maru_store::Txn`] it is given and looks at what earlier planners have put there, so
//! that ten ports planned one after another into one transaction neither share an address nor pass a quota.
//!
//! What holds a set of children together is an epoch key (see [`keys`]): whoever adds or takes a child writes it, whoever
//! decides over the whole set (overlapping subnets, deletion of a parent) guards it.
//!
//! | epoch | written by | guarded by |
//! |---|---|---|
//! | `subnets:<network>` | creation and deletion of subnets | the same, deletion of the network |
//! | `ports:<network>` | creation of ports | deletion of the network, taking it out of sharing |
//! | `ports:<subnet>` | every address given or taken | deletion of the subnet, change of its pools |
//! | `ports:<group>`, `rules:<group>` | ports and rules that name a group | deletion of the group |
//! | `router:<router>` | interfaces, gateway, routes, floating IPs, NDP proxies | the same |
//! | `pool:<pool>` | subnets that are cut out of it, its blocks | the same, its deletion |
//! | `pools:<scope>` | pools that join an address scope | the same, its deletion |
//! | `metering:<label>` | rules of a label | the same, its deletion |
//! | `address-group:<group>` | rules that name an address group | its deletion |
//! | `flavors:<profile>` | flavors that offer a profile | its deletion |
//! | `default-rules`, `default-statefulness` | a new or deleted one | the same |
//! | `qos:<policy>` | ports and networks that get a QoS policy | its deletion |
//! | `fips:<port>` | floating IPs of a port, forwardings to it, NDP proxies of it | deletion of the port, change of its addresses |

pub mod address;
pub mod address_group;
pub mod address_scope;
mod adopt;
pub mod agent;
mod bind;
pub mod conntrack_helper;
pub mod default_group;
pub mod default_rule;
pub mod default_statefulness;
pub mod dhcp;
pub mod errors;
pub mod flavor;
pub mod floating_ip;
pub mod keys;
pub mod meta;
pub mod metering;
pub mod ndp_proxy;
pub mod network;
pub mod observed;
pub mod port;
pub mod port_forwarding;
mod port_plan;
pub mod protocol;
pub mod qos;
pub mod quota;
pub mod rbac;
pub mod router;
pub mod router_plan;
pub mod security_group;
pub mod security_group_rule;
pub mod subnet;
pub mod subnet_pool;
pub mod tombstone;
pub mod topology;
pub mod trunk;

pub use address_group::{AddressGroup, AddressGroupId};
pub use address_scope::{AddressScope, AddressScopeId};
pub use adopt::plan_adopt_port;
pub use agent::{Agent, AgentId, plan_upsert_agent};
pub use bind::{plan_bind_port, plan_unbind_port};
pub use conntrack_helper::{ConntrackHelper, ConntrackHelperId};
pub use default_group::{default_group, ensure_default_group};
pub use default_rule::{DefaultRule, DefaultRuleId};
pub use default_statefulness::{DefaultStatefulness, DefaultStatefulnessId};
pub use flavor::{NetworkFlavor, NetworkFlavorId, ServiceProfile, ServiceProfileId};
pub use floating_ip::{
    FloatingIp, FloatingIpId, FloatingIpRequest, plan_associate, plan_create_floating_ip, plan_delete_floating_ip,
};
pub use meta::Meta;
pub use metering::{MeteringLabel, MeteringLabelId, MeteringLabelRule, MeteringLabelRuleId};
pub use ndp_proxy::{NdpProxy, NdpProxyId};
pub use network::{Network, NetworkId, NetworkRequest, plan_create_network, plan_delete_network};
pub use observed::{ObservedPort, plan_observe_port, port_is_up};
pub use port::{
    AddressPair, DhcpOption, FixedIp, FixedIpRequest, Port, PortId, PortRequest, plan_create_port, plan_delete_port,
};
pub use port_forwarding::{PortForwarding, PortForwardingId};
pub use qos::{QosPolicy, QosPolicyId, QosRule, QosRuleId, QosRuleKind};
pub use quota::{Quota, over_quota};
pub use rbac::{RbacPolicy, RbacPolicyId};
pub use router::{Gateway, Route, Router, RouterId, pick_host, plan_host_routers};
pub use security_group::{SecurityGroup, SecurityGroupId, plan_create_group, plan_delete_group};
pub use security_group_rule::{
    Direction, RuleRequest, SecurityGroupRule, SecurityGroupRuleId, plan_create_rule, plan_delete_rule,
};
pub use subnet::{Subnet, SubnetId, SubnetRequest, plan_create_subnets, plan_delete_subnet};
pub use subnet_pool::{PoolWish, SubnetPool, SubnetPoolChange, SubnetPoolId};
pub use tombstone::{Removed, TombstoneNetwork, TombstonePort, TombstoneRouter, network_hosts, plan_removed};
pub use trunk::{SubPort, Trunk, TrunkId};

/// Registers the kinds of this service.
pub fn register(r: &mut maru_store::Registry) {
    r.register::<Network>()
        .register::<Subnet>()
        .register::<Port>()
        .register::<Router>()
        .register::<FloatingIp>()
        .register::<PortForwarding>()
        .register::<QosPolicy>()
        .register::<Trunk>()
        .register::<NdpProxy>()
        .register::<topology::AutoTopology>()
        .register::<SecurityGroup>()
        .register::<SecurityGroupRule>()
        .register::<Quota>()
        .register::<Agent>()
        .register::<AddressScope>()
        .register::<SubnetPool>()
        .register::<RbacPolicy>()
        .register::<MeteringLabel>()
        .register::<MeteringLabelRule>()
        .register::<AddressGroup>()
        .register::<DefaultRule>()
        .register::<DefaultStatefulness>()
        .register::<NetworkFlavor>()
        .register::<ServiceProfile>()
        .register::<ObservedPort>()
        .register::<TombstonePort>()
        .register::<TombstoneNetwork>()
        .register::<TombstoneRouter>();
}
