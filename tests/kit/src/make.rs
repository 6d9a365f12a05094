//! What tests need most often, through the APIs.

use crate::{Actor, Kit};
use bytes::Bytes;
use serde_json::{Value, json};

fn id(value: &Value) -> String {
    value["id"]
        .as_str()
        .unwrap_or_else(|| panic!("{value} has no id"))
        .to_owned()
}

/// The id of the flavor `m1.nano` (one processor, 128 MiB, 1 GiB), which every cloud has.
pub const NANO: &str = "42";

impl Kit {
    /// Makes an active image of a few bytes; gives its id.
    pub async fn image(&self, who: &Actor, name: &str) -> String {
        let body = json!({"name": name, "disk_format": "raw", "container_format": "bare"});
        let image = id(&self.post(who, "/image/v2/images", body).await);
        let path = format!("/image/v2/images/{image}/file");
        let data = Bytes::from(vec![7_u8; 4096]);
        let answer = self
            .raw("PUT", &path, &who.token, "application/octet-stream", data)
            .await;
        answer.expect("no crash").expect(204);
        image
    }
    /// Makes a network with a subnet; gives their ids.
    pub async fn network(&self, who: &Actor, name: &str, cidr: &str) -> (String, String) {
        let made = self
            .post(who, "/network/v2.0/networks", json!({"network": {"name": name}}))
            .await;
        let network = id(&made["network"]);
        let version = if cidr.contains(':') { 6 } else { 4 };
        let mut subnet = json!({"network_id": network, "cidr": cidr, "ip_version": version});
        // Addresses are given at random, from the upper half only: tests ask for those of the lower.
        if let Some(net) = cidr.strip_suffix(".0/24") {
            subnet["allocation_pools"] = json!([{"start": format!("{net}.128"), "end": format!("{net}.254")}]);
        }
        let body = json!({ "subnet": subnet });
        let subnet = id(&self.post(who, "/network/v2.0/subnets", body).await["subnet"]);
        (network, subnet)
    }
    /// Makes a port.
    pub async fn port(&self, who: &Actor, network: &str) -> String {
        let body = json!({"port": {"network_id": network}});
        id(&self.post(who, "/network/v2.0/ports", body).await["port"])
    }
    /// The external network that every cloud begins with.
    pub async fn external_network(&self) -> String {
        let found = self
            .get(&self.admin(), "/network/v2.0/networks?router:external=true&name=public")
            .await;
        id(&found["networks"][0])
    }
    /// The request that makes a server of the smallest flavor.
    #[must_use]
    pub fn server_body(name: &str, image: &str, network: &str) -> Value {
        json!({"server": {"name": name, "imageRef": image, "flavorRef": NANO, "networks": [{"uuid": network}]}})
    }
    /// Asks for a server; gives its id.
    pub async fn server(&self, who: &Actor, name: &str, image: &str, network: &str) -> String {
        let body = Self::server_body(name, image, network);
        id(&self.post(who, "/compute/v2.1/servers", body).await["server"])
    }
    /// Asks for an action on a server.
    pub async fn action(&self, who: &Actor, server: &str, body: Value) -> Value {
        self.post(who, &format!("/compute/v2.1/servers/{server}/action"), body)
            .await
    }
    /// Sets one compute quota of a project.
    pub async fn compute_quota(&self, project: &str, limits: Value) {
        let path = format!("/compute/v2.1/os-quota-sets/{project}");
        self.put(&self.admin(), &path, json!({"quota_set": limits})).await;
    }
    /// Sets network quotas of a project.
    pub async fn network_quota(&self, project: &str, limits: Value) {
        let path = format!("/network/v2.0/quotas/{project}");
        self.put(&self.admin(), &path, json!({"quota": limits})).await;
    }
}
