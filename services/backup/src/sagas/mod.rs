//! The sagas of the backup service: one for each durable command, in a file of its name.
//!
//! ```text
//!   start_backup          queue -> open_disks -> copy -> close_disks -> seal
//!   restore_backup_as_vm  resolve -> reserve -> write -> create_vm
//!   verify_backup         resolve -> verify
//!   verify_repository     queue -> verify
//!   collect_repository    queue -> collect
//!   apply_retention       queue -> plan -> forget
//! ```
//!
//! Each passes `saga::harness` (`tests/suite/saga_harness.rs`): every step twice, failing, and with a crash after each
//! record. What several of them do is in `steps`.

mod apply_retention;
mod collect_repository;
mod restore_backup_as_vm;
mod start_backup;
mod steps;
mod verify_backup;
mod verify_repository;
