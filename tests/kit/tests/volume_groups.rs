//! Groups of volumes, their snapshots, user messages, records of backups: over simulated nodes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use maru_kit::{Actor, Answer, Kit, Project};
use maru_volume_model::{Backup, Group, GroupSnapshot, Snapshot, Volume, quota};
use serde_json::{Value, json};

struct Stage {
    kit: Kit,
    blue: Project,
    green: Project,
}

async fn stage() -> Stage {
    let kit = Kit::builder().nodes(1).start().await;
    let blue = kit.project("blue").await;
    let green = kit.project("green").await;
    Stage { kit, blue, green }
}

fn id(value: &Value) -> String {
    value["id"].as_str().unwrap_or_else(|| panic!("{value}")).to_owned()
}

impl Stage {
    async fn call(&self, who: &Actor, method: &str, path: &str, body: Value) -> Answer {
        self.kit.volume_call(who, method, path, body).await
    }
    async fn group_type(&self, specs: Value) -> String {
        let body = json!({"group_type": {"name": format!("gt{specs}"), "group_specs": specs}});
        let made = self.call(&self.kit.admin(), "POST", "group_types", body).await;
        id(&made.expect(202)["group_type"])
    }
    async fn group(&self, kind: &str) -> String {
        let body = json!({"group": {"name": "g", "group_type": kind, "volume_types": ["__DEFAULT__"]}});
        let made = self.call(&self.blue.member, "POST", "groups", body).await;
        id(&made.expect(202)["group"])
    }
    async fn volume_in(&self, group: &str, name: &str) -> String {
        let body = json!({"volume": {"name": name, "size": 1, "volume_type": "__DEFAULT__", "group_id": group}});
        let made = self.call(&self.blue.member, "POST", "volumes", body).await;
        let volume = id(&made.expect(202)["volume"]);
        self.kit.volume_is(&volume, "available").await;
        volume
    }
    async fn group_is(&self, group: &str, status: &str) {
        self.kit
            .until(status, |s| {
                s.get::<Group>(&group.into())
                    .is_some_and(|g| g.value.status.word() == status)
            })
            .await;
    }
    fn used(&self, resource: &str) -> i64 {
        quota::used(&self.kit.snapshot(), &self.blue.id, resource)
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_is_snapped_copied_and_deleted_as_one() {
    let s = stage().await;
    let who = s.blue.member.clone();
    let kind = s.group_type(json!({})).await;
    let group = s.group(&kind).await;
    let (a, b) = (s.volume_in(&group, "a").await, s.volume_in(&group, "b").await);
    // A volume of a group goes with its group only.
    s.call(&who, "DELETE", &format!("volumes/{a}"), Value::Null)
        .await
        .expect(400);
    let body = json!({"group_snapshot": {"name": "gs", "group_id": group}});
    let made = s.call(&who, "POST", "group_snapshots", body).await.expect(202);
    let of = id(&made["group_snapshot"]);
    assert_eq!(made["group_snapshot"]["group_type_id"], kind.as_str());
    s.kit
        .until("the group snapshot is available", |v| {
            v.get::<GroupSnapshot>(&of.as_str().into())
                .is_some_and(|g| g.value.status.word() == "available")
        })
        .await;
    assert_eq!(s.kit.snapshot().find::<Snapshot>("group_snapshot", &of).count(), 2);
    let one = s.kit.snapshot().find::<Snapshot>("group_snapshot", &of).next().unwrap();
    s.call(&who, "DELETE", &format!("snapshots/{}", one.id), Value::Null)
        .await
        .expect(400);
    // Copies: of the group as it is, and as it was.
    for source in [json!({"source_group_id": group}), json!({"group_snapshot_id": of})] {
        let mut body = source;
        body["name"] = "copy".into();
        let made = s
            .call(&who, "POST", "groups/action", json!({"create-from-src": body}))
            .await
            .expect(202);
        let copy = id(&made["group"]);
        s.group_is(&copy, "available").await;
        let shown = s
            .call(&who, "GET", &format!("groups/{copy}?list_volume=true"), Value::Null)
            .await
            .expect(200);
        assert_eq!(shown["group"]["volumes"].as_array().unwrap().len(), 2, "{shown}");
        s.call(&who, "POST", &format!("groups/{copy}/action"), json!({"delete": {}}))
            .await
            .expect(400);
        let all = json!({"delete": {"delete-volumes": true}});
        s.call(&who, "POST", &format!("groups/{copy}/action"), all)
            .await
            .expect(202);
        s.kit
            .until("the copy is gone", |v| v.get::<Group>(&copy.as_str().into()).is_none())
            .await;
    }
    // A group with snapshots stays.
    let all = json!({"delete": {"delete-volumes": true}});
    s.call(&who, "POST", &format!("groups/{group}/action"), all.clone())
        .await
        .expect(400);
    s.call(&who, "DELETE", &format!("group_snapshots/{of}"), Value::Null)
        .await
        .expect(202);
    s.kit
        .until("the group snapshot is gone", |v| v.count::<GroupSnapshot>() == 0)
        .await;
    assert_eq!(s.kit.snapshot().count::<Snapshot>(), 0);
    // Out of the group a volume lives on.
    s.call(
        &who,
        "PUT",
        &format!("groups/{group}"),
        json!({"group": {"remove_volumes": b}}),
    )
    .await
    .expect(202);
    s.call(&who, "POST", &format!("groups/{group}/action"), all)
        .await
        .expect(202);
    s.kit
        .until("the group is gone", |v| {
            v.get::<Group>(&group.as_str().into()).is_none()
        })
        .await;
    assert!(s.kit.snapshot().get::<Volume>(&a.as_str().into()).is_none());
    assert!(s.kit.snapshot().get::<Volume>(&b.as_str().into()).is_some());
    assert_eq!((s.used("groups"), s.used("volumes"), s.used("snapshots")), (0, 1, 0));
    s.call(&s.kit.admin(), "DELETE", &format!("group_types/{kind}"), Value::Null)
        .await
        .expect(202);
    s.kit.audit_consistency().await;
}

#[tokio::test(start_paused = true)]
async fn d1_the_groups_of_one_project_are_not_there_for_another() {
    let s = stage().await;
    let kind = s.group_type(json!({})).await;
    let group = s.group(&kind).await;
    let foreign = s.green.member.clone();
    let own = s.kit.volume(&foreign, "own").await;
    for (method, path, body) in [
        ("GET", format!("groups/{group}"), Value::Null),
        ("PUT", format!("groups/{group}"), json!({"group": {"add_volumes": own}})),
        ("POST", format!("groups/{group}/action"), json!({"delete": {}})),
        (
            "POST",
            "group_snapshots".to_owned(),
            json!({"group_snapshot": {"group_id": group}}),
        ),
        (
            "POST",
            "groups/action".to_owned(),
            json!({"create-from-src": {"source_group_id": group}}),
        ),
        (
            "POST",
            "volumes".to_owned(),
            json!({"volume": {"size": 1, "group_id": group, "volume_type": "__DEFAULT__"}}),
        ),
    ] {
        s.call(&foreign, method, &path, body).await.expect(404);
    }
    let listed = s.call(&foreign, "GET", "groups/detail", Value::Null).await.expect(200);
    assert_eq!(listed["groups"], json!([]));
    // Nor does a group take another project's volume.
    let body = json!({"group": {"add_volumes": own}});
    s.call(&s.blue.member, "PUT", &format!("groups/{group}"), body)
        .await
        .expect(400);
    s.kit.audit_consistency().await;
}

#[tokio::test(start_paused = true)]
async fn what_no_back_end_offers_is_an_error_that_is_told() {
    let s = stage().await;
    let kind = s.group_type(json!({"group_replication_enabled": "<is> True"})).await;
    let group = s.group(&kind).await;
    s.group_is(&group, "error").await;
    let specs = json!({"volume_type": {"name": "fast", "extra_specs": {"vendor_name": "ACME"}}});
    s.call(&s.kit.admin(), "POST", "types", specs).await.expect(200);
    let body = json!({"volume": {"size": 1, "volume_type": "fast"}});
    let made = s.call(&s.blue.member, "POST", "volumes", body).await.expect(202);
    let volume = id(&made["volume"]);
    s.kit.volume_is(&volume, "error").await;
    let told = s.call(&s.blue.member, "GET", "messages", Value::Null).await.expect(200);
    let message = &told["messages"][0];
    assert_eq!(message["event_id"], "VOLUME_VOLUME_001_003");
    assert_eq!(message["resource_uuid"], volume.as_str());
    let path = format!("messages/{}", id(message));
    s.call(&s.green.member, "GET", &path, Value::Null).await.expect(404);
    s.call(&s.green.member, "DELETE", &path, Value::Null).await.expect(404);
    let none = s
        .call(&s.green.member, "GET", "messages", Value::Null)
        .await
        .expect(200);
    assert_eq!(none["messages"], json!([]));
    s.call(&s.blue.member, "DELETE", &path, Value::Null).await.expect(204);
    s.call(&s.blue.member, "GET", &path, Value::Null).await.expect(404);
    s.kit.audit_consistency().await;
}

#[tokio::test(start_paused = true)]
async fn a_group_type_is_renamed_by_its_old_name() {
    let s = stage().await;
    let admin = s.kit.admin();
    let body = json!({"group_type": {"name": "old"}});
    let kind = id(&s.call(&admin, "POST", "group_types", body).await.expect(202)["group_type"]);
    let to = |name: &str| json!({"group_type": {"name": name}});
    let renamed = s.call(&admin, "PUT", "group_types/old", to("new")).await.expect(200);
    assert_eq!(renamed["group_type"]["id"], kind.as_str());
    assert_eq!(renamed["group_type"]["name"], "new");
    // What is not there is told so, even if there is one of the new name.
    s.call(&admin, "PUT", "group_types/old", to("new")).await.expect(404);
    s.call(&admin, "DELETE", "group_types/new", Value::Null)
        .await
        .expect(202);
    s.kit.audit_consistency().await;
}

#[tokio::test(start_paused = true)]
async fn no_quota_of_groups_is_passed_by_any_race() {
    let s = stage().await;
    let kind = s.group_type(json!({})).await;
    let limits = json!({"quota_set": {"groups": 3}});
    s.call(&s.kit.admin(), "PUT", &format!("os-quota-sets/{}", s.blue.id), limits)
        .await
        .expect(200);
    let body = json!({"group": {"group_type": kind, "volume_types": ["__DEFAULT__"]}});
    let all =
        futures_util::future::join_all((0..10).map(|_| s.call(&s.blue.member, "POST", "groups", body.clone()))).await;
    assert_eq!(all.iter().filter(|a| a.status == 202).count(), 3);
    assert_eq!(all.iter().filter(|a| a.status == 413).count(), 7);
    assert_eq!(s.used("groups"), 3);
    s.kit.audit_consistency().await;
}

#[tokio::test(start_paused = true)]
async fn a_record_brings_a_backup_back_whose_bytes_are_there() {
    let s = stage().await;
    let admin = s.kit.admin();
    let volume = s.kit.volume(&s.blue.member, "v").await;
    let body = json!({"backup": {"volume_id": volume, "name": "b"}});
    let backup = id(&s.call(&s.blue.member, "POST", "backups", body).await.expect(202)["backup"]);
    s.kit.backup_available(&backup).await;
    let path = format!("backups/{backup}/export_record");
    s.call(&s.blue.member, "GET", &path, Value::Null).await.expect(403);
    let record = s.call(&admin, "GET", &path, Value::Null).await.expect(200);
    // It is there already.
    s.call(&admin, "POST", "backups/import_record", record.clone())
        .await
        .expect(400);
    use base64::{Engine, engine::general_purpose::STANDARD};
    let text = STANDARD
        .decode(record["backup-record"]["backup_url"].as_str().unwrap())
        .unwrap();
    let mut inner: Value = serde_json::from_slice(&text).unwrap();
    let with = |inner: &Value| {
        let mut record = record.clone();
        record["backup-record"]["backup_url"] = STANDARD.encode(inner.to_string()).into();
        record
    };
    inner["id"] = "11111111-2222-4333-8444-555555555555".into();
    let made = s
        .call(&admin, "POST", "backups/import_record", with(&inner))
        .await
        .expect(201);
    let imported = id(&made["backup"]);
    s.call(&s.blue.member, "POST", "backups/import_record", with(&inner))
        .await
        .expect(403);
    // The bytes stay as long as one of the two names them.
    s.call(&s.blue.member, "DELETE", &format!("backups/{backup}"), Value::Null)
        .await
        .expect(202);
    s.kit
        .until("the backup is gone", |v| {
            v.get::<Backup>(&backup.as_str().into()).is_none()
        })
        .await;
    let restored = s
        .call(
            &admin,
            "POST",
            &format!("backups/{imported}/restore"),
            json!({"restore": {}}),
        )
        .await
        .expect(202);
    let restored = restored["restore"]["volume_id"].as_str().unwrap().to_owned();
    s.kit.volume_is(&restored, "available").await;
    // Bytes that no backup has are not brought back.
    inner["id"] = "11111111-2222-4333-8444-666666666666".into();
    inner["digest"] = "ab".repeat(64).into();
    s.call(&admin, "POST", "backups/import_record", with(&inner))
        .await
        .expect(400);
    s.kit.audit_consistency().await;
}

/// A consistency group: its snapshots are made of volumes that nobody has, and nobody gets one before its snapshot is made.
#[tokio::test(start_paused = true)]
async fn a_consistency_group_is_snapped_as_of_one_moment() {
    let s = stage().await;
    let who = s.blue.member.clone();
    let body = json!({"consistencygroup": {"name": "cg", "volume_types": "__DEFAULT__,"}});
    let made = s.call(&who, "POST", "consistencygroups", body).await.expect(202);
    assert_eq!(made["consistencygroup"].as_object().unwrap().len(), 2, "{made}");
    let group = id(&made["consistencygroup"]);
    s.group_is(&group, "available").await;
    // Groups of other types are none of them, in no list and at no address.
    let other = s.group_type(json!({})).await;
    let other = s.group(&other).await;
    let listed = s.call(&who, "GET", "consistencygroups", Value::Null).await.expect(200);
    assert_eq!(listed["consistencygroups"], json!([{"id": group, "name": "cg"}]));
    let touch = json!({"consistencygroup": {"name": "x"}});
    for (method, path, body) in [
        ("GET", format!("consistencygroups/{other}"), Value::Null),
        ("PUT", format!("consistencygroups/{other}/update"), touch),
        (
            "POST",
            format!("consistencygroups/{other}/delete"),
            json!({"consistencygroup": {}}),
        ),
        (
            "POST",
            "cgsnapshots".to_owned(),
            json!({"cgsnapshot": {"consistencygroup_id": other}}),
        ),
    ] {
        s.call(&who, method, &path, body).await.expect(404);
    }
    s.call(
        &s.green.member,
        "GET",
        &format!("consistencygroups/{group}"),
        Value::Null,
    )
    .await
    .expect(404);
    let a = s.volume_in(&group, "a").await;
    let body = |group: &str| json!({"volume": {"size": 1, "volume_type": "__DEFAULT__", "consistencygroup_id": group}});
    s.call(&who, "POST", "volumes", body(&other)).await.expect(404);
    s.call(&s.green.member, "POST", "volumes", body(&group))
        .await
        .expect(404);
    let made = s.call(&who, "POST", "volumes", body(&group)).await.expect(202);
    assert_eq!(made["volume"]["group_id"], group.as_str());
    let b = id(&made["volume"]);
    s.kit.volume_is(&b, "available").await;
    // A volume that a server may write to keeps the whole group from being snapped.
    let attachment = s
        .call(&who, "POST", "attachments", json!({"attachment": {"volume_uuid": a}}))
        .await
        .expect(200);
    let attachment = id(&attachment["attachment"]);
    let snap = json!({"cgsnapshot": {"name": "cs", "consistencygroup_id": group}});
    s.call(&who, "POST", "cgsnapshots", snap.clone()).await.expect(400);
    assert_eq!(s.kit.snapshot().count::<Snapshot>(), 0);
    s.call(&who, "DELETE", &format!("attachments/{attachment}"), Value::Null)
        .await
        .expect(200);
    let made = s.call(&who, "POST", "cgsnapshots", snap).await.expect(202);
    let of = id(&made["cgsnapshot"]);
    // The node has had no time yet.
    for volume in [&a, &b] {
        let refused = s
            .call(
                &who,
                "POST",
                "attachments",
                json!({"attachment": {"volume_uuid": volume}}),
            )
            .await;
        refused.expect(400);
        assert!(refused.text().contains(&of), "{}", refused.text());
    }
    s.kit
        .until("the cgsnapshot is available", |v| {
            v.get::<GroupSnapshot>(&of.as_str().into())
                .is_some_and(|g| g.value.status.word() == "available")
        })
        .await;
    let again = json!({"attachment": {"volume_uuid": a}});
    let attachment = s.call(&who, "POST", "attachments", again).await.expect(200);
    let attachment = id(&attachment["attachment"]);
    s.call(&who, "DELETE", &format!("attachments/{attachment}"), Value::Null)
        .await
        .expect(200);
    let shown = s
        .call(&who, "GET", &format!("cgsnapshots/{of}"), Value::Null)
        .await
        .expect(200);
    assert_eq!(shown["cgsnapshot"]["consistencygroup_id"], group.as_str());
    let from = json!({"consistencygroup-from-src": {"name": "copy", "cgsnapshot_id": of}});
    let copy = s
        .call(&who, "POST", "consistencygroups/create_from_src", from)
        .await
        .expect(202);
    let copy = id(&copy["consistencygroup"]);
    s.group_is(&copy, "available").await;
    // Without force, a group that has volumes stays; with it they go along.
    let gone = |force: bool| json!({"consistencygroup": {"force": force}});
    let path = format!("consistencygroups/{copy}/delete");
    s.call(&who, "POST", &path, gone(false)).await.expect(400);
    s.call(&who, "POST", &path, gone(true)).await.expect(202);
    s.call(&who, "DELETE", &format!("cgsnapshots/{of}"), Value::Null)
        .await
        .expect(202);
    s.kit
        .until("the copy and the cgsnapshot are gone", |v| {
            v.get::<Group>(&copy.as_str().into()).is_none() && v.count::<GroupSnapshot>() == 0
        })
        .await;
    let out = json!({"consistencygroup": {"remove_volumes": format!("{a},{b}")}});
    s.call(&who, "PUT", &format!("consistencygroups/{group}/update"), out)
        .await
        .expect(202);
    let path = format!("consistencygroups/{group}/delete");
    s.call(&who, "POST", &path, gone(false)).await.expect(202);
    s.kit
        .until("the group is gone", |v| {
            v.get::<Group>(&group.as_str().into()).is_none()
        })
        .await;
    assert_eq!((s.used("volumes"), s.used("snapshots")), (2, 0));
    s.kit.audit_consistency().await;
}

/// A group copied and deleted with its volumes, with the control plane dead after each commit in turn.
#[tokio::test(start_paused = true)]
async fn copying_and_deleting_a_group_survives_a_crash_after_every_commit() {
    maru_kit::crash_rounds("a group", async |n| {
        let s = stage().await;
        let kind = s.group_type(json!({})).await;
        let group = s.group(&kind).await;
        s.volume_in(&group, "a").await;
        s.volume_in(&group, "b").await;
        s.kit.rest().await;
        let lives = s.kit.lives();
        s.kit.crash_after(n);
        let who = &s.blue.member;
        let from = json!({"create-from-src": {"name": "copy", "source_group_id": group}});
        s.kit.insist_volume(who, "POST", "groups/action", from).await;
        let made = |v: &maru_store::Snapshot| {
            let all: Vec<_> = v.list::<Group>().collect();
            let whole = all.len() > 1 && all.iter().all(|g| !g.value.making);
            whole.then(|| all.iter().map(|g| g.id.to_string()).collect::<Vec<String>>())
        };
        for id in s.kit.until_again("the copy", made).await {
            let body = json!({"delete": {"delete-volumes": true}});
            s.kit
                .insist_volume(who, "POST", &format!("groups/{id}/action"), body)
                .await;
        }
        let none = |v: &maru_store::Snapshot| (v.count::<Group>() == 0 && v.count::<Volume>() == 0).then_some(());
        s.kit.until_again("nothing", none).await;
        let died = s.kit.rests_after_crashes(lives).await;
        assert_eq!((s.used("groups"), s.used("volumes")), (0, 0));
        died
    })
    .await;
}
