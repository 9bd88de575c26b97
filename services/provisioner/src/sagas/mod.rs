//! The durable operations, one in each file, named as its command: what it promises, its steps in order, and the step
//! functions that are its own. Steps that several sagas share are in `steps`. All pass `saga::harness` on the simulated adapters
//! (`tests/here/sagas.rs`): each step twice, a failure at each step, a crash after each record.
//!
//! ```text
//!   add_seed    announce > import > store
//!   create_vm   lock > disk > define > start > ready > install > complete
//!   create_reserved_vm    lock > volume > define > start > ready > identity > complete
//!   start_vm    lock > power > start > ready > complete
//!   stop_vm     lock > power > shut_down > complete
//!   remove_vm   lock > power > power_off > definition > undefine > set_aside > forget    (the reconciler discards what was set aside)
//! ```

mod add_seed;
mod create_reserved_vm;
mod create_vm;
mod remove_vm;
mod start_vm;
mod steps;
mod stop_vm;

pub(crate) use add_seed::source_of;
pub(crate) use steps::VmLockingCommand;

use crate::state::ServiceState;

/// What a step sees.
type Context<C> = operation::Context<ServiceState, C>;
