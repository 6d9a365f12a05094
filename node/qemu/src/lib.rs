//! The QEMU driver: QMP, argv, virtual machine state machine, cgroups.
//!
//! [`Hypervisor`] is the seam; [`Qemu`] the driver. `Qemu::new(Options)` is cheap; call
//! [`Hypervisor::adopt_all`] once before anything else.

pub mod config;
mod driver;
mod hypervisor;

pub use config::{Backing, DiskFormat, GuestConfig, GuestDisk, GuestNic, Options, tap_name};
pub use driver::Qemu;
pub use hypervisor::{Accelerator, AcceleratorKind, GuestEvent, GuestStatus, Hypervisor, StartTimes};
