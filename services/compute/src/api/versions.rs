//! Version discovery, and the list of extensions of old.

use crate::{App, MAX_VERSION, MIN_VERSION};
use maru_base::{Error, Result};
use maru_http::{Reply, Request};
use serde_json::{Value, json};
use std::sync::Arc;

const UPDATED: &str = "2013-07-23T11:33:21Z";

fn newest(base: &str, whole: bool) -> Value {
    let mut links = vec![json!({"rel": "self", "href": format!("{base}/v2.1/")})];
    if whole {
        links.push(
            json!({"rel": "describedby", "type": "text/html", "href": "https://docs.openstack.org/api-ref/compute/"}),
        );
    }
    let mut v = json!({
        "id": "v2.1", "status": "CURRENT", "version": MAX_VERSION.to_string(), "min_version": MIN_VERSION.to_string(),
        "updated": UPDATED, "links": links,
    });
    if whole {
        v["media-types"] =
            json!([{"base": "application/json", "type": "application/vnd.openstack.compute+json;version=2.1"}]);
    }
    v
}

/// The version without microversions.
fn frozen(base: &str, whole: bool) -> Value {
    let mut links = vec![json!({"rel": "self", "href": format!("{base}/v2/")})];
    if whole {
        links.push(
            json!({"rel": "describedby", "type": "text/html", "href": "https://docs.openstack.org/api-ref/compute/"}),
        );
    }
    let mut v = json!({
        "id": "v2.0", "status": "SUPPORTED", "version": "", "min_version": "", "updated": "2011-01-21T11:33:21Z", "links": links,
    });
    if whole {
        v["media-types"] =
            json!([{"base": "application/json", "type": "application/vnd.openstack.compute+json;version=2"}]);
    }
    v
}

/// `GET /`: all versions.
pub(crate) async fn index(_app: Arc<App>, request: Request) -> Result<Reply> {
    let base = &request.base;
    Reply::json(200, &json!({"versions": [frozen(base, false), newest(base, false)]}))
}

/// `GET /v2/`.
pub(crate) async fn show_frozen(_app: Arc<App>, request: Request) -> Result<Reply> {
    Reply::json(200, &json!({"version": frozen(&request.base, true)}))
}

/// `GET /v2.1/`.
pub(crate) async fn show(_app: Arc<App>, request: Request) -> Result<Reply> {
    Reply::json(200, &json!({"version": newest(&request.base, true)}))
}

/// Extensions that clients still look for, by alias and name.
const EXTENSIONS: &[(&str, &str)] = &[
    ("NMN", "Multinic"),
    ("OS-DCF", "DiskConfig"),
    ("OS-EXT-AZ", "ExtendedAvailabilityZone"),
    ("OS-EXT-IPS", "ExtendedIps"),
    ("OS-EXT-IPS-MAC", "ExtendedIpsMac"),
    ("OS-EXT-SRV-ATTR", "ExtendedServerAttributes"),
    ("OS-EXT-STS", "ExtendedStatus"),
    ("OS-FLV-DISABLED", "FlavorDisabled"),
    ("OS-FLV-EXT-DATA", "FlavorExtraData"),
    ("OS-SCH-HNT", "SchedulerHints"),
    ("OS-SRV-USG", "ServerUsage"),
    ("os-admin-actions", "AdminActions"),
    ("os-admin-password", "AdminPassword"),
    ("os-aggregates", "Aggregates"),
    ("os-attach-interfaces", "AttachInterfaces"),
    ("os-availability-zone", "AvailabilityZone"),
    ("os-config-drive", "ConfigDrive"),
    ("os-floating-ip-pools", "FloatingIpPools"),
    ("os-floating-ips", "FloatingIps"),
    ("os-console-output", "ConsoleOutput"),
    ("os-flavor-access", "FlavorAccess"),
    ("os-flavor-extra-specs", "FlavorExtraSpecs"),
    ("os-flavor-manage", "FlavorManage"),
    ("os-hosts", "Hosts"),
    ("os-hypervisors", "Hypervisors"),
    ("os-instance-actions", "ServerActions"),
    ("os-keypairs", "Keypairs"),
    ("os-lock-server", "LockServer"),
    ("os-migrations", "Migrations"),
    ("os-networks", "Networks"),
    ("os-pause-server", "PauseServer"),
    ("os-quota-class-sets", "QuotaClasses"),
    ("os-quota-sets", "Quotas"),
    ("os-rescue", "Rescue"),
    ("os-security-groups", "SecurityGroups"),
    ("os-server-diagnostics", "ServerDiagnostics"),
    ("os-server-groups", "ServerGroups"),
    ("os-services", "Services"),
    ("os-simple-tenant-usage", "SimpleTenantUsage"),
    ("os-suspend-server", "SuspendServer"),
    ("os-tenant-networks", "TenantNetworks"),
    ("os-used-limits", "UsedLimits"),
    ("os-volumes", "Volumes"),
];

fn extension((alias, name): &(&str, &str)) -> Value {
    json!({"alias": alias, "name": name, "namespace": "http://docs.openstack.org/compute/ext/fake_xml", "description": "", "links": [], "updated": "2014-12-03T00:00:00Z"})
}

/// `GET /v2.1/extensions`.
pub(crate) async fn extensions(_app: Arc<App>, _request: Request) -> Result<Reply> {
    Reply::json(
        200,
        &json!({"extensions": EXTENSIONS.iter().map(extension).collect::<Vec<_>>()}),
    )
}

/// `GET /v2.1/extensions/{alias}`.
pub(crate) async fn extension_of(_app: Arc<App>, request: Request) -> Result<Reply> {
    let alias = request.param("alias");
    let found = EXTENSIONS
        .iter()
        .find(|(a, _)| *a == alias)
        .ok_or_else(|| Error::not_found(format!("There is no extension {alias}.")))?;
    Reply::json(200, &json!({"extension": extension(found)}))
}
