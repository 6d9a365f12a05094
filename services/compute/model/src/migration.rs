//! Records of changes of a server's flavor or host, as `os-migrations` lists them.

use crate::ServerId;
use maru_base::{ProjectId, UserId};
use maru_store::{Index, Key, Kind, Snapshot, Txn};
use serde::{Deserialize, Serialize};

maru_base::typed_id!(
    /// Id of a migration: a whole number as text.
    MigrationId
);

/// How far a migration is, in upstream's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MigrationStatus {
    /// The node is at it.
    Migrating,
    /// Done; it waits to be confirmed or reverted.
    Finished,
    /// Kept.
    Confirmed,
    /// Being taken back.
    Reverting,
    /// Taken back.
    Reverted,
    /// It could not be carried out.
    Error,
}

impl MigrationStatus {
    /// The word of the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Migrating => "migrating",
            Self::Finished => "finished",
            Self::Confirmed => "confirmed",
            Self::Reverting => "reverting",
            Self::Reverted => "reverted",
            Self::Error => "error",
        }
    }
}

/// One migration. It goes with its server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migration {
    /// A UUID.
    pub uuid: String,
    /// The server.
    pub server_id: ServerId,
    /// Whose server it is.
    pub project_id: ProjectId,
    /// Who asked.
    pub user_id: UserId,
    /// `resize`.
    pub kind: String,
    /// How far it is.
    pub status: MigrationStatus,
    /// The host before.
    pub source: String,
    /// The host after.
    pub target: String,
    /// Id of the flavor before.
    pub old_flavor: String,
    /// Id of the flavor after.
    pub new_flavor: String,
    /// When it was asked for.
    pub created: jiff::Timestamp,
    /// When it last changed.
    pub updated: jiff::Timestamp,
}

impl Kind for Migration {
    type Id = MigrationId;
    const NAME: &'static str = "migration";
    fn indexes() -> Vec<Index<Self>> {
        vec![Index {
            name: "server",
            values: |m| vec![m.server_id.to_string()],
        }]
    }
}

/// Records a new migration under the next number.
pub(crate) fn begin_migration(snapshot: &Snapshot, txn: &mut Txn, migration: &Migration) -> MigrationId {
    let counter = Key::of(&["counter", "compute-migration-id"]);
    // Two at a time take the same number: creation guards it, and the second plans again.
    let id = MigrationId::from((snapshot.counter(&counter) + 1).to_string());
    txn.add(counter, 1, None);
    txn.create(&id, migration);
    id
}

/// Says how far a migration is; nothing when it is not there.
pub(crate) fn set_status(snapshot: &Snapshot, txn: &mut Txn, id: &MigrationId, status: MigrationStatus) {
    if let Some(old) = snapshot.get::<Migration>(id) {
        let mut new = (*old.value).clone();
        new.status = status;
        new.updated = maru_base::time::now();
        txn.update(&old, &new);
    }
}

/// Removes the migrations of a server that is gone.
pub(crate) fn forget_migrations(snapshot: &Snapshot, txn: &mut Txn, server: &ServerId) {
    for migration in snapshot.find::<Migration>("server", server) {
        txn.delete(&migration);
    }
}
