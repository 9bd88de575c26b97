//! The sagas of the backup service: one for each durable command, named as its command.
//!
//! ```text
//!   start_backup        queue -> open_disks -> copy -> close_disks -> seal
//!   restore_backup      resolve -> reserve -> write -> adopt
//!   verify_backup       resolve -> verify
//!   verify_repository   queue -> verify
//!   collect_repository  queue -> collect
//!   apply_retention     queue -> plan -> forget
//! ```
//!
//! Each passes `saga::harness` (`tests/suite/saga_harness.rs`): every step twice, failing, and with a crash after each
//! record. What several of them do is in `steps`.

mod apply_retention;
mod collect_repository;
mod restore_backup;
mod start_backup;
mod steps;
mod verify_backup;
mod verify_repository;

pub use apply_retention::ApplyRetention;
pub use collect_repository::CollectRepository;
pub use restore_backup::RestoreBackup;
pub use start_backup::StartBackup;
pub use verify_backup::VerifyBackup;
pub use verify_repository::VerifyRepository;
