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
        let headers = [
            ("x-auth-token", self.blue.member.token.as_str()),
            ("openstack-api-version", "volume 3.71"),
            ("content-type", "application/json"),
        ];
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let path = format!("/volume/v3/{path}");
        self.kit.send(method, &path, &headers, body.into()).await.unwrap()
    }
    async fn backup(&self, volume: &str, incremental: bool) -> String {
        let body = json!({"backup": {"volume_id": volume, "incremental": incremental}});
        let made = self.call("POST", "backups", body).await.expect(202);
        let id = made["backup"]["id"].as_str().unwrap().to_owned();
        self.kit.backup_available(&id).await;
        self.kit.volume_is(volume, "available").await;
        id
    }
    /// Waits for real work of threads that paused time does not know of.
    async fn until_now(&self, what: &str, check: impl Fn(&maru_store::Snapshot) -> bool) {
        for _ in 0..10_000 {
            if check(&self.kit.snapshot()) {
                return;
            }
            let moment = || std::thread::sleep(std::time::Duration::from_millis(1));
            tokio::task::spawn_blocking(moment).await.unwrap();
        }
        panic!("{what} does not come about");
    }
    async fn restored(&self, volume: &str) {
        self.until_now("the restored volume", |s| {
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
        s.until_now("no restoring", |v| {
            v.get::<Backup>(&id.as_str().into())
                .is_some_and(|b| b.value.status.word() == "available")
        })
        .await;
        s.call("DELETE", &format!("backups/{id}"), Value::Null)
            .await
            .expect(202);
        s.until_now("the backup is gone", |v| v.get::<Backup>(&id.as_str().into()).is_none())
            .await;
    }
    assert_eq!(quota::used(&s.kit.snapshot(), &s.blue.id, "backup_gigabytes"), 0);
    s.kit.audit_rest().await;
}

/// A chain restored into a new volume, with the control plane dead after each commit in turn.
#[tokio::test(start_paused = true)]
async fn restoring_a_chain_survives_a_crash_after_every_commit() {
    let mut n = 1;
    loop {
        let s = stage().await;
        let volume = s.kit.volume(&s.blue.member, "v").await;
        s.backup(&volume, false).await;
        let newest = s.backup(&volume, true).await;
        s.kit.rest().await;
        let lives = s.kit.lives();
        s.kit.crash_after(n);
        let path = format!("/volume/v3/backups/{newest}/restore");
        let body = json!({"restore": {"volume_id": volume}});
        while let Err(maru_kit::Crashed) = s.kit.try_call("POST", &path, &s.blue.member.token, body.clone()).await {
            s.kit.restart().await;
        }
        let key = VolumeId::from(volume.as_str());
        let mut rounds = 0;
        loop {
            if s.kit.is_dead() {
                s.kit.restart().await;
            }
            let done = s.kit.snapshot().get::<Volume>(&key).is_some_and(|v| {
                v.value.content == 1 && v.value.status.word() == "available" && v.value.staged.is_none()
            });
            if done {
                break;
            }
            // Threads that paused time does not know of write the blob.
            let moment = || std::thread::sleep(std::time::Duration::from_millis(1));
            tokio::task::spawn_blocking(moment).await.unwrap();
            let _ = tokio::time::timeout(std::time::Duration::from_millis(100), s.kit.crashed()).await;
            rounds += 1;
            assert!(rounds < 20_000, "the restoring does not end");
        }
        while s.kit.try_rest().await.is_err() {
            s.kit.restart().await;
        }
        s.kit.no_more_crashes().await;
        s.kit.audit_rest().await;
        if s.kit.lives() == lives {
            break;
        }
        n += 1;
        assert!(n < 200, "it does not end");
    }
    println!("restoring a chain: crashed after each of {} commits", n - 1);
    assert!(n > 3, "there was next to nothing to crash");
}
