//! The route table.

use crate::{
    App,
    api::{
        aggregates, flavors, groups, hypervisors, instance_actions, keypairs, limits, quotas, server_actions, server_list, server_parts,
        servers, services, usage, versions, zones,
    },
};
use maru_http::{Route, Routes};
use std::sync::Arc;

/// Bytes of a create or rebuild body at most: user data of 64 KiB and injected files fit with room.
const SERVER_BODY: u64 = 1 << 20;

pub(crate) fn build(app: Arc<App>) -> Vec<Route> {
    let mut routes = Routes::new(Arc::clone(&app))
        .public(http::Method::GET, "/", versions::index)
        .public(http::Method::GET, "/v2.1", versions::show)
        .get("/v2.1/extensions", "os_compute_api:extensions", versions::extensions)
        .get("/v2.1/extensions/{alias}", "os_compute_api:extensions", versions::extension_of)
        .build();
    routes.extend(server_routes(Arc::clone(&app)));
    routes.extend(part_routes(Arc::clone(&app)));
    routes.extend(other_routes(app));
    routes
}

fn server_routes(app: Arc<App>) -> Vec<Route> {
    Routes::new(app)
        .get("/v2.1/servers", "os_compute_api:servers:index", server_list::index)
        .get("/v2.1/servers/detail", "os_compute_api:servers:detail", server_list::detail)
        .post("/v2.1/servers", "os_compute_api:servers:create", servers::create)
        .limit(SERVER_BODY)
        .get("/v2.1/servers/{id}", "os_compute_api:servers:show", servers::show)
        .put("/v2.1/servers/{id}", "os_compute_api:servers:update", servers::update)
        .delete("/v2.1/servers/{id}", "os_compute_api:servers:delete", servers::delete)
        .post("/v2.1/servers/{id}/action", "os_compute_api:servers:action", server_actions::act)
        .limit(SERVER_BODY)
        .build()
}

fn part_routes(app: Arc<App>) -> Vec<Route> {
    Routes::new(app)
        .get("/v2.1/servers/{id}/ips", "os_compute_api:ips:index", server_parts::ips)
        .get("/v2.1/servers/{id}/ips/{network}", "os_compute_api:ips:show", server_parts::ips_of)
        .get("/v2.1/servers/{id}/metadata", "os_compute_api:server-metadata:index", server_parts::metadata)
        .post("/v2.1/servers/{id}/metadata", "os_compute_api:server-metadata:create", server_parts::add_metadata)
        .put("/v2.1/servers/{id}/metadata", "os_compute_api:server-metadata:update_all", server_parts::put_metadata)
        .get("/v2.1/servers/{id}/metadata/{key}", "os_compute_api:server-metadata:show", server_parts::metadata_item)
        .put("/v2.1/servers/{id}/metadata/{key}", "os_compute_api:server-metadata:update", server_parts::put_metadata_item)
        .delete("/v2.1/servers/{id}/metadata/{key}", "os_compute_api:server-metadata:delete", server_parts::delete_metadata_item)
        .get("/v2.1/servers/{id}/tags", "os_compute_api:os-server-tags:index", server_parts::tags)
        .put("/v2.1/servers/{id}/tags", "os_compute_api:os-server-tags:update_all", server_parts::put_tags)
        .delete("/v2.1/servers/{id}/tags", "os_compute_api:os-server-tags:delete_all", server_parts::delete_tags)
        .get("/v2.1/servers/{id}/tags/{tag}", "os_compute_api:os-server-tags:show", server_parts::tag)
        .put("/v2.1/servers/{id}/tags/{tag}", "os_compute_api:os-server-tags:update", server_parts::put_tag)
        .delete("/v2.1/servers/{id}/tags/{tag}", "os_compute_api:os-server-tags:delete", server_parts::delete_tag)
        .get("/v2.1/servers/{id}/os-interface", "os_compute_api:os-attach-interfaces:list", server_parts::interfaces)
        .post("/v2.1/servers/{id}/os-interface", "os_compute_api:os-attach-interfaces:create", server_parts::attach)
        .get("/v2.1/servers/{id}/os-interface/{port}", "os_compute_api:os-attach-interfaces:show", server_parts::interface)
        .delete("/v2.1/servers/{id}/os-interface/{port}", "os_compute_api:os-attach-interfaces:delete", server_parts::detach)
        .get("/v2.1/servers/{id}/os-security-groups", "os_compute_api:os-security-groups:list", server_parts::security_groups)
        .get("/v2.1/servers/{id}/os-volume_attachments", "os_compute_api:os-volumes-attachments:index", server_parts::volumes)
        .get("/v2.1/servers/{id}/diagnostics", "os_compute_api:os-server-diagnostics", server_parts::diagnostics)
        .get("/v2.1/servers/{id}/os-instance-actions", "os_compute_api:os-instance-actions:list", instance_actions::index)
        .get("/v2.1/servers/{id}/os-instance-actions/{request}", "os_compute_api:os-instance-actions:show", instance_actions::show)
        .build()
}

fn other_routes(app: Arc<App>) -> Vec<Route> {
    Routes::new(app)
        .get("/v2.1/flavors", "os_compute_api:os-flavors:index", flavors::index)
        .get("/v2.1/flavors/detail", "os_compute_api:os-flavors:index", flavors::detail)
        .post("/v2.1/flavors", "os_compute_api:os-flavor-manage:create", flavors::create)
        .get("/v2.1/flavors/{id}", "os_compute_api:os-flavors:index", flavors::show)
        .put("/v2.1/flavors/{id}", "os_compute_api:os-flavor-manage:update", flavors::update)
        .delete("/v2.1/flavors/{id}", "os_compute_api:os-flavor-manage:delete", flavors::delete)
        .post("/v2.1/flavors/{id}/action", "os_compute_api:os-flavor-access", flavors::act)
        .get("/v2.1/flavors/{id}/os-flavor-access", "os_compute_api:os-flavor-access", flavors::access)
        .get("/v2.1/flavors/{id}/os-extra_specs", "os_compute_api:os-flavor-extra-specs:index", flavors::specs)
        .post("/v2.1/flavors/{id}/os-extra_specs", "os_compute_api:os-flavor-extra-specs:create", flavors::add_specs)
        .get("/v2.1/flavors/{id}/os-extra_specs/{key}", "os_compute_api:os-flavor-extra-specs:show", flavors::spec)
        .put("/v2.1/flavors/{id}/os-extra_specs/{key}", "os_compute_api:os-flavor-extra-specs:update", flavors::put_spec)
        .delete("/v2.1/flavors/{id}/os-extra_specs/{key}", "os_compute_api:os-flavor-extra-specs:delete", flavors::delete_spec)
        .get("/v2.1/os-keypairs", "os_compute_api:os-keypairs:index", keypairs::index)
        .post("/v2.1/os-keypairs", "os_compute_api:os-keypairs:create", keypairs::create)
        .get("/v2.1/os-keypairs/{name}", "os_compute_api:os-keypairs:show", keypairs::show)
        .delete("/v2.1/os-keypairs/{name}", "os_compute_api:os-keypairs:delete", keypairs::delete)
        .get("/v2.1/os-availability-zone", "os_compute_api:os-availability-zone:list", zones::index)
        .get("/v2.1/os-availability-zone/detail", "os_compute_api:os-availability-zone:detail", zones::detail)
        .get("/v2.1/os-services", "os_compute_api:os-services:list", services::index)
        .put("/v2.1/os-services/{id}", "os_compute_api:os-services:update", services::update)
        .delete("/v2.1/os-services/{id}", "os_compute_api:os-services:delete", services::delete)
        .get("/v2.1/os-hypervisors", "os_compute_api:os-hypervisors:list", hypervisors::index)
        .get("/v2.1/os-hypervisors/detail", "os_compute_api:os-hypervisors:list-detail", hypervisors::detail)
        .get("/v2.1/os-hypervisors/statistics", "os_compute_api:os-hypervisors:statistics", hypervisors::statistics)
        .get("/v2.1/os-hypervisors/{id}", "os_compute_api:os-hypervisors:show", hypervisors::show)
        .get("/v2.1/os-hypervisors/{id}/uptime", "os_compute_api:os-hypervisors:uptime", hypervisors::uptime)
        .get("/v2.1/os-hypervisors/{id}/search", "os_compute_api:os-hypervisors:search", hypervisors::search)
        .get("/v2.1/os-hypervisors/{id}/servers", "os_compute_api:os-hypervisors:servers", hypervisors::servers)
        .get("/v2.1/limits", "os_compute_api:limits", limits::index)
        .get("/v2.1/os-quota-sets/{project}", "os_compute_api:os-quota-sets:show", quotas::show)
        .put("/v2.1/os-quota-sets/{project}", "os_compute_api:os-quota-sets:update", quotas::update)
        .delete("/v2.1/os-quota-sets/{project}", "os_compute_api:os-quota-sets:delete", quotas::delete)
        .get("/v2.1/os-quota-sets/{project}/defaults", "os_compute_api:os-quota-sets:defaults", quotas::defaults)
        .get("/v2.1/os-quota-sets/{project}/detail", "os_compute_api:os-quota-sets:detail", quotas::detail)
        .get("/v2.1/os-quota-class-sets/{class}", "os_compute_api:os-quota-class-sets:show", quotas::class)
        .put("/v2.1/os-quota-class-sets/{class}", "os_compute_api:os-quota-class-sets:update", quotas::update_class)
        .get("/v2.1/os-server-groups", "os_compute_api:os-server-groups:index", groups::index)
        .post("/v2.1/os-server-groups", "os_compute_api:os-server-groups:create", groups::create)
        .get("/v2.1/os-server-groups/{id}", "os_compute_api:os-server-groups:show", groups::show)
        .delete("/v2.1/os-server-groups/{id}", "os_compute_api:os-server-groups:delete", groups::delete)
        .get("/v2.1/os-simple-tenant-usage", "os_compute_api:os-simple-tenant-usage:list", usage::index)
        .get("/v2.1/os-simple-tenant-usage/{project}", "os_compute_api:os-simple-tenant-usage:show", usage::show)
        .get("/v2.1/os-aggregates", "os_compute_api:os-aggregates:index", aggregates::index)
        .post("/v2.1/os-aggregates", "os_compute_api:os-aggregates:create", aggregates::create)
        .get("/v2.1/os-aggregates/{id}", "os_compute_api:os-aggregates:show", aggregates::show)
        .put("/v2.1/os-aggregates/{id}", "os_compute_api:os-aggregates:update", aggregates::update)
        .delete("/v2.1/os-aggregates/{id}", "os_compute_api:os-aggregates:delete", aggregates::delete)
        .post("/v2.1/os-aggregates/{id}/action", "os_compute_api:os-aggregates:action", aggregates::act)
        .build()
}
