//! The network part of the scene beyond networks: address groups, what new security groups begin with, flavors.

use crate::{Body, Scene};
use serde_json::{Value, json};

fn id(value: &Value) -> String {
    value["id"]
        .as_str()
        .unwrap_or_else(|| panic!("{value} has no id"))
        .to_owned()
}

impl Scene {
    /// Makes them.
    pub(crate) async fn network_extras(&mut self) {
        let (who, admin) = (self.blue.member.clone(), self.kit.admin());
        let v2 = |noun: &str| format!("/network/v2.0/{noun}");
        let body = json!({"address_group": {"name": "ag", "addresses": ["10.7.0.0/16"]}});
        let addresses = id(&self.kit.post(&who, &v2("address-groups"), body).await["address_group"]);
        let body = json!({"default_security_group_rule": {"direction": "ingress", "protocol": "tcp", "port_range_min": 22,
            "port_range_max": 22, "used_in_non_default_sg": false}});
        let rule = self.kit.post(&admin, &v2("default-security-group-rules"), body).await;
        let body = json!({"security_group_default_statefulness": {"stateful": true, "project_id": null}});
        let setting = self
            .kit
            .post(&admin, &v2("security-groups-default-statefulness"), body)
            .await;
        let body = json!({"service_profile": {"metainfo": "{}", "description": "x"}});
        let profile = id(&self.kit.post(&admin, &v2("service_profiles"), body).await["service_profile"]);
        let body = json!({"flavor": {"name": "f", "service_type": "L3_ROUTER_NAT"}});
        let flavor = id(&self.kit.post(&admin, &v2("flavors"), body).await["flavor"]);
        let of = v2(&format!("flavors/{flavor}/service_profiles"));
        self.kit
            .post(&admin, &of, json!({"service_profile": {"id": profile}}))
            .await;
        self.qos().await;
        self.trunk().await;
        self.topology().await;
        let router = self.values["network/routers"].clone();
        let path = v2(&format!("routers/{router}/conntrack_helpers"));
        let body = json!({"conntrack_helper": {"helper": "tftp", "protocol": "udp", "port": 69}});
        let helper = id(&self.kit.post(&who, &path, body).await["conntrack_helper"]);
        self.values.extend([("network/conntrack_helpers", helper)]);
        self.ndp_proxy().await;
        self.values.extend([
            ("network/address-groups", addresses),
            (
                "network/default-security-group-rules",
                id(&rule["default_security_group_rule"]),
            ),
            (
                "network/security-groups-default-statefulness",
                id(&setting["security_group_default_statefulness"]),
            ),
            ("network/service_profiles", profile),
            ("network/flavors", flavor),
        ]);
    }

    /// A QoS policy of the project with a rule of each kind.
    async fn qos(&mut self) {
        let admin = self.kit.admin();
        let v2 = |noun: &str| format!("/network/v2.0/qos/{noun}");
        let body = json!({"policy": {"name": "q", "project_id": self.blue.id}});
        let policy = id(&self.kit.post(&admin, &v2("policies"), body).await["policy"]);
        let body = json!({"bandwidth_limit_rule": {"max_kbps": 1000}});
        let path = v2(&format!("policies/{policy}/bandwidth_limit_rules"));
        let limit = id(&self.kit.post(&admin, &path, body).await["bandwidth_limit_rule"]);
        let body = json!({"dscp_marking_rule": {"dscp_mark": 10}});
        let path = v2(&format!("policies/{policy}/dscp_marking_rules"));
        let mark = id(&self.kit.post(&admin, &path, body).await["dscp_marking_rule"]);
        self.values.extend([
            ("network/policies", policy),
            ("network/bandwidth_limit_rules", limit.clone()),
            ("network/alias_bandwidth_limit_rules", limit),
            ("network/dscp_marking_rules", mark.clone()),
            ("network/alias_dscp_marking_rules", mark),
            ("network/rule-types", "bandwidth_limit".to_owned()),
        ]);
    }

    /// What a topology needs that a project gets by itself.
    async fn topology(&mut self) {
        let admin = self.kit.admin();
        let path = format!("/network/v2.0/networks/{}", self.external);
        let body = json!({"network": {"is_default": true}});
        self.kit.put(&admin, &path, body).await;
        let pool = json!({"subnetpool": {"name": "auto", "prefixes": ["10.204.0.0/16"], "default_prefixlen": 26,
            "is_default": true, "shared": true}});
        self.kit.post(&admin, "/network/v2.0/subnetpools", pool).await;
        self.values
            .extend([("network/auto-allocated-topology", self.blue.id.clone())]);
    }

    /// A router that answers for a port behind it on an external network of the same address scope, and a port for one more.
    async fn ndp_proxy(&mut self) {
        let (who, admin) = (self.blue.member.clone(), self.kit.admin());
        let v2 = |noun: &str| format!("/network/v2.0/{noun}");
        let scope = json!({"name": "six", "ip_version": 6, "shared": true});
        let scope = id(&self.make(&admin, &v2("address-scopes"), "address_scope", scope).await);
        let pool = json!({"name": "six", "prefixes": ["fd00:79::/48"], "default_prefixlen": 64, "shared": true,
            "address_scope_id": scope});
        let pool = id(&self.make(&admin, &v2("subnetpools"), "subnetpool", pool).await);
        let outer = json!({"name": "six-out", "router:external": true});
        let outer = id(&self.make(&admin, &v2("networks"), "network", outer).await);
        let inner = id(&self
            .make(&who, &v2("networks"), "network", json!({"name": "six-in"}))
            .await);
        let mut subnets = Vec::new();
        for (actor, network) in [(&admin, &outer), (&who, &inner)] {
            let body = json!({"network_id": network, "subnetpool_id": pool, "ip_version": 6});
            subnets.push(id(&self.make(actor, &v2("subnets"), "subnet", body).await));
        }
        let router = json!({"external_gateway_info": {"network_id": outer}, "enable_ndp_proxy": true});
        let router = id(&self.make(&who, &v2("routers"), "router", router).await);
        let path = v2(&format!("routers/{router}/add_router_interface"));
        self.kit.put(&who, &path, json!({"subnet_id": subnets[1]})).await;
        let mut ports = Vec::new();
        for _ in 0..2 {
            ports.push(id(&self
                .make(&who, &v2("ports"), "port", json!({"network_id": inner}))
                .await));
        }
        let proxy = json!({"router_id": router, "port_id": ports[0]});
        let proxy = id(&self.make(&who, &v2("ndp_proxies"), "ndp_proxy", proxy).await);
        self.values.extend([
            ("network/ndp_proxies", proxy),
            ("network/ndp-router", router),
            ("network/ndp-port", ports[1].clone()),
        ]);
    }

    /// A trunk with a subport, and a port each for what a route may make of them.
    async fn trunk(&mut self) {
        let who = self.blue.member.clone();
        let network = self.values["network/networks"].clone();
        let ports = "/network/v2.0/ports";
        let mut made = Vec::new();
        for name in ["trunk-parent", "trunk-sub", "trunk-next", "trunk-free"] {
            let body = json!({"port": {"network_id": network, "name": name}});
            made.push(id(&self.kit.post(&who, ports, body).await["port"]));
        }
        let [parent, sub, next, free] = [0, 1, 2, 3].map(|i| made[i].clone());
        let body = json!({"trunk": {"name": "t", "port_id": parent,
            "sub_ports": [{"port_id": sub, "segmentation_type": "vlan", "segmentation_id": 7}]}});
        let trunk = id(&self.kit.post(&who, "/network/v2.0/trunks", body).await["trunk"]);
        let tag = format!("/network/v2.0/trunks/{trunk}/tags/t");
        self.kit.put(&who, &tag, Value::Null).await;
        self.values.extend([
            ("network/trunks", trunk),
            ("network/trunk-sub", sub),
            ("network/trunk-next", next),
            ("network/trunk-free", free),
        ]);
    }

    /// Bodies for them.
    pub(crate) fn network_extras_body(&self, method: &str, path: &str) -> Option<Body> {
        let value = |noun: &str| self.value("network", noun).unwrap_or_default();
        if matches!(method, "POST" | "PUT") && path.contains("bandwidth_limit_rules") {
            let direction = if method == "POST" { "ingress" } else { "egress" };
            return Some(Body::Json(json!({"bandwidth_limit_rule": {
                "max_kbps": 2000, "max_burst_kbps": 80, "direction": direction}})));
        }
        if matches!(method, "POST" | "PUT") && path.contains("dscp_marking_rules") {
            return Some(Body::Json(json!({"dscp_marking_rule": {"dscp_mark": 12}})));
        }
        Some(Body::Json(match (method, path) {
            ("POST", "/v2.0/routers/{id}/conntrack_helpers") => {
                json!({"conntrack_helper": {"helper": "ftp", "protocol": "tcp", "port": 21}})
            }
            ("PUT", "/v2.0/routers/{id}/conntrack_helpers/{helper_id}") => {
                json!({"conntrack_helper": {"helper": "sip", "protocol": "udp", "port": 5060}})
            }
            ("POST", "/v2.0/ndp_proxies") => json!({"ndp_proxy": {"name": "n", "description": "x",
                "router_id": value("ndp-router"), "port_id": value("ndp-port")}}),
            ("PUT", "/v2.0/ndp_proxies/{id}") => json!({"ndp_proxy": {"name": "n2", "description": "y"}}),
            ("POST", "/v2.0/trunks") => json!({"trunk": {"name": "t2", "description": "x", "admin_state_up": true,
                "port_id": value("trunk-free"),
                "sub_ports": [{"port_id": value("trunk-next"), "segmentation_type": "vlan", "segmentation_id": 9}]}}),
            ("PUT", "/v2.0/trunks/{id}") => {
                json!({"trunk": {"name": "t3", "description": "y", "admin_state_up": true}})
            }
            ("PUT", "/v2.0/trunks/{id}/add_subports") => json!({"sub_ports": [
                {"port_id": value("trunk-next"), "segmentation_type": "vlan", "segmentation_id": 8}]}),
            ("PUT", "/v2.0/trunks/{id}/remove_subports") => json!({"sub_ports": [{"port_id": value("trunk-sub")}]}),
            ("POST", "/v2.0/qos/policies") => json!({"policy": {"name": "q2", "description": "x", "shared": false,
                "is_default": true}}),
            ("PUT", "/v2.0/qos/policies/{id}") => json!({"policy": {"name": "q3", "description": "y", "shared": true,
                "is_default": true}}),
            ("POST", "/v2.0/address-groups") => {
                json!({"address_group": {"name": "ag2", "description": "x", "addresses": ["10.8.0.0/16", "2001:db8::/64"]}})
            }
            ("PUT", "/v2.0/address-groups/{id}") => json!({"address_group": {"name": "ag3", "description": "y"}}),
            ("PUT", "/v2.0/address-groups/{id}/add_addresses") => {
                json!({"addresses": ["10.9.0.0/16"]})
            }
            ("PUT", "/v2.0/address-groups/{id}/remove_addresses") => {
                json!({"addresses": ["10.7.0.0/16"]})
            }
            ("POST", "/v2.0/default-security-group-rules") => json!({"default_security_group_rule": {
                "direction": "ingress", "ethertype": "IPv4", "protocol": "udp", "port_range_min": 53, "port_range_max": 53,
                "remote_ip_prefix": "10.0.0.0/8", "used_in_default_sg": true, "used_in_non_default_sg": false,
                "description": "x"}}),
            ("POST", "/v2.0/security-groups-default-statefulness") => {
                json!({"security_group_default_statefulness": {"stateful": true, "project_id": self.blue.id}})
            }
            ("PUT", "/v2.0/security-groups-default-statefulness/{id}") => {
                json!({"security_group_default_statefulness": {"stateful": true}})
            }
            ("POST", "/v2.0/flavors") => json!({"flavor": {"name": "f2", "service_type": "L3_ROUTER_NAT",
                "description": "x", "enabled": true}}),
            ("PUT", "/v2.0/flavors/{id}") => json!({"flavor": {"name": "f3", "description": "y", "enabled": false}}),
            ("POST", "/v2.0/flavors/{id}/service_profiles") => {
                json!({"service_profile": {"id": value("service_profiles")}})
            }
            ("POST", "/v2.0/service_profiles") => {
                json!({"service_profile": {"metainfo": "{}", "description": "y", "enabled": true}})
            }
            ("PUT", "/v2.0/service_profiles/{id}") => {
                json!({"service_profile": {"description": "z", "enabled": false}})
            }
            ("PUT", "/v2.0/routers/{id}/add_external_gateways") => {
                json!({"router": {"external_gateways": []}})
            }
            ("PUT", "/v2.0/routers/{id}/update_external_gateways") => {
                json!({"router": {"external_gateways": [{"network_id": self.external}]}})
            }
            ("PUT", "/v2.0/routers/{id}/remove_external_gateways") => {
                json!({"router": {"external_gateways": []}})
            }
            _ => return None,
        }))
    }
}
