//! The parent's side: start the child, bound its output and its time.

use crate::{CHILD_ARGUMENT, Envelope, Layers, PROBE, Parser};
use maru_base::{Error, ErrorKind, Result};
use serde_json::Value;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Once, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// Longest answer of a child.
const MAX_OUTPUT: u64 = 1 << 20;
/// Longest complaint of a child that is kept for the log.
const MAX_COMPLAINT: u64 = 4 << 10;
/// Longest time of a child. Its CPU time has the same bound, so only a child that waits can reach this one.
const MAX_TIME: Duration = Duration::from_secs(10);

/// Where a parser runs.
enum Place {
    /// In a child that runs this program.
    Child(PathBuf),
    /// In this very process, for tests of other crates whose harness cannot be the child.
    Here(&'static [(&'static str, Parser)]),
}

static PLACE: OnceLock<Place> = OnceLock::new();

fn place() -> &'static Place {
    // The link keeps naming the running file even after an upgrade has replaced it on disk.
    PLACE.get_or_init(|| Place::Child(PathBuf::from("/proc/self/exe")))
}

/// Names the program that is started as the child instead of this process's own; its `main` must call
/// [`crate::child_main`]. Only the first call counts.
pub fn set_program(program: PathBuf) {
    let _ = PLACE.set(Place::Child(program));
}

/// Runs parsers in this process, **without any isolation**. Only for tests of crates whose test harness cannot act as
/// the child; nothing but a test may call it. Only the first call counts.
pub fn use_in_process(table: &'static [(&'static str, Parser)]) {
    let _ = PLACE.set(Place::Here(table));
}

/// Runs parser `what` over `file` (opened for reading, positioned anywhere) in a child.
///
/// # Errors
/// `BadRequest` with the parser's own words when it refuses the file, and when it runs out of memory, time or output or
/// strays from the allowed system calls (a hostile or broken file does that). `Internal` when the child cannot be
/// started at all.
pub async fn run(what: &str, file: File, args: Value) -> Result<Value> {
    let program = match place() {
        Place::Child(program) => program,
        Place::Here(table) => {
            let parser = table.iter().find(|(name, _)| *name == what).map(|(_, parser)| *parser);
            let parser = parser.ok_or_else(|| unknown(what))?;
            let mut file = file;
            return tokio::task::spawn_blocking(move || parser(&mut file, args))
                .await
                .map_err(|e| Error::internal("the parser stopped unexpectedly", e))?
                .map_err(Error::bad_request);
        }
    };
    let envelope = child(program, what, file, &args).await?;
    warn_once(envelope.layers);
    match (envelope.ok, envelope.err) {
        (_, Some(why)) => Err(Error::bad_request(why)),
        (Some(value), None) => Ok(value),
        (None, None) => Ok(Value::Null),
    }
}

/// The layers that a parser runs behind on this machine, found out by running an empty one.
///
/// # Errors
/// As [`run`].
pub async fn layers() -> Result<Layers> {
    match place() {
        Place::Here(_) => Ok(Layers::default()),
        Place::Child(program) => {
            let null = File::open("/dev/null").map_err(|e| Error::internal("/dev/null cannot be opened", e))?;
            Ok(child(program, PROBE, null, &Value::Null).await?.layers)
        }
    }
}

fn unknown(what: &str) -> Error {
    Error::new(
        ErrorKind::Internal,
        format!("this program has no parser named {what:?}"),
    )
}

fn warn_once(layers: Layers) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if layers.landlock {
            tracing::info!(%layers, "parsers of tenants' bytes are sandboxed");
        } else {
            tracing::warn!(%layers, "the kernel has no landlock: parsers of tenants' bytes run behind the other layers");
        }
    });
}

async fn child(program: &std::path::Path, what: &str, file: File, args: &Value) -> Result<Envelope> {
    let started = Command::new(program)
        .arg0("maru-sandbox")
        .args([CHILD_ARGUMENT, what, &args.to_string()])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(file))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = started.map_err(|e| Error::internal(format!("the sandbox for {what} could not be started"), e))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let work = async {
        let (output, complaint) = tokio::join!(read_up_to(stdout, MAX_OUTPUT + 1), read_up_to(stderr, MAX_COMPLAINT));
        if output.len() as u64 > MAX_OUTPUT {
            // Do not wait for a child that goes on writing into a pipe that nobody reads.
            let _ = child.start_kill();
        }
        (output, complaint, child.wait().await)
    };
    // On a timeout `work` is dropped and the child, still in `child`, is killed with it (kill_on_drop).
    let Ok((output, complaint, status)) = tokio::time::timeout(MAX_TIME, work).await else {
        return Err(Error::bad_request(format!(
            "the file was refused: reading it as {what} took longer than {} s",
            MAX_TIME.as_secs()
        )));
    };
    let status = status.map_err(|e| Error::internal("the sandbox's end was not seen", e))?;
    if output.len() as u64 > MAX_OUTPUT {
        return Err(Error::bad_request(format!(
            "the file was refused: {what} gave more than {MAX_OUTPUT} bytes"
        )));
    }
    match serde_json::from_slice::<Envelope>(&output) {
        Ok(envelope) if status.success() => Ok(envelope),
        _ => {
            let complaint = String::from_utf8_lossy(&complaint).trim().to_owned();
            let why = match status.signal() {
                Some(libc::SIGSYS) => "it drove the parser to a forbidden system call".to_owned(),
                Some(libc::SIGXCPU | libc::SIGKILL) => "it used up the parser's time".to_owned(),
                Some(signal) => format!("the parser died of signal {signal} (out of its 512 MiB, or damaged)"),
                None => format!("the parser gave no answer ({status})"),
            };
            tracing::warn!(what, %status, %complaint, "a sandboxed parser failed");
            Err(Error::bad_request(format!("the file was refused: {why}")))
        }
    }
}

/// Reads to the end or to `limit`, whichever comes first; an error ends it like an end.
async fn read_up_to(from: Option<impl AsyncRead + Unpin>, limit: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        let _ = from.take(limit).read_to_end(&mut bytes).await;
    }
    bytes
}
