//! The message bus of one host: a `nats-server` with accounts, keys and least permissions.
//!
//! ```text
//!   account LOAM (JetStream)                       account PEOPLE (no JetStream)
//!     one user a service, its rights from the  --exports-->  imports, each with share: true: the server
//!     contract, allow_responses                               writes who asks into Nats-Request-Info
//!     bootstrap: makes the buckets                 one user a person
//!   account SYS: nobody
//! ```
//!
//! `render` writes the server's configuration, `table` the same as a page for people; both from `contract::rights`, so
//! that what is written, what is tested and what is shown cannot differ. `server` finds and starts the program.
//! What no rule of the server can prevent (a service names another's command as the reply subject of its own table
//! reads) the receiving service refuses: such a message has no reply subject. See `tests/rights`.

pub mod render;
pub mod server;
pub mod table;
