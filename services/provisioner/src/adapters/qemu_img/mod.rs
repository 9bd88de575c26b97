//! Disks as files of one host, created by QEMU's own programs.
//!
//! ```text
//!   {state}/seeds/{sha256}.qcow2     read-only; no backing file, no data file        QEMU passes the folders,
//!   {state}/vms/{vm}/vda.qcow2       an overlay of a seed, or vda.raw after a restore    libvirt gives it the files
//!                   /restored/       where the backup service's user writes restored disks, until the VM is created
//!                   /nocloud.img     the NoCloud volume, FAT                       (disks are readable to QEMU's user only)
//!                   /console.log     the log of the serial console
//!   {state}/aside/{operation}/       what a removal has set aside
//!   {state}/exports/{operation}/       sockets and scratch files of open exports: QEMU writes here
//! ```
//!
//! A file is written under another name and renamed when it is complete. Nothing here reads what a guest wrote, but
//! through QEMU's programs with the format named. It does not know records or operations; ids are names of folders to it.

mod check;
mod disks;
mod header;
mod import;
mod nbd_server;
mod nocloud;
mod restored;
mod tool;
mod transfer;

pub use disks::QemuImgDisks;
pub(crate) use nbd_server::{serve as serve_disk, stop as stop_serving};
pub(crate) use tool::run;
