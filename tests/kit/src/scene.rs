//! One object of every kind, and a good request for every route: what the tests over all routes walk with.

use crate::{Actor, Kit, Project, actors, scene_proxy};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The body of a sample request.
#[derive(Debug, Clone)]
pub enum Body {
    /// The route takes none.
    None,
    /// JSON.
    Json(Value),
    /// A JSON patch of an image.
    Patch(Value),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// A cloud with one object of every kind, and good requests.
pub struct Scene {
    /// The cloud.
    pub kit: Kit,
    /// The project that owns the objects.
    pub blue: Project,
    /// A stranger's project.
    pub red: Project,
    /// The project that an image is shared with.
    pub green: Project,
    /// A user with the role `service` (and no other) on the owner's project.
    pub service: Actor,
    /// The user that owns the application credential, the EC2 key and the trust.
    owner: Option<Actor>,
    /// `<service>/<collection>` to the value of the path parameter after it.
    values: BTreeMap<&'static str, String>,
    image: String,
    external: String,
    subnet2: String,
    group: String,
    /// Volumes that sample requests use up.
    pub(crate) spares: BTreeMap<&'static str, String>,
    /// Id of the encryption of the sample volume type.
    pub(crate) encryption: String,
}

fn id(value: &Value) -> String {
    value["id"]
        .as_str()
        .unwrap_or_else(|| panic!("{value} has no id"))
        .to_owned()
}

/// The parameters of a route's path with the collection that each is in: `/v2.1/servers/{id}/tags/{tag}` has `servers`, `tags`.
#[must_use]
pub fn collections(path: &str) -> Vec<&str> {
    let parts: Vec<&str> = path.split('/').collect();
    let pairs = parts.windows(2);
    pairs.filter(|w| w[1].starts_with('{')).map(|w| w[0]).collect()
}

impl Scene {
    /// Makes it.
    pub async fn start() -> Self {
        let kit = Kit::start().await;
        let (blue, red, green) = (
            kit.project("blue").await,
            kit.project("red").await,
            kit.project("green").await,
        );
        let service = kit.user_of("blue", &blue.id, "service").await;
        let mut scene = Self {
            service,
            external: kit.external_network().await,
            kit,
            blue,
            red,
            green,
            owner: None,
            values: BTreeMap::new(),
            image: String::new(),
            subnet2: String::new(),
            group: String::new(),
            spares: BTreeMap::new(),
            encryption: String::new(),
        };
        // The same request is sent in a thousand forms; a quota must not be what refuses it.
        let admin = scene.kit.admin().project;
        let none: Value = [
            "network",
            "subnet",
            "port",
            "router",
            "floatingip",
            "security_group",
            "security_group_rule",
        ]
        .map(|r| (r.to_owned(), json!(-1)))
        .into_iter()
        .collect();
        scene.kit.network_quota(&admin, none).await;
        let none: Value = ["instances", "cores", "ram", "server_groups", "key_pairs"]
            .map(|r| (r.to_owned(), json!(-1)))
            .into_iter()
            .collect();
        scene.kit.compute_quota(&admin, none).await;
        scene.identity().await;
        scene.network().await;
        scene.image().await;
        scene.compute().await;
        scene.volume().await;
        scene.placement().await;
        scene
    }

    pub(crate) fn extend(&mut self, samples: Vec<(&'static str, String)>) {
        self.values.extend(samples);
    }

    async fn make(&self, who: &Actor, path: &str, name: &str, value: Value) -> Value {
        self.kit.post(who, path, json!({ name: value })).await[name].clone()
    }

    async fn identity(&mut self) {
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

    async fn limits(&self, service: &str, project: &str) -> Vec<(&'static str, String)> {
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

    /// A consumer, a request token that waits for the administrator, and an access token of the sample user.
    async fn oauth1(&self, project: &str, user: &str, role: &str) -> Vec<(&'static str, String)> {
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

    async fn network(&mut self) {
        let who = self.blue.member.clone();
        let v2 = |noun: &str| format!("/network/v2.0/{noun}");
        let (network, subnet) = self.kit.network(&who, "net", "10.0.0.0/24").await;
        let body = json!({"network_id": network, "cidr": "10.0.1.0/24", "ip_version": 4});
        self.subnet2 = id(&self.make(&who, &v2("subnets"), "subnet", body).await);
        let port = self.kit.port(&who, &network).await;
        let router = json!({"name": "r", "external_gateway_info": {"network_id": self.external}});
        let router = id(&self.make(&who, &v2("routers"), "router", router).await);
        let interface = v2(&format!("routers/{router}/add_router_interface"));
        self.kit.put(&who, &interface, json!({"subnet_id": subnet})).await;
        let fip = json!({"floating_network_id": self.external});
        let fip = id(&self.make(&who, &v2("floatingips"), "floatingip", fip).await);
        let group = id(&self
            .make(&who, &v2("security-groups"), "security_group", json!({"name": "sg"}))
            .await);
        let rule = json!({"security_group_id": group, "direction": "ingress", "protocol": "tcp",
            "port_range_min": 22, "port_range_max": 22, "ethertype": "IPv4"});
        let rule = id(&self
            .make(&who, &v2("security-group-rules"), "security_group_rule", rule)
            .await);
        let scope = json!({"name": "as", "ip_version": 4});
        let scope = id(&self.make(&who, &v2("address-scopes"), "address_scope", scope).await);
        let pool = json!({"name": "sp", "prefixes": ["10.200.0.0/16", "10.202.0.0/16"]});
        let pool = id(&self.make(&who, &v2("subnetpools"), "subnetpool", pool).await);
        let shared = json!({"object_type": "network", "object_id": network, "action": "access_as_shared",
            "target_tenant": self.green.id});
        let shared = id(&self.make(&who, &v2("rbac-policies"), "rbac_policy", shared).await);
        let admin = self.kit.admin();
        let label = id(&self
            .make(
                &admin,
                &v2("metering/metering-labels"),
                "metering_label",
                json!({"name": "ml"}),
            )
            .await);
        let counted = json!({"metering_label_id": label, "direction": "ingress", "remote_ip_prefix": "10.0.0.0/8"});
        let counted = id(&self
            .make(
                &admin,
                &v2("metering/metering-label-rules"),
                "metering_label_rule",
                counted,
            )
            .await);
        for noun in [
            "networks",
            "subnets",
            "ports",
            "routers",
            "floatingips",
            "subnetpools",
            "security-groups",
        ] {
            let one = match noun {
                "networks" => &network,
                "subnets" => &subnet,
                "ports" => &port,
                "routers" => &router,
                "floatingips" => &fip,
                "subnetpools" => &pool,
                _ => &group,
            };
            self.kit
                .put(&who, &v2(&format!("{noun}/{one}/tags/t")), Value::Null)
                .await;
        }
        let agents = self.kit.get(&self.kit.admin(), &v2("agents")).await;
        let extensions = self.kit.get(&who, &v2("extensions")).await;
        self.group.clone_from(&group);
        self.values.extend([
            ("network/agents", id(&agents["agents"][0])),
            (
                "network/extensions",
                extensions["extensions"][0]["alias"]
                    .as_str()
                    .expect("an alias")
                    .to_owned(),
            ),
            ("network/network-ip-availabilities", network.clone()),
            ("network/dhcp-networks", network.clone()),
            ("network/l3-routers", router.clone()),
            ("network/rbac-policies", shared),
            ("network/subnetpools", pool),
            ("network/address-scopes", scope),
            ("network/metering-labels", label),
            ("network/metering-label-rules", counted),
            ("network/networks", network),
            ("network/subnets", subnet),
            ("network/ports", port),
            ("network/routers", router),
            ("network/floatingips", fip),
            ("network/security-groups", group),
            ("network/security-group-rules", rule),
            ("network/quotas", self.blue.id.clone()),
            ("network/tags", "t".to_owned()),
        ]);
    }

    async fn image(&mut self) {
        let who = self.blue.member.clone();
        self.image = self.kit.image(&who, "boot").await;
        let image = self.kit.image(&who, "shared").await;
        let path = format!("/image/v2/images/{image}");
        self.kit.put(&who, &format!("{path}/tags/t"), Value::Null).await;
        self.kit
            .post(&who, &format!("{path}/members"), json!({"member": self.green.id}))
            .await;
        let admin = self.kit.admin();
        let string = json!({"title": "P", "type": "string"});
        let namespace = json!({"namespace": "ns", "visibility": "private", "owner": self.blue.id, "tags": [{"name": "t"}],
            "objects": [{"name": "o", "properties": {"p": string}}], "properties": {"p": string},
            "resource_type_associations": [{"name": "OS::Nova::Server", "prefix": "x_"}]});
        self.kit.post(&admin, "/image/v2/metadefs/namespaces", namespace).await;
        self.values.extend([
            ("image/stores", "local".to_owned()),
            ("image/{store}", image.clone()),
            ("image/tasks", "01234567-89ab-4def-8123-456789abcdee".to_owned()),
            ("image/namespaces", "ns".to_owned()),
            ("image/metadefs", "namespace".to_owned()),
            ("image/objects", "o".to_owned()),
            ("image/properties", "p".to_owned()),
            ("image/resource_types", "OS::Nova::Server".to_owned()),
            ("image/images", image),
            ("image/tags", "t".to_owned()),
            ("image/members", self.green.id.clone()),
            ("image/schemas", "image".to_owned()),
        ]);
    }

    async fn compute(&mut self) {
        let who = self.blue.member.clone();
        let admin = self.kit.admin();
        let v21 = |noun: &str| format!("/compute/v2.1/{noun}");
        let network = self.values["network/networks"].clone();
        let mut body = Kit::server_body("vm", &self.image, &network);
        body["server"]["metadata"] = json!({"k": "v"});
        body["server"]["tags"] = json!(["t"]);
        let server = id(&self.kit.post(&who, &v21("servers"), body).await["server"]);
        let port = self.kit.server_active(&server).await.ports[0].id.clone();
        let flavor = json!({"name": "f", "vcpus": 1, "ram": 64, "disk": 1, "os-flavor-access:is_public": false});
        let flavor = id(&self.make(&admin, &v21("flavors"), "flavor", flavor).await);
        let specs = v21(&format!("flavors/{flavor}/os-extra_specs"));
        self.kit
            .post(&admin, &specs, json!({"extra_specs": {"hw:cpu_policy": "shared"}}))
            .await;
        let key = json!({"name": "kp", "type": "ssh", "public_key": PUBLIC_KEY});
        self.make(&who, &v21("os-keypairs"), "keypair", key).await;
        let group = json!({"name": "sg", "policy": "affinity"});
        let group = id(&self.make(&who, &v21("os-server-groups"), "server_group", group).await);
        let aggregate = self
            .make(&admin, &v21("os-aggregates"), "aggregate", json!({"name": "a"}))
            .await;
        let services = self.kit.get(&admin, &v21("os-services?binary=nova-compute")).await;
        let hypervisors = self.kit.get(&admin, &v21("os-hypervisors")).await;
        let actions = self
            .kit
            .get(&who, &v21(&format!("servers/{server}/os-instance-actions")))
            .await;
        let request = actions["instanceActions"][0]["request_id"]
            .as_str()
            .expect("a request")
            .to_owned();
        let extensions = self.kit.get(&who, &v21("extensions")).await;
        let image = v21(&format!("images/{}/metadata", self.values["image/images"]));
        let headers = [("x-auth-token", &*who.token), ("openstack-api-version", "compute 2.35")];
        let body = json!({"metadata": {"k": "v"}}).to_string();
        let made = self.kit.send("POST", &image, &headers, body.into()).await;
        made.expect("the kit lives").expect(200);
        self.values.extend([
            ("compute/servers", server),
            ("compute/ips", "net".to_owned()),
            ("compute/metadata", "k".to_owned()),
            ("compute/tags", "t".to_owned()),
            ("compute/os-interface", port),
            ("compute/os-instance-actions", request),
            ("compute/flavors", flavor),
            ("compute/os-extra_specs", "hw:cpu_policy".to_owned()),
            ("compute/os-keypairs", "kp".to_owned()),
            ("compute/os-services", id(&services["services"][0])),
            ("compute/os-hypervisors", id(&hypervisors["hypervisors"][0])),
            ("compute/os-quota-sets", self.blue.id.clone()),
            ("compute/os-quota-class-sets", "default".to_owned()),
            ("compute/os-server-groups", group),
            ("compute/os-simple-tenant-usage", self.blue.id.clone()),
            ("compute/os-aggregates", aggregate["id"].to_string()),
            (
                "compute/extensions",
                extensions["extensions"][0]["alias"]
                    .as_str()
                    .unwrap_or("os-keypairs")
                    .to_owned(),
            ),
        ]);
    }

    async fn placement(&mut self) {
        let admin = self.kit.admin();
        let made = self
            .kit
            .post(&admin, "/placement/resource_providers", json!({"name": "spare"}))
            .await;
        let provider = made["uuid"].as_str().expect("a uuid").to_owned();
        let path = format!("/placement/resource_providers/{provider}");
        let inventory = json!({"resource_class": "VCPU", "total": 8});
        self.kit.post(&admin, &format!("{path}/inventories"), inventory).await;
        let consumer = "11111111-2222-4333-8444-555555555555";
        let held = json!({"allocations": {&provider: {"resources": {"VCPU": 1}}}, "project_id": self.blue.id,
            "user_id": self.blue.member.user, "consumer_generation": null, "consumer_type": "INSTANCE"});
        self.kit
            .put(&admin, &format!("/placement/allocations/{consumer}"), held)
            .await;
        self.kit.put(&admin, "/placement/traits/CUSTOM_T", Value::Null).await;
        self.kit
            .put(&admin, "/placement/resource_classes/CUSTOM_C", Value::Null)
            .await;
        self.values.extend([
            ("placement/resource_providers", provider),
            ("placement/inventories", "VCPU".to_owned()),
            ("placement/traits", "CUSTOM_T".to_owned()),
            ("placement/resource_classes", "CUSTOM_C".to_owned()),
            ("placement/allocations", consumer.to_owned()),
        ]);
    }

    /// The value of a path parameter in a collection of a service.
    #[must_use]
    pub fn value(&self, service: &str, collection: &str) -> Option<&str> {
        let name = format!("{service}/{collection}");
        let stands = scene_proxy::STAND_FOR.iter().find(|(of, _)| *of == name);
        self.values
            .get(stands.map_or(name.as_str(), |(_, other)| *other))
            .map(String::as_str)
    }
    /// The path of a route with sample objects in it; `first` instead of the first one.
    ///
    /// # Errors
    /// The collection that has no sample: add one in `tests/kit/src/scene.rs`.
    pub fn fill(&self, service: &str, method: &str, path: &str, first: Option<&str>) -> Result<String, String> {
        let parts: Vec<&str> = path.split('/').collect();
        let mut out = Vec::new();
        let mut filled = 0;
        for (n, part) in parts.iter().enumerate() {
            if !part.starts_with('{') {
                out.push((*part).to_owned());
                continue;
            }
            let collection = parts[n.saturating_sub(1)];
            let sample = match path {
                // Below 2.53 these take a part of a host's name.
                "/v2.1/os-hypervisors/{id}/search" | "/v2.1/os-hypervisors/{id}/servers" => Some("n1"),
                // One of its values is read by name; it is changed and removed by its id.
                "/types/{id}/encryption/{key}" if first.is_none() && filled == 1 && method != "GET" => {
                    Some(self.encryption.as_str())
                }
                _ => self.value(service, collection),
            };
            let sample = sample.ok_or_else(|| format!("{service}/{collection} (of {path}) has no sample object"))?;
            out.push(match first {
                Some(first) if filled == 0 => first.to_owned(),
                _ => sample.to_owned(),
            });
            filled += 1;
        }
        let query = match (service, path) {
            ("placement", "/usages") => format!("?project_id={}", self.blue.id),
            ("placement", "/allocation_candidates") => "?resources=VCPU:1".to_owned(),
            (
                "volume",
                "/manageable_volumes"
                | "/manageable_volumes/detail"
                | "/manageable_snapshots"
                | "/manageable_snapshots/detail"
                | "/os-volume-manage"
                | "/os-volume-manage/detail"
                | "/os-snapshot-manage"
                | "/os-snapshot-manage/detail",
            ) if method == "GET" => "?host=n1@local%23local".to_owned(),
            ("volume", "/qos-specs/{id}/associate" | "/qos-specs/{id}/disassociate") => {
                format!("?vol_type_id={}", self.value("volume", "types").unwrap_or_default())
            }
            _ => String::new(),
        };
        Ok(format!("{}{query}", out.join("/")))
    }
    /// Headers of a good request of a route besides the token and the body's type.
    #[must_use]
    pub fn headers(&self, service: &str, path: &str) -> Vec<(&'static str, String)> {
        let version = match path {
            "/v2.1/os-hypervisors/statistics" | "/v2.1/os-hypervisors/{id}/uptime" => "2.87",
            "/v2.1/os-hypervisors/{id}/search" | "/v2.1/os-hypervisors/{id}/servers" => "2.52",
            path if scene_proxy::is_proxy(path) => "2.35",
            _ => "2.96",
        };
        match service {
            "identity" if path == "/v3/auth/tokens" => vec![("x-subject-token", self.blue.manager.token.clone())],
            "placement" => vec![("openstack-api-version", "placement 1.39".to_owned())],
            "compute" => vec![("openstack-api-version", format!("compute {version}"))],
            "volume" => vec![("openstack-api-version", "volume 3.71".to_owned())],
            _ => Vec::new(),
        }
    }
    /// Who a good request of a route is made by.
    #[must_use]
    pub fn rightful(&self, service: &str, method: &str, path: &str) -> Actor {
        match (service, collections(path).first().copied()) {
            // All trusts are for an administrator to list.
            ("identity", _) if method == "GET" && path == "/v3/OS-TRUST/trusts" => self.kit.admin(),
            ("identity", _) if self.is_owners(path) => self.owner.clone().unwrap_or_else(|| self.kit.admin()),
            ("compute", Some("os-keypairs")) => self.blue.member.clone(),
            ("image", Some("images")) if method == "PUT" && path.contains("/members/") => self.green.member.clone(),
            ("placement", _) if path == "/reshaper" => self.service.clone(),
            _ => self.kit.admin(),
        }
    }
    /// Whether a route is for the owner of the application credential and the trust.
    fn is_owners(&self, path: &str) -> bool {
        ["/application_credentials", "/access_rules", "/OS-EC2", "/OS-TRUST"]
            .iter()
            .any(|part| path.contains(part))
    }
    /// Signs a user of the scene in anew.
    pub async fn sign_in(&self, name: &str, project: &str) -> Actor {
        actors::sign_in(&self.kit, name, &format!("{name}-secret"), project).await
    }

    /// The body of a good request; `None` when the route is not known here: add it.
    #[must_use]
    pub fn body(&self, service: &str, method: &str, path: &str) -> Option<Body> {
        if matches!(method, "GET" | "HEAD" | "DELETE") {
            return Some(Body::None);
        }
        match service {
            "identity" => self.identity_body(method, path),
            "image" => self.image_body(method, path),
            "placement" => self.placement_body(method, path),
            "network" => self.network_body(method, path),
            "compute" => self.compute_body(method, path),
            "volume" => self.volume_body(method, path),
            _ => None,
        }
    }

    fn identity_body(&self, method: &str, path: &str) -> Option<Body> {
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

    fn image_body(&self, method: &str, path: &str) -> Option<Body> {
        Some(match (method, path) {
            ("POST", "/v2/images") => {
                Body::Json(json!({"name": "i2", "disk_format": "raw", "container_format": "bare",
                "visibility": "private", "min_disk": 0, "min_ram": 0, "protected": false, "tags": ["a"], "os_hidden": false}))
            }
            ("PATCH", "/v2/images/{id}") => Body::Patch(json!([{"op": "replace", "path": "/name", "value": "i3"}])),
            ("PUT", "/v2/images/{id}/stage") => Body::Bytes(vec![1; 16]),
            ("POST", "/v2/images/{id}/import") => Body::Json(json!({"method": {"name": "web-download", "uri": CLOSED},
                "all_stores": false, "all_stores_must_succeed": true, "stores": ["local"]})),
            ("POST", "/v2/tasks") => Body::Json(json!({"type": "import", "input": {"import_from": CLOSED,
                "import_from_format": "qcow2", "image_properties": {"disk_format": "qcow2", "container_format": "bare"}}})),
            ("POST", "/v2/metadefs/namespaces") => {
                Body::Json(json!({"namespace": "ns2", "display_name": "N", "description": "x",
                "visibility": "public", "protected": false, "tags": [{"name": "t"}], "properties": {}, "objects": [],
                "resource_type_associations": [{"name": "OS::Nova::Flavor", "prefix": "y_", "properties_target": "x"}]}))
            }
            ("PUT", "/v2/metadefs/namespaces/{namespace}") => {
                Body::Json(json!({"namespace": "ns", "display_name": "N",
                "description": "x", "visibility": "private", "protected": false}))
            }
            ("POST", "/v2/metadefs/namespaces/{namespace}/resource_types") => {
                Body::Json(json!({"name": "OS::Nova::Flavor", "prefix": "y_"}))
            }
            ("POST", "/v2/metadefs/namespaces/{namespace}/objects") => {
                Body::Json(json!({"name": "o2", "description": "x",
                "required": ["p"], "properties": {"p": {"title": "P", "type": "integer", "minimum": 1, "maximum": 2}}}))
            }
            ("PUT", "/v2/metadefs/namespaces/{namespace}/objects/{object}") => {
                Body::Json(json!({"name": "o", "description": "y"}))
            }
            ("POST", "/v2/metadefs/namespaces/{namespace}/properties") => {
                Body::Json(json!({"name": "p2", "title": "P",
                "type": "string", "description": "x", "enum": ["a"], "minLength": 1, "maxLength": 2, "readonly": false}))
            }
            ("PUT", "/v2/metadefs/namespaces/{namespace}/properties/{property}") => {
                Body::Json(json!({"name": "p", "title": "P", "type": "string"}))
            }
            ("POST", "/v2/metadefs/namespaces/{namespace}/tags") => {
                Body::Json(json!({"tags": [{"name": "t"}, {"name": "u"}]}))
            }
            ("PUT", "/v2/metadefs/namespaces/{namespace}/tags/{tag}") => Body::Json(json!({"name": "t"})),
            ("PUT", "/v2/images/{id}/file") => Body::Bytes(vec![1; 16]),
            ("POST", "/v2/images/{id}/members") => Body::Json(json!({"member": "0123456789abcdef0123456789abcdef"})),
            ("PUT", "/v2/images/{id}/members/{member}") => Body::Json(json!({"status": "accepted"})),
            ("PUT", "/v2/images/{id}/tags/{tag}")
            | ("POST", "/v2/metadefs/namespaces/{namespace}/tags/{tag}")
            | ("POST", "/v2/images/{id}/actions/deactivate" | "/v2/images/{id}/actions/reactivate") => Body::None,
            _ => return None,
        })
    }

    fn placement_body(&self, method: &str, path: &str) -> Option<Body> {
        let provider = self.value("placement", "resource_providers").unwrap_or_default();
        let allocations = json!({"allocations": {provider: {"resources": {"VCPU": 1}}}, "project_id": self.blue.id,
            "user_id": self.blue.member.user, "consumer_generation": null, "consumer_type": "INSTANCE"});
        Some(Body::Json(match (method, path) {
            ("PUT", "/traits/{name}" | "/resource_classes/{name}") => return Some(Body::None),
            ("POST", "/resource_providers") => json!({"name": "p2", "uuid": "11111111-2222-4333-8444-000000000000"}),
            ("PUT", "/resource_providers/{uuid}") => json!({"name": "spare2"}),
            ("POST", "/resource_providers/{uuid}/inventories") => json!({"resource_class": "DISK_GB", "total": 8,
                "reserved": 0, "min_unit": 1, "max_unit": 8, "step_size": 1, "allocation_ratio": 1.0}),
            ("PUT", "/resource_providers/{uuid}/inventories") => {
                json!({"resource_provider_generation": 1, "inventories": {"VCPU": {"total": 8}}})
            }
            ("PUT", "/resource_providers/{uuid}/inventories/{resource_class}") => {
                json!({"resource_provider_generation": 1, "total": 8})
            }
            ("PUT", "/resource_providers/{uuid}/aggregates") => {
                json!({"resource_provider_generation": 1, "aggregates": ["11111111-2222-4333-8444-000000000001"]})
            }
            ("PUT", "/resource_providers/{uuid}/traits") => {
                json!({"resource_provider_generation": 1, "traits": ["CUSTOM_T"]})
            }
            ("POST", "/resource_classes") => json!({"name": "CUSTOM_D"}),
            ("POST", "/allocations") => json!({"11111111-2222-4333-8444-000000000002": allocations}),
            ("PUT", "/allocations/{consumer}") => allocations,
            ("POST", "/reshaper") => json!({"inventories": {provider: {"resource_provider_generation": 1,
                "inventories": {"VCPU": {"total": 8}}}}, "allocations": {}}),
            _ => return None,
        }))
    }

    fn network_body(&self, method: &str, path: &str) -> Option<Body> {
        let value = |c: &str| self.value("network", c).unwrap_or_default();
        if path.ends_with("/tags/{tag}") {
            return Some(Body::None);
        }
        Some(Body::Json(match (method, path) {
            (_, p) if p.ends_with("/tags") => json!({"tags": ["t", "u"]}),
            ("PUT", "/v2.0/agents/{id}") => json!({"agent": {"admin_state_up": true, "description": "x"}}),
            ("POST", "/v2.0/networks") => json!({"network": {"name": "n2", "admin_state_up": true, "description": "x",
                "port_security_enabled": true, "mtu": 1400}}),
            ("PUT", "/v2.0/networks/{id}") => {
                json!({"network": {"name": "net", "admin_state_up": true, "description": "x"}})
            }
            ("POST", "/v2.0/subnets") => json!({"subnet": {"network_id": value("networks"), "cidr": "10.9.0.0/24",
                "ip_version": 4, "name": "s", "description": "x", "enable_dhcp": true, "gateway_ip": "10.9.0.1",
                "dns_nameservers": ["9.9.9.9"], "host_routes": [], "allocation_pools": [{"start": "10.9.0.10", "end": "10.9.0.20"}]}}),
            ("PUT", "/v2.0/subnets/{id}") => json!({"subnet": {"name": "s3", "description": "x",
                "dns_nameservers": [], "host_routes": []}}),
            ("POST", "/v2.0/ports") => {
                json!({"port": {"network_id": value("networks"), "name": "p", "description": "x",
                "admin_state_up": true, "fixed_ips": [{"subnet_id": value("subnets")}], "security_groups": [self.group],
                "allowed_address_pairs": [], "extra_dhcp_opts": [], "device_id": "", "device_owner": ""}})
            }
            ("PUT", "/v2.0/ports/{id}") => json!({"port": {"name": "p3", "description": "x", "admin_state_up": true,
                "security_groups": [self.group], "allowed_address_pairs": [{"ip_address": "10.0.0.99"}]}}),
            ("POST", "/v2.0/routers") => json!({"router": {"name": "r2", "description": "x", "admin_state_up": true,
                "external_gateway_info": {"network_id": self.external}}}),
            ("PUT", "/v2.0/routers/{id}") => json!({"router": {"name": "r3", "description": "x", "routes": []}}),
            ("PUT", "/v2.0/routers/{id}/add_router_interface" | "/v2.0/routers/{id}/remove_router_interface") => {
                json!({"subnet_id": self.subnet2})
            }
            ("PUT", "/v2.0/routers/{id}/add_extraroutes" | "/v2.0/routers/{id}/remove_extraroutes") => {
                json!({"router": {"routes": [{"destination": "10.77.0.0/24", "nexthop": "10.0.0.50"}]}})
            }
            ("POST", "/v2.0/floatingips") => {
                json!({"floatingip": {"floating_network_id": self.external, "description": "x"}})
            }
            ("PUT", "/v2.0/floatingips/{id}") => json!({"floatingip": {"port_id": null, "description": "x"}}),
            ("POST", "/v2.0/security-groups") => json!({"security_group": {"name": "sg2", "description": "x"}}),
            ("PUT", "/v2.0/security-groups/{id}") => json!({"security_group": {"name": "sg3", "description": "x"}}),
            ("POST", "/v2.0/security-group-rules") => json!({"security_group_rule": {"security_group_id": self.group,
                "direction": "ingress", "ethertype": "IPv4", "protocol": "udp", "port_range_min": 53, "port_range_max": 54,
                "remote_ip_prefix": "10.0.0.0/8", "description": "x"}}),
            ("POST", "/v2.0/subnetpools") => json!({"subnetpool": {"name": "sp2", "prefixes": ["10.201.0.0/16"],
                "default_prefixlen": 24, "min_prefixlen": 20, "max_prefixlen": 28, "default_quota": 1024, "description": "x",
                "shared": false, "is_default": false, "address_scope_id": value("address-scopes")}}),
            ("PUT", "/v2.0/subnetpools/{id}") => json!({"subnetpool": {"name": "sp3", "description": "x",
                "default_prefixlen": 24}}),
            ("PUT", "/v2.0/subnetpools/{id}/add_prefixes") => json!({"prefixes": ["10.203.0.0/16"]}),
            ("PUT", "/v2.0/subnetpools/{id}/remove_prefixes") => json!({"prefixes": ["10.202.0.0/16"]}),
            ("PUT", "/v2.0/subnetpools/{id}/onboard_network_subnets") => json!({"network_id": value("networks")}),
            ("POST", "/v2.0/rbac-policies") => {
                json!({"rbac_policy": {"object_type": "network", "object_id": value("networks"),
                "action": "access_as_shared", "target_tenant": "0123456789abcdef0123456789abcdef"}})
            }
            ("PUT", "/v2.0/rbac-policies/{id}") => json!({"rbac_policy": {"target_tenant": self.green.id}}),
            ("POST", "/v2.0/address-scopes") => {
                json!({"address_scope": {"name": "as2", "ip_version": 6, "shared": false}})
            }
            ("PUT", "/v2.0/address-scopes/{id}") => json!({"address_scope": {"name": "as3"}}),
            ("POST", "/v2.0/metering/metering-labels") => json!({"metering_label": {"name": "ml2", "description": "x",
                "shared": false}}),
            ("POST", "/v2.0/metering/metering-label-rules") => json!({"metering_label_rule": {
                "metering_label_id": value("metering-labels"), "direction": "egress", "remote_ip_prefix": "10.9.0.0/16",
                "excluded": false}}),
            ("POST", "/v2.0/agents/{id}/l3-routers") => json!({"router_id": value("routers")}),
            ("POST", "/v2.0/agents/{id}/dhcp-networks") => json!({"network_id": value("networks")}),
            ("PUT", "/v2.0/quotas/{project}") => json!({"quota": {"port": 400, "network": 90}}),
            _ => return None,
        }))
    }

    fn compute_body(&self, method: &str, path: &str) -> Option<Body> {
        let network = self.value("network", "networks").unwrap_or_default();
        Some(Body::Json(match (method, path) {
            ("PUT", "/v2.1/servers/{id}/tags/{tag}") => return Some(Body::None),
            ("POST", "/v2.1/servers") => json!({"server": {"name": "vm2", "imageRef": self.image, "flavorRef": "42",
                "networks": [{"uuid": network}], "metadata": {"a": "b"}, "min_count": 1, "max_count": 1,
                "config_drive": false, "description": "x", "user_data": "aGk=", "tags": ["a"], "adminPass": "x-secret",
                "security_groups": [{"name": "default"}]}}),
            ("PUT", "/v2.1/servers/{id}") => {
                json!({"server": {"name": "vm3", "description": "x", "accessIPv4": "10.1.2.3"}})
            }
            ("POST", "/v2.1/servers/{id}/action") => json!({"lock": {"locked_reason": "x"}}),
            ("POST" | "PUT", "/v2.1/servers/{id}/metadata") => json!({"metadata": {"k": "v2"}}),
            ("PUT", "/v2.1/servers/{id}/metadata/{key}") => json!({"meta": {"k": "v3"}}),
            ("PUT", "/v2.1/servers/{id}/tags") => json!({"tags": ["t", "u"]}),
            ("POST", "/v2.1/servers/{id}/os-volume_attachments") => {
                json!({"volumeAttachment": {"volumeId": self.volume_to_attach()}})
            }
            ("PUT", "/v2.1/servers/{id}/os-volume_attachments/{volume}") => json!({"volumeAttachment": {
                "volumeId": self.value("compute", "os-volume_attachments").unwrap_or_default(), "delete_on_termination": true}}),
            ("POST", "/v2.1/servers/{id}/os-interface") => json!({"interfaceAttachment": {"net_id": network}}),
            ("POST", "/v2.1/flavors") => json!({"flavor": {"name": "f2", "vcpus": 1, "ram": 64, "disk": 1, "swap": 0,
                "OS-FLV-EXT-DATA:ephemeral": 0, "rxtx_factor": 1.0, "os-flavor-access:is_public": true, "description": "x"}}),
            ("PUT", "/v2.1/flavors/{id}") => json!({"flavor": {"description": "x"}}),
            ("POST", "/v2.1/flavors/{id}/action") => json!({"addTenantAccess": {"tenant": self.green.id}}),
            ("POST", "/v2.1/flavors/{id}/os-extra_specs") => json!({"extra_specs": {"hw:cpu_policy": "shared"}}),
            ("PUT", "/v2.1/flavors/{id}/os-extra_specs/{key}") => json!({"hw:cpu_policy": "shared"}),
            ("POST", "/v2.1/os-keypairs") => {
                json!({"keypair": {"name": "kp2", "type": "ssh", "public_key": PUBLIC_KEY}})
            }
            ("PUT", "/v2.1/os-services/{id}") => json!({"status": "enabled", "forced_down": false}),
            ("PUT", "/v2.1/os-quota-sets/{project}") => {
                json!({"quota_set": {"instances": 9, "cores": 19, "force": true}})
            }
            ("PUT", "/v2.1/os-quota-class-sets/{class}") => json!({"quota_class_set": {"instances": 9, "cores": 19}}),
            ("POST", "/v2.1/os-server-groups") => json!({"server_group": {"name": "sg2", "policy": "anti-affinity",
                "rules": {"max_server_per_host": 2}}}),
            ("POST", "/v2.1/os-aggregates") => json!({"aggregate": {"name": "a2", "availability_zone": "az2"}}),
            ("PUT", "/v2.1/os-aggregates/{id}") => json!({"aggregate": {"name": "a3"}}),
            ("POST", "/v2.1/os-aggregates/{id}/action") => json!({"set_metadata": {"metadata": {"k": "v"}}}),
            _ => self.proxy_body(method, path)?,
        }))
    }
}

/// An address that downloads are allowed from and that nobody answers at: nothing of a test leaves the machine.
const CLOSED: &str = "http://127.0.0.1:1/x";
/// A public key of nobody.
const PUBLIC_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl kit";
