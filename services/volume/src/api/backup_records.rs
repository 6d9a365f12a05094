//! Records of backups: what another database needs to find a backup again whose bytes are still there.
//!
//! A record is told to administrators only, and says all that is known of the backup but for its bytes: these are looked for
//! among the blobs of backups when it is brought back.

use crate::{
    App,
    api::{
        backups::{find, short},
        wire::{self, body, invalid},
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use maru_base::{Error, Result};
use maru_http::{Reply, Request};
use maru_store::Txn;
use maru_volume_model::{Backup, BackupId, BackupStatus, quota};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;

/// The name that our records go by; clients of upstream expect its beginning.
const SERVICE: &str = "cinder.backup.drivers.maru";

/// What a record holds, as JSON in base64.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    id: String,
    #[serde(flatten)]
    backup: Backup,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ImportBody {
    backup_service: String,
    backup_url: String,
}

/// `GET /backups/{id}/export_record`.
pub(crate) async fn export(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let read = find(&request, &snapshot, request.param("id"))?;
    if read.value.status != BackupStatus::Available {
        return Err(Error::bad_request(format!(
            "Invalid backup: Backup status must be available to export its record, it is {}.",
            read.value.status.word()
        )));
    }
    let record = Record {
        id: read.id.to_string(),
        backup: (*read.value).clone(),
    };
    let text = serde_json::to_vec(&record).map_err(|e| Error::internal("the record was not written", e))?;
    Reply::json(
        200,
        &json!({"backup-record": {"backup_service": SERVICE, "backup_url": STANDARD.encode(&text)}}),
    )
}

fn record(given: &ImportBody) -> Result<Record> {
    let refuse = |why: &str| invalid("backup-record.backup_url", why);
    if given.backup_service != SERVICE {
        return Err(Error::bad_request(format!(
            "Invalid input received: the record is of the backup service {}; this cloud reads its own, {SERVICE}.",
            given.backup_service
        )));
    }
    let text = STANDARD
        .decode(given.backup_url.trim())
        .map_err(|_| refuse("It is not base64."))?;
    serde_json::from_slice(&text).map_err(|e| refuse(&format!("It is not a record of a backup: {e}.")))
}

/// `POST /backups/import_record`: the backup is the caller's project's from now on.
pub(crate) async fn import(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let given: ImportBody = body(&mut request, "backup-record").await?;
    let record = record(&given)?;
    if !wire::is_uuid(&record.id) {
        return Err(invalid("backup-record.backup_url", "The record's id is not a 'uuid'."));
    }
    let id = BackupId::from(record.id.to_lowercase());
    let lost = |what: &str| {
        Error::bad_request(format!(
            "Invalid backup: {what} of the record {id} is not in this cloud; a record brings back only what is still stored."
        ))
    };
    // The bytes are looked for and named while nothing may be collected.
    let _naming = app.naming.read().await;
    let digest = record.backup.digest.clone().ok_or_else(|| lost("the data"))?;
    if app.blobs.size(&digest).await?.is_none() {
        return Err(lost("the data"));
    }
    app.store
        .plan(|snapshot| {
            if snapshot.get::<Backup>(&id).is_some() {
                return Err(Error::bad_request(format!(
                    "Invalid backup: Backup {id} exists already; nothing has to be imported."
                )));
            }
            let caller = request.caller()?;
            let project = caller.require_project()?.clone();
            let mut txn = Txn::new();
            if let Some(parent) = &record.backup.parent {
                if snapshot.get::<Backup>(parent).is_none() {
                    return Err(lost(&format!("the backup {parent}, which is the base")));
                }
                txn.alive::<Backup>(parent);
            }
            let size = i64::from(record.backup.size);
            quota::take(snapshot, &mut txn, &project, &quota::of_backup(size))?;
            txn.create(
                &id,
                &Backup {
                    project_id: project,
                    user_id: caller.user_id.clone(),
                    status: BackupStatus::Available,
                    fail_reason: None,
                    request_id: request.id.to_string(),
                    updated: Some(maru_base::time::now()),
                    ..record.backup.clone()
                },
            );
            Ok((txn, ()))
        })
        .await
        .map_err(quota::refusal)?;
    let snapshot = app.store.snapshot();
    let made = find(&request, &snapshot, &id)?;
    let mut out = short(&request, &made);
    if let serde_json::Value::Object(map) = &mut out {
        map.remove("metadata");
    }
    Reply::json(201, &json!({"backup": out}))
}
