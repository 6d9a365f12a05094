//! `maru`: a private cloud in one binary.
//!
//! `up` runs the control plane and, in the same process, this machine's node agent; the other commands talk to a
//! running `up` over a socket in its data directory that only root may open ([`admin`]).

#![allow(clippy::print_stdout, clippy::print_stderr)] // a command line talks to people

mod admin;
mod credentials;
mod install;
mod logging;
mod options;
mod tls;
mod up;

use clap::{CommandFactory, FromArgMatches};
use options::{Cli, Command};
use std::process::ExitCode;

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
            eprintln!("maru: the async runtime cannot start: {e}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Up(o) => {
                let origins = options::origins(&matches, "up");
                up::run(*o, origins).await
            }
            Command::Down(o) => up::down(o).await,
            Command::Status(o) => admin::status(o).await,
            Command::Openrc(o) => credentials::print_openrc(&o),
            Command::CloudsYaml(o) => credentials::print_clouds_yaml(&o),
            Command::Install(o) => install::run(&o),
            Command::Backup(o) => admin::backup(o).await,
            Command::Restore(o) => up::restore(o).await,
            Command::Adopt(o) => admin::adopt(o, true).await,
            Command::Discard(o) => admin::adopt(o, false).await,
            Command::Debug(o) => admin::debug(o).await,
        }
    });
    // Blocking work (a hash, a disk) must not hold up the end of the process.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("maru: {e:#}");
            ExitCode::FAILURE
        }
    }
}
