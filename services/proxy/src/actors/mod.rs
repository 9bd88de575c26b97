//! The one actor of the proxy, with the size of its mailbox. Requests do not pass through it: the front reads the
//! table that it was given last.
//!
//! ```text
//!   desk --------\
//!   vm_changed ---(128)--> RouteKeeper --swap--> front
//!   timer -------/              |
//!                               +--> provisioner: list_vms        table `routes`: what was known last
//! ```

mod route_keeper;

pub use route_keeper::RouteKeeper;
pub(crate) use route_keeper::{Rows, TroubleAt};
