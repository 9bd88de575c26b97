//! Disks as files in a folder, and their file systems mounted by the kernel: for every program that needs a path.
//!
//! ```text
//!   DiskSource ──> DisksMount (FUSE) ──> FOLDER/vda          the disk
//!                                        FOLDER/vda1, vda2   its partitions
//!                                              |
//!                        attach ── mount -o loop,ro ──> TARGET/etc/fstab ...
//!
//!   unmount: targets first, the last attached first; each loop device goes with its mount; then the folder
//! ```
//!
//! | what | needs |
//! | --- | --- |
//! | the disks as files | `/dev/fuse`, and root or `fusermount3` (Debian: `fuse3`); only that user sees them |
//! | a file system attached | root, a free loop device, `mount` of util-linux, the kernel's driver for it |
//! | [`files`](crate::files) instead | nothing |
//!
//! Promises: all of it is read-only, and nothing is written to the disk below, no journal replayed and no log
//! recovered: a file system that was not unmounted shows what it held without its journal. At the end everything is
//! unmounted; where a process still uses a file after some seconds the mount is detached, gone for all others, and that
//! is an error. If this process is killed instead, reads below its mounts fail with "transport endpoint is not
//! connected"; the next [`DisksMount`] on the same folder unmounts those first.
//!
//! It does not handle signals: the caller decides with [`DisksMount::until`] when a mount ends.

mod disks;
mod error;
mod fuse;
mod kernel;
mod nodes;
mod table;
mod unmount;

pub use disks::DisksMount;
pub use error::MountError;
