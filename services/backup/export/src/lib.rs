//! Shows a disk of a backup to the outside world: over NBD, as files, or mounted.
//!
//! See [`nbd`].

pub mod files;
pub mod mount;
pub mod nbd;
pub mod overlay;
