//! Who does what inside the provisioner; the number on an arrow is the size of the mailbox it ends in.
//!
//! ```text
//!   wiring (questions) --+
//!   sagas (steps) -------+--256--> Registry      machines and seeds: decides by the domain, writes tables, tells
//!   Reconciler ----------+
//!   wiring (exports) ----------64--> ExportKeeper    who may read which disks until when
//!   Reconciler (own clock)                       compares what should be with what is, every ten seconds
//!   Libvirt adapter -----------64--> LibvirtLane x 4    blocking calls, one connection a thread
//! ```
//!
//! An actor owns its state alone and changes it in one piece. If one of them panics the process ends; everything
//! that matters is in the tables, and operations are resumed from their journals.

mod opening;
mod export_keeper;
mod libvirt_lane;
mod reconciler;
mod registry;
mod handle;

pub use export_keeper::{ExportKeeper, ExportKeeperHandle};
pub use libvirt_lane::{Deed, LibvirtLane, OnLane, Outcome};
pub use reconciler::Reconciler;
pub use registry::Registry;
pub use handle::RegistryHandle;
