//! The wire forms and handlers of the identity API, by noun.

mod application_credentials;
mod assignments;
mod catalog;
mod credentials;
mod delegation;
mod domains;
mod ec2;
mod fields;
mod grants;
mod groups;
mod lists;
mod policies;
mod projects;
mod roles;
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
    let r = delegated(Routes::new(app))
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
