//! The registry's messages.

use actix::Message;
use bus::Declined;
use contract::provisioner::{
    AddSeedRefused, CreateVmRefused, DiskSize, RemoveSeedRefused, Seed, VmDefinition, VmRefused,
};
use contract::{OperationId, SeedName, VmName};
use provisioner_domain::{Inventory, SeedRecord, VmRecord, VmTransition};

/// Returns all records.
#[derive(Message)]
#[rtype(result = "Inventory")]
pub(crate) struct Snapshot;

/// Returns one VM's record.
#[derive(Message)]
#[rtype(result = "Option<VmRecord>")]
pub(crate) struct Find(pub(crate) VmName);

/// Creates the record of a new VM.
#[derive(Message)]
#[rtype(result = "Result<VmRecord, Declined<CreateVmRefused>>")]
pub(crate) struct Create {
    pub(crate) definition: VmDefinition,
    pub(crate) by: OperationId,
}

/// Reserves a name for a restore.
#[derive(Message)]
#[rtype(result = "Result<VmRecord, Declined<CreateVmRefused>>")]
pub(crate) struct Reserve {
    pub(crate) definition: VmDefinition,
    pub(crate) disks: Vec<DiskSize>,
    pub(crate) by: OperationId,
}

/// Makes a transition of a record.
#[derive(Message)]
#[rtype(result = "Result<VmRecord, Declined<VmRefused>>")]
pub(crate) struct Apply {
    pub(crate) vm: VmName,
    pub(crate) transition: VmTransition,
}

/// Removes the record of a VM that an operation has locked; a no-op where it has not. Returns whether there was one.
#[derive(Message)]
#[rtype(result = "Result<bool, Declined<VmRefused>>")]
pub(crate) struct Forget {
    pub(crate) vm: VmName,
    pub(crate) by: OperationId,
}

/// Writes a removed record again, where its name is still free. Idempotent.
#[derive(Message)]
#[rtype(result = "Result<VmRecord, Declined<VmRefused>>")]
pub(crate) struct Remember(pub(crate) VmRecord);

/// Records that a seed is being imported; nothing where this very one is imported already.
#[derive(Message)]
#[rtype(result = "Result<Option<SeedRecord>, Declined<AddSeedRefused>>")]
pub(crate) struct AnnounceSeed {
    pub(crate) name: SeedName,
    pub(crate) sha256: String,
    pub(crate) by: OperationId,
}

/// Writes a seed's record as its operation has it.
#[derive(Message)]
#[rtype(result = "Result<SeedRecord, Declined<AddSeedRefused>>")]
pub(crate) struct StoreSeed(pub(crate) SeedRecord);

/// Removes the record of the seed that an operation was importing; a no-op where there is none.
#[derive(Message)]
#[rtype(result = "Result<(), Declined<AddSeedRefused>>")]
pub(crate) struct WithdrawSeed {
    pub(crate) name: SeedName,
    pub(crate) by: OperationId,
}

/// Removes a seed's record. Returns the seed, and whether its image is still needed.
#[derive(Message)]
#[rtype(result = "Result<(Seed, bool), Declined<RemoveSeedRefused>>")]
pub(crate) struct RemoveSeedRecord(pub(crate) SeedName);
