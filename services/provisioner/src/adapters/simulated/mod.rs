//! Simulated VMs: for trying Loam where there is no hypervisor, and for tests.
//!
//! ```text
//!   SimulatedHypervisor --- {state}/simulated/{uuid}.json      what is defined, what runs or is paused; survives a restart
//!          |  \--- guest: HTTP at 127.77.x.y:{port}, a page that says it is simulated
//!          |            GET shows, PUT changes a note on the VM's real disk
//!          |  \--- exports: real NBD servers on the VM's real disk
//!   SimulatedShell: scripts are noted on the disk, not run
//!   Faults: tests can make a call fail, stall, or have no effect
//! ```
//!
//! Every reply about a simulated VM says `simulated`. There is no clock: what is asked for is done at once, unless there
//! is a fault.

mod faults;
mod guest;
mod hypervisor;
mod note;
mod shell;

pub use faults::{Fault, Faults};
pub use hypervisor::{SimulatedCall, SimulatedHypervisor};
pub use shell::SimulatedShell;
