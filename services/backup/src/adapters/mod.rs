//! The real things behind what the service asks for.
//!
//! - `nbd`: disks through NBD sockets, for the port `Doors`;
//! - `shelf`: the repository in a folder or in S3, opened with the secret;
//! - `snapshots`: the repository's words in the domain's.

pub mod nbd;
pub mod shelf;
pub mod snapshots;
