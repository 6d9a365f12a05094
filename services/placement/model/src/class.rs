//! Resource classes and traits: the standard names (facts of os-resource-classes and os-traits) and custom ones.

use crate::ResourceProvider;
use maru_store::{Guard, Key, Kind, Object, Op, Snapshot, Txn};
use serde::{Deserialize, Serialize};

maru_base::typed_id!(
    /// Name of a custom resource class, `CUSTOM_…`.
    CustomClassId
);
maru_base::typed_id!(
    /// Name of a custom trait, `CUSTOM_…`.
    CustomTraitId
);

/// A custom resource class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CustomClass {
    /// When it was made.
    pub created_at: jiff::Timestamp,
}
impl Kind for CustomClass {
    type Id = CustomClassId;
    const NAME: &'static str = "resource_class";
}

/// A custom trait.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CustomTrait {
    /// When it was made.
    pub created_at: jiff::Timestamp,
}
impl Kind for CustomTrait {
    type Id = CustomTraitId;
    const NAME: &'static str = "trait";
}

/// The standard resource classes.
pub const STANDARD_CLASSES: &[&str] = &[
    "VCPU",
    "MEMORY_MB",
    "DISK_GB",
    "PCI_DEVICE",
    "SRIOV_NET_VF",
    "NUMA_SOCKET",
    "NUMA_CORE",
    "NUMA_THREAD",
    "NUMA_MEMORY_MB",
    "IPV4_ADDRESS",
    "VGPU",
    "VGPU_DISPLAY_HEAD",
    "NET_BW_EGR_KILOBIT_PER_SEC",
    "NET_BW_IGR_KILOBIT_PER_SEC",
    "PCPU",
    "MEM_ENCRYPTION_CONTEXT",
    "FPGA",
    "PGPU",
    "NET_PACKET_RATE_KILOPACKET_PER_SEC",
    "NET_PACKET_RATE_EGR_KILOPACKET_PER_SEC",
    "NET_PACKET_RATE_IGR_KILOPACKET_PER_SEC",
];

/// The standard traits that a cloud of virtual machines meets.
pub const STANDARD_TRAITS: &[&str] = &[
    "COMPUTE_ACCELERATORS",
    "COMPUTE_ADDRESS_SPACE_EMULATED",
    "COMPUTE_ADDRESS_SPACE_PASSTHROUGH",
    "COMPUTE_ARCH_AARCH64",
    "COMPUTE_ARCH_PPC64LE",
    "COMPUTE_ARCH_S390X",
    "COMPUTE_ARCH_X86_64",
    "COMPUTE_CONFIG_DRIVE_REGENERATION",
    "COMPUTE_DEVICE_TAGGING",
    "COMPUTE_EPHEMERAL_ENCRYPTION",
    "COMPUTE_EPHEMERAL_ENCRYPTION_LUKS",
    "COMPUTE_FIRMWARE_BIOS",
    "COMPUTE_FIRMWARE_UEFI",
    "COMPUTE_GRAPHICS_MODEL_BOCHS",
    "COMPUTE_GRAPHICS_MODEL_CIRRUS",
    "COMPUTE_GRAPHICS_MODEL_GOP",
    "COMPUTE_GRAPHICS_MODEL_NONE",
    "COMPUTE_GRAPHICS_MODEL_QXL",
    "COMPUTE_GRAPHICS_MODEL_VGA",
    "COMPUTE_GRAPHICS_MODEL_VIRTIO",
    "COMPUTE_GRAPHICS_MODEL_VMVGA",
    "COMPUTE_GRAPHICS_MODEL_XEN",
    "COMPUTE_IMAGE_TYPE_AKI",
    "COMPUTE_IMAGE_TYPE_AMI",
    "COMPUTE_IMAGE_TYPE_ARI",
    "COMPUTE_IMAGE_TYPE_ISO",
    "COMPUTE_IMAGE_TYPE_PLOOP",
    "COMPUTE_IMAGE_TYPE_QCOW2",
    "COMPUTE_IMAGE_TYPE_RAW",
    "COMPUTE_IMAGE_TYPE_VDI",
    "COMPUTE_IMAGE_TYPE_VHD",
    "COMPUTE_IMAGE_TYPE_VHDX",
    "COMPUTE_IMAGE_TYPE_VMDK",
    "COMPUTE_MANAGED_PCI_DEVICE",
    "COMPUTE_MEM_BACKING_FILE",
    "COMPUTE_MIGRATE_AUTO_CONVERGE",
    "COMPUTE_MIGRATE_POST_COPY",
    "COMPUTE_NET_ATTACH_INTERFACE",
    "COMPUTE_NET_ATTACH_INTERFACE_WITH_TAG",
    "COMPUTE_NET_VIF_MODEL_E1000",
    "COMPUTE_NET_VIF_MODEL_E1000E",
    "COMPUTE_NET_VIF_MODEL_IGB",
    "COMPUTE_NET_VIF_MODEL_LAN9118",
    "COMPUTE_NET_VIF_MODEL_NE2K_PCI",
    "COMPUTE_NET_VIF_MODEL_NETFRONT",
    "COMPUTE_NET_VIF_MODEL_PCNET",
    "COMPUTE_NET_VIF_MODEL_RTL8139",
    "COMPUTE_NET_VIF_MODEL_SPAPR_VLAN",
    "COMPUTE_NET_VIF_MODEL_VIRTIO",
    "COMPUTE_NET_VIF_MODEL_VMXNET3",
    "COMPUTE_NET_VIRTIO_PACKED",
    "COMPUTE_NODE",
    "COMPUTE_REMOTE_MANAGED_PORTS",
    "COMPUTE_RESCUE_BFV",
    "COMPUTE_SAME_HOST_COLD_MIGRATE",
    "COMPUTE_SECURITY_STATELESS_FIRMWARE",
    "COMPUTE_SECURITY_TPM_1_2",
    "COMPUTE_SECURITY_TPM_2_0",
    "COMPUTE_SECURITY_TPM_CRB",
    "COMPUTE_SECURITY_TPM_TIS",
    "COMPUTE_SECURITY_UEFI_SECURE_BOOT",
    "COMPUTE_SHARE_LOCAL_FS",
    "COMPUTE_SOCKET_PCI_NUMA_AFFINITY",
    "COMPUTE_SOUND_MODEL_AC97",
    "COMPUTE_SOUND_MODEL_ES1370",
    "COMPUTE_SOUND_MODEL_ICH6",
    "COMPUTE_SOUND_MODEL_ICH9",
    "COMPUTE_SOUND_MODEL_PCSPK",
    "COMPUTE_SOUND_MODEL_SB16",
    "COMPUTE_SOUND_MODEL_USB",
    "COMPUTE_SOUND_MODEL_VIRTIO",
    "COMPUTE_STATUS_DISABLED",
    "COMPUTE_STORAGE_BUS_FDC",
    "COMPUTE_STORAGE_BUS_IDE",
    "COMPUTE_STORAGE_BUS_LXC",
    "COMPUTE_STORAGE_BUS_SATA",
    "COMPUTE_STORAGE_BUS_SCSI",
    "COMPUTE_STORAGE_BUS_UML",
    "COMPUTE_STORAGE_BUS_USB",
    "COMPUTE_STORAGE_BUS_VIRTIO",
    "COMPUTE_STORAGE_BUS_XEN",
    "COMPUTE_STORAGE_VIRTIO_FS",
    "COMPUTE_TRUSTED_CERTS",
    "COMPUTE_USB_MODEL_QEMU_XHCI",
    "COMPUTE_VIOMMU_MODEL_AUTO",
    "COMPUTE_VIOMMU_MODEL_INTEL",
    "COMPUTE_VIOMMU_MODEL_SMMUV3",
    "COMPUTE_VIOMMU_MODEL_VIRTIO",
    "COMPUTE_VOLUME_ATTACH",
    "COMPUTE_VOLUME_ATTACH_WITH_TAG",
    "COMPUTE_VOLUME_EXTEND",
    "COMPUTE_VOLUME_MULTI_ATTACH",
    "HW_ARCH_AARCH64",
    "HW_ARCH_PPC64LE",
    "HW_ARCH_X86_64",
    "HW_CPU_AARCH64_AES",
    "HW_CPU_AMD_SEV",
    "HW_CPU_AMD_SEV_ES",
    "HW_CPU_HYPERTHREADING",
    "HW_CPU_X86_3DNOW",
    "HW_CPU_X86_ABM",
    "HW_CPU_X86_AESNI",
    "HW_CPU_X86_AVX",
    "HW_CPU_X86_AVX2",
    "HW_CPU_X86_AVX512BW",
    "HW_CPU_X86_AVX512CD",
    "HW_CPU_X86_AVX512DQ",
    "HW_CPU_X86_AVX512F",
    "HW_CPU_X86_AVX512VL",
    "HW_CPU_X86_AVX512VNNI",
    "HW_CPU_X86_BMI",
    "HW_CPU_X86_BMI2",
    "HW_CPU_X86_CLMUL",
    "HW_CPU_X86_F16C",
    "HW_CPU_X86_FMA3",
    "HW_CPU_X86_FMA4",
    "HW_CPU_X86_MMX",
    "HW_CPU_X86_MPX",
    "HW_CPU_X86_SHA",
    "HW_CPU_X86_SSE",
    "HW_CPU_X86_SSE2",
    "HW_CPU_X86_SSE3",
    "HW_CPU_X86_SSE41",
    "HW_CPU_X86_SSE42",
    "HW_CPU_X86_SSE4A",
    "HW_CPU_X86_SSSE3",
    "HW_CPU_X86_SVM",
    "HW_CPU_X86_TBM",
    "HW_CPU_X86_TSX",
    "HW_CPU_X86_VMX",
    "HW_CPU_X86_XOP",
    "HW_GPU_API_VULKAN",
    "HW_NIC_ACCEL_SSL",
    "HW_NIC_DCB_ETS",
    "HW_NIC_DCB_PFC",
    "HW_NIC_MULTIQUEUE",
    "HW_NIC_OFFLOAD_GRO",
    "HW_NIC_OFFLOAD_GSO",
    "HW_NIC_OFFLOAD_TSO",
    "HW_NIC_SRIOV",
    "HW_NIC_SRIOV_TRUSTED",
    "HW_NIC_VMDQ",
    "HW_NUMA_ROOT",
    "HW_PCI_ONE_SHOT",
    "MISC_SHARES_VIA_AGGREGATE",
    "OWNER_CYBORG",
    "OWNER_NOVA",
    "STORAGE_DISK_HDD",
    "STORAGE_DISK_SSD",
];

/// Whether a name has the form of a custom class or trait: `CUSTOM_` and upper-case letters, digits, underscores,
/// 255 characters at most.
#[must_use]
pub fn is_custom(name: &str) -> bool {
    name.len() <= 255
        && name.strip_prefix("CUSTOM_").is_some_and(|rest| {
            !rest.is_empty()
                && rest
                    .bytes()
                    .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
        })
}

/// Whether there is such a resource class.
#[must_use]
pub fn knows_class(snapshot: &Snapshot, name: &str) -> bool {
    STANDARD_CLASSES.contains(&name) || snapshot.get::<CustomClass>(&CustomClassId::from(name)).is_some()
}

/// Whether there is such a trait.
#[must_use]
pub fn knows_trait(snapshot: &Snapshot, name: &str) -> bool {
    STANDARD_TRAITS.contains(&name) || snapshot.get::<CustomTrait>(&CustomTraitId::from(name)).is_some()
}

/// The trait of a provider that others use through a common aggregate.
pub const SHARES: &str = "MISC_SHARES_VIA_AGGREGATE";

/// Makes a custom class; the commit conflicts when another one made it meanwhile.
pub fn plan_create_class(txn: &mut Txn, name: &str) {
    let created_at = maru_base::time::now();
    txn.create(&CustomClassId::from(name), &CustomClass { created_at });
}

/// Makes a custom trait; the commit conflicts when another one made it meanwhile.
pub fn plan_create_trait(txn: &mut Txn, name: &str) {
    let created_at = maru_base::time::now();
    txn.create(&CustomTraitId::from(name), &CustomTrait { created_at });
}

/// Removes a custom class that no provider has an inventory of; tells whether it could.
#[must_use]
pub fn plan_delete_class(snapshot: &Snapshot, txn: &mut Txn, class: &Object<CustomClass>) -> bool {
    if snapshot.find::<ResourceProvider>("class", &class.id).next().is_some() {
        return false;
    }
    txn.delete(class);
    end_uses(snapshot, txn, &class_uses(&class.id));
    true
}

/// Removes a custom trait that no provider has; tells whether it could.
#[must_use]
pub fn plan_delete_trait(snapshot: &Snapshot, txn: &mut Txn, custom: &Object<CustomTrait>) -> bool {
    if snapshot.find::<ResourceProvider>("trait", &custom.id).next().is_some() {
        return false;
    }
    txn.delete(custom);
    end_uses(snapshot, txn, &trait_uses(&custom.id));
    true
}

/// A provider begins to have a class: a custom one must be there, and its deletion must see it.
pub(crate) fn use_class(txn: &mut Txn, name: &str) {
    if is_custom(name) {
        txn.alive::<CustomClass>(&CustomClassId::from(name));
        txn.bump_epoch(&class_uses(name));
    }
}

/// A provider begins to have a trait: a custom one must be there, and its deletion must see it.
pub(crate) fn use_trait(txn: &mut Txn, name: &str) {
    if is_custom(name) {
        txn.alive::<CustomTrait>(&CustomTraitId::from(name));
        txn.bump_epoch(&trait_uses(name));
    }
}

fn class_uses(name: &str) -> String {
    format!("resource_class:{name}")
}

fn trait_uses(name: &str) -> String {
    format!("trait:{name}")
}

/// Guards that the set of a name's uses is as it was read, and forgets it.
pub(crate) fn end_uses(snapshot: &Snapshot, txn: &mut Txn, set: &str) {
    let key = Key::of(&["epoch", set]);
    match snapshot.raw(&key) {
        Some((revision, _)) => {
            txn.guard(Guard::At(key.clone(), revision));
            txn.op(Op::Delete(key));
        }
        None => {
            txn.guard(Guard::Absent(key));
        }
    }
}
