//! Tests on the real machine: QEMU, packets, namespaces.
