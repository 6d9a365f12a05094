//! Version documents and extensions: exactly what is served.

use crate::App;
use maru_base::Result;
use maru_http::{Reply, Request};
use maru_network_model::errors;
use serde_json::{Value, json};
use std::sync::Arc;

/// Aliases of what is served, with upstream's names.
const SERVED: &[(&str, &str)] = &[
    ("address-group", "Address group"),
    ("address-scope", "Address scope"),
    ("agent", "agent"),
    ("allowed-address-pairs", "Allowed Address Pairs"),
    ("auto-allocated-topology", "Auto Allocated Topology Services"),
    ("availability_zone", "Availability Zone"),
    ("binding", "Port Binding"),
    ("dhcp_agent_scheduler", "DHCP Agent Scheduler"),
    ("default-subnetpools", "Default Subnetpools"),
    ("dns-integration", "DNS Integration"),
    ("dvr", "Distributed Virtual Router"),
    ("ext-gw-mode", "Neutron L3 Configurable external gateway mode"),
    (
        "external-gateway-multihoming",
        "Neutron router with several external gateways",
    ),
    ("expose-port-forwarding-in-fip", "Expose Port Forwarding in FIP"),
    ("expose-l3-conntrack-helper", "Expose CT helpers on the router"),
    ("external-net", "Neutron external network"),
    ("extra_dhcp_opt", "Neutron Extra DHCP options"),
    ("extraroute", "Neutron Extra Route"),
    ("extraroute-atomic", "Atomically add/remove extra routes"),
    ("flavors", "Neutron Service Flavors"),
    ("filter-validation", "Filter parameters validation"),
    ("fip-port-details", "Floating IP Port Details Extension"),
    ("floating-ip-port-forwarding", "Floating IP Port Forwarding"),
    (
        "floating-ip-port-forwarding-description",
        "Floating IP Port Forwarding new Field description",
    ),
    ("ip-substring-filtering", "IP address substring filtering"),
    ("l3-conntrack-helper", "L3 Conntrack helper"),
    ("l3-ha", "HA Router extension"),
    ("l3-ndp-proxy", "L3 NDP Proxy"),
    ("l3-ext-ndp-proxy", "Router extension of L3 NDP Proxy"),
    ("l3_agent_scheduler", "L3 Agent Scheduler"),
    ("metering", "Neutron Metering"),
    ("net-mtu", "Network MTU"),
    ("net-mtu-writable", "Network MTU (writable)"),
    ("network-ip-availability", "Network IP Availability"),
    ("network_availability_zone", "Network Availability Zone"),
    ("pagination", "Pagination support"),
    ("port-security", "Port Security"),
    ("project-id", "project_id field enabled"),
    ("provider", "Provider Network"),
    ("qos", "Quality of Service"),
    ("qos-bw-limit-direction", "Direction for QoS bandwidth limit rule"),
    ("qos-default", "QoS default policy"),
    ("qos-port-network-policy", "QoS port network policy"),
    ("qos-rule-type-details", "Details of QoS rule types"),
    ("qos-rules-alias", "Ability to modify QoS rules"),
    ("quota_details", "Quota details management support"),
    ("quotas", "Quota management support"),
    ("rbac-policies", "RBAC Policies"),
    ("revision-if-match", "If-Match constraints based on revision_number"),
    ("router", "Neutron L3 Router"),
    ("router_availability_zone", "Router Availability Zone"),
    ("security-group", "security-group"),
    (
        "security-groups-normalized-cidr",
        "Normalized CIDR field for security group rules",
    ),
    (
        "security-groups-rules-belongs-to-default-sg",
        "Security group rules belonging to the default security group",
    ),
    ("service-type", "Neutron Service Type Management"),
    ("sorting", "Sorting support"),
    ("security-groups-default-rules", "Default rules for security groups"),
    (
        "security-groups-remote-address-group",
        "Remote address group id field for security group rules",
    ),
    ("standard-attr-description", "standard-attr-description"),
    ("standard-attr-revisions", "Resource revision numbers"),
    ("standard-attr-tag", "Tag support for resources with standard attribute"),
    ("standard-attr-timestamp", "Resource timestamps"),
    ("stateful-security-group", "Stateful security group"),
    ("subnet_allocation", "Subnet Allocation"),
    ("subnet-service-types", "Subnet service types"),
    ("subnet_onboard", "Subnet Onboard"),
    ("subnetpool-prefix-ops", "Subnet Pool Prefix Operations"),
    ("trunk", "Trunk Extension"),
    ("trunk-details", "Trunk port details"),
];

fn describe((alias, name): &(&str, &str)) -> Value {
    json!({
        "alias": alias, "name": name, "description": format!("{name}."), "links": [], "updated": "2026-01-01T00:00:00-00:00",
    })
}

pub(crate) async fn versions(_app: Arc<App>, request: Request) -> Result<Reply> {
    Reply::json(
        200,
        &json!({"versions": [{
            "id": "v2.0", "status": "CURRENT", "links": [{"rel": "self", "href": format!("{}/v2.0/", request.base)}],
        }]}),
    )
}

pub(crate) async fn version(_app: Arc<App>, request: Request) -> Result<Reply> {
    let resources: Vec<Value> = [
        ("network", "networks"),
        ("subnet", "subnets"),
        ("port", "ports"),
        ("subnetpool", "subnetpools"),
        ("address_scope", "address-scopes"),
        ("rbac_policy", "rbac-policies"),
        ("router", "routers"),
        ("floatingip", "floatingips"),
        ("security_group", "security-groups"),
        ("security_group_rule", "security-group-rules"),
        ("quota", "quotas"),
        ("agent", "agents"),
        ("availability_zone", "availability_zones"),
        ("network_ip_availability", "network-ip-availabilities"),
        ("extension", "extensions"),
    ]
    .iter()
    .map(|(name, collection)| {
        json!({
            "name": name, "collection": collection,
            "links": [{"rel": "self", "href": format!("{}/v2.0/{collection}", request.base)}],
        })
    })
    .collect();
    Reply::json(200, &json!({"resources": resources}))
}

pub(crate) async fn extensions(_app: Arc<App>, _request: Request) -> Result<Reply> {
    let all: Vec<Value> = SERVED.iter().map(describe).collect();
    Reply::json(200, &json!({"extensions": all}))
}

pub(crate) async fn extension(_app: Arc<App>, request: Request) -> Result<Reply> {
    let alias = request.param("alias");
    let found = SERVED
        .iter()
        .find(|(a, _)| *a == alias)
        .ok_or_else(|| errors::not_found("ExtensionNotFound", "Extension with alias", alias))?;
    Reply::json(200, &json!({"extension": describe(found)}))
}

/// Who provides services that have a choice of providers: routers have one.
pub(crate) async fn providers(_app: Arc<App>, request: Request) -> Result<Reply> {
    let provider = json!({"service_type": "L3_ROUTER_NAT", "name": "single_node", "default": true});
    let asked = |name: &str| {
        let have = provider[name].as_str().unwrap_or_default();
        !request.query.has(name) || request.query.all(name).any(|v| v == have)
    };
    // The client asks so whether there is a service for VPNs, and believes what it gets.
    let all: Vec<&Value> = Some(&provider)
        .into_iter()
        .filter(|_| asked("service_type") && asked("name"))
        .collect();
    Reply::json(200, &json!({"service_providers": all}))
}
