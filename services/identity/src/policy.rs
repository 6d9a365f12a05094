//! The rules of the identity API: names and secure defaults as Keystone has them.
//!
//! An administrator may do all; a reader with system scope may read all; a manager of a domain manages its users,
//! groups, projects and, with the roles that managers may give, its grants; a user may see itself.

use maru_auth::RuleDefault;

macro_rules! rules {
    ($($name:literal => $check:expr),* $(,)?) => { &[$(RuleDefault { name: $name, check: $check }),*] };
}

const ADMIN: &str = "rule:admin_required";
const ADMIN_OR_SYSTEM_READER: &str = "rule:admin_required or (role:reader and system_scope:all)";
const ANYONE: &str = "";

/// All rules with their default checks.
pub const POLICY: &[RuleDefault] = rules! {
    "admin_required" => "role:admin or is_admin:1",
    "service_role" => "role:service",
    "service_or_admin" => "rule:admin_required or rule:service_role",
    "owner" => "user_id:%(user_id)s",
    "admin_or_owner" => "rule:admin_required or rule:owner",
    "token_subject" => "user_id:%(target.token.user_id)s",
    "admin_or_token_subject" => "rule:admin_required or rule:token_subject",
    "service_admin_or_token_subject" => "rule:service_or_admin or rule:token_subject",
    "system_reader" => "role:reader and system_scope:all",
    "domain_managed_target_role" =>
        "'manager':%(target.role.name)s or 'member':%(target.role.name)s or 'reader':%(target.role.name)s",
    // What a grant joins lies in the caller's domain.
    "grant_in_domain" => "(domain_id:%(target.user.domain_id)s or domain_id:%(target.group.domain_id)s) and \
                          (domain_id:%(target.project.domain_id)s or domain_id:%(target.domain.id)s)",
    "grant_role_visible" => "domain_id:%(target.role.domain_id)s or None:%(target.role.domain_id)s",

    // tokens
    "identity:check_token" => "rule:system_reader or rule:service_admin_or_token_subject",
    "identity:validate_token" => "rule:system_reader or rule:service_admin_or_token_subject",
    "identity:revoke_token" => "rule:admin_or_token_subject",
    "identity:get_auth_catalog" => ANYONE,
    "identity:get_auth_projects" => ANYONE,
    "identity:get_auth_domains" => ANYONE,
    "identity:get_auth_system" => ANYONE,

    // domains
    "identity:get_domain" => "rule:admin_required or rule:system_reader or \
        token.domain.id:%(target.domain.id)s or token.project.domain.id:%(target.domain.id)s",
    "identity:list_domains" => ADMIN_OR_SYSTEM_READER,
    "identity:create_domain" => ADMIN,
    "identity:update_domain" => ADMIN,
    "identity:delete_domain" => ADMIN,

    // projects
    "identity:get_project" => "rule:admin_required or rule:system_reader or \
        (role:reader and domain_id:%(target.project.domain_id)s) or project_id:%(target.project.id)s",
    "identity:list_projects" => "rule:admin_required or rule:system_reader or \
        (role:reader and domain_id:%(target.domain_id)s)",
    "identity:list_user_projects" => "rule:admin_required or rule:system_reader or \
        (role:reader and domain_id:%(target.user.domain_id)s) or user_id:%(target.user.id)s",
    "identity:create_project" => "rule:admin_required or (role:manager and domain_id:%(target.project.domain_id)s)",
    "identity:update_project" => "rule:admin_required or (role:manager and domain_id:%(target.project.domain_id)s)",
    "identity:delete_project" => "rule:admin_required or (role:manager and domain_id:%(target.project.domain_id)s)",
    "identity:list_project_tags" => "rule:identity:get_project",
    "identity:get_project_tag" => "rule:identity:get_project",
    "identity:update_project_tags" => "rule:identity:update_project",
    "identity:create_project_tag" => "rule:identity:update_project",
    "identity:delete_project_tags" => "rule:identity:update_project",
    "identity:delete_project_tag" => "rule:identity:update_project",

    // users
    "identity:get_user" => "rule:admin_required or rule:system_reader or \
        (role:reader and token.domain.id:%(target.user.domain_id)s) or user_id:%(target.user.id)s",
    "identity:list_users" => "rule:admin_required or rule:system_reader or \
        (role:reader and domain_id:%(target.domain_id)s)",
    "identity:create_user" => "rule:admin_required or (role:manager and token.domain.id:%(target.user.domain_id)s)",
    "identity:update_user" => "rule:admin_required or (role:manager and token.domain.id:%(target.user.domain_id)s)",
    "identity:delete_user" => "rule:admin_required or (role:manager and token.domain.id:%(target.user.domain_id)s)",

    // groups
    "identity:get_group" => "rule:admin_required or rule:system_reader or \
        (role:reader and domain_id:%(target.group.domain_id)s)",
    "identity:list_groups" => "rule:admin_required or rule:system_reader or \
        (role:reader and domain_id:%(target.domain_id)s)",
    "identity:list_groups_for_user" => "rule:admin_required or rule:system_reader or \
        (role:reader and domain_id:%(target.user.domain_id)s) or user_id:%(target.user.id)s",
    "identity:create_group" => "rule:admin_required or (role:manager and domain_id:%(target.group.domain_id)s)",
    "identity:update_group" => "rule:admin_required or (role:manager and domain_id:%(target.group.domain_id)s)",
    "identity:delete_group" => "rule:admin_required or (role:manager and domain_id:%(target.group.domain_id)s)",
    "identity:list_users_in_group" => "rule:admin_required or rule:system_reader or \
        (role:reader and domain_id:%(target.group.domain_id)s)",
    "identity:check_user_in_group" => "rule:admin_required or rule:system_reader or \
        (role:reader and domain_id:%(target.group.domain_id)s and domain_id:%(target.user.domain_id)s)",
    "identity:add_user_to_group" => "rule:admin_required or \
        (role:manager and domain_id:%(target.group.domain_id)s and domain_id:%(target.user.domain_id)s)",
    "identity:remove_user_from_group" => "rule:admin_required or \
        (role:manager and domain_id:%(target.group.domain_id)s and domain_id:%(target.user.domain_id)s)",

    // roles
    "identity:get_role" => "rule:admin_required or rule:system_reader or (role:manager and not domain_id:None)",
    "identity:list_roles" => "rule:admin_required or rule:system_reader or (role:manager and not domain_id:None)",
    "identity:create_role" => ADMIN,
    "identity:update_role" => ADMIN,
    "identity:delete_role" => ADMIN,
    "identity:get_domain_role" => ADMIN_OR_SYSTEM_READER,
    "identity:list_domain_roles" => ADMIN_OR_SYSTEM_READER,
    "identity:create_domain_role" => ADMIN,
    "identity:update_domain_role" => ADMIN,
    "identity:delete_domain_role" => ADMIN,
    "identity:get_implied_role" => ADMIN_OR_SYSTEM_READER,
    "identity:list_implied_roles" => ADMIN_OR_SYSTEM_READER,
    "identity:create_implied_role" => ADMIN,
    "identity:delete_implied_role" => ADMIN,
    "identity:list_role_inference_rules" => ADMIN_OR_SYSTEM_READER,
    "identity:check_implied_role" => ADMIN_OR_SYSTEM_READER,

    // grants
    "identity:check_grant" => "rule:admin_required or rule:system_reader or \
        (role:reader and rule:grant_in_domain and rule:grant_role_visible)",
    "identity:list_grants" => "rule:admin_required or rule:system_reader or (role:reader and rule:grant_in_domain)",
    "identity:create_grant" => "rule:admin_required or \
        (role:manager and rule:grant_in_domain and rule:domain_managed_target_role and rule:grant_role_visible)",
    "identity:revoke_grant" => "rule:admin_required or \
        (role:manager and rule:grant_in_domain and rule:domain_managed_target_role and rule:grant_role_visible)",
    "identity:list_system_grants_for_user" => ADMIN_OR_SYSTEM_READER,
    "identity:check_system_grant_for_user" => ADMIN_OR_SYSTEM_READER,
    "identity:create_system_grant_for_user" => ADMIN,
    "identity:revoke_system_grant_for_user" => ADMIN,
    "identity:list_system_grants_for_group" => ADMIN_OR_SYSTEM_READER,
    "identity:check_system_grant_for_group" => ADMIN_OR_SYSTEM_READER,
    "identity:create_system_grant_for_group" => ADMIN,
    "identity:revoke_system_grant_for_group" => ADMIN,
    "identity:list_role_assignments" => "rule:admin_required or rule:system_reader or \
        (role:reader and domain_id:%(target.domain_id)s)",
    "identity:list_role_assignments_for_tree" => ADMIN,

    // the catalogue
    "identity:get_region" => ANYONE,
    "identity:list_regions" => ANYONE,
    "identity:create_region" => ADMIN,
    "identity:update_region" => ADMIN,
    "identity:delete_region" => ADMIN,
    "identity:get_service" => ADMIN_OR_SYSTEM_READER,
    "identity:list_services" => ADMIN_OR_SYSTEM_READER,
    "identity:create_service" => ADMIN,
    "identity:update_service" => ADMIN,
    "identity:delete_service" => ADMIN,
    "identity:get_endpoint" => ADMIN_OR_SYSTEM_READER,
    "identity:list_endpoints" => ADMIN_OR_SYSTEM_READER,
    "identity:create_endpoint" => ADMIN,
    "identity:update_endpoint" => ADMIN,
    "identity:delete_endpoint" => ADMIN,

    // policies
    "identity:get_policy" => ADMIN_OR_SYSTEM_READER,
    "identity:list_policies" => ADMIN_OR_SYSTEM_READER,
    "identity:create_policy" => ADMIN,
    "identity:update_policy" => ADMIN,
    "identity:delete_policy" => ADMIN,

    // application credentials, a user's own; an administrator sees and deletes them
    "identity:get_application_credential" => "rule:admin_required or rule:system_reader or user_id:%(target.user.id)s",
    "identity:list_application_credentials" => "rule:admin_required or rule:system_reader or user_id:%(target.user.id)s",
    "identity:create_application_credential" => "user_id:%(target.user.id)s",
    "identity:delete_application_credential" => "rule:admin_required or user_id:%(target.user.id)s",
    "identity:get_access_rule" => "rule:admin_required or rule:system_reader or user_id:%(target.user.id)s",
    "identity:list_access_rules" => "rule:admin_required or rule:system_reader or user_id:%(target.user.id)s",
    "identity:delete_access_rule" => "rule:admin_required or user_id:%(target.user.id)s",

    // EC2 credentials
    "identity:ec2_get_credential" => "rule:admin_required or rule:system_reader or user_id:%(target.credential.user_id)s",
    "identity:ec2_list_credentials" => "rule:admin_required or rule:system_reader or user_id:%(target.credential.user_id)s",
    "identity:ec2_create_credential" => "rule:admin_required or user_id:%(target.credential.user_id)s",
    "identity:ec2_delete_credential" => "rule:admin_required or user_id:%(target.credential.user_id)s",

    // trusts
    "identity:create_trust" => "user_id:%(target.trust.trustor_user_id)s",
    "identity:list_trusts" => ADMIN_OR_SYSTEM_READER,
    "identity:list_trusts_for_trustor" =>
        "rule:admin_required or rule:system_reader or user_id:%(target.trust.trustor_user_id)s",
    "identity:list_trusts_for_trustee" =>
        "rule:admin_required or rule:system_reader or user_id:%(target.trust.trustee_user_id)s",
    "identity:get_trust" => "rule:admin_required or rule:system_reader or \
        user_id:%(target.trust.trustor_user_id)s or user_id:%(target.trust.trustee_user_id)s",
    "identity:delete_trust" => "rule:admin_required or user_id:%(target.trust.trustor_user_id)s",
    "identity:list_roles_for_trust" => "rule:admin_required or rule:system_reader or \
        user_id:%(target.trust.trustor_user_id)s or user_id:%(target.trust.trustee_user_id)s",
    "identity:get_role_for_trust" => "rule:admin_required or rule:system_reader or \
        user_id:%(target.trust.trustor_user_id)s or user_id:%(target.trust.trustee_user_id)s",

    // credentials
    "identity:get_credential" => "rule:admin_required or rule:system_reader or user_id:%(target.credential.user_id)s",
    "identity:list_credentials" => "rule:admin_required or rule:system_reader or user_id:%(target.credential.user_id)s",
    "identity:create_credential" => "rule:admin_required or user_id:%(target.credential.user_id)s",
    "identity:update_credential" => "rule:admin_required or user_id:%(target.credential.user_id)s",
    "identity:delete_credential" => "rule:admin_required or user_id:%(target.credential.user_id)s",

    // domain configuration
    "identity:create_domain_config" => ADMIN,
    "identity:get_domain_config" => ADMIN_OR_SYSTEM_READER,
    "identity:get_domain_config_default" => ADMIN_OR_SYSTEM_READER,
    "identity:get_security_compliance_domain_config" => ANYONE,
    "identity:update_domain_config" => ADMIN,
    "identity:delete_domain_config" => ADMIN,

    // who sees which endpoints
    "identity:create_endpoint_group" => ADMIN,
    "identity:list_endpoint_groups" => ADMIN_OR_SYSTEM_READER,
    "identity:get_endpoint_group" => ADMIN_OR_SYSTEM_READER,
    "identity:update_endpoint_group" => ADMIN,
    "identity:delete_endpoint_group" => ADMIN,
    "identity:list_projects_associated_with_endpoint_group" => ADMIN_OR_SYSTEM_READER,
    "identity:list_endpoints_associated_with_endpoint_group" => ADMIN_OR_SYSTEM_READER,
    "identity:get_endpoint_group_in_project" => ADMIN_OR_SYSTEM_READER,
    "identity:list_endpoint_groups_for_project" => ADMIN_OR_SYSTEM_READER,
    "identity:add_endpoint_group_to_project" => ADMIN,
    "identity:remove_endpoint_group_from_project" => ADMIN,
    "identity:list_projects_for_endpoint" => ADMIN_OR_SYSTEM_READER,
    "identity:add_endpoint_to_project" => ADMIN,
    "identity:check_endpoint_in_project" => ADMIN_OR_SYSTEM_READER,
    "identity:list_endpoints_for_project" => ADMIN_OR_SYSTEM_READER,
    "identity:remove_endpoint_from_project" => ADMIN,

    // which policy is for what
    "identity:create_policy_association_for_endpoint" => ADMIN,
    "identity:check_policy_association_for_endpoint" => ADMIN_OR_SYSTEM_READER,
    "identity:delete_policy_association_for_endpoint" => ADMIN,
    "identity:create_policy_association_for_service" => ADMIN,
    "identity:check_policy_association_for_service" => ADMIN_OR_SYSTEM_READER,
    "identity:delete_policy_association_for_service" => ADMIN,
    "identity:create_policy_association_for_region_and_service" => ADMIN,
    "identity:check_policy_association_for_region_and_service" => ADMIN_OR_SYSTEM_READER,
    "identity:delete_policy_association_for_region_and_service" => ADMIN,
    "identity:get_policy_for_endpoint" => ADMIN_OR_SYSTEM_READER,
    "identity:list_endpoints_for_policy" => ADMIN_OR_SYSTEM_READER,

    // federation
    "identity:create_identity_provider" => ADMIN,
    "identity:list_identity_providers" => ADMIN_OR_SYSTEM_READER,
    "identity:get_identity_provider" => ADMIN_OR_SYSTEM_READER,
    "identity:update_identity_provider" => ADMIN,
    "identity:delete_identity_provider" => ADMIN,
    "identity:create_mapping" => ADMIN,
    "identity:list_mappings" => ADMIN_OR_SYSTEM_READER,
    "identity:get_mapping" => ADMIN_OR_SYSTEM_READER,
    "identity:update_mapping" => ADMIN,
    "identity:delete_mapping" => ADMIN,
    "identity:create_protocol" => ADMIN,
    "identity:list_protocols" => ADMIN_OR_SYSTEM_READER,
    "identity:get_protocol" => ADMIN_OR_SYSTEM_READER,
    "identity:update_protocol" => ADMIN,
    "identity:delete_protocol" => ADMIN,
    "identity:create_service_provider" => ADMIN,
    "identity:list_service_providers" => ADMIN_OR_SYSTEM_READER,
    "identity:get_service_provider" => ADMIN_OR_SYSTEM_READER,
    "identity:update_service_provider" => ADMIN,
    "identity:delete_service_provider" => ADMIN,

    // OAuth1
    "identity:get_consumer" => ADMIN_OR_SYSTEM_READER,
    "identity:list_consumers" => ADMIN_OR_SYSTEM_READER,
    "identity:create_consumer" => ADMIN,
    "identity:update_consumer" => ADMIN,
    "identity:delete_consumer" => ADMIN,
    "identity:authorize_request_token" => ADMIN,
    "identity:list_access_tokens" => ADMIN,
    "identity:get_access_token" => ADMIN,
    "identity:delete_access_token" => ADMIN,
    "identity:list_access_token_roles" => ADMIN,
    "identity:get_access_token_role" => ADMIN,

    // unified limits
    "identity:get_registered_limit" => ANYONE,
    "identity:list_registered_limits" => ANYONE,
    "identity:create_registered_limits" => ADMIN,
    "identity:update_registered_limit" => ADMIN,
    "identity:delete_registered_limit" => ADMIN,
    "identity:get_limit_model" => ANYONE,
    "identity:get_limit" => "rule:admin_required or rule:system_reader or domain_id:%(target.limit.domain.id)s or \
        domain_id:%(target.limit.project.domain_id)s or project_id:%(target.limit.project_id)s",
    "identity:list_limits" => ANYONE,
    "identity:create_limits" => ADMIN,
    "identity:update_limit" => ADMIN,
    "identity:delete_limit" => ADMIN,

    // what ended tokens
    "identity:list_revoke_events" => "rule:service_or_admin",
};
