//! `maru install`: a systemd unit under which a restart touches no guest.

use crate::options::{Cli, Install};
use anyhow::{Context, Result, bail};
use clap::Parser;

/// Writes the unit; what to print says what to do next.
///
/// # Errors
/// When the unit cannot be written or an option holds a line break.
pub fn run(options: &Install) -> Result<String> {
    let binary = std::env::current_exe().context("cannot find this binary")?;
    let data = std::path::absolute(&options.data.data)?.display().to_string();
    let mut words = vec![binary.display().to_string(), "up".to_owned(), "--data".to_owned(), data];
    words.extend(options.up.iter().cloned());
    // A unit whose command is refused would only fail at the next boot.
    if let Err(e) = Cli::try_parse_from(&words) {
        bail!("`maru up` would refuse these options: {e}");
    }
    for word in &mut words {
        if word.chars().any(|c| c.is_control() || "\"\\%$".contains(c)) {
            bail!("{word:?} cannot be written into a unit file; choose a value without quotes, backslashes, % and $");
        }
        *word = format!("\"{word}\"");
    }
    let command = words.join(" ");
    // KillMode=process: only the control plane is stopped; guests are in cgroups outside the unit (Delegate lets the
    // agent make them).
    let unit = format!(
        "[Unit]\nDescription=Maru private cloud\nAfter=network.target\n\n[Service]\nType=simple\nExecStart={command}\n\
         Restart=always\nRestartSec=1\nKillMode=process\nDelegate=yes\nLimitNOFILE=1048576\nTasksMax=infinity\n\n\
         [Install]\nWantedBy=multi-user.target\n"
    );
    let path = options.unit_dir.join("maru.service");
    std::fs::write(&path, unit).with_context(|| format!("cannot write {}; run this as root", path.display()))?;
    Ok(format!(
        "Wrote {}. Start it with: systemctl daemon-reload && systemctl enable --now maru\n",
        path.display()
    ))
}
