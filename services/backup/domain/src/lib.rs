//! What the backup service decides; it does nothing itself.
//!
//! ```text
//!   StartBackup    --admission--> may it begin?      --plan--> which disks, with which tags
//!   "web@latest"   --reference--> one backup, none, or several
//!   snapshots      --snapshot---> the backups of the contract, newest first
//!   RestoreBackupAsVm  --plan-------> the new VM's definition and disks
//!   ApplyRetention --retention--> which backups are forgotten in this run, which are kept and why
//!   damage         --findings---> one sentence that names it
//!   a question     --repository_state--> answered now, or after which refresh
//! ```
//!
//! Promises: the same question gets the same answer; nothing here waits, reads a clock or touches a store.
//! It does not know the store's format: snapshots come as [`snapshot::SnapshotSummary`]. Next: the service's `sagas`, which carry
//! out what is decided here.

pub mod admission;
pub mod findings;
pub mod plan;
pub mod reference;
pub mod repository_state;
pub mod retention;
pub mod snapshot;

use contract::OperationId;

/// The id of an operation that another operation begins at another service: the same parent and purpose give the same
/// id, so that asking again after a crash is asking for the same thing.
pub fn derived_id(parent: &OperationId, purpose: &str) -> OperationId {
    let hash = blake3::hash(format!("{parent} {purpose}").as_bytes());
    let mut bits = [0; 16];
    bits.copy_from_slice(&hash.as_bytes()[..16]);
    OperationId::from_bits(u128::from_be_bytes(bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_id_is_the_same_each_time_and_another_for_each_purpose() {
        let parent = OperationId::from_bits(7);
        assert_eq!(derived_id(&parent, "create_vm"), derived_id(&parent, "create_vm"));
        assert_ne!(derived_id(&parent, "create_vm"), derived_id(&parent, "remove"));
        assert_ne!(derived_id(&parent, "create_vm"), parent);
    }
}
