//! Routes, and what handlers share.

mod address_groups;
mod address_scopes;
mod agents;
mod body;
mod conntrack_helpers;
mod default_rules;
mod discovery;
mod flavors;
mod floating_ips;
mod ip_availability;
mod metering;
mod ndp_proxies;
mod networks;
mod port_forwardings;
mod ports;
mod qos;
mod quotas;
mod rbac_policies;
mod routers;
mod row;
mod security_group_rules;
mod security_groups;
mod subnet_pools;
mod subnets;
mod tags;
mod topology;
mod trunks;

use crate::{App, app::access};
use maru_auth::Target;
use maru_base::ProjectId;
use maru_http::{Request, Route, Routes};
use maru_store::{Kind, Object, Snapshot};
use std::sync::Arc;

/// All routes of the service.
pub(crate) fn routes(app: Arc<App>) -> Vec<Route> {
    let r = Routes::new(app)
        .public(http::Method::GET, "", discovery::versions)
        .public(http::Method::GET, "/v2.0", discovery::version)
        .get("/v2.0/extensions", "get_extension", discovery::extensions)
        .get("/v2.0/extensions/{alias}", "get_extension", discovery::extension)
        .get("/v2.0/availability_zones", "get_availability_zone", agents::zones)
        .get("/v2.0/agents", "get_agent", agents::list)
        .get("/v2.0/agents/{id}", "get_agent", agents::show)
        .put("/v2.0/agents/{id}", "update_agent", agents::update)
        .delete("/v2.0/agents/{id}", "delete_agent", agents::delete)
        .get("/v2.0/agents/{id}/l3-routers", "get_l3-routers", agents::routers)
        .get("/v2.0/agents/{id}/dhcp-networks", "get_dhcp-networks", agents::networks)
        .post("/v2.0/agents/{id}/l3-routers", "create_l3-router", agents::add_router)
        .delete(
            "/v2.0/agents/{id}/l3-routers/{router}",
            "delete_l3-router",
            agents::remove_router,
        )
        .post(
            "/v2.0/agents/{id}/dhcp-networks",
            "create_dhcp-network",
            agents::add_network,
        )
        .delete(
            "/v2.0/agents/{id}/dhcp-networks/{network}",
            "delete_dhcp-network",
            agents::remove_network,
        )
        .get("/v2.0/service-providers", "get_service_provider", discovery::providers)
        .get("/v2.0/routers/{id}/l3-agents", "get_l3-agents", agents::of_router)
        .get("/v2.0/networks/{id}/dhcp-agents", "get_dhcp-agents", agents::of_network)
        .get(
            "/v2.0/network-ip-availabilities",
            "get_network_ip_availability",
            ip_availability::list,
        )
        .get(
            "/v2.0/network-ip-availabilities/{id}",
            "get_network_ip_availability",
            ip_availability::show,
        )
        .get("/v2.0/networks", "get_network", networks::list)
        .post("/v2.0/networks", "create_network", networks::create)
        .get("/v2.0/networks/{id}", "get_network", networks::show)
        .put("/v2.0/networks/{id}", "update_network", networks::update)
        .delete("/v2.0/networks/{id}", "delete_network", networks::delete)
        .get("/v2.0/subnets", "get_subnet", subnets::list)
        .post("/v2.0/subnets", "create_subnet", subnets::create)
        .get("/v2.0/subnets/{id}", "get_subnet", subnets::show)
        .put("/v2.0/subnets/{id}", "update_subnet", subnets::update)
        .delete("/v2.0/subnets/{id}", "delete_subnet", subnets::delete)
        .get("/v2.0/ports", "get_port", ports::list)
        .post("/v2.0/ports", "create_port", ports::create)
        .get("/v2.0/ports/{id}", "get_port", ports::show)
        .put("/v2.0/ports/{id}", "update_port", ports::update)
        .delete("/v2.0/ports/{id}", "delete_port", ports::delete)
        .get("/v2.0/routers", "get_router", routers::list)
        .post("/v2.0/routers", "create_router", routers::create)
        .get("/v2.0/routers/{id}", "get_router", routers::show)
        .put("/v2.0/routers/{id}", "update_router", routers::update)
        .delete("/v2.0/routers/{id}", "delete_router", routers::delete)
        .put(
            "/v2.0/routers/{id}/add_router_interface",
            "add_router_interface",
            routers::add_interface,
        )
        .put(
            "/v2.0/routers/{id}/remove_router_interface",
            "remove_router_interface",
            routers::remove_interface,
        )
        .put(
            "/v2.0/routers/{id}/add_extraroutes",
            "add_extraroutes",
            routers::add_routes,
        )
        .put(
            "/v2.0/routers/{id}/remove_extraroutes",
            "remove_extraroutes",
            routers::remove_routes,
        )
        .put(
            "/v2.0/routers/{id}/add_external_gateways",
            "add_external_gateways",
            routers::add_gateways,
        )
        .put(
            "/v2.0/routers/{id}/update_external_gateways",
            "update_external_gateways",
            routers::update_gateways,
        )
        .put(
            "/v2.0/routers/{id}/remove_external_gateways",
            "remove_external_gateways",
            routers::remove_gateways,
        )
        .get("/v2.0/floatingips", "get_floatingip", floating_ips::list)
        .post("/v2.0/floatingips", "create_floatingip", floating_ips::create)
        .get("/v2.0/floatingips/{id}", "get_floatingip", floating_ips::show)
        .put("/v2.0/floatingips/{id}", "update_floatingip", floating_ips::update)
        .delete("/v2.0/floatingips/{id}", "delete_floatingip", floating_ips::delete)
        .get("/v2.0/security-groups", "get_security_group", security_groups::list)
        .post(
            "/v2.0/security-groups",
            "create_security_group",
            security_groups::create,
        )
        .get(
            "/v2.0/security-groups/{id}",
            "get_security_group",
            security_groups::show,
        )
        .put(
            "/v2.0/security-groups/{id}",
            "update_security_group",
            security_groups::update,
        )
        .delete(
            "/v2.0/security-groups/{id}",
            "delete_security_group",
            security_groups::delete,
        )
        .get(
            "/v2.0/security-group-rules",
            "get_security_group_rule",
            security_group_rules::list,
        )
        .post(
            "/v2.0/security-group-rules",
            "create_security_group_rule",
            security_group_rules::create,
        )
        .get(
            "/v2.0/security-group-rules/{id}",
            "get_security_group_rule",
            security_group_rules::show,
        )
        .delete(
            "/v2.0/security-group-rules/{id}",
            "delete_security_group_rule",
            security_group_rules::delete,
        )
        .get("/v2.0/quotas", "list_quotas", quotas::list)
        .get("/v2.0/quotas/{project}", "get_quota", quotas::show)
        .put("/v2.0/quotas/{project}", "update_quota", quotas::update)
        .delete("/v2.0/quotas/{project}", "delete_quota", quotas::reset)
        .get("/v2.0/quotas/{project}/default", "get_quota", quotas::default)
        .get("/v2.0/quotas/{project}/details", "get_quota", quotas::details)
        .get("/v2.0/quotas/{project}/details.json", "get_quota", quotas::details);
    let r = rbac_routes(metering_routes(pool_routes(tags::routes(r))));
    router_routes(trunk_routes(qos_routes(forwarding_routes(flavor_routes(
        group_routes(r),
    )))))
    .build()
}

/// What routers have besides what they are.
fn router_routes(r: Routes<App>) -> Routes<App> {
    let all = "/v2.0/routers/{id}/conntrack_helpers";
    let one = "/v2.0/routers/{id}/conntrack_helpers/{helper_id}";
    r.get(all, "get_router_conntrack_helper", conntrack_helpers::list)
        .post(all, "create_router_conntrack_helper", conntrack_helpers::create)
        .get(one, "get_router_conntrack_helper", conntrack_helpers::show)
        .put(one, "update_router_conntrack_helper", conntrack_helpers::update)
        .delete(one, "delete_router_conntrack_helper", conntrack_helpers::delete)
        .get("/v2.0/ndp_proxies", "get_ndp_proxy", ndp_proxies::list)
        .post("/v2.0/ndp_proxies", "create_ndp_proxy", ndp_proxies::create)
        .get("/v2.0/ndp_proxies/{id}", "get_ndp_proxy", ndp_proxies::show)
        .put("/v2.0/ndp_proxies/{id}", "update_ndp_proxy", ndp_proxies::update)
        .delete("/v2.0/ndp_proxies/{id}", "delete_ndp_proxy", ndp_proxies::delete)
}

fn trunk_routes(r: Routes<App>) -> Routes<App> {
    let given = "/v2.0/auto-allocated-topology/{project}";
    let r = r.get(given, "get_auto_allocated_topology", topology::show).delete(
        given,
        "delete_auto_allocated_topology",
        topology::delete,
    );
    r.get("/v2.0/trunks", "get_trunk", trunks::list)
        .post("/v2.0/trunks", "create_trunk", trunks::create)
        .get("/v2.0/trunks/{id}", "get_trunk", trunks::show)
        .put("/v2.0/trunks/{id}", "update_trunk", trunks::update)
        .delete("/v2.0/trunks/{id}", "delete_trunk", trunks::delete)
        .get("/v2.0/trunks/{id}/get_subports", "get_subports", trunks::get_subports)
        .put("/v2.0/trunks/{id}/add_subports", "add_subports", trunks::add_subports)
        .put(
            "/v2.0/trunks/{id}/remove_subports",
            "remove_subports",
            trunks::remove_subports,
        )
}

fn qos_routes(r: Routes<App>) -> Routes<App> {
    let r = r
        .get("/v2.0/qos/policies", "get_policy", qos::list)
        .post("/v2.0/qos/policies", "create_policy", qos::create)
        .get("/v2.0/qos/policies/{id}", "get_policy", qos::show)
        .put("/v2.0/qos/policies/{id}", "update_policy", qos::update)
        .delete("/v2.0/qos/policies/{id}", "delete_policy", qos::delete)
        .get("/v2.0/qos/rule-types", "get_rule_type", qos::list_types)
        .get("/v2.0/qos/rule-types/{id}", "get_rule_type", qos::show_type);
    macro_rules! rules {
        ($r:expr, $kind:literal) => {{
            let all = concat!("/v2.0/qos/policies/{id}/", $kind, "_rules");
            let one = concat!("/v2.0/qos/policies/{id}/", $kind, "_rules/{rule_id}");
            let alias = concat!("/v2.0/qos/alias_", $kind, "_rules/{rule_id}");
            $r.get(all, concat!("get_policy_", $kind, "_rule"), qos::list_rules)
                .post(all, concat!("create_policy_", $kind, "_rule"), qos::create_rule)
                .get(one, concat!("get_policy_", $kind, "_rule"), qos::show_rule)
                .put(one, concat!("update_policy_", $kind, "_rule"), qos::update_rule)
                .delete(one, concat!("delete_policy_", $kind, "_rule"), qos::delete_rule)
                .get(alias, concat!("get_alias_", $kind, "_rule"), qos::show_rule)
                .put(alias, concat!("update_alias_", $kind, "_rule"), qos::update_rule)
                .delete(alias, concat!("delete_alias_", $kind, "_rule"), qos::delete_rule)
        }};
    }
    let r = rules!(r, "bandwidth_limit");
    rules!(r, "dscp_marking")
}

fn forwarding_routes(r: Routes<App>) -> Routes<App> {
    let all = "/v2.0/floatingips/{id}/port_forwardings";
    let one = "/v2.0/floatingips/{id}/port_forwardings/{forwarding_id}";
    r.get(all, "get_floatingip_port_forwarding", port_forwardings::list)
        .post(all, "create_floatingip_port_forwarding", port_forwardings::create)
        .get(one, "get_floatingip_port_forwarding", port_forwardings::show)
        .put(one, "update_floatingip_port_forwarding", port_forwardings::update)
        .delete(one, "delete_floatingip_port_forwarding", port_forwardings::delete)
}

fn pool_routes(r: Routes<App>) -> Routes<App> {
    r.get("/v2.0/subnetpools", "get_subnetpool", subnet_pools::list)
        .post("/v2.0/subnetpools", "create_subnetpool", subnet_pools::create)
        .get("/v2.0/subnetpools/{id}", "get_subnetpool", subnet_pools::show)
        .put("/v2.0/subnetpools/{id}", "update_subnetpool", subnet_pools::update)
        .delete("/v2.0/subnetpools/{id}", "delete_subnetpool", subnet_pools::delete)
        .put(
            "/v2.0/subnetpools/{id}/add_prefixes",
            "add_prefixes",
            subnet_pools::add_prefixes,
        )
        .put(
            "/v2.0/subnetpools/{id}/remove_prefixes",
            "remove_prefixes",
            subnet_pools::remove_prefixes,
        )
        .put(
            "/v2.0/subnetpools/{id}/onboard_network_subnets",
            "onboard_network_subnets",
            subnet_pools::onboard,
        )
        .get("/v2.0/address-scopes", "get_address_scope", address_scopes::list)
        .post("/v2.0/address-scopes", "create_address_scope", address_scopes::create)
        .get("/v2.0/address-scopes/{id}", "get_address_scope", address_scopes::show)
        .put(
            "/v2.0/address-scopes/{id}",
            "update_address_scope",
            address_scopes::update,
        )
        .delete(
            "/v2.0/address-scopes/{id}",
            "delete_address_scope",
            address_scopes::delete,
        )
}

/// What security groups are made of and begin with.
fn group_routes(r: Routes<App>) -> Routes<App> {
    let (groups, group) = ("/v2.0/address-groups", "/v2.0/address-groups/{id}");
    let (rules, rule) = (
        "/v2.0/default-security-group-rules",
        "/v2.0/default-security-group-rules/{id}",
    );
    let settings = "/v2.0/security-groups-default-statefulness";
    let setting = format!("{settings}/{{id}}");
    let (add, remove) = (format!("{group}/add_addresses"), format!("{group}/remove_addresses"));
    r.get(groups, "get_address_group", address_groups::list)
        .post(groups, "create_address_group", address_groups::create)
        .get(group, "get_address_group", address_groups::show)
        .put(group, "update_address_group", address_groups::update)
        .delete(group, "delete_address_group", address_groups::delete)
        .put(&add, "add_addresses", address_groups::add_addresses)
        .put(&remove, "remove_addresses", address_groups::remove_addresses)
        .get(rules, "get_default_security_group_rule", default_rules::list)
        .post(rules, "create_default_security_group_rule", default_rules::create)
        .get(rule, "get_default_security_group_rule", default_rules::show)
        .delete(rule, "delete_default_security_group_rule", default_rules::delete)
        .get(
            settings,
            "get_security_group_default_statefulness",
            default_rules::list_settings,
        )
        .post(
            settings,
            "create_security_group_default_statefulness",
            default_rules::create_setting,
        )
        .get(
            &setting,
            "get_security_group_default_statefulness",
            default_rules::show_setting,
        )
        .put(
            &setting,
            "update_security_group_default_statefulness",
            default_rules::update_setting,
        )
        .delete(
            &setting,
            "delete_security_group_default_statefulness",
            default_rules::delete_setting,
        )
}

fn flavor_routes(r: Routes<App>) -> Routes<App> {
    let (all, one) = ("/v2.0/flavors", "/v2.0/flavors/{id}");
    let (profiles, profile) = ("/v2.0/service_profiles", "/v2.0/service_profiles/{id}");
    let of = format!("{one}/service_profiles");
    let one_of = format!("{of}/{{profile}}");
    r.get(all, "get_flavor", flavors::list)
        .post(all, "create_flavor", flavors::create)
        .get(one, "get_flavor", flavors::show)
        .put(one, "update_flavor", flavors::update)
        .delete(one, "delete_flavor", flavors::delete)
        .post(&of, "create_flavor_service_profile", flavors::add_profile)
        .delete(&one_of, "delete_flavor_service_profile", flavors::remove_profile)
        .get(profiles, "get_service_profile", flavors::list_profiles)
        .post(profiles, "create_service_profile", flavors::create_profile)
        .get(profile, "get_service_profile", flavors::show_profile)
        .put(profile, "update_service_profile", flavors::update_profile)
        .delete(profile, "delete_service_profile", flavors::delete_profile)
}

fn rbac_routes(r: Routes<App>) -> Routes<App> {
    let (all, one) = ("/v2.0/rbac-policies", "/v2.0/rbac-policies/{id}");
    r.get(all, "get_rbac_policy", rbac_policies::list)
        .post(all, "create_rbac_policy", rbac_policies::create)
        .get(one, "get_rbac_policy", rbac_policies::show)
        .put(one, "update_rbac_policy", rbac_policies::update)
        .delete(one, "delete_rbac_policy", rbac_policies::delete)
}

fn metering_routes(r: Routes<App>) -> Routes<App> {
    let (labels, rules) = ("/v2.0/metering/metering-labels", "/v2.0/metering/metering-label-rules");
    let (label, rule) = (format!("{labels}/{{id}}"), format!("{rules}/{{id}}"));
    r.get(labels, "get_metering_label", metering::list)
        .post(labels, "create_metering_label", metering::create)
        .get(&label, "get_metering_label", metering::show)
        .delete(&label, "delete_metering_label", metering::delete)
        .get(rules, "get_metering_label_rule", metering::list_rules)
        .post(rules, "create_metering_label_rule", metering::create_rule)
        .get(&rule, "get_metering_label_rule", metering::show_rule)
        .delete(&rule, "delete_metering_label_rule", metering::delete_rule)
}

/// What may be listed: objects that the query's indexes name, or all that the caller can see. `more` gives what the caller
/// sees beside the own project's.
pub(crate) fn candidates<K: Kind>(
    request: &Request,
    snapshot: &Snapshot,
    rule: &str,
    indexes: &[(&str, &str)],
    target: impl Fn(&Snapshot, &K) -> Target,
    more: impl FnOnce(&Snapshot, &ProjectId) -> Vec<Object<K>>,
) -> Vec<Object<K>> {
    let query = &request.query;
    let all = access::sees_all(request, rule);
    let mut found: Vec<Object<K>> = Vec::new();
    if query.has("id") {
        found.extend(query.all("id").filter_map(|id| snapshot.get::<K>(&K::Id::from(id))));
    } else if let Some((key, index)) = indexes.iter().find(|(key, _)| query.has(key)) {
        for value in query.all(key) {
            found.extend(snapshot.find::<K>(index, value));
        }
    } else if all {
        let projects: Vec<&str> = query.all("project_id").chain(query.all("tenant_id")).collect();
        if projects.is_empty() {
            return snapshot.list::<K>().collect();
        }
        for project in projects {
            found.extend(snapshot.find::<K>("project", project));
        }
    } else if let Some(project) = request.caller().ok().and_then(|c| c.project_id().cloned()) {
        found.extend(snapshot.find::<K>("project", &project));
        found.extend(more(snapshot, &project));
    }
    found.sort_by(|a, b| a.id.as_ref().cmp(b.id.as_ref()));
    found.dedup_by(|a, b| a.id.as_ref() == b.id.as_ref());
    if !all {
        found.retain(|o| request.may(rule, &target(snapshot, &o.value)));
    }
    found
}
