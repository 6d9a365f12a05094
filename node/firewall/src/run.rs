//! Blocking work inside a network namespace: `nft -f -` and conntrack.

use maru_base::{Error, Result};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs `work` on a thread of its own inside the namespace; processes that it starts live in it.
pub(crate) fn inside<T: Send>(netns: &Path, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let file = File::open(netns).map_err(|e| {
        Error::internal(
            format!("The network namespace {} cannot be opened.", netns.display()),
            e,
        )
    })?;
    std::thread::scope(|scope| {
        let enter = move || {
            setns(&file, CloneFlags::CLONE_NEWNET).map_err(|e| {
                Error::internal(
                    "A network namespace cannot be entered; it needs root (CAP_SYS_ADMIN).",
                    e,
                )
            })?;
            work()
        };
        let thread = std::thread::Builder::new()
            .name("nft".into())
            .spawn_scoped(scope, enter)
            .map_err(|e| Error::internal("No thread could be started to enter a network namespace.", e))?;
        thread
            .join()
            .map_err(|_| Error::internal("Work inside a network namespace panicked.", "panic"))?
    })
}

/// Hands a ruleset to nft in the calling thread's namespace. All of it or nothing becomes so.
pub(crate) fn nft(text: &str) -> Result<()> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| {
            Error::internal(
                "The program nft cannot be started; it comes with the package nftables.",
                e,
            )
        })?;
    let write = child
        .stdin
        .take()
        .map_or(Ok(()), |mut pipe| pipe.write_all(text.as_bytes()));
    let output = child
        .wait_with_output()
        .map_err(|e| Error::internal("nft did not end as it should.", e))?;
    if output.status.success() {
        return write.map_err(|e| Error::internal("nft did not take the whole ruleset.", e));
    }
    let said: String = String::from_utf8_lossy(&output.stderr).chars().take(2000).collect();
    Err(Error::internal("nft refused the ruleset; the old rules hold.", said))
}
