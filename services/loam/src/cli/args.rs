//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::state::STATE_DEFAULT;

/// Grows virtual machines, guards their disks, leads traffic to them, keeps their appointments and renews itself.
#[derive(Debug, Parser)]
#[command(name = "loam", version, after_help = super::exit::TABLE, disable_help_subcommand = true)]
pub(super) struct Args {
    /// The state folder of the host
    #[arg(long, global = true, env = "LOAM_STATE", default_value = STATE_DEFAULT, value_name = "DIR")]
    pub state: PathBuf,
    /// Answer in JSON
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Start the message bus and all services on this host, and watch over them until Ctrl-C
    Up {
        /// The settings file
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Pretend machines instead of running them; everything that shows one says so
        #[arg(long, value_enum)]
        hypervisor: Option<Hypervisor>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Hypervisor {
    /// QEMU through libvirt, or what the settings say
    Libvirt,
    /// No machine really exists
    Simulated,
}
