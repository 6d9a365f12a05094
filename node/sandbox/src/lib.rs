//! Runs parsers of tenant-controlled bytes in a locked-down child process.
//!
//! ```text
//!   parent                              child (the same binary, argv[1] = "__sandbox")
//!   ------                              -----
//!   run(what, file, args)
//!     spawn /proc/self/exe ───────────▶ child_main(table)
//!       fd 0 = the file, read-only        rlimits: 512 MiB of addresses, 10 s of CPU, no files, no core
//!       fd 1 = a pipe                     no_new_privs
//!       empty environment                 landlock: no path of the file system, no TCP
//!                                         seccomp: read and seek fd 0, write fds 1 and 2, memory, exit
//!                                         parse
//!     read ≤ 1 MiB within 10 s ◀───────── one JSON envelope: {"layers": […], "ok": …} or {"err": "…"}
//!     else kill
//! ```
//!
//! A hostile image that takes over the parser finds itself in a process that can open nothing, reach no network, start
//! nothing, and whose every byte of output is read as JSON by a bounded reader. A kernel without landlock loses that
//! layer only: seccomp alone already leaves no system call that opens a path; [`layers`] says what is on.
//!
//! The program's `main` must hand over before it does anything else (threads, logging, configuration):
//!
//! ```no_run
//! fn parse(_file: &mut dyn maru_sandbox::ReadSeek, _args: serde_json::Value) -> Result<serde_json::Value, String> {
//!     Ok(serde_json::Value::Null)
//! }
//! if maru_sandbox::is_child() {
//!     maru_sandbox::child_main(&[("parse", parse)]);
//! }
//! ```

mod child;
mod parent;

pub use child::{child_main, is_child};
pub use parent::{layers, run, set_program, use_in_process};

use serde_json::Value;
use std::io::{Read, Seek};

/// What a parser reads from: the untrusted file.
pub trait ReadSeek: Read + Seek {}
impl<T: Read + Seek> ReadSeek for T {}

/// A parser of untrusted bytes. It must not open, print or start anything: the sandbox kills it if it tries.
///
/// An `Err` is the parser's refusal of the file, in words for the user.
pub type Parser = fn(&mut dyn ReadSeek, Value) -> Result<Value, String>;

/// `argv[1]` of the child.
pub(crate) const CHILD_ARGUMENT: &str = "__sandbox";
/// The parser that every child has: it does nothing and so reports the layers.
pub(crate) const PROBE: &str = "__layers";

/// What the child writes.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Envelope {
    /// The layers that were in place while the parser ran.
    pub layers: Layers,
    /// The parser's answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ok: Option<Value>,
    /// The parser's refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub err: Option<String>,
}

/// The layers of the sandbox that this machine's kernel gives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Layers {
    /// Runs in a process of its own.
    pub process: bool,
    /// Resource limits: memory, CPU time, files.
    pub limits: bool,
    /// `no_new_privs`.
    pub no_new_privs: bool,
    /// Landlock: no path can be opened.
    pub landlock: bool,
    /// Seccomp: a short list of system calls.
    pub seccomp: bool,
}

impl std::fmt::Display for Layers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = [
            ("process", self.process),
            ("limits", self.limits),
            ("no-new-privs", self.no_new_privs),
            ("landlock", self.landlock),
            ("seccomp", self.seccomp),
        ];
        let on: Vec<&str> = all.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
        let off: Vec<&str> = all.iter().filter(|(_, on)| !*on).map(|(name, _)| *name).collect();
        write!(
            f,
            "{}",
            if on.is_empty() {
                "none".to_owned()
            } else {
                on.join(", ")
            }
        )?;
        if !off.is_empty() {
            write!(f, " (off: {})", off.join(", "))?;
        }
        Ok(())
    }
}
