//! Samples of the compute service.

use crate::{
    Body, Kit, Scene,
    scene::{PUBLIC_KEY, id},
};
use serde_json::json;

impl Scene {
    pub(crate) async fn compute(&mut self) {
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
            ("compute/os-hosts", "n1".to_owned()),
            ("compute/migrations", "1".to_owned()),
            ("compute/novnc", "nothing.html".to_owned()),
            ("compute/os-console-auth-tokens", "no-such-token".to_owned()),
            (
                "compute/os-instance_usage_audit_log",
                "2026-11-01%2000:00:00".to_owned(),
            ),
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

    pub(crate) fn compute_body(&self, method: &str, path: &str) -> Option<Body> {
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
            ("PUT", "/v2.1/os-hosts/{host}") => json!({"status": "enable"}),
            ("PUT", "/v2.1/os-services/{id}") => json!({"status": "enabled", "forced_down": false}),
            ("PUT", "/v2.1/os-quota-sets/{project}") => {
                json!({"quota_set": {"instances": 9, "cores": 19, "force": true}})
            }
            ("PUT", "/v2.1/os-quota-class-sets/{class}") => json!({"quota_class_set": {"instances": 9, "cores": 19}}),
            ("POST", "/v2.1/os-server-groups") => json!({"server_group": {"name": "sg2", "policy": "anti-affinity",
                "rules": {"max_server_per_host": 2}}}),
            ("POST", "/v2.1/os-aggregates") => json!({"aggregate": {"name": "a2", "availability_zone": "az2"}}),
            ("PUT", "/v2.1/os-aggregates/{id}") => json!({"aggregate": {"name": "a3"}}),
            ("POST", "/v2.1/servers/{id}/remote-consoles") => {
                json!({"remote_console": {"protocol": "vnc", "type": "novnc"}})
            }
            ("POST", "/v2.1/os-aggregates/{id}/images") => json!({"cache": [{"id": self.image}]}),
            ("POST", "/v2.1/os-aggregates/{id}/action") => json!({"set_metadata": {"metadata": {"k": "v"}}}),
            _ => self.proxy_body(method, path)?,
        }))
    }
}
