//! The `loam` command: the operator's client, and `loam up`, the supervisor of one host.
//!
//! ```text
//!   loam up                      loam seed | vm | proxy | backup | schedule | upgrade | op | status
//!     |                            |
//!     state  keys, folders, lock   cli: arguments -> words of the contract -> tables, bars, JSON, exit codes
//!     nats   the server's rights     |
//!     up     keepers, desk, board    +--- NATS, as a person ---> the services
//!     |
//!     +-- nats-server, provisioner, backup, proxy, scheduler, upgrade: child processes
//! ```
//!
//! It promises that the client has no way of its own into any service: what it does, any NATS client can do. The
//! supervisor starts programs and knows nothing of their work. `loam repository` asks no service: it opens a store of
//! backups itself, for the day when nothing else is left.
//!
//! Next: `up` for how a host comes to life, `cli` for the commands, `nats::render` for who may say what.

pub mod cli;
pub mod nats;
pub mod state;
pub mod up;
