//! The `loam` command: the operator's client, and `loam up`, the supervisor of one host.
//!
//! ```text
//!   loam up                      loam seed | vm | proxy | backup | schedule | upgrade | op | status
//!     |                            |
//!     state  keys, folders, lock   cli: arguments -> requests of the contract -> tables, bars, JSON, exit codes
//!     nats   permissions             |
//!     up     keepers, status view    +--- NATS, as a person ---> the services
//!     |
//!     +-- nats-server, provisioner, backup, proxy, scheduler, upgrade: child processes
//! ```
//!
//! It promises that the client has no private access to any service: what it does, any NATS client can do. The supervisor
//! starts programs and does not know what they do. `loam repository` asks no service: it opens a backup repository itself,
//! for disaster recovery. Only `stdio` writes to standard output.
//!
//! Next: `up` for how a host starts, `cli` for the commands, `nats::render` for permissions.

pub mod admission;
pub mod cli;
pub mod nats;
pub mod state;
pub mod stdio;
pub mod up;
