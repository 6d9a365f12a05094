//! What is fuzzed: everything that parses bytes which a tenant, a guest or a stranger chose.

mod dhcp;
mod image;
mod metadata;
mod policy;
mod token;

use anyhow::{Result, bail};

/// The targets' names.
pub const NAMES: [&str; 5] = ["token", "policy", "image", "dhcp", "metadata"];

/// One parser under test.
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Valid inputs to begin with.
    pub seeds: Vec<Vec<u8>>,
    /// Words of its format.
    pub words: Vec<Vec<u8>>,
    /// Bytes of an input at most.
    pub most: usize,
    /// Runs one input and says whether it was taken as valid; panics when it is treated wrongly.
    #[allow(clippy::type_complexity)]
    pub run: Box<dyn FnMut(&[u8]) -> bool>,
}

/// Makes a target.
///
/// # Errors
/// When there is none of that name, or it cannot be set up.
pub fn make(name: &str) -> Result<Target> {
    match name {
        "token" => token::target(),
        "policy" => policy::target(),
        "image" => Ok(image::target()),
        "dhcp" => dhcp::target(),
        "metadata" => metadata::target(),
        other => bail!("there is no target '{other}'; choose one of {}", NAMES.join(", ")),
    }
}

fn words(list: &[&str]) -> Vec<Vec<u8>> {
    list.iter().map(|w| w.as_bytes().to_vec()).collect()
}
