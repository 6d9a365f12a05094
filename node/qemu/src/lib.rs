//! The QEMU driver: QMP, argv, virtual machine state machine, cgroups.
//!
//! [`Hypervisor`] is the seam; [`Qemu`] the driver. `Qemu::new(Options)` is cheap; call
//! [`Hypervisor::adopt_all`] once before anything else.
//!
//! A guest is one task and one state machine (module `vm`), one directory, one process:
//!
//! ```text
//! <dir>/servers/<id>/config.json     what it is, and the devices of its process (module `record`)
//!                    qemu.pid        pid and start time, for people; adoption asks the kernel (module `process`)
//!                    qmp.sock        QEMU's monitor (module `qmp`)
//!                    serial.sock     its serial console      vnc.sock   its screen
//!                    console.log     what the serial console printed, bounded; console.log.1 before that
//!                    qemu.log        what QEMU itself says
//!                    memory.state    saved memory of a suspended guest
//! <dir>/exports/<volume>/…           a volume that is offered to other nodes (module `exporter`)
//! ```

mod accel;
pub mod argv;
mod cgroup;
pub mod config;
mod confine;
mod console;
mod driver;
mod exporter;
mod hypervisor;
mod process;
pub mod qmp;
pub mod record;
mod tap;
mod vm;

pub use config::{Backing, DiskFormat, GuestConfig, GuestDisk, GuestNic, Options, tap_name};
pub use driver::Qemu;
pub use exporter::{ExporterOptions, StorageDaemons};
pub use hypervisor::{Accelerator, AcceleratorKind, GuestEvent, GuestStatus, Hypervisor, StartTimes};
