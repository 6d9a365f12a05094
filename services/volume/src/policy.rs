//! The policy rules, with upstream's names and secure-RBAC default checks.

use maru_auth::RuleDefault;

const ADMIN: &str = "role:admin";
const READER: &str = "(role:reader and project_id:%(project_id)s) or role:admin";
const MEMBER: &str = "(role:member and project_id:%(project_id)s) or role:admin";
const ANY: &str = "@";

const fn r(name: &'static str, check: &'static str) -> RuleDefault {
    RuleDefault { name, check }
}

/// All rules of the service.
pub const POLICY: &[RuleDefault] = &[
    // Volumes.
    r("volume:create", MEMBER),
    r("volume:get", READER),
    r("volume:get_all", READER),
    r("volume:update", MEMBER),
    r("volume:delete", MEMBER),
    r("volume:force_delete", ADMIN),
    r("volume:get_volume_metadata", READER),
    r("volume:create_volume_metadata", MEMBER),
    r("volume:update_volume_metadata", MEMBER),
    r("volume:delete_volume_metadata", MEMBER),
    r("volume_extension:volume_encryption_metadata", READER),
    // The action address itself; the administrators' actions have rules of their own beside it.
    r("volume_extension:volume_actions", MEMBER),
    r("volume_extension:volume_actions:upload_public", ADMIN),
    r("volume_extension:volume_admin_actions:reset_status", ADMIN),
    r("volume_extension:volume_admin_actions:force_delete", ADMIN),
    r("volume_extension:volume_admin_actions:force_detach", ADMIN),
    r("volume_extension:volume_admin_actions:migrate_volume", ADMIN),
    r("volume_extension:volume_admin_actions:migrate_volume_completion", ADMIN),
    r("volume_extension:volume_unmanage", ADMIN),
    // Snapshots.
    r("volume:create_snapshot", MEMBER),
    r("volume:get_snapshot", READER),
    r("volume:get_all_snapshots", READER),
    r("volume:update_snapshot", MEMBER),
    r("volume:delete_snapshot", MEMBER),
    r("volume:get_snapshot_metadata", READER),
    r("volume:update_snapshot_metadata", MEMBER),
    r("volume:delete_snapshot_metadata", MEMBER),
    r("volume_extension:snapshot_actions", MEMBER),
    r("volume_extension:snapshot_admin_actions:reset_status", ADMIN),
    r("volume_extension:snapshot_admin_actions:force_delete", ADMIN),
    r("snapshot_extension:snapshot_actions:update_snapshot_status", MEMBER),
    // Attachments.
    r("volume:attachment_create", MEMBER),
    r("volume:attachment_get", READER),
    r("volume:attachment_update", MEMBER),
    r("volume:attachment_delete", MEMBER),
    r("volume:attachment_complete", MEMBER),
    // Types.
    r("volume_extension:type_get_all", READER),
    r("volume_extension:type_get", READER),
    r("volume_extension:type_create", ADMIN),
    r("volume_extension:type_update", ADMIN),
    r("volume_extension:type_delete", ADMIN),
    r("volume_extension:types_extra_specs:index", READER),
    r("volume_extension:types_extra_specs:show", READER),
    r("volume_extension:types_extra_specs:create", ADMIN),
    r("volume_extension:types_extra_specs:update", ADMIN),
    r("volume_extension:types_extra_specs:delete", ADMIN),
    r("volume_extension:types_extra_specs:read_sensitive", ADMIN),
    r("volume_extension:volume_type_access", ADMIN),
    r("volume_extension:volume_type_access:addProjectAccess", ADMIN),
    r("volume_extension:volume_type_access:removeProjectAccess", ADMIN),
    r("volume_extension:volume_type_encryption:get", ADMIN),
    r("volume_extension:volume_type_encryption:create", ADMIN),
    r("volume_extension:volume_type_encryption:update", ADMIN),
    r("volume_extension:volume_type_encryption:delete", ADMIN),
    r("volume_extension:qos_specs_manage:get_all", ADMIN),
    r("volume_extension:qos_specs_manage:get", ADMIN),
    r("volume_extension:qos_specs_manage:create", ADMIN),
    r("volume_extension:qos_specs_manage:update", ADMIN),
    r("volume_extension:qos_specs_manage:delete", ADMIN),
    // Backups.
    r("backup:create", MEMBER),
    r("backup:get", READER),
    r("backup:get_all", READER),
    r("backup:update", MEMBER),
    r("backup:delete", MEMBER),
    r("backup:restore", MEMBER),
    r("backup:backup_project_attribute", ADMIN),
    r("volume_extension:backup_admin_actions", ADMIN),
    r("volume_extension:backup_admin_actions:reset_status", ADMIN),
    r("volume_extension:backup_admin_actions:force_delete", ADMIN),
    // Transfers.
    r("volume:get_transfer", READER),
    r("volume:get_all_transfers", READER),
    r("volume:create_transfer", MEMBER),
    // Whoever has the key: the object is another project's.
    r("volume:accept_transfer", "role:member or role:admin"),
    r("volume:delete_transfer", MEMBER),
    // Quotas, services, the rest.
    r("volume_extension:quotas:show", READER),
    r("volume_extension:quotas:update", ADMIN),
    r("volume_extension:quotas:delete", ADMIN),
    r("volume_extension:quota_classes:get", ADMIN),
    r("volume_extension:quota_classes:update", ADMIN),
    r("limits_extension:used_limits", READER),
    r("volume_extension:services:index", ADMIN),
    r("volume_extension:services:update", ADMIN),
    r("volume_extension:hosts", ADMIN),
    r("volume_extension:capabilities", ADMIN),
    r("scheduler_extension:scheduler_stats:get_pools", ADMIN),
    r("volume:availability_zone_list", ANY),
    r("volume:extensions", ANY),
    r("volume:resource_filters", ANY),
];
