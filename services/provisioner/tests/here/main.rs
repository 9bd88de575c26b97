//! The provisioner on its simulated adapters: real actors, real files, the memory bus. Needs qemu-utils, nothing else.

#[path = "../support/mod.rs"]
mod support;

mod commands;
mod connections;
mod exports;
mod hosts;
mod process;
mod reconcile;
mod restored;
mod rows;
mod sagas;
mod secrets;
mod seeds;
mod suites;
