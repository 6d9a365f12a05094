//! `maru`: a private cloud in one binary.
//!
//! `up` runs the control plane and, in the same process, this machine's node agent; `join` runs the agent alone, on a machine of
//! somebody else's control plane. The other commands talk to a running process over a socket in its data directory that only root may
//! open ([`admin`]).

mod admin;
mod credentials;
mod install;
mod join;
mod logging;
mod options;
mod show;
mod simulation;
mod tls;
mod up;

use clap::{CommandFactory, FromArgMatches};
use options::{Cli, Command};
use std::{
    io::{ErrorKind, Write},
    process::ExitCode,
};

fn main() -> ExitCode {
    // The sandboxed parser is this binary again; it must lock itself down before anything else starts.
    if std::env::args_os().nth(1).is_some_and(|a| a == "__sandbox") {
        return maru::adapters::sandbox_child();
    }
    let matches = Cli::command().get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(e) => e.exit(),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            complain(&format!("the async runtime cannot start: {e}"));
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Up(o) => {
                let origins = options::origins(&matches, "up");
                up::run(*o, origins).await.map(|()| String::new())
            }
            Command::Down(o) => up::down(o).await.map(|()| String::new()),
            Command::Status(o) => admin::status(o).await,
            Command::Openrc(o) => credentials::openrc(&o),
            Command::CloudsYaml(o) => credentials::clouds_yaml(&o),
            Command::Install(o) => install::run(&o),
            Command::Backup(o) => admin::backup(o).await,
            Command::Restore(o) => up::restore(o).await,
            Command::Adopt(o) => admin::adopt(o, true).await,
            Command::Discard(o) => admin::adopt(o, false).await,
            Command::Debug(o) => admin::debug(o).await,
            Command::Token(o) => admin::token(o).await,
            Command::Join(o) => join::run(*o).await.map(|()| String::new()),
        }
    });
    // Blocking work (a hash, a disk) must not hold up the end of the process.
    runtime.shutdown_background();
    match outcome.and_then(|text| print(&text)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            complain(&format!("{e:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints what a command has to say: the one place that writes to standard output. A reader that has read enough (`| head -1`) is no
/// error; a full disk is.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(anyhow::anyhow!("the output cannot be written: {e}")),
        _ => Ok(()),
    }
}

/// Says on standard error what went wrong; the exit code says so as well, so nothing is lost if nobody listens.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "maru: {text}");
}
