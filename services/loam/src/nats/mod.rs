//! The message bus of one host: a `nats-server` with accounts, keys and least permissions.
//!
//! ```text
//!   account PROVISIONER, BACKUP, PROXY, SCHEDULER, UPGRADE, SUPERVISOR      account PEOPLE (no JetStream)
//!     its own JetStream; the service and the user that creates      --exports-->  imports what people may use
//!     its tables; imports what it may use of other services                       one user a person
//!   account JOINING (no JetStream): a user for each join token, who may ask to join
//!   account SYS: nobody                            share: true: the server writes who asks into Nats-Request-Info
//! ```
//!
//! `render` writes the server's configuration, `table` the same as a page for people; both from `contract::permissions`, so
//! that what is written, what is tested and what is shown cannot differ. `authority` makes certificates: beyond loopback a
//! server listens only with TLS. `server` finds and starts the program. Who is admitted, `admission` decides.

pub mod authority;
pub mod render;
pub mod server;
pub mod table;
