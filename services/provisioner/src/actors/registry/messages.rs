//! What can be said to the registry.

use actix::Message;
use bus::Declined;
use contract::provisioner::{
    AddSeedRefused, CreateVmRefused, DiskSize, RemoveSeedRefused, Seed, VmDefinition, VmRefused,
};
use contract::{OperationId, SeedName, VmName};
use provisioner_domain::{Inventory, SeedRecord, VmTransition, VmRecord};

/// Looks at all records; changes nothing.
#[derive(Message)]
#[rtype(result = "Inventory")]
pub(crate) struct Look;

/// Makes the record of a new machine.
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

/// Makes a move with a record.
#[derive(Message)]
#[rtype(result = "Result<VmRecord, Declined<VmRefused>>")]
pub(crate) struct Make {
    pub(crate) vm: VmName,
    pub(crate) this: VmTransition,
}

/// Forgets a machine that an operation has locked. Calm when it is gone; tells whether it was there.
#[derive(Message)]
#[rtype(result = "Result<bool, Declined<VmRefused>>")]
pub(crate) struct Forget {
    pub(crate) vm: VmName,
    pub(crate) by: OperationId,
}

/// Brings a forgotten record back, where its name is still free. Calm when it is there.
#[derive(Message)]
#[rtype(result = "Result<VmRecord, Declined<VmRefused>>")]
pub(crate) struct Remember(pub(crate) VmRecord);

/// Writes down that a seed is being brought here; nothing where just this one is here already.
#[derive(Message)]
#[rtype(result = "Result<Option<SeedRecord>, Declined<AddSeedRefused>>")]
pub(crate) struct ExpectSeed {
    pub(crate) name: SeedName,
    pub(crate) sha256: String,
    pub(crate) by: OperationId,
}

/// Writes a seed's record as its operation has it.
#[derive(Message)]
#[rtype(result = "Result<SeedRecord, Declined<AddSeedRefused>>")]
pub(crate) struct KeepSeed(pub(crate) SeedRecord);

/// Forgets the seed that an operation was bringing. Calm when there is none.
#[derive(Message)]
#[rtype(result = "Result<(), Declined<AddSeedRefused>>")]
pub(crate) struct UnexpectSeed {
    pub(crate) name: SeedName,
    pub(crate) by: OperationId,
}

/// Removes a seed's record; tells whether anybody still needs its image.
#[derive(Message)]
#[rtype(result = "Result<(Seed, bool), Declined<RemoveSeedRefused>>")]
pub(crate) struct RemoveSeedRecord(pub(crate) SeedName);
