//! The wire forms and handlers of the identity API, by noun.

mod application_credentials;
mod assignments;
mod catalog;
mod credentials;
mod delegation;
mod domain_config;
mod domains;
mod ec2;
mod endpoint_filter;
mod federation;
mod fields;
mod grants;
mod groups;
mod limits;
mod lists;
mod oauth1;
mod policies;
mod policy_uses;
mod projects;
mod revocations;
mod roles;
mod service_providers;
mod tokens;
mod trusts;
mod users;
mod versions;
pub(crate) mod views;

use crate::App;
use http::Method;
use maru_base::Error;
use maru_http::{Route, Routes};
use std::sync::Arc;

/// `Could not find user: 1234.`
pub(crate) fn not_found(what: &str, id: &str) -> Error {
    Error::not_found(format!("Could not find {what}: {id}."))
}

/// The 409 of a name that is taken.
pub(crate) fn duplicate(what: &str, name: &str) -> Error {
    Error::conflict(format!(
        "Conflict occurred attempting to store {what} - Duplicate entry found with name {name}. Choose another name."
    ))
}

/// The whole route table.
pub(crate) fn routes(app: Arc<App>) -> Vec<Route> {
    let r = extensions(delegated(Routes::new(app)))
        .public(Method::GET, "/", versions::list)
        .public(Method::GET, "/v3", versions::show)
        // tokens
        .public(Method::POST, "/v3/auth/tokens", tokens::create)
        .get("/v3/auth/tokens", "identity:validate_token", tokens::show)
        .on(Method::HEAD, "/v3/auth/tokens", "identity:check_token", tokens::show)
        .delete("/v3/auth/tokens", "identity:revoke_token", tokens::delete)
        .get("/v3/auth/catalog", "identity:get_auth_catalog", tokens::catalog)
        .get("/v3/auth/projects", "identity:get_auth_projects", tokens::projects)
        .get("/v3/auth/domains", "identity:get_auth_domains", tokens::domains)
        .get("/v3/auth/system", "identity:get_auth_system", tokens::system)
        // domains
        .get("/v3/domains", "identity:list_domains", domains::list)
        .post("/v3/domains", "identity:create_domain", domains::create)
        .get("/v3/domains/{id}", "identity:get_domain", domains::show)
        .patch("/v3/domains/{id}", "identity:update_domain", domains::update)
        .delete("/v3/domains/{id}", "identity:delete_domain", domains::delete)
        // projects
        .get("/v3/projects", "identity:list_projects", projects::list)
        .post("/v3/projects", "identity:create_project", projects::create)
        .get("/v3/projects/{id}", "identity:get_project", projects::show)
        .patch("/v3/projects/{id}", "identity:update_project", projects::update)
        .delete("/v3/projects/{id}", "identity:delete_project", projects::delete)
        .get("/v3/projects/{id}/tags", "identity:list_project_tags", projects::tags)
        .put(
            "/v3/projects/{id}/tags",
            "identity:update_project_tags",
            projects::set_tags,
        )
        .delete(
            "/v3/projects/{id}/tags",
            "identity:delete_project_tags",
            projects::clear_tags,
        )
        .get(
            "/v3/projects/{id}/tags/{tag}",
            "identity:get_project_tag",
            projects::has_tag,
        )
        .put(
            "/v3/projects/{id}/tags/{tag}",
            "identity:create_project_tag",
            projects::add_tag,
        )
        .delete(
            "/v3/projects/{id}/tags/{tag}",
            "identity:delete_project_tag",
            projects::remove_tag,
        )
        // users
        .get("/v3/users", "identity:list_users", users::list)
        .post("/v3/users", "identity:create_user", users::create)
        .get("/v3/users/{id}", "identity:get_user", users::show)
        .patch("/v3/users/{id}", "identity:update_user", users::update)
        .delete("/v3/users/{id}", "identity:delete_user", users::delete)
        .public(Method::POST, "/v3/users/{id}/password", users::change_password)
        .get("/v3/users/{id}/groups", "identity:list_groups_for_user", users::groups)
        .get(
            "/v3/users/{id}/projects",
            "identity:list_user_projects",
            users::projects,
        )
        // groups
        .get("/v3/groups", "identity:list_groups", groups::list)
        .post("/v3/groups", "identity:create_group", groups::create)
        .get("/v3/groups/{id}", "identity:get_group", groups::show)
        .patch("/v3/groups/{id}", "identity:update_group", groups::update)
        .delete("/v3/groups/{id}", "identity:delete_group", groups::delete)
        .get("/v3/groups/{id}/users", "identity:list_users_in_group", groups::members)
        .get(
            "/v3/groups/{id}/users/{user_id}",
            "identity:check_user_in_group",
            groups::check,
        )
        .put(
            "/v3/groups/{id}/users/{user_id}",
            "identity:add_user_to_group",
            groups::add,
        )
        .delete(
            "/v3/groups/{id}/users/{user_id}",
            "identity:remove_user_from_group",
            groups::remove,
        )
        // roles
        .get("/v3/roles", "identity:list_roles", roles::list)
        .post("/v3/roles", "identity:create_role", roles::create)
        .get("/v3/roles/{id}", "identity:get_role", roles::show)
        .patch("/v3/roles/{id}", "identity:update_role", roles::update)
        .delete("/v3/roles/{id}", "identity:delete_role", roles::delete)
        .get("/v3/roles/{id}/implies", "identity:list_implied_roles", roles::implied)
        .get(
            "/v3/roles/{id}/implies/{implied_id}",
            "identity:get_implied_role",
            roles::show_implied,
        )
        .on(
            Method::HEAD,
            "/v3/roles/{id}/implies/{implied_id}",
            "identity:check_implied_role",
            roles::check_implied,
        )
        .put(
            "/v3/roles/{id}/implies/{implied_id}",
            "identity:create_implied_role",
            roles::imply,
        )
        .delete(
            "/v3/roles/{id}/implies/{implied_id}",
            "identity:delete_implied_role",
            roles::unimply,
        )
        .get(
            "/v3/role_inferences",
            "identity:list_role_inference_rules",
            roles::inferences,
        )
        // assignments
        .get(
            "/v3/role_assignments",
            "identity:list_role_assignments",
            assignments::list,
        )
        // the catalogue
        .get("/v3/regions", "identity:list_regions", catalog::list_regions)
        .post("/v3/regions", "identity:create_region", catalog::create_region)
        .get("/v3/regions/{id}", "identity:get_region", catalog::show_region)
        .put("/v3/regions/{id}", "identity:create_region", catalog::put_region)
        .patch("/v3/regions/{id}", "identity:update_region", catalog::update_region)
        .delete("/v3/regions/{id}", "identity:delete_region", catalog::delete_region)
        .get("/v3/services", "identity:list_services", catalog::list_services)
        .post("/v3/services", "identity:create_service", catalog::create_service)
        .get("/v3/services/{id}", "identity:get_service", catalog::show_service)
        .patch("/v3/services/{id}", "identity:update_service", catalog::update_service)
        .delete("/v3/services/{id}", "identity:delete_service", catalog::delete_service)
        .get("/v3/endpoints", "identity:list_endpoints", catalog::list_endpoints)
        .post("/v3/endpoints", "identity:create_endpoint", catalog::create_endpoint)
        .get("/v3/endpoints/{id}", "identity:get_endpoint", catalog::show_endpoint)
        .patch(
            "/v3/endpoints/{id}",
            "identity:update_endpoint",
            catalog::update_endpoint,
        )
        .delete(
            "/v3/endpoints/{id}",
            "identity:delete_endpoint",
            catalog::delete_endpoint,
        )
        // policies
        .get("/v3/policies", "identity:list_policies", policies::list)
        .post("/v3/policies", "identity:create_policy", policies::create)
        .get("/v3/policies/{id}", "identity:get_policy", policies::show)
        .patch("/v3/policies/{id}", "identity:update_policy", policies::update)
        .delete("/v3/policies/{id}", "identity:delete_policy", policies::delete)
        // credentials
        .get("/v3/credentials", "identity:list_credentials", credentials::list)
        .post("/v3/credentials", "identity:create_credential", credentials::create)
        .get("/v3/credentials/{id}", "identity:get_credential", credentials::show)
        .patch(
            "/v3/credentials/{id}",
            "identity:update_credential",
            credentials::update,
        )
        .delete(
            "/v3/credentials/{id}",
            "identity:delete_credential",
            credentials::delete,
        );
    grants::routes(r).build()
}

/// Ways to act for a user: application credentials, EC2 keys, trusts.
fn delegated(r: Routes<App>) -> Routes<App> {
    let credentials = "/v3/users/{id}/application_credentials";
    let credential = "/v3/users/{id}/application_credentials/{credential_id}";
    let rules = "/v3/users/{id}/access_rules";
    let rule = "/v3/users/{id}/access_rules/{rule_id}";
    let keys = "/v3/users/{id}/credentials/OS-EC2";
    let key = "/v3/users/{id}/credentials/OS-EC2/{access}";
    let trust_role = "/v3/OS-TRUST/trusts/{id}/roles/{role_id}";
    r.get(
        credentials,
        "identity:list_application_credentials",
        application_credentials::list,
    )
    .post(
        credentials,
        "identity:create_application_credential",
        application_credentials::create,
    )
    .get(
        credential,
        "identity:get_application_credential",
        application_credentials::show,
    )
    .delete(
        credential,
        "identity:delete_application_credential",
        application_credentials::delete,
    )
    .get(rules, "identity:list_access_rules", application_credentials::rules)
    .get(rule, "identity:get_access_rule", application_credentials::show_rule)
    .delete(
        rule,
        "identity:delete_access_rule",
        application_credentials::delete_rule,
    )
    .get(keys, "identity:ec2_list_credentials", ec2::list)
    .post(keys, "identity:ec2_create_credential", ec2::create)
    .get(key, "identity:ec2_get_credential", ec2::show)
    .delete(key, "identity:ec2_delete_credential", ec2::delete)
    .get("/v3/OS-TRUST/trusts", "identity:list_trusts_for_trustor", trusts::list)
    .post("/v3/OS-TRUST/trusts", "identity:create_trust", trusts::create)
    .get("/v3/OS-TRUST/trusts/{id}", "identity:get_trust", trusts::show)
    .delete("/v3/OS-TRUST/trusts/{id}", "identity:delete_trust", trusts::delete)
    .get(
        "/v3/OS-TRUST/trusts/{id}/roles",
        "identity:list_roles_for_trust",
        trusts::roles,
    )
    .get(trust_role, "identity:get_role_for_trust", trusts::role)
}

/// Extensions of the catalogue, of domains and of tokens.
fn extensions(r: Routes<App>) -> Routes<App> {
    let config = "/v3/domains/{id}/config";
    let group = "/v3/domains/{id}/config/{group}";
    let option = "/v3/domains/{id}/config/{group}/{option}";
    let groups = "/v3/OS-EP-FILTER/endpoint_groups";
    let one = "/v3/OS-EP-FILTER/endpoint_groups/{id}";
    let seen = "/v3/OS-EP-FILTER/endpoint_groups/{id}/projects/{project_id}";
    let association = "/v3/OS-EP-FILTER/projects/{id}/endpoints/{endpoint_id}";
    let r = r
        .put(config, "identity:create_domain_config", domain_config::create)
        .get(config, "identity:get_domain_config", domain_config::show)
        .patch(config, "identity:update_domain_config", domain_config::update)
        .delete(config, "identity:delete_domain_config", domain_config::delete)
        .get(group, "identity:get_domain_config", domain_config::show)
        .patch(group, "identity:update_domain_config", domain_config::update)
        .delete(group, "identity:delete_domain_config", domain_config::delete)
        .get(option, "identity:get_domain_config", domain_config::show)
        .patch(option, "identity:update_domain_config", domain_config::update)
        .delete(option, "identity:delete_domain_config", domain_config::delete)
        .get(
            "/v3/domains/{id}/config/security_compliance",
            "identity:get_security_compliance_domain_config",
            domain_config::security,
        )
        .get(
            "/v3/domains/{id}/config/security_compliance/{option}",
            "identity:get_security_compliance_domain_config",
            domain_config::security,
        )
        .get(
            "/v3/domains/config/default",
            "identity:get_domain_config_default",
            domain_config::defaults,
        )
        .get(
            "/v3/domains/config/{group}/default",
            "identity:get_domain_config_default",
            domain_config::defaults,
        )
        .get(
            "/v3/domains/config/{group}/{option}/default",
            "identity:get_domain_config_default",
            domain_config::defaults,
        )
        .get(groups, "identity:list_endpoint_groups", endpoint_filter::list)
        .post(groups, "identity:create_endpoint_group", endpoint_filter::create)
        .get(one, "identity:get_endpoint_group", endpoint_filter::show)
        .patch(one, "identity:update_endpoint_group", endpoint_filter::update)
        .delete(one, "identity:delete_endpoint_group", endpoint_filter::delete)
        .get(
            "/v3/OS-EP-FILTER/endpoint_groups/{id}/endpoints",
            "identity:list_endpoints_associated_with_endpoint_group",
            endpoint_filter::endpoints,
        )
        .get(
            "/v3/OS-EP-FILTER/endpoint_groups/{id}/projects",
            "identity:list_projects_associated_with_endpoint_group",
            endpoint_filter::projects_of_group,
        )
        .get(
            seen,
            "identity:get_endpoint_group_in_project",
            endpoint_filter::check_group,
        )
        .put(
            seen,
            "identity:add_endpoint_group_to_project",
            endpoint_filter::add_group,
        )
        .delete(
            seen,
            "identity:remove_endpoint_group_from_project",
            endpoint_filter::remove_group,
        )
        .get(
            "/v3/OS-EP-FILTER/endpoints/{id}/projects",
            "identity:list_projects_for_endpoint",
            endpoint_filter::projects_of_endpoint,
        )
        .get(
            "/v3/OS-EP-FILTER/projects/{id}/endpoints",
            "identity:list_endpoints_for_project",
            endpoint_filter::endpoints_of_project,
        )
        .get(
            "/v3/OS-EP-FILTER/projects/{id}/endpoint_groups",
            "identity:list_endpoint_groups_for_project",
            endpoint_filter::groups_of_project,
        )
        .get(
            association,
            "identity:check_endpoint_in_project",
            endpoint_filter::check,
        )
        .put(association, "identity:add_endpoint_to_project", endpoint_filter::add)
        .delete(
            association,
            "identity:remove_endpoint_from_project",
            endpoint_filter::remove,
        );
    federated(signed(policy_uses(r)))
}

/// OS-FEDERATION.
fn federated(r: Routes<App>) -> Routes<App> {
    let providers = "/v3/OS-FEDERATION/identity_providers";
    let provider = "/v3/OS-FEDERATION/identity_providers/{id}";
    let protocols = "/v3/OS-FEDERATION/identity_providers/{id}/protocols";
    let protocol = "/v3/OS-FEDERATION/identity_providers/{id}/protocols/{protocol_id}";
    let mappings = "/v3/OS-FEDERATION/mappings";
    let mapping = "/v3/OS-FEDERATION/mappings/{id}";
    let services = "/v3/OS-FEDERATION/service_providers";
    let service = "/v3/OS-FEDERATION/service_providers/{id}";
    r.get(
        providers,
        "identity:list_identity_providers",
        federation::list_providers,
    )
    .put(
        provider,
        "identity:create_identity_provider",
        federation::create_provider,
    )
    .get(provider, "identity:get_identity_provider", federation::show_provider)
    .patch(
        provider,
        "identity:update_identity_provider",
        federation::update_provider,
    )
    .delete(
        provider,
        "identity:delete_identity_provider",
        federation::delete_provider,
    )
    .get(protocols, "identity:list_protocols", federation::list_protocols)
    .put(protocol, "identity:create_protocol", federation::create_protocol)
    .get(protocol, "identity:get_protocol", federation::show_protocol)
    .patch(protocol, "identity:update_protocol", federation::update_protocol)
    .delete(protocol, "identity:delete_protocol", federation::delete_protocol)
    .get(mappings, "identity:list_mappings", federation::list_mappings)
    .put(mapping, "identity:create_mapping", federation::create_mapping)
    .get(mapping, "identity:get_mapping", federation::show_mapping)
    .patch(mapping, "identity:update_mapping", federation::update_mapping)
    .delete(mapping, "identity:delete_mapping", federation::delete_mapping)
    .get(services, "identity:list_service_providers", service_providers::list)
    .put(service, "identity:create_service_provider", service_providers::create)
    .get(service, "identity:get_service_provider", service_providers::show)
    .patch(service, "identity:update_service_provider", service_providers::update)
    .delete(service, "identity:delete_service_provider", service_providers::delete)
    // Of before the same under /v3/auth.
    .get(
        "/v3/OS-FEDERATION/projects",
        "identity:get_auth_projects",
        tokens::projects,
    )
    .get(
        "/v3/OS-FEDERATION/domains",
        "identity:get_auth_domains",
        tokens::domains,
    )
}

/// OAuth1, unified limits, what ended tokens.
fn signed(r: Routes<App>) -> Routes<App> {
    let consumers = "/v3/OS-OAUTH1/consumers";
    let consumer = "/v3/OS-OAUTH1/consumers/{id}";
    let tokens = "/v3/users/{id}/OS-OAUTH1/access_tokens";
    let token = "/v3/users/{id}/OS-OAUTH1/access_tokens/{access_token_id}";
    let registered = "/v3/registered_limits";
    let default = "/v3/registered_limits/{id}";
    r.get(consumers, "identity:list_consumers", oauth1::list)
        .post(consumers, "identity:create_consumer", oauth1::create)
        .get(consumer, "identity:get_consumer", oauth1::show)
        .patch(consumer, "identity:update_consumer", oauth1::update)
        .delete(consumer, "identity:delete_consumer", oauth1::delete)
        // Signed requests instead of tokens.
        .public(Method::POST, "/v3/OS-OAUTH1/request_token", oauth1::request_token)
        .public(Method::POST, "/v3/OS-OAUTH1/access_token", oauth1::access_token)
        .put(
            "/v3/OS-OAUTH1/authorize/{id}",
            "identity:authorize_request_token",
            oauth1::authorize,
        )
        .get(tokens, "identity:list_access_tokens", oauth1::tokens)
        .get(token, "identity:get_access_token", oauth1::token)
        .delete(token, "identity:delete_access_token", oauth1::delete_token)
        .get(
            "/v3/users/{id}/OS-OAUTH1/access_tokens/{access_token_id}/roles",
            "identity:list_access_token_roles",
            oauth1::token_roles,
        )
        .get(
            "/v3/users/{id}/OS-OAUTH1/access_tokens/{access_token_id}/roles/{role_id}",
            "identity:get_access_token_role",
            oauth1::token_role,
        )
        .get(registered, "identity:list_registered_limits", limits::list_registered)
        .post(
            registered,
            "identity:create_registered_limits",
            limits::create_registered,
        )
        .get(default, "identity:get_registered_limit", limits::show_registered)
        .patch(default, "identity:update_registered_limit", limits::update_registered)
        .delete(default, "identity:delete_registered_limit", limits::delete_registered)
        .get("/v3/limits", "identity:list_limits", limits::list)
        .post("/v3/limits", "identity:create_limits", limits::create)
        .get("/v3/limits/model", "identity:get_limit_model", limits::model)
        .get("/v3/limits/{id}", "identity:get_limit", limits::show)
        .patch("/v3/limits/{id}", "identity:update_limit", limits::update)
        .delete("/v3/limits/{id}", "identity:delete_limit", limits::delete)
        .get(
            "/v3/OS-REVOKE/events",
            "identity:list_revoke_events",
            revocations::events,
        )
        .public(Method::GET, "/v3/OS-SIMPLE-CERT/ca", revocations::gone)
        .public(Method::GET, "/v3/OS-SIMPLE-CERT/certificates", revocations::gone)
        .public(Method::GET, "/v3/auth/tokens/OS-PKI/revoked", revocations::gone)
}

/// OS-ENDPOINT-POLICY.
fn policy_uses(r: Routes<App>) -> Routes<App> {
    let endpoint = "/v3/policies/{id}/OS-ENDPOINT-POLICY/endpoints/{endpoint_id}";
    let service = "/v3/policies/{id}/OS-ENDPOINT-POLICY/services/{service_id}";
    let region = "/v3/policies/{id}/OS-ENDPOINT-POLICY/services/{service_id}/regions/{region_id}";
    macro_rules! uses {
        ($r:expr, $path:expr, $what:literal) => {
            $r.get(
                $path,
                concat!("identity:check_policy_association_for_", $what),
                policy_uses::check,
            )
            .put(
                $path,
                concat!("identity:create_policy_association_for_", $what),
                policy_uses::create,
            )
            .delete(
                $path,
                concat!("identity:delete_policy_association_for_", $what),
                policy_uses::delete,
            )
        };
    }
    let r = uses!(r, endpoint, "endpoint");
    let r = uses!(r, service, "service");
    let r = uses!(r, region, "region_and_service");
    r.get(
        "/v3/policies/{id}/OS-ENDPOINT-POLICY/endpoints",
        "identity:list_endpoints_for_policy",
        policy_uses::endpoints,
    )
    // Documented under this name, too.
    .get(
        "/v3/policies/{id}/OS-ENDPOINT-POLICY/policy",
        "identity:list_endpoints_for_policy",
        policy_uses::endpoints,
    )
    .get(
        "/v3/endpoints/{id}/OS-ENDPOINT-POLICY/policy",
        "identity:get_policy_for_endpoint",
        policy_uses::of_endpoint,
    )
}
