//! Which disks a backup reads and which VM a restore creates.

use std::collections::BTreeSet;

use contract::backup::Backup;
use contract::provisioner::{DiskSize, OpenedDisks, VmDefinition};
use contract::{DiskName, HostName, VmName};

/// Why disk exports or a definition cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackupPlanError {
    /// The exports are on another host; a unix socket cannot be reached from here.
    #[error("the disks are on host {there} and this backup service is on {here}; run one on {there}")]
    DisksOnOtherHost {
        /// The host of the exports.
        there: HostName,
        /// Our host.
        here: HostName,
    },
    /// The VM has no disk.
    #[error("vm {0} has no disk to back up")]
    NoDisk(VmName),
    /// Two exports of one disk.
    #[error("disk {0} is exported twice")]
    DuplicateDisk(DiskName),
    /// The backup's definition cannot be read.
    #[error("the definition kept with the backup cannot be read: {0}")]
    UnreadableStoredDefinition(String),
}

/// Checks that opened disks can be backed up from this host: all of them, each once.
///
/// # Errors
/// When they are elsewhere, none, or named twice.
pub fn check_exports(here: &HostName, opened: &OpenedDisks) -> Result<(), BackupPlanError> {
    check_host(here, &opened.host)?;
    if opened.exports.is_empty() {
        return Err(BackupPlanError::NoDisk(opened.definition.name.clone()));
    }
    let mut seen = BTreeSet::new();
    match opened.exports.iter().find(|export| !seen.insert(&export.disk)) {
        Some(export) => Err(BackupPlanError::DuplicateDisk(export.disk.clone())),
        None => Ok(()),
    }
}

/// Checks that files or sockets are on our host.
///
/// # Errors
/// When they are on another host.
pub fn check_host(here: &HostName, there: &HostName) -> Result<(), BackupPlanError> {
    if here == there {
        return Ok(());
    }
    Err(BackupPlanError::DisksOnOtherHost { there: there.clone(), here: here.clone() })
}

/// The definition as it is kept with a backup.
pub fn write_definition(definition: &VmDefinition) -> Vec<u8> {
    serde_json::to_vec(definition).expect("a definition is plain data")
}

/// The definition of the VM that a restore creates: as it was, under a new name. It gets no domains: two VMs that
/// answer for one domain would be a trap.
///
/// # Errors
/// When the kept definition cannot be read.
pub fn restored_definition(kept: &[u8], as_vm: &VmName) -> Result<VmDefinition, BackupPlanError> {
    let kept: VmDefinition = serde_json::from_slice(kept)
        .map_err(|error| BackupPlanError::UnreadableStoredDefinition(error.to_string()))?;
    Ok(VmDefinition { name: as_vm.clone(), domains: Vec::new(), ..kept })
}

/// The disks that a restore needs.
pub fn disks_of(backup: &Backup) -> Vec<DiskSize> {
    let size = |disk: &contract::backup::BackedUpDisk| DiskSize { disk: disk.disk.clone(), size: disk.size };
    backup.disks.iter().map(size).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use contract::provisioner::{Consistency, DiskExport, DomainRoute};
    use contract::{ByteCount, DomainName, SeedName};

    use super::*;

    fn definition() -> VmDefinition {
        VmDefinition {
            name: VmName::new("web").expect("a valid name"),
            seed: SeedName::new("debian-12").expect("a valid name"),
            cpu_count: 1,
            ram_size: ByteCount::mib(512),
            disk_size: ByteCount::gib(2),
            domains: vec![DomainRoute {
                domain: DomainName::new("web.example").expect("a valid name"),
                port: 80,
            }],
            env: BTreeMap::from([("A".into(), "1".into())]),
            install: Vec::new(),
        }
    }

    fn opened(disks: &[&str]) -> OpenedDisks {
        let export = |disk: &&str| DiskExport {
            disk: DiskName::new(*disk).expect("a valid name"),
            size: ByteCount::gib(2),
            socket: "/run/x".into(),
            export_name: (*disk).into(),
        };
        OpenedDisks {
            host: HostName::new("h1").expect("a name"),
            exports: disks.iter().map(export).collect(),
            definition: definition(),
            opened_at: chrono::DateTime::UNIX_EPOCH,
            consistency: Consistency::Crash,
            lease_seconds: 90,
        }
    }

    #[test]
    fn a_backup_reads_every_disk_once_and_only_on_its_own_host() {
        let [here, other] = ["h1", "h2"].map(|name| HostName::new(name).expect("a valid name"));
        assert_eq!(check_exports(&here, &opened(&["vda", "vdb"])), Ok(()));
        assert!(matches!(check_exports(&here, &opened(&[])), Err(BackupPlanError::NoDisk(_))));
        assert!(matches!(
            check_exports(&here, &opened(&["vda", "vda"])),
            Err(BackupPlanError::DuplicateDisk(_))
        ));
        assert!(matches!(
            check_exports(&other, &opened(&["vda"])),
            Err(BackupPlanError::DisksOnOtherHost { .. })
        ));
    }

    #[test]
    fn a_restored_vm_has_a_new_name_and_no_domains() {
        let as_vm = VmName::new("web2").expect("a valid name");
        let restored = restored_definition(&write_definition(&definition()), &as_vm)
            .expect("the definition can be read");
        assert_eq!(restored.name, as_vm);
        assert!(restored.domains.is_empty());
        assert_eq!(restored.env, definition().env);
        assert!(restored_definition(b"<domain/>", &as_vm).is_err());
    }
}
