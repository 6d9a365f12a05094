//! `maru install`: a systemd unit under which a restart touches no guest.

use crate::options::Install;
use anyhow::{Context, Result, bail};

/// Writes the unit and says what to do next.
///
/// # Errors
/// When the unit cannot be written or an option holds a line break.
pub fn run(options: &Install) -> Result<()> {
    let binary = std::env::current_exe().context("cannot find this binary")?;
    let mut command = format!("{} up --data {}", binary.display(), options.data.data.display());
    for option in &options.up {
        if option.chars().any(|c| c.is_control() || c == '"' || c == '%') {
            bail!("the option {option:?} cannot be written into a unit file");
        }
        command.push_str(&format!(" \"{option}\""));
    }
    // KillMode=process: only the control plane is stopped; guests are in cgroups outside the unit (Delegate lets the
    // agent make them).
    let unit = format!(
        "[Unit]\nDescription=Maru private cloud\nAfter=network.target\n\n[Service]\nType=simple\nExecStart={command}\n\
         Restart=always\nRestartSec=1\nKillMode=process\nDelegate=yes\nLimitNOFILE=1048576\nTasksMax=infinity\n\n\
         [Install]\nWantedBy=multi-user.target\n"
    );
    let path = options.unit_dir.join("maru.service");
    std::fs::write(&path, unit).with_context(|| format!("cannot write {}; run this as root", path.display()))?;
    println!(
        "Wrote {}. Start it with: systemctl daemon-reload && systemctl enable --now maru",
        path.display()
    );
    Ok(())
}
