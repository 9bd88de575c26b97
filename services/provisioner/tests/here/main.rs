//! The provisioner on its simulated world: real actors, real files, the memory bus. Needs qemu-utils, nothing else.

#[path = "../support/mod.rs"]
mod support;

mod commands;
mod doors;
mod process;
mod reconciling;
mod rehearsals;
mod suites;
