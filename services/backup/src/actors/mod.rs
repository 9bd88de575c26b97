//! What lives as long as the backup service and is shared by its handlers and sagas.
//!
//! ```text
//!   handlers, sagas ------> RepositoryKeeper   the open repository, or why there is none, and the list of backups
//!                              ^
//!                           RepositoryRefresher  a worker that opens, checks and lists it in rounds
//!
//!   sagas ------64--------> TransferSlots      gives out slots: so many copies and reads at one time
//! ```
//!
//! Work with bytes is done in the tasks of the sagas and on the engine's threads, never here. The number is the size of
//! the mailbox. When an actor dies the process dies; operations go on from their journals.

mod refresh_repository;
mod repository_keeper;
mod transfer_slots;

pub use refresh_repository::RepositoryRefresher;
pub use repository_keeper::{RepositoryClosed, RepositoryKeeper};
pub use transfer_slots::{
    COPIES_MAX, MAINTENANCE_MAX, READS_MAX, SlotKind, TransferSlotError, TransferSlots, TransferSlotsHandle,
};

/// Requests that may wait at one actor: more than operations that can be under way.
const MAILBOX: usize = 64;
