//! Guests of simulated nodes between two processes: as real guests they outlive a control plane that is stopped. One that is killed
//! takes them along, as a machine that loses power does.

use anyhow::{Context, Result};
use maru_sim::{SimGuest, SimNode};
use std::{collections::BTreeMap, io::ErrorKind, path::Path};

/// Guests by node and id.
type Guests = BTreeMap<String, BTreeMap<String, SimGuest>>;

/// Name of the file in the data directory. It holds what guests are told of themselves, so only root may read it.
const FILE: &str = "simulated.json";

/// What the last process left, which is then this one's: the file is gone, so that no later process takes it for new.
///
/// # Errors
/// When the file cannot be read or removed.
pub fn load(data: &Path) -> Result<Guests> {
    let path = data.join(FILE);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Guests::new()),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
    };
    let guests = serde_json::from_slice(&text).with_context(|| {
        format!(
            "{} is damaged; remove it to begin without simulated guests",
            path.display()
        )
    })?;
    std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    Ok(guests)
}

/// Leaves the guests to the next process.
///
/// # Errors
/// When the file cannot be written.
pub fn save(data: &Path, nodes: &[(String, SimNode)]) -> Result<()> {
    let guests: Guests = nodes.iter().map(|(name, sim)| (name.clone(), sim.guests())).collect();
    maru::ca::write_secret(&data.join(FILE), &serde_json::to_string(&guests)?)
}
