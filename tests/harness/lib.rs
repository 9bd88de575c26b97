//! A installation for one test: our own binaries, a real nats-server and what else the test asks for, in folders and on
//! ports of its own; it ends with the test.
//!
//! ```text
//!   test --calls--> operator's connection --> nats-server <-- loam up (supervisor)
//!        --loam ...-->  the command as a person uses it           |-- five service processes
//!        --HTTP------>  the proxy                                 '-- OTLP --> Collector (in the test)
//! ```
//!
//! `Installation` starts `loam up` and calls as the operator; `Collector` receives real OTLP; `realm` (a shell script
//! beside this file) wraps whole test runs that need libvirt into namespaces of their own.

mod collector;
mod fixtures;
mod http;
mod installation;

pub use collector::{Collector, ReceivedSpan};
pub use fixtures::{Image, definition_file, image};
pub use http::{Answer, get, post};
pub use installation::{CALL_MAX, Installation, InstallationOptions, binary};
