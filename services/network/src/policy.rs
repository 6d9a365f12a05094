//! Policy rules, by upstream's names, with the secure role-based defaults.

use maru_auth::RuleDefault;

macro_rules! rules {
    ($($name:literal => $check:expr),* $(,)?) => {
        &[$(RuleDefault { name: $name, check: $check }),*]
    };
}

const ADMIN: &str = "role:admin";
const READER: &str = "role:admin or (role:reader and project_id:%(project_id)s)";
const MEMBER: &str = "role:admin or (role:member and project_id:%(project_id)s)";
const NET_OWNER: &str = "role:admin or (role:member and project_id:%(network:project_id)s)";
const ADMIN_OR_SERVICE: &str = "role:admin or role:service";
const NET_OWNER_OR_SHARED: &str =
    "role:admin or (role:member and project_id:%(network:project_id)s) or field:networks:network:shared=True";
const MEMBER_OR_NET_OWNER: &str = "role:admin or role:service or (role:member and project_id:%(project_id)s) or (role:member and project_id:%(network:project_id)s)";
const GET_NETWORK: &str = "role:admin or role:service or (role:reader and project_id:%(project_id)s) or field:networks:shared=True or field:networks:router:external=True";
const GET_SUBNET: &str = "role:admin or role:service or (role:reader and project_id:%(project_id)s) or (role:reader and project_id:%(network:project_id)s) or field:networks:network:shared=True";
const GET_PORT: &str = "role:admin or role:service or (role:reader and project_id:%(project_id)s) or (role:reader and project_id:%(network:project_id)s)";
const READER_OR_SHARED: &str =
    "role:admin or (role:reader and project_id:%(project_id)s) or field:subnetpools:shared=True";
const NETWORK_DEVICE: &str = "not field:port:device_owner=~^network: or role:admin or role:service or (role:member and project_id:%(network:project_id)s)";

/// The rules of the network service.
pub const POLICY: &[RuleDefault] = rules! {
    "get_extension" => "role:admin or role:reader or role:service",
    "get_availability_zone" => "role:admin or role:reader or role:service",
    "get_service_provider" => "role:admin or role:reader or role:service",
    "get_agent" => ADMIN,
    "update_agent" => ADMIN,
    "delete_agent" => ADMIN,
    "get_network_ip_availability" => ADMIN,

    "create_network" => MEMBER,
    "create_network:shared" => ADMIN,
    "create_network:router:external" => ADMIN,
    "create_network:is_default" => ADMIN,
    "create_network:port_security_enabled" => MEMBER,
    "create_network:provider:network_type" => ADMIN,
    "create_network:provider:physical_network" => ADMIN,
    "create_network:provider:segmentation_id" => ADMIN,
    "get_network" => GET_NETWORK,
    "get_network:provider:network_type" => ADMIN,
    "get_network:provider:physical_network" => ADMIN,
    "get_network:provider:segmentation_id" => ADMIN,
    "update_network" => MEMBER,
    "update_network:shared" => ADMIN,
    "update_network:router:external" => ADMIN,
    "update_network:is_default" => ADMIN,
    "update_network:port_security_enabled" => MEMBER,
    "delete_network" => MEMBER,
    "get_networks_tags" => GET_NETWORK,
    "update_networks_tags" => MEMBER,

    "create_subnet" => NET_OWNER,
    "create_subnet:service_types" => ADMIN,
    "get_subnet" => GET_SUBNET,
    "update_subnet" => MEMBER_OR_NET_OWNER,
    "delete_subnet" => MEMBER_OR_NET_OWNER,
    "get_subnets_tags" => GET_SUBNET,
    "update_subnets_tags" => MEMBER_OR_NET_OWNER,

    "create_port" => "role:admin or role:service or (role:member and project_id:%(project_id)s)",
    "create_port:on_external" => NET_OWNER_OR_SHARED,
    "create_port:device_owner" => NETWORK_DEVICE,
    "create_port:mac_address" => NET_OWNER,
    "create_port:fixed_ips" => NET_OWNER_OR_SHARED,
    "create_port:fixed_ips:ip_address" => NET_OWNER,
    "create_port:port_security_enabled" => NET_OWNER,
    "create_port:binding:host_id" => ADMIN_OR_SERVICE,
    "create_port:binding:profile" => ADMIN_OR_SERVICE,
    "create_port:binding:vnic_type" => MEMBER,
    "create_port:allowed_address_pairs" => NET_OWNER,
    "get_port" => GET_PORT,
    "get_port:binding:host_id" => ADMIN_OR_SERVICE,
    "update_port" => "role:admin or role:service or (role:member and project_id:%(project_id)s)",
    "update_port:device_owner" => NETWORK_DEVICE,
    "update_port:mac_address" => ADMIN_OR_SERVICE,
    "update_port:fixed_ips" => NET_OWNER_OR_SHARED,
    "update_port:fixed_ips:ip_address" => NET_OWNER,
    "update_port:port_security_enabled" => NET_OWNER,
    "update_port:binding:host_id" => ADMIN_OR_SERVICE,
    "update_port:binding:profile" => ADMIN_OR_SERVICE,
    "update_port:binding:vnic_type" => "role:admin or role:service or (role:member and project_id:%(project_id)s)",
    "update_port:allowed_address_pairs" => NET_OWNER,
    "delete_port" => MEMBER_OR_NET_OWNER,
    "get_ports_tags" => GET_PORT,
    "update_ports_tags" => MEMBER_OR_NET_OWNER,

    "create_subnetpool" => MEMBER,
    "create_subnetpool:shared" => ADMIN,
    "create_subnetpool:is_default" => ADMIN,
    "get_subnetpool" => READER_OR_SHARED,
    "update_subnetpool" => MEMBER,
    "update_subnetpool:is_default" => ADMIN,
    "delete_subnetpool" => MEMBER,
    "onboard_network_subnets" => MEMBER,
    "add_prefixes" => MEMBER,
    "remove_prefixes" => MEMBER,
    "get_subnetpools_tags" => READER_OR_SHARED,
    "update_subnetpools_tags" => MEMBER,

    "create_address_scope" => MEMBER,
    "create_address_scope:shared" => ADMIN,
    "get_address_scope" => READER_OR_SHARED,
    "update_address_scope" => MEMBER,
    "update_address_scope:shared" => ADMIN,
    "delete_address_scope" => MEMBER,

    "create_rbac_policy" => MEMBER,
    "create_rbac_policy:target_tenant" => ADMIN,
    "get_rbac_policy" => READER,
    "update_rbac_policy" => MEMBER,
    "update_rbac_policy:target_tenant" => ADMIN,
    "delete_rbac_policy" => MEMBER,

    "add_external_gateways" => MEMBER,
    "update_external_gateways" => MEMBER,
    "remove_external_gateways" => MEMBER,
    "get_address_group" => READER,
    "create_address_group" => MEMBER,
    "update_address_group" => MEMBER,
    "delete_address_group" => MEMBER,
    "add_addresses" => MEMBER,
    "remove_addresses" => MEMBER,
    "get_default_security_group_rule" => "role:admin or role:reader or role:service",
    "create_default_security_group_rule" => ADMIN,
    "delete_default_security_group_rule" => ADMIN,
    "get_security_group_default_statefulness" => ADMIN,
    "create_security_group_default_statefulness" => ADMIN,
    "update_security_group_default_statefulness" => ADMIN,
    "delete_security_group_default_statefulness" => ADMIN,
    "get_flavor" => "role:admin or role:reader or role:service",
    "create_flavor" => ADMIN,
    "update_flavor" => ADMIN,
    "delete_flavor" => ADMIN,
    "create_flavor_service_profile" => ADMIN,
    "delete_flavor_service_profile" => ADMIN,
    "get_service_profile" => ADMIN,
    "create_service_profile" => ADMIN,
    "update_service_profile" => ADMIN,
    "delete_service_profile" => ADMIN,

    "create_metering_label" => ADMIN,
    "get_metering_label" => ADMIN,
    "delete_metering_label" => ADMIN,
    "create_metering_label_rule" => ADMIN,
    "get_metering_label_rule" => ADMIN,
    "delete_metering_label_rule" => ADMIN,

    "create_router" => MEMBER,
    "create_router:distributed" => ADMIN,
    "create_router:ha" => ADMIN,
    "get_router:distributed" => ADMIN,
    "get_router:ha" => ADMIN,
    "update_router:distributed" => ADMIN,
    "update_router:ha" => ADMIN,
    "create_router:external_gateway_info:enable_snat" => ADMIN,
    "create_router:external_gateway_info:external_fixed_ips" => ADMIN,
    "get_router" => READER,
    "update_router" => MEMBER,
    "update_router:external_gateway_info:enable_snat" => ADMIN,
    "update_router:external_gateway_info:external_fixed_ips" => ADMIN,
    "delete_router" => MEMBER,
    "add_router_interface" => MEMBER,
    "remove_router_interface" => MEMBER,
    "add_extraroutes" => MEMBER,
    "remove_extraroutes" => MEMBER,
    "get_l3-agents" => ADMIN,
    "get_l3-routers" => ADMIN,
    "get_dhcp-agents" => ADMIN,
    "get_dhcp-networks" => ADMIN,
    "create_l3-router" => ADMIN,
    "delete_l3-router" => ADMIN,
    "create_dhcp-network" => ADMIN,
    "delete_dhcp-network" => ADMIN,
    "get_routers_tags" => READER,
    "update_routers_tags" => MEMBER,

    "create_floatingip" => MEMBER,
    "create_floatingip:floating_ip_address" => ADMIN,
    "get_floatingip" => READER,
    "update_floatingip" => MEMBER,
    "delete_floatingip" => MEMBER,
    "get_floatingips_tags" => READER,
    "update_floatingips_tags" => MEMBER,

    "create_security_group" => MEMBER,
    "get_security_group" => READER,
    "update_security_group" => MEMBER,
    "delete_security_group" => MEMBER,
    "get_security_groups_tags" => READER,
    "update_security_groups_tags" => MEMBER,
    "create_security_group_rule" => MEMBER,
    "get_security_group_rule" => READER,
    "delete_security_group_rule" => MEMBER,

    "get_quota" => "role:admin or (role:reader and project_id:%(project_id)s)",
    "list_quotas" => ADMIN,
    "update_quota" => ADMIN,
    "delete_quota" => ADMIN,
};
