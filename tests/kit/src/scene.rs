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
    pub(crate) owner: Option<Actor>,
    /// `<service>/<collection>` to the value of the path parameter after it.
    pub(crate) values: BTreeMap<&'static str, String>,
    pub(crate) image: String,
    pub(crate) external: String,
    subnet2: String,
    pub(crate) group: String,
    /// Volumes that sample requests use up.
    pub(crate) spares: BTreeMap<&'static str, String>,
    /// Id of the encryption of the sample volume type.
    pub(crate) encryption: String,
}

pub(crate) fn id(value: &Value) -> String {
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
        scene.network_extras().await;
        scene.volume().await;
        scene.placement().await;
        scene
    }

    pub(crate) fn extend(&mut self, samples: Vec<(&'static str, String)>) {
        self.values.extend(samples);
    }

    pub(crate) async fn make(&self, who: &Actor, path: &str, name: &str, value: Value) -> Value {
        self.kit.post(who, path, json!({ name: value })).await[name].clone()
    }

    async fn network(&mut self) {
        let who = self.blue.member.clone();
        let v2 = |noun: &str| format!("/network/v2.0/{noun}");
        let (network, subnet) = self.kit.network(&who, "net", "10.0.0.0/24").await;
        let body = json!({"network_id": network, "cidr": "10.0.1.0/24", "ip_version": 4});
        self.subnet2 = id(&self.make(&who, &v2("subnets"), "subnet", body).await);
        // On the subnet behind the router.
        let port = json!({"network_id": network, "fixed_ips": [{"subnet_id": subnet}]});
        let port = id(&self.make(&who, &v2("ports"), "port", port).await);
        let router = json!({"name": "r", "external_gateway_info": {"network_id": self.external}});
        let router = id(&self.make(&who, &v2("routers"), "router", router).await);
        let interface = v2(&format!("routers/{router}/add_router_interface"));
        self.kit.put(&who, &interface, json!({"subnet_id": subnet})).await;
        let fip = json!({"floating_network_id": self.external});
        let fip = id(&self.make(&who, &v2("floatingips"), "floatingip", fip).await);
        let forwarding =
            json!({"protocol": "tcp", "external_port": 8080, "internal_port": 80, "internal_port_id": port});
        let path = v2(&format!("floatingips/{fip}/port_forwardings"));
        let forwarding = id(&self.make(&who, &path, "port_forwarding", forwarding).await);
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
            ("network/port_forwardings", forwarding),
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
            path if path.starts_with("/v2.1/os-hosts") => "2.42",
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
            ("POST", "/v2.0/floatingips/{id}/port_forwardings") => json!({"port_forwarding": {"protocol": "udp",
                "external_port": 53, "internal_port": 53, "internal_port_id": value("ports"), "description": "x"}}),
            ("PUT", "/v2.0/floatingips/{id}/port_forwardings/{forwarding_id}") => {
                json!({"port_forwarding": {"external_port": 8081, "internal_port": 81, "description": "x"}})
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
            _ => return self.network_extras_body(method, path),
        }))
    }
}

/// An address that downloads are allowed from and that nobody answers at: nothing of a test leaves the machine.
const CLOSED: &str = "http://127.0.0.1:1/x";
/// A public key of nobody.
pub(crate) const PUBLIC_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl kit";
