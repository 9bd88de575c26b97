//! The one actor of the proxy, with the size of its mailbox. HTTP requests do not pass through it: the frontend reads
//! the route table in force.
//!
//! ```text
//!   list_routes -----\
//!   vm_changed -----(128)--> RouteKeeper --swap--> frontend
//!   refresh_routes --/             |
//!    (worker: list_vms)            +--> table `routes`: the VMs known last
//! ```

mod route_keeper;

pub(crate) use route_keeper::{GetRoutes, GetVmEventCount, ReplaceVms};
pub use route_keeper::{KnownVms, RouteKeeper};
