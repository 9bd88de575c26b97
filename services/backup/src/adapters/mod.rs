//! The real things behind what the service needs.
//!
//! - `nbd`: disks through NBD sockets, for the port `DiskExportConnector`;
//! - `provisioner`: the provisioner, over the bus;
//! - `repository`: the repository in a folder or in S3, opened with the secret; `listing`: what it holds;
//! - `snapshots`, `retention`: values of the repository as values of the domain, and back.

pub mod lease;
pub mod listing;
pub mod nbd;
pub mod provisioner;
pub mod repository;
pub mod retention;
pub mod snapshots;
