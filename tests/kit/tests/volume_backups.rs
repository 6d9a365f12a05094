//! Backups that hold only what changed: chains of them, made, restored and deleted, over simulated nodes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use maru_kit::{Answer, Kit, Project};
use maru_volume_model::{Backup, Volume, VolumeId, quota};
use serde_json::{Value, json};

struct Stage {
    kit: Kit,
    blue: Project,
}

async fn stage() -> Stage {
    let kit = Kit::builder().nodes(1).start().await;
    let blue = kit.project("blue").await;
    Stage { kit, blue }
}

impl Stage {
    async fn call(&self, method: &str, path: &str, body: Value) -> Answer {
        self.kit.volume_call(&self.blue.member, method, path, body).await
    }
    async fn backup(&self, volume: &str, incremental: bool) -> String {
        let body = json!({"backup": {"volume_id": volume, "incremental": incremental}});
        let made = self.call("POST", "backups", body).await.expect(202);
        let id = made["backup"]["id"].as_str().unwrap().to_owned();
        self.kit.backup_available(&id).await;
        self.kit.volume_is(volume, "available").await;
        id
    }
    async fn restored(&self, volume: &str) {
        self.kit
            .until_now("the restored volume", |s| {
                s.get::<Volume>(&volume.into())
                    .is_some_and(|v| v.value.status.word() == "available" && v.value.staged.is_none())
            })
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_chain_is_made_restored_and_deleted_from_its_end() {
    let s = stage().await;
    let volume = s.kit.volume(&s.blue.member, "v").await;
    // There must be something to build upon.
    let early = json!({"backup": {"volume_id": volume, "incremental": true}});
    s.call("POST", "backups", early).await.expect(400);
    let full = s.backup(&volume, false).await;
    let second = s.backup(&volume, true).await;
    let third = s.backup(&volume, true).await;
    for (id, incremental, dependent) in [(&full, false, true), (&second, true, true), (&third, true, false)] {
        let shown = s.call("GET", &format!("backups/{id}"), Value::Null).await.expect(200);
        assert_eq!(shown["backup"]["is_incremental"], incremental, "{shown}");
        assert_eq!(shown["backup"]["has_dependent_backups"], dependent, "{shown}");
    }
    let bytes = |id: &str| s.kit.snapshot().get::<Backup>(&id.into()).unwrap().value.bytes;
    assert!(
        bytes(&third) < bytes(&full) / 100,
        "it holds what changed, which is nothing"
    );
    for base in [&full, &second] {
        s.call("DELETE", &format!("backups/{base}"), Value::Null)
            .await
            .expect(400);
    }
    // Into a new volume, into one that is there, and by the other way to make one.
    let restored = s
        .call(
            "POST",
            &format!("backups/{third}/restore"),
            json!({"restore": {"name": "r"}}),
        )
        .await
        .expect(202);
    let new = restored["restore"]["volume_id"].as_str().unwrap().to_owned();
    s.restored(&new).await;
    s.call(
        "POST",
        &format!("backups/{third}/restore"),
        json!({"restore": {"volume_id": volume}}),
    )
    .await
    .expect(202);
    s.restored(&volume).await;
    let body = json!({"volume": {"size": 2, "backup_id": second}});
    let made = s.call("POST", "volumes", body).await.expect(202);
    let other = made["volume"]["id"].as_str().unwrap().to_owned();
    s.restored(&other).await;
    for id in [&third, &second, &full] {
        s.kit
            .until_now("no restoring", |v| {
                v.get::<Backup>(&id.as_str().into())
                    .is_some_and(|b| b.value.status.word() == "available")
            })
            .await;
        s.call("DELETE", &format!("backups/{id}"), Value::Null)
            .await
            .expect(202);
        s.kit
            .until_now("the backup is gone", |v| v.get::<Backup>(&id.as_str().into()).is_none())
            .await;
    }
    assert_eq!(quota::used(&s.kit.snapshot(), &s.blue.id, "backup_gigabytes"), 0);
    s.kit.audit_rest().await;
}

/// A chain restored into a new volume, with the control plane dead after each commit in turn.
#[tokio::test(start_paused = true)]
async fn restoring_a_chain_survives_a_crash_after_every_commit() {
    maru_kit::crash_rounds("restoring a chain", async |n| {
        let s = stage().await;
        let volume = s.kit.volume(&s.blue.member, "v").await;
        s.backup(&volume, false).await;
        let newest = s.backup(&volume, true).await;
        s.kit.rest().await;
        let lives = s.kit.lives();
        s.kit.crash_after(n);
        let body = json!({"restore": {"volume_id": volume}});
        s.kit
            .insist_volume(&s.blue.member, "POST", &format!("backups/{newest}/restore"), body)
            .await;
        let key = VolumeId::from(volume.as_str());
        s.kit
            .until_now("the end of the restoring", |v| {
                v.get::<Volume>(&key).is_some_and(|v| {
                    v.value.content == 1 && v.value.status.word() == "available" && v.value.staged.is_none()
                })
            })
            .await;
        s.kit.rests_after_crashes(lives).await
    })
    .await;
}
