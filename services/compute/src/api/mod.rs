//! Wire types and thin handlers, one file a noun.

pub(crate) mod aggregates;
pub(crate) mod audit_log;
pub(crate) mod console_slots;
pub(crate) mod consoles;
pub(crate) mod flavors;
pub(crate) mod groups;
pub(crate) mod hosts;
pub(crate) mod hypervisors;
pub(crate) mod instance_actions;
pub(crate) mod keypairs;
pub(crate) mod limits;
pub(crate) mod migrations;
pub(crate) mod proxy;
pub(crate) mod quotas;
pub(crate) mod server_actions;
pub(crate) mod server_extras;
pub(crate) mod server_list;
pub(crate) mod server_parts;
pub(crate) mod server_view;
pub(crate) mod server_volumes;
pub(crate) mod servers;
pub(crate) mod services;
pub(crate) mod usage;
pub(crate) mod versions;
pub(crate) mod wire;
pub(crate) mod zones;
