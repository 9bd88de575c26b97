//! From a record to the VM that a hypervisor is to define.

use std::path::Path;

use contract::{OperationId, Realm};
use provisioner_domain::{DiskSource, VmRecord};

use crate::ports::{Disk, Disks, Image, ImageFormat, VmMark, VmSpec};

/// The definition of a record's VM. `operation` is the one that defines it.
pub fn vm_spec_of(record: &VmRecord, realm: &Realm, operation: &OperationId, disks: &dyn Disks) -> VmSpec {
    let folder = disks.folder(record.name());
    let served_ports: std::collections::BTreeSet<u16> =
        record.definition.domains.iter().map(|route| route.port).collect();
    VmSpec {
        name: format!("{realm}-{}", record.name()),
        uuid: record.identity.uuid.clone(),
        mac: record.identity.mac.clone(),
        cpu_count: record.definition.cpu_count,
        ram_size: record.definition.ram_size,
        disks: disks_of(record, disks),
        nocloud_volume: nocloud_in(&folder),
        console_log: console_in(&folder),
        simulated_ports: served_ports.into_iter().collect(),
        mark: VmMark {
            realm: realm.clone(),
            vm: record.name().clone(),
            cloud_init_generation: record.cloud_init_generation,
            operation: operation.clone(),
        },
    }
}

/// The disks of a record, the one to boot from first.
pub(crate) fn disks_of(record: &VmRecord, disks: &dyn Disks) -> Vec<Disk> {
    let folder = disks.folder(record.name());
    let (format, base) = match &record.source {
        DiskSource::Seed { sha256 } => (ImageFormat::Qcow2, Some(disks.seed_image(sha256))),
        DiskSource::Restored { .. } => (ImageFormat::Raw, None),
    };
    let disk = |name: &contract::DiskName| Disk {
        name: name.clone(),
        image: Image { path: folder.join(format!("{name}.{}", format.name())), format },
        base: base.clone(),
    };
    record.disks().iter().map(|each| disk(&each.disk)).collect()
}

pub(crate) fn nocloud_in(folder: &Path) -> std::path::PathBuf {
    folder.join("nocloud.img")
}

pub(crate) fn console_in(folder: &Path) -> std::path::PathBuf {
    folder.join("console.log")
}
