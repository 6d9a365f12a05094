//! The QEMU driver: QMP, argv, virtual machine state machine, cgroups.
