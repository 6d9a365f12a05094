//! Good requests for the addresses of old in the compute service that stand for another service's.

use crate::Scene;
use serde_json::{Value, json};

/// Whose sample object stands in a path of the compute service that is another service's.
pub(crate) const STAND_FOR: &[(&str, &str)] = &[
    ("compute/os-security-groups", "network/security-groups"),
    ("compute/os-security-group-rules", "network/security-group-rules"),
    ("compute/os-networks", "network/networks"),
    ("compute/os-tenant-networks", "network/networks"),
    ("compute/os-floating-ips", "network/floatingips"),
    ("compute/images", "image/images"),
    ("compute/os-volumes", "volume/volumes"),
    ("compute/os-snapshots", "volume/snapshots"),
];

/// Whether a route of the compute service is one of them.
pub(crate) fn is_proxy(path: &str) -> bool {
    path.split('/').nth(2).is_some_and(|noun| {
        noun == "os-floating-ip-pools"
            || STAND_FOR
                .iter()
                .any(|(of, _)| of.strip_prefix("compute/") == Some(noun))
    })
}

impl Scene {
    pub(crate) fn proxy_body(&self, method: &str, path: &str) -> Option<Value> {
        Some(match (method, path) {
            ("POST", "/v2.1/os-security-groups") => json!({"security_group": {"name": "sg4", "description": "x"}}),
            ("PUT", "/v2.1/os-security-groups/{group}") => {
                json!({"security_group": {"name": "sg5", "description": "x"}})
            }
            ("POST", "/v2.1/os-security-group-rules") => json!({"security_group_rule": {
                "parent_group_id": self.value("network", "security-groups").unwrap_or_default(), "ip_protocol": "tcp",
                "from_port": 80, "to_port": 81, "cidr": "10.0.0.0/8"}}),
            ("POST", "/v2.1/os-floating-ips") => json!({}),
            ("POST" | "PUT", "/v2.1/images/{image}/metadata") => json!({"metadata": {"k": "v"}}),
            ("PUT", "/v2.1/images/{image}/metadata/{key}") => json!({"meta": {"k": "v2"}}),
            ("POST", "/v2.1/os-volumes") => {
                json!({"volume": {"size": 1, "display_name": "old", "metadata": {"k": "v"}}})
            }
            ("POST", "/v2.1/os-snapshots") => json!({"snapshot": {
                "volume_id": self.value("volume", "volumes").unwrap_or_default(), "display_name": "old", "force": true}}),
            _ => return None,
        })
    }
}
