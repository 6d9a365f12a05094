//! Volumes that change their node, their bytes or their record: migration, reimaging, unmanage and manage, over simulated
//! nodes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use maru_kit::{Actor, Answer, Kit, Project, Step};
use maru_volume_model::{Snapshot, Status, Unmanaged, Volume, VolumeId, quota};
use serde_json::{Value, json};

struct Stage {
    kit: Kit,
    blue: Project,
}

async fn stage() -> Stage {
    let kit = Kit::builder().nodes(2).start().await;
    let blue = kit.project("blue").await;
    Stage { kit, blue }
}

fn id(value: &Value) -> String {
    value["id"].as_str().unwrap_or_else(|| panic!("{value}")).to_owned()
}

impl Stage {
    async fn call(&self, who: &Actor, method: &str, path: &str, body: Value) -> Answer {
        self.kit.volume_call(who, method, path, body).await
    }
    fn volume(&self, id: &str) -> Volume {
        (*self.kit.snapshot().get::<Volume>(&id.into()).expect("the volume").value).clone()
    }
    async fn act(&self, who: &Actor, volume: &str, action: Value) -> Answer {
        self.call(who, "POST", &format!("volumes/{volume}/action"), action)
            .await
    }
    /// The node that a volume is on, and the other one.
    fn nodes_of(&self, volume: &str) -> (String, String) {
        let here = self.volume(volume).host.unwrap();
        let other = self.kit.nodes().into_keys().find(|n| *n != here).unwrap();
        (here, other)
    }
}

#[tokio::test(start_paused = true)]
async fn a_volume_moves_to_another_node_and_leaves_nothing() {
    let s = stage().await;
    let admin = s.kit.admin();
    let volume = s.kit.volume(&s.blue.member, "v").await;
    let (here, there) = s.nodes_of(&volume);
    let to = |host: &str| json!({"os-migrate_volume": {"host": format!("{host}@local#local"), "lock_volume": true}});
    s.act(&s.blue.member, &volume, to(&there)).await.expect(403);
    s.act(&admin, &volume, to(&here)).await.expect(400);
    s.act(&admin, &volume, to("nowhere")).await.expect(400);
    s.act(&admin, &volume, to(&there)).await.expect(202);
    // Nobody attaches it on the way.
    s.act(&s.blue.member, &volume, json!({"os-reserve": {}}))
        .await
        .expect(400);
    s.kit
        .until_now("the move", |v| {
            v.get::<Volume>(&volume.as_str().into())
                .is_some_and(|v| v.value.status == Status::Available && v.value.moved_from.is_none())
        })
        .await;
    assert_eq!(s.volume(&volume).host.as_deref(), Some(there.as_str()));
    assert_eq!(s.volume(&volume).migration_status.as_deref(), Some("success"));
    s.kit
        .until_now("the blob goes", |v| {
            v.get::<Volume>(&volume.as_str().into())
                .is_some_and(|v| v.value.staged.is_none())
        })
        .await;
    assert!(!s.kit.node(&here).volumes().contains(&volume));
    assert!(s.kit.node(&there).volumes().contains(&volume));
    s.kit.audit_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_move_that_fails_leaves_the_volume_where_it_was() {
    let s = stage().await;
    let admin = s.kit.admin();
    let volume = s.kit.volume(&s.blue.member, "v").await;
    let (here, there) = s.nodes_of(&volume);
    s.kit.node(&there).script(|x| {
        x.fail(Step::Volume, Some(&volume), "no room", true);
    });
    let to = json!({"os-migrate_volume": {"host": format!("{there}@local#local")}});
    s.act(&admin, &volume, to).await.expect(202);
    s.kit
        .until_now("the move fails", |v| {
            v.get::<Volume>(&volume.as_str().into()).is_some_and(|v| {
                v.value.migration_status.as_deref() == Some("error") && v.value.status == Status::Available
            })
        })
        .await;
    assert_eq!(s.volume(&volume).host.as_deref(), Some(here.as_str()));
    assert!(s.kit.node(&here).volumes().contains(&volume));
    s.kit.audit_consistency().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_let_go_of_is_listed_and_taken_back() {
    let s = stage().await;
    let admin = s.kit.admin();
    let member = s.blue.member.clone();
    let volume = s.kit.volume(&member, "v").await;
    let (here, _) = s.nodes_of(&volume);
    s.act(&member, &volume, json!({"os-unmanage": {}})).await.expect(403);
    s.act(&admin, &volume, json!({"os-unmanage": {}})).await.expect(202);
    assert!(s.kit.snapshot().get::<Volume>(&volume.as_str().into()).is_none());
    assert_eq!(quota::used(&s.kit.snapshot(), &s.blue.id, "gigabytes"), 0);
    s.kit.audit_rest().await;
    assert!(s.kit.node(&here).volumes().contains(&volume), "the bytes stay");
    let path = format!("manageable_volumes/detail?host={here}@local%23local");
    s.call(&member, "GET", &path, Value::Null).await.expect(403);
    let list = s.call(&admin, "GET", &path, Value::Null).await.expect(200);
    let reference = format!("volume-{volume}");
    assert_eq!(
        list["manageable-volumes"][0]["reference"]["source-name"],
        reference.as_str()
    );
    assert_eq!(list["manageable-volumes"][0]["safe_to_manage"], true);
    let body =
        json!({"volume": {"host": format!("{here}@local#local"), "ref": {"source-name": reference}, "name": "back"}});
    s.call(&member, "POST", "manageable_volumes", body.clone())
        .await
        .expect(403);
    let made = s
        .call(&admin, "POST", "manageable_volumes", body.clone())
        .await
        .expect(202);
    let back = id(&made["volume"]);
    // Two cannot have the same bytes.
    s.call(&admin, "POST", "manageable_volumes", body).await.expect(400);
    s.kit.volume_is(&back, "available").await;
    s.kit
        .until("the old name is gone", |v| v.count::<Unmanaged>() == 0)
        .await;
    assert!(!s.kit.node(&here).volumes().contains(&volume));
    s.kit.audit_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_is_let_go_of_and_taken_back_with_its_bytes() {
    let s = stage().await;
    let admin = s.kit.admin();
    let member = s.blue.member.clone();
    let volume = s.kit.volume(&member, "v").await;
    let (here, _) = s.nodes_of(&volume);
    let body = json!({"snapshot": {"volume_id": volume, "name": "s"}});
    let made = s.call(&member, "POST", "snapshots", body).await.expect(202);
    let snapshot = id(&made["snapshot"]);
    let available = |v: &maru_store::Snapshot, id: &str| {
        v.get::<Snapshot>(&id.into())
            .is_some_and(|s| s.value.status.word() == "available")
    };
    s.kit.until("available", |v| available(v, &snapshot)).await;
    let path = format!("snapshots/{snapshot}/action");
    s.call(&admin, "POST", &path, json!({"os-unmanage": {}}))
        .await
        .expect(202);
    s.kit.audit_rest().await;
    assert!(s.kit.node(&here).volumes().contains(&snapshot));
    assert_eq!(s.volume(&volume).snapshots, 0);
    let body = json!({"snapshot": {"volume_id": volume, "ref": {"source-name": format!("_snapshot-{snapshot}")}}});
    let made = s.call(&admin, "POST", "manageable_snapshots", body).await.expect(202);
    let back = id(&made["snapshot"]);
    s.kit.until("available", |v| available(v, &back)).await;
    // A volume is made of the same bytes, under the name that the node knows.
    let body = json!({"volume": {"snapshot_id": back}});
    let copy = id(&s.call(&member, "POST", "volumes", body).await.expect(202)["volume"]);
    s.kit.volume_is(&copy, "available").await;
    s.call(&member, "DELETE", &format!("snapshots/{back}"), Value::Null)
        .await
        .expect(202);
    s.kit.until("gone", |v| v.count::<Snapshot>() == 0).await;
    s.kit.audit_rest().await;
    assert!(!s.kit.node(&here).volumes().contains(&snapshot), "its bytes are gone");
}

#[tokio::test(start_paused = true)]
async fn a_volume_is_imaged_anew() {
    let s = stage().await;
    let member = s.blue.member.clone();
    let image = s.kit.image(&member, "tiny").await;
    let volume = s.kit.volume(&member, "v").await;
    let body = json!({"os-reimage": {"image_id": image}});
    s.act(&member, &volume, body).await.expect(202);
    s.kit.volume_is(&volume, "available").await;
    let v = s.volume(&volume);
    assert_eq!((v.content, v.bootable), (1, true));
    assert_eq!(v.image_metadata["image_id"], image);
    let none = json!({"os-reimage": {"image_id": "11111111-2222-4333-8444-555555555555"}});
    s.act(&member, &volume, none).await.expect(400);
    s.kit.audit_rest().await;
}

/// A move, with the control plane dead after each commit in turn.
#[tokio::test(start_paused = true)]
async fn a_move_survives_a_crash_after_every_commit() {
    maru_kit::crash_rounds("a move", async |n| {
        let s = stage().await;
        let volume = s.kit.volume(&s.blue.member, "data").await;
        let (_, there) = s.nodes_of(&volume);
        s.kit.rest().await;
        let lives = s.kit.lives();
        s.kit.crash_after(n);
        let body = json!({"os-migrate_volume": {"host": format!("{there}@local#local")}});
        s.kit
            .insist_volume(&s.kit.admin(), "POST", &format!("volumes/{volume}/action"), body)
            .await;
        let key = VolumeId::from(volume.as_str());
        let moved = |v: &Volume| {
            v.host.as_deref() == Some(there.as_str())
                && v.status == Status::Available
                && v.moved_from.is_none()
                && v.staged.is_none()
        };
        s.kit
            .until_now("the end of the move", |v| {
                v.get::<Volume>(&key).is_some_and(|v| moved(&v.value))
            })
            .await;
        s.kit.rests_after_crashes(lives).await
    })
    .await;
}
