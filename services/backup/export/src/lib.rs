//! Exports a disk of a backup: over NBD, as files, or mounted.
//!
//! ```text
//!                         DiskSource  (a snapshot's disk, a raw file, another NBD server)
//!                              |
//!         +--------------+-----+---------+--------------------+
//!         |              |               |                    |
//!      overlay ──────> nbd             files                mount
//!   a writable copy   QEMU boots     what is in it?      FOLDER/vda, vda1, ...
//!   that fills itself from it;       give me one file    and the kernel's file systems
//!                     nbdcopy,       (ext2/3/4, FAT)      on top (XFS, btrfs, NTFS, ...)
//!                     qemu-img
//!         |              |               |                    |
//!     room on disk    a socket        nothing            root (or fusermount3)        what it needs
//! ```
//!
//! | to | use | root? |
//! | --- | --- | --- |
//! | copy a disk, or inspect it with QEMU's tools | [`nbd`] with [`Export::read_only`](nbd::Export::read_only) | no |
//! | boot a guest from a backup, now | [`overlay`] under [`Export::writable`](nbd::Export::writable), and [`fill`](overlay::Overlay::fill) | no |
//! | list a folder, get one file back | [`files::list`], [`files::extract`] | no |
//! | give a disk to a program that wants a file | [`mount::DisksMount`] | or `fusermount3` |
//! | browse any file system that the kernel knows | [`DisksMount::attach`](mount::DisksMount::attach) | yes |
//!
//! Promises: the source is only ever read; whatever comes from outside (a client's requests, a disk's tables, a
//! file system's metadata) is checked against bounds before it is used, and leads to an answer or an error; reads are
//! answered as their bytes come, many at a time; every wait has a deadline.
//!
//! ```no_run
//! # async fn example(disk: std::sync::Arc<dyn backup_repository::DiskSource>) -> Result<(), Box<dyn std::error::Error>> {
//! use backup_export::nbd::{Export, ListenAddress, NbdServer, ServerSettings};
//! use backup_export::overlay::{FillSettings, Overlay, OverlaySettings};
//!
//! let place = OverlaySettings { path: "web-vda.raw".into(), id: "01JA2B/vda".into() };
//! let overlay = Overlay::open(&place, disk).await?;
//! let fill = overlay.fill(FillSettings::default());
//! let export = Export::writable("vda", overlay)?;
//! let listen = ListenAddress::Unix("web.sock".into());
//! let server = NbdServer::start(&listen, vec![export], ServerSettings::default()).await?;
//! println!("qemu-system-x86_64 -drive file='{}',format=raw,if=virtio", server.uri("vda"));
//! fill.finished().await?;     // web-vda.raw is the whole disk now
//! # Ok(())
//! # }
//! ```
//!
//! It deliberately does not know repositories, snapshots or services: only
//! [`DiskSource`](backup_repository::DiskSource). All of it runs on a tokio runtime with time and IO; [`mount`] and
//! [`files`] also use its blocking threads.

pub mod files;
pub mod mount;
pub mod nbd;
pub mod overlay;
