//! What the provisioner decides, without doing any of it: values and their transitions.
//!
//! ```text
//!   web.toml --definition--> VmDefinition --bounds, capacity--> may it be created?
//!                                  |
//!   Inventory { VmRecord.., SeedImageRecord.. }        a name is used once, a domain by one VM, a seed in use stays
//!                                  |
//!   VmRecord:  Reserved --> Creating --> Exists { desired, observed, work }        vm
//!                                            ^
//!   what the hypervisor reports -------------+---- reconcile: what to do about the difference
//!
//!   ExportRecord: Opening --> Open      exports of disks, and how long their leases last
//!   secrets: what of a definition is encrypted in its record
//!   HostRecord, NameRecord              what all hosts share: which there are, and who has which name
//!   nocloud: the documents by which cloud-init configures a new VM
//! ```
//!
//! A record is a plain value that is written to the table `vms` as it is. A transition takes a record and returns the
//! next one or a refusal; the caller writes it and carries out what follows. Every transition is idempotent for the
//! operation that makes it. There is no clock, no randomness and no IO here: times and random bits are arguments.
//!
//! It does not know libvirt, QEMU, SSH or any bus. Next: `services/provisioner/src/actors` for who calls it.

pub mod bounds;
pub mod capacity;
pub mod definition;
pub mod export;
pub mod host;
pub mod hypervisor;
pub mod identity;
pub mod inventory;
pub mod name;
pub mod nocloud;
pub mod power;
pub mod reconcile;
pub mod retry;
pub mod secrets;
pub mod seed;
pub mod vm;

pub use capacity::HostCapacity;
pub use definition::{DefinitionError, parse_definition};
pub use export::{ExportLeases, ExportPhase, ExportRecord, ExportServer};
pub use host::HostRecord;
pub use hypervisor::HypervisorInfo;
pub use identity::Identity;
pub use inventory::{Inventory, NewVmParams};
pub use name::NameRecord;
pub use power::{ObservedVmState, PowerState};
pub use reconcile::{FoundVm, OperationStatus, ReconcileAction};
pub use retry::{FreeSpaceHysteresis, VmRetryBackoff};
pub use secrets::StoredSecrets;
pub use seed::SeedImageRecord;
pub use vm::{DesiredPowerState, DiskSource, VmLock, VmLockKind, VmPhase, VmRecord, VmTransition};
