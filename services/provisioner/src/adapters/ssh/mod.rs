//! The inside of a real machine: SSH as root, with a key of our own.
//!
//! ```text
//!   {state}/keys/ssh_ed25519    made at the first start; its public half goes into every NoCloud volume
//!   reach                       handshake, host key, login; and out again
//!   run                         one shell that starts the script apart from itself and follows what it writes
//! ```
//!
//! The guest's host key is taken at the first contact and remembered in its record; another one is not let in.
//! A script goes on when the line breaks or our process dies, and is found again by the next attempt.

mod key;
mod line;
mod script;
mod shell;

pub use shell::RusshShell;
