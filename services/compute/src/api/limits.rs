//! Absolute limits of a project, with what it uses.

use crate::App;
use maru_base::Result;
use maru_compute_model::{ServerGroup, quota};
use maru_http::{Reply, Request};
use serde_json::{Value, json};
use std::sync::Arc;

/// `GET /limits`.
pub(crate) async fn index(app: Arc<App>, request: Request) -> Result<Reply> {
    let caller = request.caller()?;
    let own = caller.project_id().map(ToString::to_string).unwrap_or_default();
    let project = match request.query.get("tenant_id") {
        Some(other) if other != own => {
            request.authorize_rule(
                "os_compute_api:limits:other_project",
                &maru_auth::Target::project(other),
            )?;
            other.to_owned()
        }
        _ => own,
    };
    let snapshot = app.store.current().await?;
    let limit = |r: &str| Value::from(quota::limit(&snapshot, &project, r));
    let mut v = json!({
        "maxServerMeta": limit("metadata_items"),
        "maxTotalInstances": limit("instances"),
        "maxTotalCores": limit("cores"),
        "maxTotalRAMSize": limit("ram"),
        "maxTotalKeypairs": limit("key_pairs"),
        "maxServerGroups": limit("server_groups"),
        "maxServerGroupMembers": limit("server_group_members"),
        "totalInstancesUsed": quota::used(&snapshot, &project, "instances"),
        "totalCoresUsed": quota::used(&snapshot, &project, "cores"),
        "totalRAMUsed": quota::used(&snapshot, &project, "ram"),
        "totalServerGroupsUsed": snapshot.find::<ServerGroup>("project", &project).count(),
    });
    // What belongs to the network service left in 2.36, image metadata in 2.39, file injection in 2.57.
    if !request.at_least(2, 36) {
        v["maxSecurityGroups"] = limit("security_groups");
        v["maxSecurityGroupRules"] = limit("security_group_rules");
        v["maxTotalFloatingIps"] = limit("floating_ips");
        v["totalFloatingIpsUsed"] = 0.into();
        v["totalSecurityGroupsUsed"] = 0.into();
    }
    if !request.at_least(2, 39) {
        v["maxImageMeta"] = limit("metadata_items");
    }
    if !request.at_least(2, 57) {
        v["maxPersonality"] = limit("injected_files");
        v["maxPersonalitySize"] = limit("injected_file_content_bytes");
    }
    Reply::json(200, &json!({"limits": {"absolute": v, "rate": []}}))
}
