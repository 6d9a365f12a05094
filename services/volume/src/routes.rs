//! The route tables.

use crate::{
    App,
    api::{
        attachments, backup_records, backups, clusters, consistency_groups, default_types, group_snapshots,
        group_types, groups, manageable, messages, metadata, misc, qos, quotas, services, snapshots, transfers, types,
        versions, volume_actions, volumes,
    },
};
use maru_base::{Error, Result};
use maru_http::{Reply, Request, Route, Routes};
use maru_volume_model::{Snapshot, Volume};
use std::{future::Future, sync::Arc};

/// The list of versions above the versioned API.
pub(crate) fn versions(app: &Arc<App>) -> Vec<Route> {
    Routes::new(Arc::clone(app))
        .public(http::Method::GET, "/", versions::index)
        .public(http::Method::GET, "/v3", versions::show)
        .build()
}

/// A route table whose handlers run only when the project in the path, if there is one, is the caller's.
struct Table(Routes<App>);

/// Clients of all ages write the project into the path; it must be the one that the token is for (administrators may write
/// another's, as upstream lets them).
fn check_project(request: &Request) -> Result<()> {
    let project = request.param("url_project");
    if project.is_empty() {
        return Ok(());
    }
    let caller = request.caller()?;
    let mine = caller.project_id().is_some_and(|p| p.as_str() == project);
    if mine || caller.is_admin() {
        return Ok(());
    }
    Err(Error::bad_request(
        "Malformed request url: the project in its path is not the one that the token is for.",
    ))
}

impl Table {
    fn on<F, Fut>(self, method: http::Method, path: &str, rule: &'static str, handler: F) -> Self
    where
        F: Fn(Arc<App>, Request) -> Fut + Copy + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply>> + Send + 'static,
    {
        Self(self.0.on(method, path, rule, move |app, request: Request| async move {
            check_project(&request)?;
            handler(app, request).await
        }))
    }
    fn get<F, Fut>(self, path: &str, rule: &'static str, handler: F) -> Self
    where
        F: Fn(Arc<App>, Request) -> Fut + Copy + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply>> + Send + 'static,
    {
        self.on(http::Method::GET, path, rule, handler)
    }
    fn post<F, Fut>(self, path: &str, rule: &'static str, handler: F) -> Self
    where
        F: Fn(Arc<App>, Request) -> Fut + Copy + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply>> + Send + 'static,
    {
        self.on(http::Method::POST, path, rule, handler)
    }
    fn put<F, Fut>(self, path: &str, rule: &'static str, handler: F) -> Self
    where
        F: Fn(Arc<App>, Request) -> Fut + Copy + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply>> + Send + 'static,
    {
        self.on(http::Method::PUT, path, rule, handler)
    }
    fn delete<F, Fut>(self, path: &str, rule: &'static str, handler: F) -> Self
    where
        F: Fn(Arc<App>, Request) -> Fut + Copy + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply>> + Send + 'static,
    {
        self.on(http::Method::DELETE, path, rule, handler)
    }
}

pub(crate) fn build(app: &Arc<App>) -> Vec<Route> {
    let table = Table(Routes::new(Arc::clone(app)));
    let table = consistency_groups(group_types(groups(others(transfers(backups(types(snapshots(
        volumes(table),
    ))))))));
    table.0.build()
}

fn volumes(t: Table) -> Table {
    t.get("/volumes", "volume:get_all", volumes::index)
        .get("/volumes/detail", "volume:get_all", volumes::detail)
        .get("/volumes/summary", "volume:get_all", volumes::summary)
        .post("/volumes", "volume:create", volumes::create)
        .get("/volumes/{id}", "volume:get", volumes::show)
        .put("/volumes/{id}", "volume:update", volumes::update)
        .delete("/volumes/{id}", "volume:delete", volumes::delete)
        .post(
            "/volumes/{id}/action",
            "volume_extension:volume_actions",
            volume_actions::act,
        )
        .get(
            "/volumes/{id}/metadata",
            "volume:get_volume_metadata",
            metadata::index::<Volume>,
        )
        .post(
            "/volumes/{id}/metadata",
            "volume:create_volume_metadata",
            metadata::add::<Volume>,
        )
        .put(
            "/volumes/{id}/metadata",
            "volume:update_volume_metadata",
            metadata::put::<Volume>,
        )
        .get(
            "/volumes/{id}/metadata/{key}",
            "volume:get_volume_metadata",
            metadata::show::<Volume>,
        )
        .put(
            "/volumes/{id}/metadata/{key}",
            "volume:update_volume_metadata",
            metadata::put_item::<Volume>,
        )
        .delete(
            "/volumes/{id}/metadata/{key}",
            "volume:delete_volume_metadata",
            metadata::delete::<Volume>,
        )
        .get(
            "/volumes/{id}/encryption",
            "volume_extension:volume_encryption_metadata",
            misc::encryption,
        )
}

fn snapshots(t: Table) -> Table {
    t.get("/snapshots", "volume:get_all_snapshots", snapshots::index)
        .get("/snapshots/detail", "volume:get_all_snapshots", snapshots::detail)
        .post("/snapshots", "volume:create_snapshot", snapshots::create)
        .get("/snapshots/{id}", "volume:get_snapshot", snapshots::show)
        .put("/snapshots/{id}", "volume:update_snapshot", snapshots::update)
        .delete("/snapshots/{id}", "volume:delete_snapshot", snapshots::delete)
        .post(
            "/snapshots/{id}/action",
            "volume_extension:snapshot_actions",
            snapshots::act,
        )
        .get(
            "/snapshots/{id}/metadata",
            "volume:get_snapshot_metadata",
            metadata::index::<Snapshot>,
        )
        .post(
            "/snapshots/{id}/metadata",
            "volume:update_snapshot_metadata",
            metadata::add::<Snapshot>,
        )
        .put(
            "/snapshots/{id}/metadata",
            "volume:update_snapshot_metadata",
            metadata::put::<Snapshot>,
        )
        .get(
            "/snapshots/{id}/metadata/{key}",
            "volume:get_snapshot_metadata",
            metadata::show::<Snapshot>,
        )
        .put(
            "/snapshots/{id}/metadata/{key}",
            "volume:update_snapshot_metadata",
            metadata::put_item::<Snapshot>,
        )
        .delete(
            "/snapshots/{id}/metadata/{key}",
            "volume:delete_snapshot_metadata",
            metadata::delete::<Snapshot>,
        )
        .get("/attachments", "volume:attachment_get", attachments::index)
        .get("/attachments/detail", "volume:attachment_get", attachments::detail)
        .post("/attachments", "volume:attachment_create", attachments::create)
        .get("/attachments/{id}", "volume:attachment_get", attachments::show)
        .put("/attachments/{id}", "volume:attachment_update", attachments::update)
        .delete("/attachments/{id}", "volume:attachment_delete", attachments::delete)
        .post(
            "/attachments/{id}/action",
            "volume:attachment_complete",
            attachments::act,
        )
}

fn types(t: Table) -> Table {
    t.get("/types", "volume_extension:type_get_all", types::index)
        .post("/types", "volume_extension:type_create", types::create)
        .get("/types/{id}", "volume_extension:type_get", types::show)
        .put("/types/{id}", "volume_extension:type_update", types::update)
        .delete("/types/{id}", "volume_extension:type_delete", types::delete)
        .get(
            "/types/{id}/extra_specs",
            "volume_extension:types_extra_specs:index",
            types::specs,
        )
        .post(
            "/types/{id}/extra_specs",
            "volume_extension:types_extra_specs:create",
            types::add_specs,
        )
        .get(
            "/types/{id}/extra_specs/{key}",
            "volume_extension:types_extra_specs:show",
            types::spec,
        )
        .put(
            "/types/{id}/extra_specs/{key}",
            "volume_extension:types_extra_specs:update",
            types::put_spec,
        )
        .delete(
            "/types/{id}/extra_specs/{key}",
            "volume_extension:types_extra_specs:delete",
            types::delete_spec,
        )
        .get(
            "/types/{id}/os-volume-type-access",
            "volume_extension:volume_type_access",
            types::access,
        )
        .post("/types/{id}/action", "volume_extension:volume_type_access", types::act)
        .get(
            "/types/{id}/encryption",
            "volume_extension:volume_type_encryption:get",
            types::encryption,
        )
        .get(
            "/types/{id}/encryption/{key}",
            "volume_extension:volume_type_encryption:get",
            types::encryption_item,
        )
        .post(
            "/types/{id}/encryption",
            "volume_extension:volume_type_encryption:create",
            types::create_encryption,
        )
        .put(
            "/types/{id}/encryption/{key}",
            "volume_extension:volume_type_encryption:update",
            types::update_encryption,
        )
        .delete(
            "/types/{id}/encryption/{key}",
            "volume_extension:volume_type_encryption:delete",
            types::delete_encryption,
        )
        .get("/qos-specs", "volume_extension:qos_specs_manage:get_all", qos::index)
        .post("/qos-specs", "volume_extension:qos_specs_manage:create", qos::create)
        .get("/qos-specs/{id}", "volume_extension:qos_specs_manage:get", qos::show)
        .put(
            "/qos-specs/{id}",
            "volume_extension:qos_specs_manage:update",
            qos::update,
        )
        .delete(
            "/qos-specs/{id}",
            "volume_extension:qos_specs_manage:delete",
            qos::delete,
        )
        .put(
            "/qos-specs/{id}/delete_keys",
            "volume_extension:qos_specs_manage:update",
            qos::delete_keys,
        )
        .get(
            "/qos-specs/{id}/associations",
            "volume_extension:qos_specs_manage:get",
            qos::associations,
        )
        .get(
            "/qos-specs/{id}/associate",
            "volume_extension:qos_specs_manage:update",
            qos::associate,
        )
        .get(
            "/qos-specs/{id}/disassociate",
            "volume_extension:qos_specs_manage:update",
            qos::disassociate,
        )
        .get(
            "/qos-specs/{id}/disassociate_all",
            "volume_extension:qos_specs_manage:update",
            qos::disassociate_all,
        )
}

fn backups(t: Table) -> Table {
    t.get("/backups", "backup:get_all", backups::index)
        .get("/backups/detail", "backup:get_all", backups::detail)
        .post("/backups", "backup:create", backups::create)
        .post("/backups/import_record", "backup:backup-import", backup_records::import)
        .get(
            "/backups/{id}/export_record",
            "backup:backup-export",
            backup_records::export,
        )
        .get("/backups/{id}", "backup:get", backups::show)
        .put("/backups/{id}", "backup:update", backups::update)
        .delete("/backups/{id}", "backup:delete", backups::delete)
        .post("/backups/{id}/restore", "backup:restore", backups::restore)
        .post(
            "/backups/{id}/action",
            "volume_extension:backup_admin_actions",
            backups::act,
        )
}

/// Both addresses of transfers: the old one, and the one of 3.55.
fn transfers(mut t: Table) -> Table {
    for root in ["/os-volume-transfer", "/volume-transfers"] {
        t = t
            .get(root, "volume:get_all_transfers", transfers::index)
            .get(&format!("{root}/detail"), "volume:get_all_transfers", transfers::detail)
            .post(root, "volume:create_transfer", transfers::create)
            .get(&format!("{root}/{{id}}"), "volume:get_transfer", transfers::show)
            .delete(&format!("{root}/{{id}}"), "volume:delete_transfer", transfers::delete)
            .post(
                &format!("{root}/{{id}}/accept"),
                "volume:accept_transfer",
                transfers::accept,
            );
    }
    t
}

fn others(t: Table) -> Table {
    t.get("/os-quota-sets/{project}", "volume_extension:quotas:show", quotas::show)
        .get(
            "/os-quota-sets/{project}/defaults",
            "volume_extension:quotas:show",
            quotas::defaults,
        )
        .put(
            "/os-quota-sets/{project}",
            "volume_extension:quotas:update",
            quotas::update,
        )
        .delete(
            "/os-quota-sets/{project}",
            "volume_extension:quotas:delete",
            quotas::delete,
        )
        .get(
            "/os-quota-class-sets/{class}",
            "volume_extension:quota_classes:get",
            quotas::class,
        )
        .put(
            "/os-quota-class-sets/{class}",
            "volume_extension:quota_classes:update",
            quotas::update_class,
        )
        .get("/limits", "limits_extension:used_limits", quotas::limits)
        .get("/os-services", "volume_extension:services:index", services::index)
        .put(
            "/os-services/{action}",
            "volume_extension:services:update",
            services::update,
        )
        .get("/os-hosts", "volume_extension:hosts", services::hosts)
        .get("/os-hosts/{host}", "volume_extension:hosts", services::host)
        .get(
            "/capabilities/{host}",
            "volume_extension:capabilities",
            services::capabilities,
        )
        .get(
            "/scheduler-stats/get_pools",
            "scheduler_extension:scheduler_stats:get_pools",
            services::pools,
        )
        .get("/os-availability-zone", "volume:availability_zone_list", misc::zones)
        .get("/extensions", "volume:extensions", misc::extensions)
        .get("/resource_filters", "volume:resource_filters", misc::filters)
        .get(
            "/manageable_volumes",
            "volume_extension:list_manageable",
            manageable::volumes,
        )
        .get(
            "/manageable_volumes/detail",
            "volume_extension:list_manageable",
            manageable::volumes_detail,
        )
        .post(
            "/manageable_volumes",
            "volume_extension:volume_manage",
            manageable::manage_volume,
        )
        .get(
            "/manageable_snapshots",
            "snapshot_extension:list_manageable",
            manageable::snapshots,
        )
        .get(
            "/manageable_snapshots/detail",
            "snapshot_extension:list_manageable",
            manageable::snapshots_detail,
        )
        .post(
            "/manageable_snapshots",
            "snapshot_extension:snapshot_manage",
            manageable::manage_snapshot,
        )
        // As clients of before 3.8 write them.
        .get(
            "/os-volume-manage",
            "volume_extension:list_manageable",
            manageable::volumes,
        )
        .get(
            "/os-volume-manage/detail",
            "volume_extension:list_manageable",
            manageable::volumes_detail,
        )
        .post(
            "/os-volume-manage",
            "volume_extension:volume_manage",
            manageable::manage_volume,
        )
        .get(
            "/os-snapshot-manage",
            "snapshot_extension:list_manageable",
            manageable::snapshots,
        )
        .get(
            "/os-snapshot-manage/detail",
            "snapshot_extension:list_manageable",
            manageable::snapshots_detail,
        )
        .post(
            "/os-snapshot-manage",
            "snapshot_extension:snapshot_manage",
            manageable::manage_snapshot,
        )
        .get("/messages", "message:get_all", messages::index)
        .get("/messages/{id}", "message:get", messages::show)
        .delete("/messages/{id}", "message:delete", messages::delete)
        .get(
            "/default-types",
            "volume_extension:default_get_all",
            default_types::index,
        )
        .get(
            "/default-types/{project}",
            "volume_extension:default_get",
            default_types::show,
        )
        .put(
            "/default-types/{project}",
            "volume_extension:default_set_or_update",
            default_types::set,
        )
        .delete(
            "/default-types/{project}",
            "volume_extension:default_unset",
            default_types::unset,
        )
        .get("/clusters", "clusters:get_all", clusters::index)
        .get("/clusters/detail", "clusters:get_all", clusters::index)
        .get("/clusters/{id}", "clusters:get", clusters::show)
        .put("/clusters/{id}", "clusters:update", clusters::update)
        .post("/workers/cleanup", "workers:cleanup", clusters::cleanup)
}

fn groups(t: Table) -> Table {
    t.get("/groups", "group:get_all", groups::index)
        .get("/groups/detail", "group:get_all", groups::detail)
        .post("/groups", "group:create", groups::create)
        .post("/groups/action", "group:create", groups::create_from)
        .get("/groups/{id}", "group:get", groups::show)
        .put("/groups/{id}", "group:update", groups::update)
        .post("/groups/{id}/action", "group:actions", groups::act)
        .get(
            "/group_snapshots",
            "group:get_all_group_snapshots",
            group_snapshots::index,
        )
        .get(
            "/group_snapshots/detail",
            "group:get_all_group_snapshots",
            group_snapshots::detail,
        )
        .post(
            "/group_snapshots",
            "group:create_group_snapshot",
            group_snapshots::create,
        )
        .get(
            "/group_snapshots/{id}",
            "group:get_group_snapshot",
            group_snapshots::show,
        )
        .delete(
            "/group_snapshots/{id}",
            "group:delete_group_snapshot",
            group_snapshots::delete,
        )
        .post(
            "/group_snapshots/{id}/action",
            "group:reset_group_snapshot_status",
            group_snapshots::act,
        )
}

fn group_types(t: Table) -> Table {
    t.get("/group_types", "group:group_types:get_all", group_types::index)
        .post("/group_types", "group:group_types:create", group_types::create)
        .get("/group_types/{id}", "group:group_types:get", group_types::show)
        .put("/group_types/{id}", "group:group_types:update", group_types::update)
        .delete("/group_types/{id}", "group:group_types:delete", group_types::delete)
        .get(
            "/group_types/{id}/group_specs",
            "group:group_types_specs:get_all",
            group_types::specs,
        )
        .post(
            "/group_types/{id}/group_specs",
            "group:group_types_specs:create",
            group_types::add_specs,
        )
        .get(
            "/group_types/{id}/group_specs/{key}",
            "group:group_types_specs:get",
            group_types::spec,
        )
        .put(
            "/group_types/{id}/group_specs/{key}",
            "group:group_types_specs:update",
            group_types::put_spec,
        )
        .delete(
            "/group_types/{id}/group_specs/{key}",
            "group:group_types_specs:delete",
            group_types::delete_spec,
        )
}

/// The older API of groups whose snapshots are as of one moment; its rules are those of groups.
fn consistency_groups(t: Table) -> Table {
    t.get("/consistencygroups", "group:get_all", consistency_groups::index)
        .get("/consistencygroups/detail", "group:get_all", consistency_groups::detail)
        .post("/consistencygroups", "group:create", consistency_groups::create)
        .post(
            "/consistencygroups/create_from_src",
            "group:create",
            consistency_groups::create_from,
        )
        .get("/consistencygroups/{id}", "group:get", consistency_groups::show)
        .put("/consistencygroups/{id}", "group:update", consistency_groups::update)
        .put(
            "/consistencygroups/{id}/update",
            "group:update",
            consistency_groups::update,
        )
        .post(
            "/consistencygroups/{id}/delete",
            "group:delete",
            consistency_groups::delete,
        )
        .get(
            "/cgsnapshots",
            "group:get_all_group_snapshots",
            consistency_groups::snapshots,
        )
        .get(
            "/cgsnapshots/detail",
            "group:get_all_group_snapshots",
            consistency_groups::snapshots_detail,
        )
        .post(
            "/cgsnapshots",
            "group:create_group_snapshot",
            consistency_groups::create_snapshot,
        )
        .get(
            "/cgsnapshots/{id}",
            "group:get_group_snapshot",
            consistency_groups::show_snapshot,
        )
        .delete(
            "/cgsnapshots/{id}",
            "group:delete_group_snapshot",
            consistency_groups::delete_snapshot,
        )
}
