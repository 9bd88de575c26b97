//! What the provisioner decides, without doing any of it: values and their moves.
//!
//! ```text
//!   web.toml --definition--> VmDefinition --bounds--> may it be so?
//!                                  |
//!   Inventory { VmRecord.., SeedRecord.. }        one name once, one domain one machine, a seed in use stays
//!                                  |
//!   VmRecord:  Reserved --> Creating --> Living { desired, seen, work }        vm
//!                                            ^
//!   what the hypervisor says ----------------+---- reconcile: what to do about the difference
//!
//!   DoorRecord: Opening --> Open        doors to disks, and how long their leases last
//!   nocloud: the texts by which a new machine learns its name and whom to let in
//! ```
//!
//! A record is a plain value that is written to the table `vms` as it is. A move takes a record and gives the next
//! one or a refusal; whoever called writes it down and does what follows. Every move bears being made twice by the
//! same operation. There is no clock, no randomness and no IO here: times and random bits are arguments.
//!
//! It does not know libvirt, QEMU, SSH or any bus. Next: `services/provisioner/src/actors` for who calls it.

pub mod bounds;
pub mod definition;
pub mod door;
pub mod identity;
pub mod inventory;
pub mod nocloud;
pub mod reconcile;
pub mod seed;
pub mod vm;

pub use definition::{DefinitionError, parse_definition};
pub use door::{DoorPhase, DoorRecord, DoorWay, Leases};
pub use identity::Identity;
pub use inventory::{Birth, Inventory};
pub use reconcile::{Decision, Fate, Observed, ObservedPower};
pub use seed::SeedRecord;
pub use vm::{Desired, DiskSource, Phase, Seen, VmMove, VmRecord, Work, WorkKind};
