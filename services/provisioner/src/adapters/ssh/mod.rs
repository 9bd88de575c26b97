//! The inside of a real VM: SSH as root, with a key of our own.
//!
//! ```text
//!   {state}/keys/ssh_ed25519    created at the first start; its public key goes into every NoCloud volume
//!   reach                       handshake, host key, login, disconnect
//!   run                         one shell that starts the script detached from itself and follows its output
//!   renew_identity              one shell: machine id, random seed and names of a restored guest
//!   flush                       one shell: `sync`
//! ```
//!
//! The guest's host key is accepted at the first connection and stored in its record; no other is accepted later.
//! A script goes on when the connection breaks or our process dies, and is found again by the next attempt.

mod identity;
mod key;
mod script;
mod session;
mod shell;

pub use shell::RusshShell;
