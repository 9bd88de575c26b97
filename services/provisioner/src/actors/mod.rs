//! The actors: each owns its state alone. The number on an arrow is the size of the mailbox that it ends in.
//!
//! ```text
//!   handlers, sagas, workers --256--> Registry         VMs and seeds: decides by the domain, writes tables, publishes
//!   handlers, expire_exports --64--> ExportKeeper      which operation may read which disks, until when
//! ```
//!
//! (The libvirt adapter has actors of its own: lanes of blocking calls.)
//!
//! If an actor panics the process ends; everything that matters is in the tables, and operations are resumed from their
//! journals.

mod export_keeper;
mod registry;

pub(crate) use export_keeper::ANSWER_MAX as EXPORT_ANSWER_MAX;
pub use export_keeper::{ExportKeeper, ExportKeeperHandle};
pub use registry::{Registry, RegistryHandle};
