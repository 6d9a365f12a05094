//! Stored types, pure rules and planners of the compute service (Nova v2.1).
//!
//! A [`Server`] is intent and the states that the API shows; an [`ObservedServer`] is what its node last said. The
//! functions that the node service calls are all pure: [`plan_node_up`], [`guest_intent`], [`plan_observe_server`],
//! [`plan_server_removed`].

mod action;
mod adopt;
mod aggregate;
mod console;
mod flavor;
mod group;
mod intent;
mod keypair;
mod migration;
pub mod network;
mod node;
mod observe;
pub mod quota;
mod rescue;
mod resize;
pub mod rules;
pub mod schedule;
mod server;
mod shelve;
mod states;
mod volume;

pub use action::{ActionEvent, ActionId, ServerAction, action_id, begin_action, event, finish_action, mark_deleted};
pub use adopt::{Adopted, Origin, plan_adopt};
pub use aggregate::{Aggregate, AggregateId, DEFAULT_ZONE, numeric_id, zone_of, zones};
pub use console::{ConsoleToken, ConsoleTokenId, ConsoleType, good_console_token, plan_console_token};
pub use flavor::{Flavor, FlavorId, find_visible as find_visible_flavor, plan_create_flavor, plan_delete_flavor};
pub use group::{GroupId, ServerGroup};
pub use intent::{DiskSource, GuestDisk, GuestIntent, GuestMetadata, GuestResize, guest_intent};
pub use keypair::{KeyKind, KeyPair, KeyPairId, keypair_id};
pub use migration::{Migration, MigrationId, MigrationStatus};
pub use node::{ComputeService, NodeFacts, ServiceId, find_service, plan_node_down, plan_node_up, plan_upsert_service};
pub use observe::{
    Observation, ObservedServer, ObservedServerId, observed_power, plan_delete_server, plan_observe_server,
    plan_server_removed, quota_of,
};
pub use quota::{QuotaClass, QuotaClassId, QuotaSet, QuotaSetId};
pub use rescue::{plan_rescue, plan_unrescue};
pub use resize::{plan_confirm_resize, plan_resize, plan_revert_resize};
pub use server::{
    Backup, BlockDevice, Fault, Lock, Networks, Reboot, Resize, Server, ServerFlavor, ServerId, ServerImage, ServerKey,
    ServerPort, ServerVolume, WantedPort,
};
pub use shelve::{follow_upload, plan_shelve, plan_unshelve, plan_unshelve_failed};
pub use states::{Power, PowerState, Task, VmState, status};
pub use volume::{
    MOST_VOLUMES, WantedVolume, exports_of, find_volume, next_device, plan_attach_new_volume, plan_attach_volume,
    plan_detach_volume, volumes_placed,
};

/// Registers the kinds of this model.
pub fn register(registry: &mut maru_store::Registry) {
    registry
        .register::<Flavor>()
        .register::<KeyPair>()
        .register::<Server>()
        .register::<ObservedServer>()
        .register::<ServerAction>()
        .register::<ConsoleToken>()
        .register::<Migration>()
        .register::<ServerGroup>()
        .register::<ComputeService>()
        .register::<Aggregate>()
        .register::<QuotaSet>()
        .register::<QuotaClass>();
}
