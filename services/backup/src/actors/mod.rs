//! The actors of the backup service.
//!
//! ```text
//!   desk, sagas --64--> Librarian    keeps the open repository, or why it is shut, and the list of backups
//!                          | opens and lists on tasks; each outcome comes back as a message
//!                          v
//!                       the store
//!
//!   sagas -----64-----> Copyists     gives out places: so many disks are copied, so many read back, at one time
//! ```
//!
//! Work with bytes happens in the sagas' own tasks and on the engine's threads, never in an actor. A number is the
//! size of the mailbox. When an actor dies the process dies; operations go on from their journals.

mod copyists;
mod librarian;

pub use copyists::{COPIES_MAX, Copyists, CopyistsError, Desk as CopyistsDesk, READS_MAX, Trade};
pub use librarian::{Catalogue, Freshness, Librarian, Library, Pace, StoreShut};

/// Askers that may wait at one actor: more than operations and questions that can be under way.
const MAILBOX: usize = 64;
