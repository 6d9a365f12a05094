//! The block storage part of the scene: volumes, snapshots, types, backups, offers, attachments.

use crate::{Actor, Body, Kit, Scene};
use serde_json::{Value, json};

/// Volumes that sample requests use up, each its own: what it is for is its name.
const SPARES: &[&str] = &[
    "spare-snapshot",
    "spare-backup",
    "spare-offer-old",
    "spare-offer-new",
    "spare-attachment",
];

fn v3(noun: &str) -> String {
    format!("/volume/v3/{noun}")
}

fn id(value: &Value) -> String {
    value["id"]
        .as_str()
        .unwrap_or_else(|| panic!("{value} has no id"))
        .to_owned()
}

impl Kit {
    /// Makes a volume and waits until it is available; gives its id.
    pub async fn volume(&self, who: &Actor, name: &str) -> String {
        let body = json!({"volume": {"name": name, "size": 1, "metadata": {"k": "v"}}});
        let volume = id(&self.post(who, &v3("volumes"), body).await["volume"]);
        self.volume_is(&volume, "available").await;
        volume
    }
    /// The same on the node of a server.
    pub async fn volume_near(&self, who: &Actor, name: &str, server: &str) -> String {
        let body =
            json!({"volume": {"name": name, "size": 1}, "OS-SCH-HNT:scheduler_hints": {"local_to_instance": server}});
        let volume = id(&self.post(who, &v3("volumes"), body).await["volume"]);
        self.volume_is(&volume, "available").await;
        volume
    }
    /// Waits until a backup is available. Its blob is written by threads that paused time does not know of: real time passes.
    pub async fn backup_available(&self, backup: &str) {
        for _ in 0..10_000 {
            let there = self
                .snapshot()
                .get::<maru_volume_model::Backup>(&backup.into())
                .is_some_and(|b| b.value.status.word() == "available");
            if there {
                return;
            }
            let moment = || std::thread::sleep(std::time::Duration::from_millis(1));
            tokio::task::spawn_blocking(moment).await.expect("a thread");
        }
        panic!("the backup {backup} is not available");
    }
    /// Waits until a volume has a status.
    pub async fn volume_is(&self, volume: &str, status: &str) {
        self.until(status, |s| {
            s.get::<maru_volume_model::Volume>(&volume.into())
                .is_some_and(|v| v.value.status.word() == status)
        })
        .await;
    }
}

impl Scene {
    pub(crate) async fn volume(&mut self) {
        let who = self.blue.member.clone();
        let admin = self.kit.admin();
        let limits: Value = ["volumes", "snapshots", "gigabytes", "backups", "backup_gigabytes"]
            .map(|r| (r.to_owned(), json!(-1)))
            .into_iter()
            .collect();
        for project in [&admin.project, &self.blue.id] {
            let path = v3(&format!("os-quota-sets/{project}"));
            self.kit.put(&admin, &path, json!({"quota_set": limits})).await;
        }
        let volume = self.kit.volume(&who, "v").await;
        let mut samples = vec![("volume/volumes", volume)];
        for name in SPARES {
            self.spares.insert(name, self.kit.volume(&who, name).await);
        }
        let of = self.kit.volume(&who, "of-snapshot").await;
        let body = json!({"snapshot": {"volume_id": of, "name": "s", "metadata": {"k": "v"}}});
        let snapshot = id(&self.kit.post(&who, &v3("snapshots"), body).await["snapshot"]);
        self.kit
            .until("the snapshot is available", |s| {
                s.get::<maru_volume_model::Snapshot>(&snapshot.as_str().into())
                    .is_some_and(|v| v.value.status.word() == "available")
            })
            .await;
        let kind =
            json!({"volume_type": {"name": "t", "extra_specs": {"k": "v"}, "os-volume-type-access:is_public": false}});
        let kind = id(&self.kit.post(&admin, &v3("types"), kind).await["volume_type"]);
        let luks = json!({"encryption": {"provider": "luks", "control_location": "front-end", "key_size": 256}});
        self.kit
            .post(&admin, &v3(&format!("types/{kind}/encryption")), luks)
            .await;
        let qos = json!({"qos_specs": {"name": "q", "consumer": "back-end", "k": "v"}});
        let qos = id(&self.kit.post(&admin, &v3("qos-specs"), qos).await["qos_specs"]);
        let backed_up = self.kit.volume(&who, "of-backup").await;
        let backup = json!({"backup": {"volume_id": backed_up, "name": "b"}});
        let backup = id(&self.kit.post(&who, &v3("backups"), backup).await["backup"]);
        self.kit.backup_available(&backup).await;
        let unmanaged = self.kit.volume(&admin, "unmanaged").await;
        let found = self
            .kit
            .snapshot()
            .get::<maru_volume_model::Volume>(&unmanaged.as_str().into());
        let host = found.and_then(|v| v.value.host.clone()).unwrap_or_default();
        self.spares.insert("unmanaged-host", format!("{host}@local#local"));
        self.volume_post_empty(
            &admin,
            &format!("volumes/{unmanaged}/action"),
            json!({"os-unmanage": {}}),
        )
        .await;
        self.spares.insert("unmanaged", unmanaged);
        let body = json!({"snapshot": {"volume_id": of, "name": "unmanaged"}});
        let stray = id(&self.kit.post(&who, &v3("snapshots"), body).await["snapshot"]);
        self.kit
            .until("the snapshot is available", |s| {
                s.get::<maru_volume_model::Snapshot>(&stray.as_str().into())
                    .is_some_and(|v| v.value.status.word() == "available")
            })
            .await;
        self.volume_post_empty(&admin, &format!("snapshots/{stray}/action"), json!({"os-unmanage": {}}))
            .await;
        self.spares.insert("unmanaged-snapshot", stray);
        self.spares.insert("of-snapshot", of);
        let group_kind = json!({"group_type": {"name": "gt", "group_specs": {"k": "v"}, "is_public": false}});
        let group_kind = id(&self.volume_post(&admin, "group_types", group_kind).await["group_type"]);
        let used = json!({"group_type": {"name": "gt-used"}});
        let used = id(&self.volume_post(&admin, "group_types", used).await["group_type"]);
        let group = json!({"group": {"name": "g", "group_type": used, "volume_types": ["__DEFAULT__"]}});
        let group = id(&self.volume_post(&who, "groups", group).await["group"]);
        let of = json!({"volume": {"name": "in-group", "size": 1, "volume_type": "__DEFAULT__", "group_id": group}});
        let of = id(&self.volume_post(&who, "volumes", of).await["volume"]);
        self.kit.volume_is(&of, "available").await;
        let group_snapshot = json!({"group_snapshot": {"name": "gs", "group_id": group}});
        let group_snapshot = id(&self.volume_post(&who, "group_snapshots", group_snapshot).await["group_snapshot"]);
        self.kit
            .until("the group snapshot is available", |s| {
                s.get::<maru_volume_model::GroupSnapshot>(&group_snapshot.as_str().into())
                    .is_some_and(|g| g.value.status.word() == "available")
            })
            .await;
        let consistent = json!({"consistencygroup": {"name": "cg", "volume_types": "__DEFAULT__"}});
        let consistent = id(&self.volume_post(&who, "consistencygroups", consistent).await["consistencygroup"]);
        let of = json!({"volume": {"name": "in-cg", "size": 1, "volume_type": "__DEFAULT__", "group_id": consistent}});
        let of = id(&self.volume_post(&who, "volumes", of).await["volume"]);
        self.kit.volume_is(&of, "available").await;
        let cgsnapshot = json!({"cgsnapshot": {"name": "cgs", "consistencygroup_id": consistent}});
        let cgsnapshot = id(&self.volume_post(&who, "cgsnapshots", cgsnapshot).await["cgsnapshot"]);
        self.kit
            .until("the cgsnapshot is available", |s| {
                s.get::<maru_volume_model::GroupSnapshot>(&cgsnapshot.as_str().into())
                    .is_some_and(|g| g.value.status.word() == "available")
            })
            .await;
        // No node is as large: the failure leaves a message.
        let huge = json!({"volume": {"name": "huge", "size": 65_536}});
        let huge = id(&self.volume_post(&who, "volumes", huge).await["volume"]);
        self.kit.volume_is(&huge, "error").await;
        let messages = self
            .kit
            .volume_call(&who, "GET", "messages", Value::Null)
            .await
            .expect(200);
        let message = id(&messages["messages"][0]);
        self.kit.delete(&who, &v3(&format!("volumes/{huge}"))).await;
        self.spares.insert("group-type", used);
        let default = json!({"default_type": {"volume_type": "__DEFAULT__"}});
        self.kit
            .volume_call(&admin, "PUT", &format!("default-types/{}", self.blue.id), default)
            .await
            .expect(200);
        let mut offers = Vec::new();
        for root in ["os-volume-transfer", "volume-transfers"] {
            let of = self.kit.volume(&who, root).await;
            let offer = json!({"transfer": {"volume_id": of, "name": "o"}});
            offers.push(id(&self.kit.post(&who, &v3(root), offer).await["transfer"]));
        }
        let of = self.kit.volume(&who, "of-attachment").await;
        let body = json!({"attachment": {"volume_uuid": of}});
        let made = self.kit.volume_call(&who, "POST", "attachments", body).await;
        let attachment = id(&made.expect(200)["attachment"]);
        let server = self.value("compute", "servers").unwrap_or_default().to_owned();
        let attached = self.kit.volume_near(&who, "attached", &server).await;
        let spare = self.kit.volume_near(&who, "spare-server", &server).await;
        self.spares.insert("spare-server", spare);
        let path = format!("/compute/v2.1/servers/{server}/os-volume_attachments");
        self.kit
            .post(&who, &path, json!({"volumeAttachment": {"volumeId": attached}}))
            .await;
        self.kit.volume_is(&attached, "in-use").await;
        samples.extend([
            ("compute/os-volume_attachments", attached),
            ("volume/metadata", "k".to_owned()),
            ("volume/snapshots", snapshot),
            ("volume/types", kind.clone()),
            ("volume/extra_specs", "k".to_owned()),
            ("volume/encryption", "provider".to_owned()),
            ("volume/qos-specs", qos),
            ("volume/backups", backup),
            ("volume/os-volume-transfer", offers.remove(0)),
            ("volume/volume-transfers", offers.remove(0)),
            ("volume/attachments", attachment),
            ("volume/os-quota-sets", self.blue.id.clone()),
            ("volume/os-quota-class-sets", "default".to_owned()),
            ("volume/os-services", "enable".to_owned()),
            ("volume/group_types", group_kind),
            ("volume/group_specs", "k".to_owned()),
            ("volume/groups", group),
            ("volume/group_snapshots", group_snapshot),
            ("volume/consistencygroups", consistent),
            ("volume/cgsnapshots", cgsnapshot),
            ("volume/messages", message),
            ("volume/default-types", self.blue.id.clone()),
            ("volume/clusters", "enable".to_owned()),
            ("volume/os-hosts", "n1@local".to_owned()),
            ("volume/capabilities", "n1@local".to_owned()),
        ]);
        self.extend(samples);
        let shown = self.kit.get(&admin, &v3(&format!("types/{kind}/encryption"))).await;
        self.encryption = shown["encryption_id"].as_str().unwrap_or_default().to_owned();
    }

    async fn volume_post(&self, who: &Actor, noun: &str, body: Value) -> Value {
        self.kit.volume_call(who, "POST", noun, body).await.expect(202)
    }

    async fn volume_post_empty(&self, who: &Actor, noun: &str, body: Value) {
        self.kit.volume_call(who, "POST", noun, body).await.expect(202);
    }

    pub(crate) fn volume_body(&self, method: &str, path: &str) -> Option<Body> {
        let spare = |name: &str| self.spares.get(name).cloned().unwrap_or_default();
        Some(Body::Json(match (method, path) {
            ("POST", "/volumes") => {
                json!({"volume": {"size": 1, "name": "v2", "description": "x", "metadata": {"a": "b"},
                "availability_zone": "nova", "multiattach": false}})
            }
            ("PUT", "/volumes/{id}") => json!({"volume": {"name": "v3", "description": "x"}}),
            ("POST", "/volumes/{id}/action") => json!({"os-set_bootable": {"bootable": true}}),
            ("POST" | "PUT", "/volumes/{id}/metadata" | "/snapshots/{id}/metadata") => json!({"metadata": {"k": "v2"}}),
            ("PUT", "/volumes/{id}/metadata/{key}" | "/snapshots/{id}/metadata/{key}") => json!({"meta": {"k": "v3"}}),
            ("POST", "/snapshots") => json!({"snapshot": {"volume_id": spare("spare-snapshot"), "name": "s2",
                "description": "x", "metadata": {"a": "b"}}}),
            ("PUT", "/snapshots/{id}") => json!({"snapshot": {"name": "s3", "description": "x"}}),
            ("POST", "/snapshots/{id}/action") => {
                json!({"os-update_snapshot_status": {"status": "available", "progress": "90%"}})
            }
            ("POST", "/attachments") => json!({"attachment": {"volume_uuid": spare("spare-attachment"), "mode": "rw"}}),
            ("PUT", "/attachments/{id}") => {
                json!({"attachment": {"connector": {"host": "h", "mountpoint": "/dev/vdb"}}})
            }
            ("POST", "/attachments/{id}/action") => json!({"os-complete": {}}),
            ("POST", "/types") => json!({"volume_type": {"name": "t2", "description": "x", "extra_specs": {"a": "b"},
                "os-volume-type-access:is_public": true}}),
            ("PUT", "/types/{id}") => json!({"volume_type": {"description": "x", "is_public": false}}),
            ("POST", "/types/{id}/extra_specs") => json!({"extra_specs": {"k": "v2"}}),
            ("PUT", "/types/{id}/extra_specs/{key}") => json!({"k": "v3"}),
            ("POST", "/types/{id}/action") => json!({"addProjectAccess": {"project": self.green.id}}),
            ("POST", "/types/{id}/encryption") => json!({"encryption": {"provider": "luks", "key_size": 256}}),
            ("PUT", "/types/{id}/encryption/{key}") => json!({"encryption": {"cipher": "aes-xts-plain64"}}),
            ("POST", "/qos-specs") => json!({"qos_specs": {"name": "q2", "consumer": "both", "a": "b"}}),
            ("PUT", "/qos-specs/{id}") => json!({"qos_specs": {"k2": "v2"}}),
            ("PUT", "/qos-specs/{id}/delete_keys") => json!({"keys": ["k"]}),
            ("POST", "/backups") => {
                json!({"backup": {"volume_id": spare("spare-backup"), "name": "b2", "description": "x",
                "container": "c", "incremental": false, "force": false, "metadata": {"a": "b"}}})
            }
            ("PUT", "/backups/{id}") => json!({"backup": {"name": "b3", "description": "x"}}),
            ("POST", "/backups/{id}/restore") => json!({"restore": {"name": "restored"}}),
            ("POST", "/backups/{id}/action") => json!({"os-reset_status": {"status": "available"}}),
            ("POST", "/os-volume-transfer") => {
                json!({"transfer": {"volume_id": spare("spare-offer-old"), "name": "o2"}})
            }
            ("POST", "/volume-transfers") => json!({"transfer": {"volume_id": spare("spare-offer-new"), "name": "o2",
                "no_snapshots": false}}),
            ("POST", "/os-volume-transfer/{id}/accept" | "/volume-transfers/{id}/accept") => {
                json!({"accept": {"auth_key": "not-the-key"}})
            }
            ("POST", "/group_types") => json!({"group_type": {"name": "gt2", "description": "x", "is_public": true,
                "group_specs": {"a": "b"}}}),
            ("PUT", "/group_types/{id}") => json!({"group_type": {"description": "x", "is_public": true}}),
            ("POST", "/group_types/{id}/group_specs") => json!({"group_specs": {"k": "v2"}}),
            ("PUT", "/group_types/{id}/group_specs/{key}") => json!({"k": "v3"}),
            ("POST", "/groups") => json!({"group": {"name": "g2", "description": "x", "availability_zone": "nova",
                "group_type": spare("group-type"), "volume_types": ["__DEFAULT__"]}}),
            ("POST", "/groups/action") => json!({"create-from-src": {"name": "g3", "description": "x",
                "source_group_id": self.value("volume", "groups").unwrap_or_default()}}),
            ("PUT", "/groups/{id}") => json!({"group": {"name": "g4", "description": "x"}}),
            ("POST", "/groups/{id}/action") => json!({"reset_status": {"status": "available"}}),
            ("POST", "/group_snapshots") => json!({"group_snapshot": {"name": "gs2", "description": "x",
                "group_id": self.value("volume", "groups").unwrap_or_default()}}),
            ("POST", "/group_snapshots/{id}/action") => json!({"reset_status": {"status": "available"}}),
            ("POST", "/consistencygroups") => json!({"consistencygroup": {"name": "cg2", "description": "x",
                "availability_zone": "nova", "volume_types": "__DEFAULT__"}}),
            ("POST", "/consistencygroups/create_from_src") => json!({"consistencygroup-from-src": {"name": "cg3",
                "description": "x", "source_cgid": self.value("volume", "consistencygroups").unwrap_or_default()}}),
            ("PUT", "/consistencygroups/{id}" | "/consistencygroups/{id}/update") => {
                json!({"consistencygroup": {"name": "cg4", "description": "x"}})
            }
            ("POST", "/consistencygroups/{id}/delete") => json!({"consistencygroup": {"force": false}}),
            ("POST", "/cgsnapshots") => json!({"cgsnapshot": {"name": "cgs2", "description": "x",
                "consistencygroup_id": self.value("volume", "consistencygroups").unwrap_or_default()}}),
            ("PUT", "/default-types/{project}") => json!({"default_type": {"volume_type": "__DEFAULT__"}}),
            ("POST", "/manageable_volumes" | "/os-volume-manage") => json!({"volume": {"host": spare("unmanaged-host"),
                "ref": {"source-name": format!("volume-{}", spare("unmanaged"))}, "name": "m", "description": "x",
                "metadata": {"a": "b"}, "bootable": false, "availability_zone": "nova"}}),
            ("POST", "/manageable_snapshots" | "/os-snapshot-manage") => json!({"snapshot": {
                "volume_id": spare("of-snapshot"), "ref": {"source-name": format!("_snapshot-{}", spare("unmanaged-snapshot"))},
                "name": "m", "description": "x", "metadata": {"a": "b"}}}),
            ("PUT", "/clusters/{id}") => json!({"name": "c"}),
            ("POST", "/workers/cleanup") => json!({"resource_type": "Volume"}),
            ("POST", "/backups/import_record") => {
                json!({"backup-record": {"backup_service": "cinder.backup.drivers.maru", "backup_url": "e30="}})
            }
            ("PUT", "/os-quota-sets/{project}") => json!({"quota_set": {"volumes": 99, "gigabytes": 999}}),
            ("PUT", "/os-quota-class-sets/{class}") => json!({"quota_class_set": {"volumes": 99, "gigabytes": 999}}),
            ("PUT", "/os-services/{action}") => json!({"host": "n1@local", "binary": "cinder-volume"}),
            _ => return None,
        }))
    }

    /// The volume that a sample request attaches to the server.
    pub(crate) fn volume_to_attach(&self) -> String {
        self.spares.get("spare-server").cloned().unwrap_or_default()
    }
}
