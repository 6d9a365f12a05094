//! The child's side: lock the door, parse, print, leave.

use crate::{CHILD_ARGUMENT, Envelope, Layers, PROBE, Parser};
use landlock::{ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus, Scope};
use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;

/// Bytes of address space that a parser may have.
const ADDRESS_SPACE: u64 = 512 << 20;
/// Seconds of CPU time that a parser may use.
const CPU_SECONDS: u64 = 10;
const ARCH: TargetArch = if cfg!(target_arch = "aarch64") {
    TargetArch::aarch64
} else {
    TargetArch::x86_64
};

/// Whether this process was started as a sandbox child. Ask it first thing in `main`.
#[must_use]
pub fn is_child() -> bool {
    std::env::args_os().nth(1).is_some_and(|a| a == CHILD_ARGUMENT)
}

/// Locks this process down, runs the parser that the arguments name out of `table` over fd 0, prints the answer, exits.
///
/// Call it before any thread is started: seccomp binds the calling thread and those that it starts later.
pub fn child_main(table: &[(&str, Parser)]) -> ! {
    let what = std::env::args().nth(2).unwrap_or_default();
    let args = std::env::args()
        .nth(3)
        .and_then(|a| serde_json::from_str(&a).ok())
        .unwrap_or(Value::Null);
    let found = table.iter().find(|(name, _)| *name == what).map(|(_, parser)| *parser);
    // Fd 0 becomes a `File` while `try_clone_to_owned` (dup) is still allowed.
    let file = std::io::stdin().as_fd().try_clone_to_owned().map(File::from);
    let envelope = match (lock_down(), file) {
        (Err(why), _) => Envelope {
            err: Some(format!("the sandbox could not be closed: {why}")),
            ..Envelope::default()
        },
        (_, Err(why)) => Envelope {
            err: Some(format!("the sandbox got no file: {why}")),
            ..Envelope::default()
        },
        (Ok(layers), Ok(mut file)) => {
            let result = match found {
                Some(parser) => parser(&mut file, args),
                None if what == PROBE => Ok(Value::Null),
                None => Err(format!("this program has no parser named {what:?}")),
            };
            match result {
                Ok(value) => Envelope {
                    layers,
                    ok: Some(value),
                    err: None,
                },
                Err(why) => Envelope {
                    layers,
                    ok: None,
                    err: Some(why),
                },
            }
        }
    };
    let text = serde_json::to_vec(&envelope).unwrap_or_default();
    let mut out = std::io::stdout().lock();
    let sent = out.write_all(&text).and_then(|()| out.flush());
    std::process::exit(i32::from(sent.is_err()));
}

/// Puts every layer in place; only landlock may be missing.
fn lock_down() -> Result<Layers, String> {
    let limit = |resource, value| {
        setrlimit(
            resource,
            Rlimit {
                current: Some(value),
                maximum: Some(value),
            },
        )
        .map_err(|e| format!("rlimit: {e}"))
    };
    limit(Resource::Core, 0)?;
    limit(Resource::Cpu, CPU_SECONDS)?;
    limit(Resource::Fsize, 1 << 20)?;
    limit(Resource::As, ADDRESS_SPACE)?;
    // Room for landlock's own descriptor, closed again before the parser runs.
    limit(Resource::Nofile, 8)?;
    rustix::thread::set_no_new_privs(true).map_err(|e| format!("no_new_privs: {e}"))?;
    let landlock = forbid_paths();
    limit(Resource::Nofile, 0)?;
    let (quiet, strict) = (unavailable(), filter());
    for program in [quiet, strict] {
        let program = program.map_err(|e| format!("seccomp: {e}"))?;
        seccompiler::apply_filter(&program).map_err(|e| format!("seccomp: {e}"))?;
    }
    Ok(Layers {
        process: true,
        limits: true,
        no_new_privs: true,
        landlock,
        seccomp: true,
    })
}

/// A landlock ruleset without a single rule: no path may be opened, no TCP port bound or reached.
fn forbid_paths() -> bool {
    let abi = ABI::V6;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))
        .and_then(|r| r.handle_access(AccessNet::from_all(abi)))
        .and_then(|r| r.scope(Scope::from_all(abi)))
        .and_then(|r| r.create())
        .and_then(|r| r.restrict_self());
    matches!(status, Ok(s) if s.ruleset != RulesetStatus::NotEnforced)
}

/// Calls that the standard library makes for a hint (the length of a file to be read) and lives without. They take paths,
/// so they cannot be allowed, and must not kill either.
fn unavailable() -> Result<BpfProgram, seccompiler::BackendError> {
    let rules = [libc::SYS_statx, libc::SYS_newfstatat]
        .into_iter()
        .map(|call| (call, Vec::new()))
        .collect();
    let fail = SeccompAction::Errno(libc::ENOSYS as u32);
    SeccompFilter::new(rules, SeccompAction::Allow, fail, ARCH)?.try_into()
}

/// The allow-list. Everything else kills the process, so that a parser that strays is noticed.
fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let arg = |index, op, value| SeccompCondition::new(index, SeccompCmpArgLen::Dword, op, value);
    let only = |conditions| SeccompRule::new(conditions);
    // PROT_EXEC must not be asked for: no new code can be brought in.
    let no_exec = || arg(2, SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64), 0);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for free in [
        libc::SYS_read,
        libc::SYS_pread64,
        libc::SYS_lseek,
        libc::SYS_close,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_brk,
        libc::SYS_futex,
        libc::SYS_exit,
        libc::SYS_exit_group,
        libc::SYS_rt_sigreturn,
        libc::SYS_rt_sigprocmask,
        libc::SYS_sigaltstack,
        libc::SYS_clock_gettime,
        libc::SYS_getrandom,
        // A panic tells its thread's number; `abort` needs the numbers for its signal.
        libc::SYS_gettid,
        libc::SYS_getpid,
        libc::SYS_madvise,
        // These two pass here only to fail as "unavailable" in the other filter.
        libc::SYS_statx,
        libc::SYS_newfstatat,
    ] {
        // No rule at all means "whatever the arguments".
        rules.insert(free, Vec::new());
    }
    rules.insert(libc::SYS_mmap, vec![only(vec![no_exec()?])?]);
    rules.insert(libc::SYS_mprotect, vec![only(vec![no_exec()?])?]);
    let own = u64::from(std::process::id());
    let abort = vec![
        arg(0, SeccompCmpOp::Eq, own)?,
        arg(2, SeccompCmpOp::Eq, libc::SIGABRT as u64)?,
    ];
    rules.insert(libc::SYS_tgkill, vec![only(abort)?]);
    // The standard library's debug builds look at a descriptor before they close it.
    rules.insert(
        libc::SYS_fcntl,
        vec![only(vec![arg(1, SeccompCmpOp::Eq, libc::F_GETFD as u64)?])?],
    );
    rules.insert(
        libc::SYS_write,
        vec![
            only(vec![arg(0, SeccompCmpOp::Eq, 1)?])?,
            only(vec![arg(0, SeccompCmpOp::Eq, 2)?])?,
        ],
    );
    SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, ARCH)?.try_into()
}
