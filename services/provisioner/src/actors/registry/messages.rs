//! The registry's messages.

use actix::Message;
use bus::{ErrorReply, TableError};
use contract::message::Failure;
use contract::provisioner::{
    AddSeedRefused, CreateVmRefused, DiskSize, RemoveSeedRefused, Seed, VmDefinition, VmRefused,
};
use contract::{OperationId, SeedName, VmName};
use provisioner_domain::{Inventory, SeedImageRecord, VmRecord, VmTransition};

/// Returns all records.
#[derive(Message)]
#[rtype(result = "Inventory")]
pub(crate) struct GetInventory;

/// Writes rows again whose table was lost.
#[derive(Message)]
#[rtype(result = "Result<(), TableError>")]
pub(crate) struct RestoreRows;

/// Returns one VM's record.
#[derive(Message)]
#[rtype(result = "Result<Option<VmRecord>, Failure>")]
pub(crate) struct FindVmRecord(pub(crate) VmName);

/// Creates the record of a new VM.
#[derive(Message)]
#[rtype(result = "Result<VmRecord, ErrorReply<CreateVmRefused>>")]
pub(crate) struct CreateVmRecord {
    pub(crate) definition: VmDefinition,
    pub(crate) by: OperationId,
}

/// Reserves a name for a restore.
#[derive(Message)]
#[rtype(result = "Result<VmRecord, ErrorReply<CreateVmRefused>>")]
pub(crate) struct ReserveVmForRestore {
    pub(crate) definition: VmDefinition,
    pub(crate) disks: Vec<DiskSize>,
    pub(crate) by: OperationId,
}

/// Makes a transition of a record.
#[derive(Message)]
#[rtype(result = "Result<VmRecord, ErrorReply<VmRefused>>")]
pub(crate) struct ApplyVmTransition {
    pub(crate) vm: VmName,
    pub(crate) transition: VmTransition,
}

/// Removes the record of a VM that an operation has locked; a no-op where it has not. Returns whether there was one.
#[derive(Message)]
#[rtype(result = "Result<bool, ErrorReply<VmRefused>>")]
pub(crate) struct DeleteVmRecord {
    pub(crate) vm: VmName,
    pub(crate) by: OperationId,
}

/// Writes a removed record again, where its name is still free. Idempotent.
#[derive(Message)]
#[rtype(result = "Result<VmRecord, ErrorReply<VmRefused>>")]
pub(crate) struct ReinsertVmRecord(pub(crate) VmRecord);

/// Records that a seed is being imported; nothing where this very one is imported already.
#[derive(Message)]
#[rtype(result = "Result<Option<SeedImageRecord>, ErrorReply<AddSeedRefused>>")]
pub(crate) struct BeginSeedImageImport {
    pub(crate) name: SeedName,
    pub(crate) sha256: String,
    pub(crate) by: OperationId,
}

/// Writes a seed's record as its operation has it.
#[derive(Message)]
#[rtype(result = "Result<SeedImageRecord, ErrorReply<AddSeedRefused>>")]
pub(crate) struct PutSeedImageRecord(pub(crate) SeedImageRecord);

/// Removes the record of the seed that an operation was importing; a no-op where there is none.
#[derive(Message)]
#[rtype(result = "Result<(), ErrorReply<AddSeedRefused>>")]
pub(crate) struct RemoveSeedImageImport {
    pub(crate) name: SeedName,
    pub(crate) by: OperationId,
}

/// Removes a seed's record. Returns the seed, and whether its image is still needed.
#[derive(Message)]
#[rtype(result = "Result<(Seed, bool), ErrorReply<RemoveSeedRefused>>")]
pub(crate) struct RemoveSeedImageRecord(pub(crate) SeedName);
