//! The tests of the backup service, in one binary: its sagas under the harness (`saga_harness`), the whole service with
//! its real actors (`service`, `maintenance`), a store that fails (`store_faults`), and its traces (`trace`).

#![allow(unreachable_pub, reason = "what the tests share is public to them")]

mod hosts;
mod maintenance;
mod saga_harness;
mod service;
mod store_faults;
mod support;
mod trace;
