//! Finds out how guests run here: under KVM, or translated by QEMU (TCG).
//!
//! That `/dev/kvm` opens, answers its version and makes virtual machines proves nothing: there are hosts (nested ones
//! whose kernel emulates ring 0) where all of that works and a guest kernel crawls at a millionth of the speed. So the
//! static signs are read first, and then a counting loop really runs in a tiny machine, for a bounded time.
#![allow(unsafe_code)]

use crate::hypervisor::{Accelerator, AcceleratorKind};
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VcpuExit};
use maru_base::{Error, Result};
use std::path::Path;
use std::time::{Duration, Instant};

/// Loop iterations after which KVM counts as real: a processor does them in a few milliseconds, an emulated ring 0 would
/// take half a minute.
const ENOUGH: u64 = 10_000_000;
/// The time they may take.
const BOUND: Duration = Duration::from_millis(300);
/// Iterations between two exits of the loop, the size of its 16-bit counter.
const PER_EXIT: u64 = 65_536;
/// `mov cx, 0` (that is 65,536 turns); `loop $`; `out 0x10, al`; `jmp` to the start. Real mode, so no tables are needed.
const CODE: [u8; 9] = [0xb9, 0x00, 0x00, 0xe2, 0xfe, 0xe6, 0x10, 0xeb, 0xf7];

/// Probes the machine and QEMU's version.
///
/// # Errors
/// `Internal` when QEMU itself is missing or does not tell its version.
pub async fn probe(program: &Path) -> Result<Accelerator> {
    let version = version(program).await?;
    let (kind, why) = match tokio::task::spawn_blocking(kvm_works).await {
        Ok(Ok(why)) => (AcceleratorKind::Kvm, why),
        Ok(Err(why)) => (AcceleratorKind::Tcg, why),
        Err(e) => (
            AcceleratorKind::Tcg,
            format!("the probe of KVM stopped unexpectedly: {e}"),
        ),
    };
    Ok(Accelerator { kind, why, version })
}

/// `QEMU emulator version 10.0.2 (Debian ...)` as 10,000,002.
async fn version(program: &Path) -> Result<u64> {
    let output = tokio::process::Command::new(program)
        .arg("-version")
        .env_clear()
        .kill_on_drop(true)
        .output();
    let failed = || {
        format!(
            "{} does not tell its version; is qemu-system-x86 installed?",
            program.display()
        )
    };
    let output = tokio::time::timeout(Duration::from_secs(20), output)
        .await
        .map_err(|e| Error::internal(failed(), e))?
        .map_err(|e| Error::internal(failed(), e))?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
        .ok_or_else(|| Error::internal(failed(), std::io::Error::other(output.status.to_string())))
}

fn parse_version(text: &str) -> Option<u64> {
    let number = text.split("version ").nth(1)?.split([' ', '\n', '(', '-']).next()?;
    let mut parts = number.split('.').map(|p| p.parse::<u64>().ok());
    Some(parts.next()?? * 1_000_000 + parts.next().flatten().unwrap_or(0) * 1_000 + parts.next().flatten().unwrap_or(0))
}

/// `Ok`: why KVM is real. `Err`: why it is not used.
fn kvm_works() -> std::result::Result<String, String> {
    if !Path::new("/dev/kvm").exists() {
        return Err("there is no /dev/kvm".to_owned());
    }
    if Path::new("/sys/module/kvm_pvm").exists() {
        return Err("KVM is the pvm kind, which emulates guest kernels".to_owned());
    }
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if !has_virtualization(&cpuinfo) {
        return Err("/proc/cpuinfo has neither vmx nor svm".to_owned());
    }
    // A thread of its own: a processor that hangs inside KVM_RUN must not hang us. It is left behind then.
    let (sender, receiver) = std::sync::mpsc::channel();
    let helper = std::thread::Builder::new().name("kvm-probe".to_owned()).spawn(move || {
        let _ = sender.send(count());
    });
    helper.map_err(|e| format!("the probe of KVM was not started: {e}"))?;
    match receiver.recv_timeout(BOUND * 4) {
        Ok(Ok((turns, took))) if turns >= ENOUGH => Ok(format!("a test guest ran {turns} turns in {took:?}")),
        Ok(Ok((turns, took))) => Err(format!("KVM is too slow: a test guest ran {turns} turns in {took:?}")),
        Ok(Err(e)) => Err(format!("KVM cannot run a test guest: {e}")),
        Err(_) => Err("KVM hung in a test guest".to_owned()),
    }
}

fn has_virtualization(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .find(|line| line.starts_with("flags") || line.starts_with("Features"))
        .is_some_and(|line| line.split_whitespace().any(|flag| flag == "vmx" || flag == "svm"))
}

/// A page of guest memory, unmapped when dropped.
struct Page(std::ptr::NonNull<libc::c_void>);

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `mmap` with this very length and nothing refers to it any more: the virtual
        // machine that used it is dropped before it (declared later).
        let _ = unsafe { libc::munmap(self.0.as_ptr(), 4096) };
    }
}

fn count() -> std::result::Result<(u64, Duration), String> {
    let text = |what: &'static str| move |e: kvm_ioctls::Error| format!("{what}: {e}");
    // SAFETY: an anonymous mapping of one page at no particular address; the result is checked below.
    let page = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    let page = std::ptr::NonNull::new(page)
        .filter(|p| p.as_ptr() != libc::MAP_FAILED)
        .map(Page);
    let page = page.ok_or("no page of memory")?;
    // SAFETY: the page is ours, 4096 bytes long, and CODE has 9.
    unsafe { std::ptr::copy_nonoverlapping(CODE.as_ptr(), page.0.as_ptr().cast(), CODE.len()) };

    let kvm = Kvm::new().map_err(text("open"))?;
    let vm = kvm.create_vm().map_err(text("machine"))?;
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0x1000,
        memory_size: 4096,
        userspace_addr: page.0.as_ptr() as u64,
    };
    // SAFETY: the region is the page above, which outlives the machine, and nothing else refers to it.
    unsafe { vm.set_user_memory_region(region) }.map_err(text("memory"))?;
    let mut cpu = vm.create_vcpu(0).map_err(text("processor"))?;
    let mut special = cpu.get_sregs().map_err(text("registers"))?;
    special.cs.base = 0;
    special.cs.selector = 0;
    cpu.set_sregs(&special).map_err(text("registers"))?;
    let mut registers = cpu.get_regs().map_err(text("registers"))?;
    registers.rip = 0x1000;
    registers.rflags = 2;
    cpu.set_regs(&registers).map_err(text("registers"))?;

    let begun = Instant::now();
    let mut turns = 0;
    while turns < ENOUGH && begun.elapsed() < BOUND {
        match cpu.run() {
            Ok(VcpuExit::IoOut(0x10, _)) => turns += PER_EXIT,
            Ok(other) => return Err(format!("an unexpected exit: {other:?}")),
            Err(e) if e.errno() == libc::EINTR => {}
            Err(e) => return Err(format!("run: {e}")),
        }
    }
    Ok((turns, begun.elapsed()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::print_stdout)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_counted_as_nova_counts() {
        assert_eq!(
            parse_version("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright"),
            Some(10_000_002)
        );
        assert_eq!(parse_version("QEMU emulator version 9.2.0\n"), Some(9_002_000));
        assert_eq!(parse_version("something else"), None);
    }

    #[test]
    fn flags_decide_before_the_device_does() {
        assert!(has_virtualization("flags\t\t: fpu vme vmx sse\n"));
        assert!(has_virtualization("flags\t\t: fpu svm\n"));
        assert!(!has_virtualization("flags\t\t: fpu vmx_not svmish\nbugs : vmx\n"));
    }

    #[test]
    fn the_loop_is_bounded_wherever_it_runs() {
        let begun = Instant::now();
        let answer = kvm_works();
        println!("KVM: {answer:?} after {:?}", begun.elapsed());
        println!("the bare loop: {:?}", Path::new("/dev/kvm").exists().then(count));
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}
