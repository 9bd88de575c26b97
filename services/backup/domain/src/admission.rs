//! Whether a backup may begin: a VM has one at a time, because its disks are opened at one moment for one
//! operation.

use contract::backup::StartBackupRefused;
use contract::{OperationId, VmName};

/// A backup that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningBackup {
    /// The operation that backs it up.
    pub operation: OperationId,
    /// The VM.
    pub vm: VmName,
}

/// Whether operation `id` may begin to back up `vm`, given what is under way.
///
/// # Errors
/// When another operation backs it up.
pub fn may_begin(
    vm: &VmName,
    id: &OperationId,
    under_way: &[RunningBackup],
) -> Result<(), StartBackupRefused> {
    match under_way.iter().find(|other| other.vm == *vm && other.operation != *id) {
        Some(other) => Err(StartBackupRefused::UnderWay { vm: vm.clone(), by: other.operation.clone() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_has_one_backup_at_a_time() {
        let [web, db] = ["web", "db"].map(|name| VmName::new(name).expect("a valid name"));
        let [first, second] = [1, 2].map(OperationId::from_bits);
        let under_way = [RunningBackup { operation: first.clone(), vm: web.clone() }];
        assert_eq!(may_begin(&db, &second, &under_way), Ok(()));
        assert_eq!(may_begin(&web, &first, &under_way), Ok(()), "its own command again");
        assert_eq!(
            may_begin(&web, &second, &under_way),
            Err(StartBackupRefused::UnderWay { vm: web, by: first })
        );
    }
}
