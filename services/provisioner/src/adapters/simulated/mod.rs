//! Machines that are only pretended: for trying Loam out where there is no hypervisor, and for tests.
//!
//! ```text
//!   SimulatedHypervisor --- {state}/simulated/{uuid}.json      what is defined, what runs; survives a restart
//!          |  \--- guest: HTTP at 127.77.x.y:{port}, a page that says that it is simulated
//!          |            GET shows, PUT changes a note that lies on the machine's real disk
//!          |  \--- exports: real NBD servers on the machine's real disk
//!   SimulatedShell: scripts are noted down on the disk, not run
//!   Faults: a call can be made to fail, to stall, or a guest to be deaf, for tests
//! ```
//!
//! Everything it makes is marked `simulated` in every answer. It has no clock: what it is asked for is so at once,
//! unless a fault says otherwise.

mod faults;
mod guest;
mod hypervisor;
mod note;
mod shell;

pub use faults::{Call, Fault, Faults};
pub use hypervisor::SimulatedHypervisor;
pub use shell::SimulatedShell;
