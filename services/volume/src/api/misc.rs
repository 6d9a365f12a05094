//! Availability zones, extensions, filters.

use crate::App;
use maru_base::Result;
use maru_http::{Reply, Request};
use maru_volume_model::Backend;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// `GET /os-availability-zone`.
pub(crate) async fn zones(app: Arc<App>, _request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let mut zones: BTreeMap<String, bool> = BTreeMap::new();
    for b in snapshot.list::<Backend>() {
        *zones.entry(b.value.zone.clone()).or_default() |= b.value.up && !b.value.disabled;
    }
    let list: Vec<Value> = zones
        .iter()
        .map(|(name, up)| json!({"zoneName": name, "zoneState": {"available": up}}))
        .collect();
    Reply::json(200, &json!({"availabilityZoneInfo": list}))
}

/// Extensions that clients still look for: alias and name.
const EXTENSIONS: &[(&str, &str)] = &[
    ("OS-SCH-HNT", "SchedulerHints"),
    ("backups", "Backups"),
    ("capabilities", "Capabilities"),
    ("cgsnapshots", "Cgsnapshots"),
    ("consistencygroups", "Consistencygroups"),
    ("encryption", "Encryption"),
    ("os-admin-actions", "AdminActions"),
    ("os-availability-zone", "AvailabilityZones"),
    ("os-extended-snapshot-attributes", "ExtendedSnapshotAttributes"),
    ("os-hosts", "Hosts"),
    ("os-quota-class-sets", "QuotaClasses"),
    ("os-quota-sets", "Quotas"),
    ("os-services", "Services"),
    ("os-snapshot-actions", "SnapshotActions"),
    ("os-types-extra-specs", "TypesExtraSpecs"),
    ("os-types-manage", "TypesManage"),
    ("os-used-limits", "UsedLimits"),
    ("os-vol-host-attr", "VolumeHostAttribute"),
    ("os-vol-image-meta", "VolumeImageMetadata"),
    ("os-vol-tenant-attr", "VolumeTenantAttribute"),
    ("os-volume-actions", "VolumeActions"),
    ("os-volume-encryption-metadata", "VolumeEncryptionMetadata"),
    ("os-volume-transfer", "VolumeTransfer"),
    ("os-volume-type-access", "VolumeTypeAccess"),
    ("os-volume-unmanage", "VolumeUnmanage"),
    ("qos-specs", "Qos_specs_manage"),
    ("scheduler-stats", "Scheduler_stats"),
];

/// `GET /extensions`.
pub(crate) async fn extensions(_app: Arc<App>, _request: Request) -> Result<Reply> {
    let list: Vec<Value> = EXTENSIONS
        .iter()
        .map(|(alias, name)| {
            json!({"alias": alias, "name": name, "description": "", "links": [], "updated": "2013-04-18T00:00:00+00:00"})
        })
        .collect();
    Reply::json(200, &json!({"extensions": list}))
}

/// `GET /resource_filters` (3.33).
pub(crate) async fn filters(_app: Arc<App>, request: Request) -> Result<Reply> {
    super::wire::since(&request, 33)?;
    let all = [
        (
            "volume",
            vec![
                "name",
                "status",
                "metadata",
                "bootable",
                "availability_zone",
                "volume_type",
                "size",
                "user_id",
            ],
        ),
        ("snapshot", vec!["name", "status", "volume_id", "metadata"]),
        ("backup", vec!["name", "status", "volume_id"]),
        (
            "attachment",
            vec!["volume_id", "status", "instance_id", "attach_status"],
        ),
    ];
    let wanted = request.query.get("resource");
    let list: Vec<Value> = all
        .iter()
        .filter(|(r, _)| wanted.is_none_or(|w| w == *r))
        .map(|(r, f)| json!({"resource": r, "filters": f}))
        .collect();
    Reply::json(200, &json!({"resource_filters": list}))
}

/// `GET /volumes/{id}/encryption`: nothing, since no volume is encrypted.
pub(crate) async fn encryption(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    super::volumes::find(&request, &snapshot, request.param("id"))?;
    Reply::json(200, &json!({"encryption_key_id": Value::Null}))
}
