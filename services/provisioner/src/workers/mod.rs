//! Background work in rounds (`chassis::Worker`).
//!
//! ```text
//!   reconcile_vms     every 10 s, and when the hypervisor reports a change: compares what should be with what is, and carries out what the domain decides
//!   report_host       every 10 s: writes what this host has and runs, and reads which other hosts do the same
//!   expire_exports    every 5 s: closes the disk exports whose lease has expired
//!   restore_rows      every 5 s: writes the rows of VMs and seeds again where their table was lost
//! ```

mod expire;
mod outcomes;
mod reconcile;
mod report;
mod restore;

pub use expire::ExportExpirer;
pub use reconcile::VmReconciler;
pub use report::HostReporter;
pub use restore::RowRestorer;
