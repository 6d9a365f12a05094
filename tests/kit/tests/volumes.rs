//! Volumes, snapshots, attachments and backups over simulated nodes: what a tenant sees from the first request to the last.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use maru_compute_model::Server;
use maru_kit::{Actor, Kit, Project, Step};
use maru_volume_model::{Attachment, Snapshot, Status, Volume, VolumeId, quota};
use serde_json::{Value, json};

struct Stage {
    kit: Kit,
    project: Project,
    image: String,
    network: String,
}

async fn stage() -> Stage {
    stage_of(1).await
}

async fn stage_of(nodes: u32) -> Stage {
    let kit = Kit::builder().nodes(nodes).start().await;
    let project = kit.project("blue").await;
    let image = kit.image(&project.member, "tiny").await;
    let (network, _) = kit.network(&project.member, "net", "10.0.0.0/16").await;
    Stage {
        kit,
        project,
        image,
        network,
    }
}

impl Stage {
    fn who(&self) -> &Actor {
        &self.project.member
    }
    async fn server(&self, name: &str) -> String {
        let id = self.kit.server(self.who(), name, &self.image, &self.network).await;
        self.kit.server_active(&id).await;
        id
    }
    fn volume(&self, id: &str) -> Volume {
        let found = self.kit.snapshot().get::<Volume>(&id.into());
        (*found.expect("the volume").value).clone()
    }
    async fn gone(&self, id: &str) {
        self.kit
            .until("the volume is gone", |s| s.get::<Volume>(&id.into()).is_none())
            .await;
    }
    async fn act(&self, id: &str, action: Value) -> maru_kit::Answer {
        let path = format!("/volume/v3/volumes/{id}/action");
        self.kit.call("POST", &path, &self.who().token, action).await
    }
    async fn attach(&self, server: &str, volume: &str) {
        let path = format!("/compute/v2.1/servers/{server}/os-volume_attachments");
        self.kit
            .post(self.who(), &path, json!({"volumeAttachment": {"volumeId": volume}}))
            .await;
        self.kit.volume_is(volume, "in-use").await;
    }
    fn used(&self, resource: &str) -> i64 {
        quota::used(&self.kit.snapshot(), &self.project.id, resource)
    }
}

fn id(value: &Value) -> String {
    value["id"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_volume_is_attached_used_detached_and_deleted() {
    let s = stage().await;
    let server = s.server("vm").await;
    let volume = s.kit.volume(s.who(), "data").await;
    s.attach(&server, &volume).await;
    let shown = s.kit.get(s.who(), &format!("/volume/v3/volumes/{volume}")).await;
    assert_eq!(shown["volume"]["attachments"][0]["server_id"], server.as_str());
    assert_eq!(shown["volume"]["attachments"][0]["device"], "/dev/vdb");
    let seen = s.kit.get(s.who(), &format!("/compute/v2.1/servers/{server}")).await;
    assert_eq!(
        seen["server"]["os-extended-volumes:volumes_attached"][0]["id"],
        volume.as_str()
    );
    // What is attached is neither deleted nor attached twice.
    let refused = s
        .kit
        .call(
            "DELETE",
            &format!("/volume/v3/volumes/{volume}"),
            &s.who().token,
            Value::Null,
        )
        .await;
    refused.expect(400);
    let other = s.server("other").await;
    let path = format!("/compute/v2.1/servers/{other}/os-volume_attachments");
    let twice = s
        .kit
        .call(
            "POST",
            &path,
            &s.who().token,
            json!({"volumeAttachment": {"volumeId": volume}}),
        )
        .await;
    twice.expect(400);
    // Nor can the block storage API take away what compute holds.
    s.act(&volume, json!({"os-detach": {}})).await.expect(400);
    s.kit
        .delete(
            s.who(),
            &format!("/compute/v2.1/servers/{server}/os-volume_attachments/{volume}"),
        )
        .await;
    s.kit.volume_is(&volume, "available").await;
    assert_eq!(s.kit.snapshot().count::<Attachment>(), 0);
    s.kit.delete(s.who(), &format!("/volume/v3/volumes/{volume}")).await;
    s.gone(&volume).await;
    assert_eq!((s.used("volumes"), s.used("gigabytes")), (0, 0));
    s.kit.audit_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_gives_its_volumes_back_or_takes_them_along() {
    let s = stage().await;
    let kept = s.kit.volume(s.who(), "kept").await;
    let mut body = Kit::server_body("vm", "", &s.network);
    body["server"].as_object_mut().unwrap().remove("imageRef");
    body["server"]["block_device_mapping_v2"] = json!([
        {"boot_index": 0, "source_type": "image", "uuid": s.image, "destination_type": "volume", "volume_size": 2,
         "delete_on_termination": true},
        {"boot_index": -1, "source_type": "volume", "uuid": kept, "destination_type": "volume"},
        {"boot_index": -1, "source_type": "blank", "destination_type": "volume", "volume_size": 1},
    ]);
    let server = id(&s.kit.post(s.who(), "/compute/v2.1/servers", body).await["server"]);
    let made = s.kit.server_active(&server).await;
    assert!(made.image.is_none(), "it boots from a volume");
    let volumes: Vec<(String, String)> = made.volumes.iter().map(|v| (v.id.clone(), v.device.clone())).collect();
    let devices: Vec<&str> = volumes.iter().map(|v| v.1.as_str()).collect();
    assert_eq!(devices, ["/dev/vda", "/dev/vdb", "/dev/vdc"]);
    for (volume, _) in &volumes {
        s.kit.volume_is(volume, "in-use").await;
    }
    assert!(s.volume(&volumes[0].0).bootable);
    // The boot volume stays with its server.
    let path = format!("/compute/v2.1/servers/{server}/os-volume_attachments/{}", volumes[0].0);
    s.kit
        .call("DELETE", &path, &s.who().token, Value::Null)
        .await
        .expect(403);
    // The flavor's disk is not taken from the node: a volume has its own room.
    let held = maru_placement_model::ConsumerId::from(server.as_str());
    let consumer = s.kit.snapshot().get::<maru_placement_model::Consumer>(&held).unwrap();
    assert!(
        consumer.value.allocations.values().all(|r| !r.contains_key("DISK_GB")),
        "{:?}",
        consumer.value.allocations
    );
    s.kit.delete(s.who(), &format!("/compute/v2.1/servers/{server}")).await;
    s.kit.server_gone(&server).await;
    s.gone(&volumes[0].0).await;
    for (volume, _) in &volumes[1..] {
        s.kit.volume_is(volume, "available").await;
    }
    assert_eq!(s.used("volumes"), 2);
    s.kit.audit_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_cannot_be_made_says_why_and_so_does_its_server() {
    let s = stage().await;
    for node in s.kit.nodes().values() {
        node.script(|x| {
            x.fail(Step::Volume, None, "the disk is broken", true);
            x.fail(Step::Volume, None, "the disk is broken", true);
        });
    }
    let body = json!({"volume": {"name": "bad", "size": 1}});
    let volume = id(&s.kit.post(s.who(), "/volume/v3/volumes", body).await["volume"]);
    s.kit.volume_is(&volume, "error").await;
    assert_eq!(s.volume(&volume).fault.as_deref(), Some("the disk is broken"));
    let mut body = Kit::server_body("vm", "", &s.network);
    body["server"].as_object_mut().unwrap().remove("imageRef");
    body["server"]["block_device_mapping_v2"] = json!([{"boot_index": 0, "source_type": "image", "uuid": s.image,
        "destination_type": "volume", "volume_size": 1, "delete_on_termination": true}]);
    let server = id(&s.kit.post(s.who(), "/compute/v2.1/servers", body).await["server"]);
    let fault = s.kit.server_error(&server).await;
    assert!(fault.details.contains("the disk is broken"), "{fault:?}");
    // Both go without a trace.
    s.kit.delete(s.who(), &format!("/compute/v2.1/servers/{server}")).await;
    s.kit.server_gone(&server).await;
    s.kit.delete(s.who(), &format!("/volume/v3/volumes/{volume}")).await;
    s.gone(&volume).await;
    s.kit.until("all volumes are gone", |s| s.count::<Volume>() == 0).await;
    assert_eq!((s.used("volumes"), s.used("gigabytes")), (0, 0));
    s.kit.audit_rest().await;
}

#[tokio::test(start_paused = true)]
async fn growing_counts_and_what_fails_is_given_back() {
    let s = stage().await;
    let volume = s.kit.volume(s.who(), "data").await;
    s.act(&volume, json!({"os-extend": {"new_size": 3}})).await.expect(202);
    s.kit.volume_is(&volume, "available").await;
    assert_eq!((s.volume(&volume).size, s.used("gigabytes")), (3, 3));
    s.act(&volume, json!({"os-extend": {"new_size": 3}})).await.expect(400);
    s.act(&volume, json!({"os-extend": {"new_size": 5000}}))
        .await
        .expect(413);
    for node in s.kit.nodes().values() {
        node.script(|x| {
            x.fail(Step::Volume, Some(&volume), "no room", true);
        });
    }
    s.act(&volume, json!({"os-extend": {"new_size": 4}})).await.expect(202);
    s.kit.volume_is(&volume, "error_extending").await;
    assert_eq!((s.volume(&volume).size, s.used("gigabytes")), (3, 3));
    s.kit.delete(s.who(), &format!("/volume/v3/volumes/{volume}")).await;
    s.gone(&volume).await;
    assert_eq!(s.used("gigabytes"), 0);
    s.kit.audit_rest().await;
}

#[tokio::test(start_paused = true)]
async fn no_quota_of_volumes_is_passed_by_any_race() {
    let s = stage().await;
    let path = format!("/volume/v3/os-quota-sets/{}", s.project.id);
    let limits = json!({"quota_set": {"volumes": 4, "gigabytes": 6}});
    s.kit.put(&s.kit.admin(), &path, limits).await;
    let mut asked = Vec::new();
    for _ in 0..12 {
        let body = json!({"volume": {"size": 2}});
        asked.push(s.kit.call("POST", "/volume/v3/volumes", &s.who().token, body));
    }
    let answers = futures_util::future::join_all(asked).await;
    let made = answers.iter().filter(|a| a.status == 202).count();
    assert_eq!(made, 3, "{:?}", answers.iter().map(|a| a.status).collect::<Vec<_>>());
    let refused = answers.iter().find(|a| a.status != 202).unwrap();
    assert_eq!(refused.status, 413);
    assert!(refused.text().contains("gigabytes"), "{}", refused.text());
    assert_eq!((s.used("volumes"), s.used("gigabytes")), (3, 6));
    s.kit
        .until("all three are available", |x| {
            x.list::<Volume>()
                .filter(|v| v.value.status == Status::Available)
                .count()
                == 3
        })
        .await;
    s.kit.audit_rest().await;
}

#[tokio::test(start_paused = true)]
async fn snapshots_hold_their_volume_and_make_new_ones() {
    let s = stage().await;
    let volume = s.kit.volume(s.who(), "data").await;
    let body = json!({"snapshot": {"volume_id": volume, "name": "s"}});
    let snapshot = id(&s.kit.post(s.who(), "/volume/v3/snapshots", body).await["snapshot"]);
    s.kit
        .until("the snapshot is available", |v| {
            v.get::<Snapshot>(&snapshot.as_str().into())
                .is_some_and(|x| x.value.status.word() == "available")
        })
        .await;
    let path = format!("/volume/v3/volumes/{volume}");
    let refused = s.kit.call("DELETE", &path, &s.who().token, Value::Null).await;
    assert!(refused.expect(400).to_string().contains("snapshot"));
    let body = json!({"volume": {"snapshot_id": snapshot}});
    let copy = id(&s.kit.post(s.who(), "/volume/v3/volumes", body).await["volume"]);
    s.kit.volume_is(&copy, "available").await;
    assert_eq!(s.volume(&copy).size, 1, "its size is the snapshot's");
    // An administrator's word about the status removes nothing.
    let admin = s.kit.admin();
    let reset = json!({"os-reset_status": {"status": "deleting"}});
    s.kit
        .post(&admin, &format!("/volume/v3/snapshots/{snapshot}/action"), reset)
        .await;
    s.kit.rest().await;
    assert_eq!(s.kit.snapshot().count::<Snapshot>(), 1, "bytes went by a status");
    // Cascade takes the snapshot along, whatever it is called.
    s.kit
        .post(
            &admin,
            &format!("/volume/v3/snapshots/{snapshot}/action"),
            json!({"os-reset_status": {"status": "available"}}),
        )
        .await;
    s.kit.delete(s.who(), &format!("{path}?cascade=true")).await;
    s.gone(&volume).await;
    s.kit
        .until("the snapshot is gone", |v| v.count::<Snapshot>() == 0)
        .await;
    s.kit.delete(s.who(), &format!("/volume/v3/volumes/{copy}")).await;
    s.gone(&copy).await;
    assert_eq!((s.used("snapshots"), s.used("gigabytes")), (0, 0));
    s.kit.audit_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_backup_outlives_its_volume_and_restores_it() {
    let s = stage().await;
    let volume = s.kit.volume(s.who(), "data").await;
    let body = json!({"backup": {"volume_id": volume, "name": "b"}});
    let backup = id(&s.kit.post(s.who(), "/volume/v3/backups", body).await["backup"]);
    s.kit.backup_available(&backup).await;
    assert_eq!(s.volume(&volume).status, Status::Available);
    s.kit.delete(s.who(), &format!("/volume/v3/volumes/{volume}")).await;
    s.gone(&volume).await;
    let path = format!("/volume/v3/backups/{backup}");
    let restored = s
        .kit
        .post(s.who(), &format!("{path}/restore"), json!({"restore": {}}))
        .await;
    let fresh = restored["restore"]["volume_id"].as_str().unwrap().to_owned();
    s.kit.volume_is(&fresh, "available").await;
    s.kit.delete(s.who(), &path).await;
    s.kit
        .until("the backup is gone", |v| v.count::<maru_volume_model::Backup>() == 0)
        .await;
    assert_eq!((s.used("backups"), s.used("backup_gigabytes")), (0, 0));
    s.kit.audit_rest().await;
}

#[tokio::test(start_paused = true)]
async fn an_offer_moves_a_volume_and_its_quota_and_the_key_is_told_once() {
    let s = stage().await;
    let red = s.kit.project("red").await;
    let volume = s.kit.volume(s.who(), "gift").await;
    let body = json!({"transfer": {"volume_id": volume, "name": "offer"}});
    let made = s.kit.post(s.who(), "/volume/v3/volume-transfers", body).await;
    let (offer, key) = (
        id(&made["transfer"]),
        made["transfer"]["auth_key"].as_str().unwrap().to_owned(),
    );
    let shown = s
        .kit
        .get(s.who(), &format!("/volume/v3/volume-transfers/{offer}"))
        .await;
    assert!(!shown.to_string().contains(&key), "the key is shown again");
    let stored = s
        .kit
        .snapshot()
        .get::<maru_volume_model::Transfer>(&offer.as_str().into())
        .unwrap();
    assert!(
        !serde_json::to_string(&*stored.value).unwrap().contains(&key),
        "the key is stored"
    );
    // A stranger sees neither the offer nor the volume, and a wrong key opens nothing.
    let path = format!("/volume/v3/volume-transfers/{offer}");
    s.kit
        .call("GET", &path, &red.member.token, Value::Null)
        .await
        .expect(404);
    let wrong = json!({"accept": {"auth_key": "guess"}});
    s.kit
        .call("POST", &format!("{path}/accept"), &red.member.token, wrong)
        .await
        .expect(400);
    let right = json!({"accept": {"auth_key": key}});
    s.kit
        .call("POST", &format!("{path}/accept"), &red.member.token, right)
        .await
        .expect(202);
    assert_eq!(s.volume(&volume).project_id, *red.id);
    s.kit
        .call(
            "GET",
            &format!("/volume/v3/volumes/{volume}"),
            &s.who().token,
            Value::Null,
        )
        .await
        .expect(404);
    assert_eq!(s.used("volumes"), 0);
    s.kit.audit_rest().await;
}

/// A backup that is older than a volume: its bytes are kept and told, and go when they are discarded.
#[tokio::test(start_paused = true)]
async fn a_volume_that_the_backup_does_not_know_is_kept_until_it_is_discarded() {
    let s = stage().await;
    let old = s.kit.volume(s.who(), "old").await;
    let file = s.kit.backup().await;
    let young = s.kit.volume(s.who(), "young").await;
    s.kit.restore(&file).await;
    let listed = || {
        let nodes = s.kit.cloud().nodes();
        let text = nodes.iter().map(ToString::to_string).collect::<String>();
        (text.contains(&young), text.contains(&old))
    };
    // What is unknown is told in memory: no change of the store announces it.
    for _ in 0..1_000 {
        if listed().0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(listed().0, "the volume is not told");
    assert!(!listed().1, "a volume that is known is told as unknown");
    let refused = s
        .kit
        .cloud()
        .unknown("volume", &young, None, true)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("maru discard") && refused.contains("volumes/"),
        "{refused}"
    );
    s.kit.cloud().unknown("volume", &young, None, false).await.unwrap();
    assert!(!listed().0);
    assert!(
        s.kit.cloud().unknown("volume", &old, None, false).await.is_err(),
        "it is the cloud's"
    );
    assert_eq!(s.volume(&old).status, Status::Available);
}

/// Attach and detach, with the control plane dead after each commit in turn.
#[tokio::test(start_paused = true)]
async fn attach_and_detach_survive_a_crash_after_every_commit() {
    crashes_of_attach(false).await;
}

/// The same, with the volume on another node than the server.
#[tokio::test(start_paused = true)]
async fn attach_and_detach_across_nodes_survive_a_crash_after_every_commit() {
    crashes_of_attach(true).await;
}

async fn crashes_of_attach(across: bool) {
    maru_kit::crash_rounds("attach and detach", async |n| {
        let (s, server, volume) = if across {
            let a = apart().await;
            (a.s, a.server, a.volume)
        } else {
            let s = stage().await;
            let server = s.server("vm").await;
            let volume = s.kit.volume(s.who(), "data").await;
            (s, server, volume)
        };
        s.kit.rest().await;
        let lives = s.kit.lives();
        s.kit.crash_after(n);
        let path = format!("/compute/v2.1/servers/{server}/os-volume_attachments");
        let body = json!({"volumeAttachment": {"volumeId": volume}});
        // A client that got no answer asks again; it may be done already.
        while let Err(maru_kit::Crashed) = s.kit.try_call("POST", &path, &s.who().token, body.clone()).await {
            s.kit.restart().await;
        }
        let status = |want: Status| {
            let volume = VolumeId::from(volume.as_str());
            move |v: &maru_store::Snapshot| v.get::<Volume>(&volume).filter(|x| x.value.status == want).map(|_| ())
        };
        s.kit.until_again("in use", status(Status::InUse)).await;
        let one = format!("{path}/{volume}");
        while let Err(maru_kit::Crashed) = s.kit.try_call("DELETE", &one, &s.who().token, Value::Null).await {
            s.kit.restart().await;
        }
        s.kit.until_again("available", status(Status::Available)).await;
        let died = s.kit.rests_after_crashes(lives).await;
        assert_eq!(s.kit.snapshot().count::<Attachment>(), 0);
        let left = s.kit.snapshot().get::<Server>(&server.as_str().into()).unwrap();
        assert!(left.volumes.is_empty());
        died
    })
    .await;
}

/// A server on one node and a volume that the other holds.
struct Apart {
    s: Stage,
    server: String,
    volume: String,
    holder: String,
}

async fn apart() -> Apart {
    let s = stage_of(2).await;
    let server = s.server("vm").await;
    let here = s.kit.server_active(&server).await.value.host.clone().unwrap();
    let holder = s.kit.nodes().into_keys().find(|n| *n != here).unwrap();
    // The only one that is up when the volume is placed.
    let backend = |host: &str, action: &str| {
        let body = json!({"binary": "cinder-volume", "host": format!("{host}@local")});
        let (path, admin) = (format!("/volume/v3/os-services/{action}"), s.kit.admin().token.clone());
        let kit = &s.kit;
        async move { kit.call("PUT", &path, &admin, body).await.expect(200) }
    };
    backend(&here, "disable").await;
    let volume = s.kit.volume(s.who(), "data").await;
    backend(&here, "enable").await;
    assert_eq!(s.volume(&volume).host.as_deref(), Some(holder.as_str()));
    Apart {
        s,
        server,
        volume,
        holder,
    }
}

/// What a node is told of a volume: its exports as the holder's, its address as the consumer's.
fn told(s: &Stage, node: &str, volume: &str) -> (Vec<String>, Option<String>) {
    use maru_agent_api::slice::{DiskSource, Item};
    let slice = maru_nodes::slice::of(&s.kit.snapshot(), &node.into());
    let mut found = (Vec::new(), None);
    for item in slice.items.values() {
        match item {
            Item::Volume(v) if v.id == volume => {
                found.0 = v
                    .exports
                    .iter()
                    .map(|e| format!("{} {}", e.name, e.key.reveal()))
                    .collect();
            }
            Item::Server(server) => {
                let remote = server.disks.iter().find_map(|d| match &d.source {
                    DiskSource::Volume { id, remote, .. } if id == volume => remote.clone(),
                    _ => None,
                });
                if let Some(r) = remote {
                    found.1 = Some(format!("{} {}", r.export, r.key.reveal()));
                }
            }
            _ => {}
        }
    }
    found
}

#[tokio::test(start_paused = true)]
async fn a_volume_crosses_nodes_grows_there_and_its_way_is_closed_for_ever() {
    let Apart {
        s,
        server,
        volume,
        holder,
    } = apart().await;
    s.attach(&server, &volume).await;
    let consumer = s.kit.server_active(&server).await.value.host.clone().unwrap();
    let (exports, _) = told(&s, &holder, &volume);
    let (_, way) = told(&s, &consumer, &volume);
    assert_eq!(
        exports,
        way.iter().cloned().collect::<Vec<_>>(),
        "the two ends have one key"
    );
    let first = way.unwrap();
    // Neither the API nor the store's dump shows it.
    let key = first.split_once(' ').unwrap().1.to_owned();
    let shown = s.kit.get(s.who(), &format!("/volume/v3/volumes/{volume}")).await;
    let newest = [
        ("x-auth-token", s.who().token.as_str()),
        ("openstack-api-version", "volume 3.71"),
    ];
    let path = "/volume/v3/attachments/detail";
    let listed = s.kit.send("GET", path, &newest, bytes::Bytes::new()).await;
    let listed = listed.unwrap_or_else(|_| panic!("crashed")).expect(200);
    assert!(listed.to_string().contains(&volume));
    let secret = s
        .kit
        .snapshot()
        .list::<Attachment>()
        .next()
        .unwrap()
        .value
        .secret
        .reveal()
        .to_owned();
    let dump = s.kit.cloud().dump("volume_attachment").await.unwrap().to_string();
    for text in [shown.to_string(), listed.to_string(), dump] {
        assert!(!text.contains(&key) && !text.contains(&secret), "{text}");
    }
    // The holder is told to grow it, then the consumer that it has grown.
    let grow = json!({"os-extend": {"new_size": 3}});
    let path = format!("/volume/v3/volumes/{volume}/action");
    let headers = [
        ("x-auth-token", s.who().token.as_str()),
        ("content-type", "application/json"),
        ("openstack-api-version", "volume 3.42"),
    ];
    let grown = s.kit.send("POST", &path, &headers, grow.to_string().into()).await;
    grown.unwrap_or_else(|_| panic!("crashed")).expect(202);
    s.kit.volume_is(&volume, "in-use").await;
    assert_eq!(s.volume(&volume).size, 3);

    let one = format!("/compute/v2.1/servers/{server}/os-volume_attachments/{volume}");
    s.kit.delete(s.who(), &one).await;
    s.kit.volume_is(&volume, "available").await;
    assert_eq!(told(&s, &holder, &volume), (vec![], None));
    // Attached again: another name, another key (D5).
    s.attach(&server, &volume).await;
    let second = told(&s, &holder, &volume).0.remove(0);
    let part = |way: &str, at: usize| way.split(' ').nth(at).unwrap().to_owned();
    assert!(part(&first, 0) != part(&second, 0) && part(&first, 1) != part(&second, 1));

    // The holder and then the consumer restart; then the server goes while its node is away, and the way is closed all the same.
    for node in [&holder, &consumer] {
        s.kit.node_down(node);
        s.kit.node_up(node);
    }
    s.kit.rest().await;
    assert_eq!(told(&s, &holder, &volume).0, [second]);
    s.kit.delete(s.who(), &format!("/compute/v2.1/servers/{server}")).await;
    s.kit.server_gone(&server).await;
    s.kit.volume_is(&volume, "available").await;
    assert_eq!(told(&s, &holder, &volume), (vec![], None));
    s.kit.audit_rest().await;
}

/// A server goes where its volumes are if it can, elsewhere if it must.
#[tokio::test(start_paused = true)]
async fn a_server_is_placed_beside_its_volume_or_reaches_it() {
    let Apart { s, volume, holder, .. } = apart().await;
    let mut body = Kit::server_body("beside", &s.image, &s.network);
    body["server"]["block_device_mapping_v2"] = json!([
        {"boot_index": 0, "source_type": "image", "uuid": s.image, "destination_type": "local"},
        {"boot_index": -1, "source_type": "volume", "uuid": volume, "destination_type": "volume"},
    ]);
    let beside = id(&s.kit.post(s.who(), "/compute/v2.1/servers", body.clone()).await["server"]);
    let made = s.kit.server_active(&beside).await;
    assert_eq!(made.value.host.as_deref(), Some(holder.as_str()));
    assert_eq!(told(&s, &holder, &volume), (vec![], None), "a file");
    s.kit.delete(s.who(), &format!("/compute/v2.1/servers/{beside}")).await;
    s.kit.server_gone(&beside).await;
    s.kit.volume_is(&volume, "available").await;
    let disable = json!({"status": "disabled"});
    let services = s
        .kit
        .get(&s.kit.admin(), "/compute/v2.1/os-services?binary=nova-compute")
        .await;
    let there = services["services"]
        .as_array()
        .unwrap()
        .iter()
        .find(|x| x["host"] == holder.as_str());
    let path = format!("/compute/v2.1/os-services/{}", id(there.unwrap()));
    s.kit.put(&s.kit.admin(), &path, disable).await;
    let elsewhere = id(&s.kit.post(s.who(), "/compute/v2.1/servers", body).await["server"]);
    let made = s.kit.server_active(&elsewhere).await;
    assert_ne!(made.value.host.as_deref(), Some(holder.as_str()));
    s.kit.volume_is(&volume, "in-use").await;
    assert_eq!(told(&s, &holder, &volume).0.len(), 1);
}

/// What cannot be plugged is given back, and the server goes on.
#[tokio::test(start_paused = true)]
async fn a_volume_that_cannot_be_plugged_is_available_again_and_the_server_active() {
    let s = stage().await;
    let server = s.server("vm").await;
    let volume = s.kit.volume(s.who(), "data").await;
    for node in s.kit.nodes().values() {
        node.script(|x| {
            x.fail(Step::Plug, Some(&volume), "no slot is free", true);
        });
    }
    let path = format!("/compute/v2.1/servers/{server}/os-volume_attachments");
    let asked = json!({"volumeAttachment": {"volumeId": volume}});
    s.kit.post(s.who(), &path, asked).await;
    s.kit.volume_is(&volume, "available").await;
    let left = s.kit.server_active(&server).await;
    assert!(left.value.volumes.is_empty() && left.value.fault.is_none());
    assert_eq!(s.kit.snapshot().count::<Attachment>(), 0);
    let path = format!("/compute/v2.1/servers/{server}/os-instance-actions");
    let actions = s.kit.get(s.who(), &path).await;
    let attach = actions["instanceActions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|a| a["action"] == "attach_volume")
        .unwrap();
    let one = format!("{path}/{}", attach["request_id"].as_str().unwrap());
    let story = s.kit.get(&s.kit.admin(), &one).await["instanceAction"]["events"].to_string();
    assert!(story.contains("Error") && story.contains("no slot is free"), "{story}");
    s.attach(&server, &volume).await;
    s.kit.audit_rest().await;
}

/// A node has one disk: what servers were given of it no volume gets, and the other way round (docs/adr/0005).
#[tokio::test(start_paused = true)]
async fn servers_and_volumes_are_counted_on_one_disk() {
    let kit = Kit::builder().nodes(1).node_size(8, 8192, 10).start().await;
    let project = kit.project("blue").await;
    let image = kit.image(&project.member, "tiny").await;
    let (network, _) = kit.network(&project.member, "net", "10.0.0.0/16").await;
    let flavor = json!({"flavor": {"name": "six", "ram": 64, "vcpus": 1, "disk": 6, "id": "six"}});
    kit.post(&kit.admin(), "/compute/v2.1/flavors", flavor).await;
    let s = Stage {
        kit,
        project,
        image,
        network,
    };
    let make = |size: u32| {
        let s = &s;
        async move {
            id(&s
                .kit
                .post(s.who(), "/volume/v3/volumes", json!({"volume": {"size": size}}))
                .await["volume"])
        }
    };
    let first = make(5).await;
    s.kit.volume_is(&first, "available").await;
    let mut body = Kit::server_body("big", &s.image, &s.network);
    body["server"]["flavorRef"] = json!("six");
    let refused = id(&s.kit.post(s.who(), "/compute/v2.1/servers", body.clone()).await["server"]);
    let fault = s.kit.server_error(&refused).await;
    assert!(fault.message.contains("6 DISK_GB asked, 5 free"), "{}", fault.message);
    s.kit.delete(s.who(), &format!("/volume/v3/volumes/{first}")).await;
    s.gone(&first).await;
    let fits = id(&s.kit.post(s.who(), "/compute/v2.1/servers", body).await["server"]);
    s.kit.server_active(&fits).await;
    let second = make(5).await;
    s.kit.volume_is(&second, "error").await;
    let why = s.volume(&second).fault.unwrap();
    assert!(why.contains("has 4 GiB left of 10"), "{why}");
    let third = make(4).await;
    s.kit.volume_is(&third, "available").await;
    let pools = "/volume/v3/scheduler-stats/get_pools?detail=True";
    let free = s.kit.get(&s.kit.admin(), pools).await["pools"][0]["capabilities"]["free_capacity_gb"].clone();
    assert_eq!(free, 0);
    s.kit.audit_rest().await;
}

/// The limits of a type's specification reach the node that runs the guest, those that are the storage's own do not.
#[tokio::test(start_paused = true)]
async fn limits_of_the_front_end_are_told_to_the_guests_node() {
    let s = stage().await;
    let admin = s.kit.admin();
    let kind = s
        .kit
        .post(&admin, "/volume/v3/types", json!({"volume_type": {"name": "slow"}}))
        .await;
    let kind = id(&kind["volume_type"]);
    let specs = json!({"qos_specs": {"name": "slow", "consumer": "front-end", "total_iops_sec": "100",
        "total_iops_sec_max": "50", "read_iops_sec": "7", "write_bytes_sec": "1000", "write_bytes_sec_max": "2000", "else": "x"}});
    let qos = id(&s.kit.post(&admin, "/volume/v3/qos-specs", specs).await["qos_specs"]);
    let associate = format!("/volume/v3/qos-specs/{qos}/associate?vol_type_id={kind}");
    s.kit.get(&admin, &associate).await;
    let body = json!({"volume": {"size": 1, "volume_type": "slow"}});
    let volume = id(&s.kit.post(s.who(), "/volume/v3/volumes", body).await["volume"]);
    s.kit.volume_is(&volume, "available").await;
    let server = s.server("vm").await;
    s.attach(&server, &volume).await;
    let node = s.kit.nodes().into_keys().next().unwrap();
    let told = || {
        use maru_agent_api::slice::{DiskSource, Item};
        let slice = maru_nodes::slice::of(&s.kit.snapshot(), &node.as_str().into());
        slice.items.into_values().find_map(|item| match item {
            Item::Server(server) => server.disks.into_iter().find_map(|d| match d.source {
                DiskSource::Volume { limits, .. } => Some(limits),
                _ => None,
            }),
            _ => None,
        })
    };
    // A part beside a total, and a burst below its rate, are what no hypervisor takes.
    let expected = [
        ("total_iops_sec", 100),
        ("write_bytes_sec", 1000),
        ("write_bytes_sec_max", 2000),
    ];
    let expected = expected.map(|(name, n)| (name.to_owned(), n));
    assert_eq!(told(), Some(expected.into()));
    let path = format!("/volume/v3/qos-specs/{qos}");
    s.kit
        .put(&admin, &path, json!({"qos_specs": {"consumer": "back-end"}}))
        .await;
    assert_eq!(told(), Some(std::collections::BTreeMap::new()));
}
