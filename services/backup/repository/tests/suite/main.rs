//! What the repository promises, seen from outside. One binary: a binary for each file would compile the engine's futures
//! as often.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

mod anomaly;
mod attack;
mod collect;
mod collect_again;
mod compression;
mod damage;
mod faults;
mod full_disk;
mod golden;
mod independent;
mod keys;
mod killed;
mod killed_writers;
mod leftovers;
mod nbd;
mod object_lock;
mod qemu_images;
mod reader;
mod recipes;
mod restore;
mod retention;
mod s3_faults;
mod secrets;
mod several;
mod snapshots;
mod stores;
mod streams;
mod targets;
