//! Samples of the identity service.

use crate::{Body, Scene, actors, scene::id};
use serde_json::{Value, json};

impl Scene {
    pub(crate) async fn identity(&mut self) {
        let admin = self.kit.admin();
        let v3 = |noun: &str| format!("/identity/v3/{noun}");
        let domain = id(&self
            .make(&admin, &v3("domains"), "domain", json!({"name": "d", "enabled": false}))
            .await);
        let project = id(&self
            .make(&admin, &v3("projects"), "project", json!({"name": "p", "tags": ["t"]}))
            .await);
        let user = json!({"name": "u", "password": "u-secret", "domain_id": "default"});
        let user = id(&self.make(&admin, &v3("users"), "user", user).await);
        let group = id(&self.make(&admin, &v3("groups"), "group", json!({"name": "g"})).await);
        let role = id(&self.make(&admin, &v3("roles"), "role", json!({"name": "ro"})).await);
        let implied = id(&self.make(&admin, &v3("roles"), "role", json!({"name": "im"})).await);
        let region = id(&self.make(&admin, &v3("regions"), "region", json!({"id": "r"})).await);
        let service = id(&self
            .make(&admin, &v3("services"), "service", json!({"type": "t", "name": "s"}))
            .await);
        let endpoint = json!({"service_id": service, "interface": "public", "url": "http://e"});
        let endpoint = id(&self.make(&admin, &v3("endpoints"), "endpoint", endpoint).await);
        let credential = json!({"user_id": user, "type": "cert", "blob": "b"});
        let credential = id(&self.make(&admin, &v3("credentials"), "credential", credential).await);
        for path in [
            format!("groups/{group}/users/{user}"),
            format!("roles/{role}/implies/{implied}"),
            format!("projects/{project}/users/{user}/roles/{role}"),
            format!("projects/{project}/groups/{group}/roles/{role}"),
            format!("domains/{domain}/users/{user}/roles/{role}"),
            format!("domains/{domain}/groups/{group}/roles/{role}"),
            format!("system/users/{user}/roles/{role}"),
            format!("system/groups/{group}/roles/{role}"),
            format!("OS-INHERIT/projects/{project}/users/{user}/roles/{role}/inherited_to_projects"),
            format!("OS-INHERIT/projects/{project}/groups/{group}/roles/{role}/inherited_to_projects"),
            format!("OS-INHERIT/domains/{domain}/users/{user}/roles/{role}/inherited_to_projects"),
            format!("OS-INHERIT/domains/{domain}/groups/{group}/roles/{role}/inherited_to_projects"),
        ] {
            self.kit.put(&admin, &v3(&path), Value::Null).await;
        }
        let policy = json!({"type": "text/plain", "blob": "b"});
        let policy = id(&self.make(&admin, &v3("policies"), "policy", policy).await);
        let owner = actors::sign_in(&self.kit, "u", "u-secret", "p").await;
        let credential_of =
            json!({"name": "ac", "access_rules": [{"service": "compute", "method": "GET", "path": "/v2.1/**"}]});
        let path = v3(&format!("users/{user}/application_credentials"));
        let given = self.make(&owner, &path, "application_credential", credential_of).await;
        let spare = json!({"name": "spare", "access_rules": [{"service": "image", "method": "GET", "path": "/v2/**"}]});
        let spare = self.make(&owner, &path, "application_credential", spare).await;
        let unused = spare["access_rules"][0]["id"].as_str().expect("a rule").to_owned();
        self.kit.delete(&owner, &format!("{path}/{}", id(&spare))).await;
        let path = v3(&format!("users/{user}/credentials/OS-EC2"));
        let key = self.kit.post(&owner, &path, json!({"tenant_id": project})).await["credential"].clone();
        let trust = json!({"trustor_user_id": user, "trustee_user_id": self.blue.member.user, "project_id": project,
            "impersonation": false, "roles": [{"id": role}]});
        let trust = id(&self.make(&owner, &v3("OS-TRUST/trusts"), "trust", trust).await);
        self.owner = Some(owner);
        let unified = self.limits(&service, &project).await;
        let filters = json!({"name": "eg", "filters": {"service_id": service}});
        let group_of = id(&self
            .make(&admin, &v3("OS-EP-FILTER/endpoint_groups"), "endpoint_group", filters)
            .await);
        for path in [
            format!("OS-EP-FILTER/projects/{project}/endpoints/{endpoint}"),
            format!("OS-EP-FILTER/endpoint_groups/{group_of}/projects/{project}"),
            format!("policies/{policy}/OS-ENDPOINT-POLICY/endpoints/{endpoint}"),
            format!("policies/{policy}/OS-ENDPOINT-POLICY/services/{service}"),
            format!("policies/{policy}/OS-ENDPOINT-POLICY/services/{service}/regions/{region}"),
        ] {
            self.kit.put(&admin, &v3(&path), Value::Null).await;
        }
        self.federation().await;
        let config = json!({"config": {"ldap": {"url": "ldap://x", "user": "x"}}});
        self.kit
            .put(&admin, &v3(&format!("domains/{domain}/config")), config)
            .await;
        let granted = self.oauth1(&project, &user, &role).await;
        self.values.extend(unified);
        self.values.extend(granted);
        self.values.extend([
            ("identity/endpoint_groups", group_of),
            ("identity/config", "ldap".to_owned()),
            ("identity/{group}", "url".to_owned()),
            ("identity/security_compliance", "password_regex".to_owned()),
            ("identity/application_credentials", id(&given)),
            ("identity/access_rules", unused),
            ("identity/OS-EC2", key["access"].as_str().expect("a key").to_owned()),
            ("identity/trusts", trust),
            ("identity/policies", policy),
            ("identity/domains", domain),
            ("identity/projects", project),
            ("identity/users", user),
            ("identity/groups", group),
            ("identity/roles", role),
            ("identity/implies", implied),
            ("identity/regions", region),
            ("identity/services", service),
            ("identity/endpoints", endpoint),
            ("identity/credentials", credential),
            ("identity/tags", "t".to_owned()),
        ]);
    }

    pub(crate) async fn limits(&self, service: &str, project: &str) -> Vec<(&'static str, String)> {
        let admin = self.kit.admin();
        let v3 = |noun: &str| format!("/identity/v3/{noun}");
        let registered =
            json!({"registered_limits": [{"service_id": service, "resource_name": "x", "default_limit": 5}]});
        let registered = self.kit.post(&admin, &v3("registered_limits"), registered).await;
        let limit = json!({"limits": [{"service_id": service, "resource_name": "x", "resource_limit": 6,
            "project_id": project}]});
        let limit = self.kit.post(&admin, &v3("limits"), limit).await;
        vec![
            ("identity/registered_limits", id(&registered["registered_limits"][0])),
            ("identity/limits", id(&limit["limits"][0])),
        ]
    }

    /// An identity provider with a protocol and its mapping, and a service provider.
    async fn federation(&mut self) {
        let admin = self.kit.admin();
        for (path, body) in [
            (
                "identity_providers/sample-idp",
                json!({"identity_provider": {"remote_ids": ["urn:x"]}}),
            ),
            (
                "mappings/sample-mapping",
                json!({"mapping": {"rules": mapping_rules()}}),
            ),
            (
                "identity_providers/sample-idp/protocols/saml2",
                json!({"protocol": {"mapping_id": "sample-mapping"}}),
            ),
            (
                "service_providers/sample-sp",
                json!({"service_provider": {"auth_url": "https://a.example/v3", "sp_url": "https://s.example/sp"}}),
            ),
        ] {
            let path = format!("/identity/v3/OS-FEDERATION/{path}");
            self.kit.put(&admin, &path, body).await;
        }
        self.values.extend([
            ("identity/identity_providers", "sample-idp".to_owned()),
            ("identity/mappings", "sample-mapping".to_owned()),
            ("identity/protocols", "saml2".to_owned()),
            ("identity/service_providers", "sample-sp".to_owned()),
        ]);
    }

    /// A consumer, a request token that waits for the administrator, and an access token of the sample user.
    pub(crate) async fn oauth1(&self, project: &str, user: &str, role: &str) -> Vec<(&'static str, String)> {
        let admin = self.kit.admin();
        let v3 = |noun: &str| format!("/identity/v3/{noun}");
        let consumer = self
            .make(
                &admin,
                &v3("OS-OAUTH1/consumers"),
                "consumer",
                json!({"description": "x"}),
            )
            .await;
        let key = id(&consumer);
        let secret = consumer["secret"].as_str().expect("a secret");
        let signed = async |what: &str, header: String, project: &str| {
            let path = v3(&format!("OS-OAUTH1/{what}"));
            let headers = [("authorization", header.as_str()), ("requested-project-id", project)];
            let answer = self.kit.send("POST", &path, &headers, bytes::Bytes::new()).await;
            let text = answer.expect("an answer").text();
            let part = |name: &str| {
                let found = text.split('&').find_map(|p| p.strip_prefix(name));
                found.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
            };
            (part("oauth_token="), part("oauth_token_secret="))
        };
        let url = |what: &str| format!("http://cloud:5000/identity/v3/OS-OAUTH1/{what}");
        let ask = async |project: &str| {
            let header = maru_identity::sign_for_tests("POST", &url("request_token"), (&key, secret), None, None);
            signed("request_token", header, project).await
        };
        let (waiting, _) = ask(&admin.project).await;
        let (asked, asked_secret) = ask(project).await;
        // To say yes takes the administrator's role, as upstream.
        let role_of_admin = self.kit.get(&admin, &v3("roles?name=admin")).await["roles"][0].clone();
        let grant = v3(&format!("projects/{project}/users/{user}/roles/{}", id(&role_of_admin)));
        self.kit.put(&admin, &grant, Value::Null).await;
        let owner = actors::sign_in(&self.kit, "u", "u-secret", "p").await;
        let yes = v3(&format!("OS-OAUTH1/authorize/{asked}"));
        let yes = self.kit.put(&owner, &yes, json!({"roles": [{"id": role}]})).await;
        self.kit.delete(&admin, &grant).await;
        let header = maru_identity::sign_for_tests(
            "POST",
            &url("access_token"),
            (&key, secret),
            Some((&asked, &asked_secret)),
            yes["token"]["oauth_verifier"].as_str(),
        );
        let (access, _) = signed("access_token", header, project).await;
        vec![
            ("identity/consumers", key),
            ("identity/authorize", waiting),
            ("identity/access_tokens", access),
        ]
    }

    pub(crate) fn identity_body(&self, method: &str, path: &str) -> Option<Body> {
        let value = |c: &str| self.value("identity", c).unwrap_or_default();
        if method == "PUT" && (path.contains("OS-EP-FILTER") || path.contains("OS-ENDPOINT-POLICY")) {
            return Some(Body::None);
        }
        // Without a signature: see the list of requests that are refused.
        if path.ends_with("/request_token") || path.ends_with("/access_token") {
            return Some(Body::None);
        }
        if method == "PUT" && (path.contains("/roles/") || path.contains("/groups/") || path.ends_with("/{tag}")) {
            return Some(Body::None);
        }
        Some(Body::Json(match (method, path) {
            ("POST", "/v3/auth/tokens") => json!({"auth": {
                "identity": {"methods": ["password"], "password": {"user": {
                    "name": "blue-member", "domain": {"id": "default"}, "password": "blue-member-secret"}}},
                "scope": {"project": {"id": self.blue.id}}}}),
            ("POST", "/v3/users/{id}/application_credentials") => {
                json!({"application_credential": {"name": "ac2", "description": "x", "unrestricted": false,
                    "expires_at": "2100-01-01T00:00:00.000000", "roles": [{"id": value("roles")}],
                    "access_rules": [{"service": "compute", "method": "GET", "path": "/v2.1/servers"}]}})
            }
            ("POST", "/v3/users/{id}/credentials/OS-EC2") => json!({"tenant_id": value("projects")}),
            ("POST", "/v3/OS-TRUST/trusts") => json!({"trust": {"trustor_user_id": value("users"),
                "trustee_user_id": self.blue.member.user, "project_id": value("projects"), "impersonation": true,
                "roles": [{"id": value("roles")}], "expires_at": "2100-01-01T00:00:00.000000Z", "remaining_uses": 3,
                "allow_redelegation": false}}),
            ("PUT" | "PATCH", "/v3/domains/{id}/config") | ("PATCH", "/v3/domains/{id}/config/{group}") => {
                json!({"config": {"ldap": {"url": "ldap://y", "page_size": 3}}})
            }
            ("PATCH", "/v3/domains/{id}/config/{group}/{option}") => json!({"config": {"url": "ldap://z"}}),
            ("POST", "/v3/OS-EP-FILTER/endpoint_groups") => json!({"endpoint_group": {"name": "eg2",
                "description": "x", "filters": {"interface": "public", "region_id": value("regions")}}}),
            ("PATCH", "/v3/OS-EP-FILTER/endpoint_groups/{id}") => {
                json!({"endpoint_group": {"name": "eg3", "description": "x", "filters": {"interface": "admin"}}})
            }
            ("PUT" | "PATCH", "/v3/OS-FEDERATION/identity_providers/{id}") => json!({"identity_provider": {
                "remote_ids": ["urn:y"], "enabled": true, "description": "x", "authorization_ttl": 5}}),
            ("PUT" | "PATCH", "/v3/OS-FEDERATION/identity_providers/{id}/protocols/{protocol_id}") => {
                json!({"protocol": {"mapping_id": value("mappings"), "remote_id_attribute": "HTTP_OIDC_ISS"}})
            }
            ("PUT" | "PATCH", "/v3/OS-FEDERATION/mappings/{id}") => {
                json!({"mapping": {"rules": mapping_rules(), "schema_version": "2.0"}})
            }
            ("PUT" | "PATCH", "/v3/OS-FEDERATION/service_providers/{id}") => json!({"service_provider": {
                "auth_url": "https://b.example/v3", "sp_url": "https://t.example/sp", "enabled": true, "description": "x",
                "relay_state_prefix": "ss:mem:"}}),
            ("POST", "/v3/OS-OAUTH1/consumers") => json!({"consumer": {"description": "y"}}),
            ("PATCH", "/v3/OS-OAUTH1/consumers/{id}") => json!({"consumer": {"description": "z"}}),
            ("PUT", "/v3/OS-OAUTH1/authorize/{id}") => json!({"roles": [{"name": "admin"}]}),
            ("POST", "/v3/registered_limits") => json!({"registered_limits": [{"service_id": value("services"),
                "region_id": value("regions"), "resource_name": "y", "default_limit": 5, "description": "x"}]}),
            ("PATCH", "/v3/registered_limits/{id}") => {
                json!({"registered_limit": {"default_limit": 7, "description": "y"}})
            }
            ("POST", "/v3/limits") => json!({"limits": [{"service_id": value("services"), "resource_name": "x",
                "resource_limit": 6, "project_id": self.blue.id, "description": "x"}]}),
            ("PATCH", "/v3/limits/{id}") => json!({"limit": {"resource_limit": 7, "description": "y"}}),
            ("POST", "/v3/policies") => json!({"policy": {"type": "text/plain", "blob": "b2"}}),
            ("PATCH", "/v3/policies/{id}") => json!({"policy": {"blob": "b3"}}),
            ("POST", "/v3/domains") => json!({"domain": {"name": "d2", "description": "x", "enabled": true}}),
            ("PATCH", "/v3/domains/{id}") => json!({"domain": {"name": "d3", "description": "x", "enabled": false}}),
            ("POST", "/v3/projects") => json!({"project": {"name": "p2", "description": "x", "enabled": true,
                "domain_id": "default", "parent_id": "default", "is_domain": false, "tags": ["a"]}}),
            ("PATCH", "/v3/projects/{id}") => {
                json!({"project": {"name": "p3", "description": "x", "enabled": true, "tags": ["a"]}})
            }
            ("PUT", "/v3/projects/{id}/tags") => json!({"tags": ["t", "u"]}),
            ("POST", "/v3/users") => json!({"user": {"name": "u2", "password": "x-secret", "domain_id": "default",
                "enabled": true, "description": "x", "email": "e@x", "default_project_id": self.blue.id}}),
            ("PATCH", "/v3/users/{id}") => json!({"user": {"name": "u3", "description": "x", "enabled": true}}),
            ("POST", "/v3/users/{id}/password") => {
                json!({"user": {"password": "u-secret-2", "original_password": "u-secret"}})
            }
            ("POST", "/v3/groups") => json!({"group": {"name": "g2", "description": "x", "domain_id": "default"}}),
            ("PATCH", "/v3/groups/{id}") => json!({"group": {"name": "g3", "description": "x"}}),
            ("POST", "/v3/roles") => json!({"role": {"name": "ro2", "description": "x", "domain_id": null}}),
            ("PATCH", "/v3/roles/{id}") => json!({"role": {"name": "ro3", "description": "x"}}),
            ("POST", "/v3/regions") => json!({"region": {"id": "r2", "description": "x", "parent_region_id": null}}),
            ("PUT" | "PATCH", "/v3/regions/{id}") => json!({"region": {"description": "x"}}),
            ("POST", "/v3/services") => {
                json!({"service": {"type": "t2", "name": "s2", "description": "x", "enabled": true}})
            }
            ("PATCH", "/v3/services/{id}") => json!({"service": {"type": "t3", "name": "s3", "enabled": true}}),
            ("POST", "/v3/endpoints") => json!({"endpoint": {"service_id": value("services"), "interface": "internal",
                "url": "http://e2", "region_id": value("regions"), "enabled": true}}),
            ("PATCH", "/v3/endpoints/{id}") => json!({"endpoint": {"interface": "admin", "url": "http://e3"}}),
            ("POST", "/v3/credentials") => {
                json!({"credential": {"user_id": value("users"), "type": "totp", "blob": "b2", "project_id": self.blue.id}})
            }
            ("PATCH", "/v3/credentials/{id}") => json!({"credential": {"blob": "b3"}}),
            _ => return None,
        }))
    }
}

fn mapping_rules() -> Value {
    json!([{"local": [{"user": {"name": "{0}"}}], "remote": [{"type": "REMOTE_USER"}]}])
}
