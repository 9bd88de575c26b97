//! Background work in rounds (`chassis::Worker`).
//!
//! ```text
//!   reconcile_vms     every 10 s, and when the hypervisor reports a change: compares what should be with what is, and carries out what the domain decides
//!   expire_exports    every 5 s: closes the disk exports whose lease has expired
//! ```

mod expire;
mod outcomes;
mod reconcile;

pub use expire::ExportExpirer;
pub use reconcile::VmReconciler;
