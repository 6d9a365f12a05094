//! Confines a program that runs as long as it is needed and speaks to other machines: it reads its libraries and its own
//! directory, writes the files it is for, binds one port, reaches nothing, and has no capability.
//!
//! Made before the fork, entered between fork and exec ([`crate::process`]). Landlock (paths, ports, signals) is used where the
//! kernel has it; the rest is everywhere.

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, Scope,
};
use maru_base::{Error, Result};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use std::os::fd::OwnedFd;
use std::path::Path;

/// What a program is held by.
#[derive(Debug)]
pub struct Confinement {
    /// Landlock's rules; `None` on a kernel without it.
    pub ruleset: Option<OwnedFd>,
    /// Calls that it must not make.
    pub filter: BpfProgram,
}

/// Calls that no storage daemon makes: new namespaces and mounts, other processes' memory, kernel modules and programs, keys,
/// clocks.
const FORBIDDEN: &[libc::c_long] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_userfaultfd,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
];

const ARCH: TargetArch = if cfg!(target_arch = "aarch64") {
    TargetArch::aarch64
} else {
    TargetArch::x86_64
};

impl Confinement {
    /// A confinement for `program`, which writes `writable` and binds `port`.
    ///
    /// # Errors
    /// `Internal` when a path is not there or the filter cannot be made.
    pub fn new(program: &Path, writable: &[&Path], port: u16) -> Result<Self> {
        let ruleset = ruleset(program, writable, port)
            .map_err(|e| Error::internal("the storage daemon's confinement was not made", e))?;
        let rules = FORBIDDEN.iter().map(|call| (*call, Vec::new())).collect();
        let refuse = SeccompAction::Errno(libc::EPERM as u32);
        let filter: BpfProgram = SeccompFilter::new(rules, SeccompAction::Allow, refuse, ARCH)
            .and_then(TryInto::try_into)
            .map_err(|e| Error::internal("the storage daemon's filter was not made", e))?;
        Ok(Self {
            ruleset: ruleset.into(),
            filter,
        })
    }
}

fn ruleset(
    program: &Path,
    writable: &[&Path],
    port: u16,
) -> std::result::Result<RulesetCreated, Box<dyn std::error::Error + Send + Sync>> {
    let abi = ABI::V6;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?;
    let read = AccessFs::from_read(abi);
    let mut allow = |path: &Path,
                     access: BitFlags<AccessFs>|
     -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if !path.exists() {
            return Ok(());
        }
        // What is meant for directories cannot be allowed on a file.
        let access = if path.is_dir() {
            access
        } else {
            access & AccessFs::from_file(abi)
        };
        (&mut rules).add_rule(PathBeneath::new(PathFd::new(path)?, access))?;
        Ok(())
    };
    allow(program, read)?;
    for library in ["/usr/lib", "/usr/lib64", "/lib", "/lib64"] {
        allow(Path::new(library), read)?;
    }
    for fact in ["/etc", "/usr/share", "/proc", "/sys/devices/system/cpu"] {
        allow(Path::new(fact), AccessFs::ReadFile | AccessFs::ReadDir)?;
    }
    for device in ["/dev/null", "/dev/urandom", "/dev/random", "/dev/zero"] {
        allow(Path::new(device), AccessFs::ReadFile | AccessFs::WriteFile)?;
    }
    for path in writable {
        allow(path, AccessFs::from_all(abi) & !AccessFs::Execute)?;
    }
    Ok(rules.add_rule(NetPort::new(port, AccessNet::BindTcp))?)
}
