//! Validation and transactions, one file a noun.

pub(crate) mod auto_network;
pub(crate) mod flavors;
pub(crate) mod keypairs;
pub(crate) mod rescue;
pub(crate) mod resize;
pub(crate) mod server_actions;
pub(crate) mod server_devices;
pub(crate) mod server_images;
pub(crate) mod server_volumes;
pub(crate) mod servers;
pub(crate) mod shelve;
