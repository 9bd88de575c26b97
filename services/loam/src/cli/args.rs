//! The command line.
//!
//! The arguments of a command are in the module that runs it (`vm`, `backup`, ...). Every name and id completes itself
//! from the bus (`completion`). `help` decides which help shows which option.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use super::backup::BackupCommand;
use super::completion::Shell;
use super::examples;
use super::host::{HostCommand, HostRecordCommand};
use super::op::OpCommand;
use super::person::PersonCommand;
use super::rotate::KeysCommand;
use super::schedule::ScheduleCommand;
use super::seed::SeedCommand;
use super::upgrade::UpgradeCommand;
use super::vm::VmCommand;
use crate::state::STATE_DEFAULT;
use crate::up::settings::Hypervisor;

const GLOBAL: &str = "Global options";
/// The help of `--host`, the same for every command that chooses one.
pub(super) const HOST: &str = "Host to do it on (default: the only one)";
/// The help of `--detach`, the same for every command that begins an operation.
pub(super) const DETACH: &str = "Print the operation's id and do not wait for its end";

/// Manage virtual machines: create, back up, route, schedule, upgrade
#[derive(Debug, Parser)]
#[command(name = "loam", version, after_help = examples::end_of_loam())]
pub(super) struct Args {
    /// State directory of this host
    #[arg(long, global = true, env = "LOAM_STATE", default_value = STATE_DEFAULT, value_name = "DIR")]
    #[arg(help_heading = GLOBAL)]
    pub state: PathBuf,
    /// URL of the message bus (default: from client.toml in the state directory)
    #[arg(long, global = true, value_name = "URL", help_heading = GLOBAL)]
    pub url: Option<String>,
    /// File with your private NATS key (an nkey seed; default: from client.toml in the state directory)
    #[arg(long, global = true, value_name = "FILE", help_heading = GLOBAL)]
    pub key: Option<PathBuf>,
    /// File with the certificate of the authority of the bus's servers (default: from client.toml)
    #[arg(long, global = true, value_name = "FILE", help_heading = GLOBAL)]
    pub ca_file: Option<PathBuf>,
    /// Print results and errors as JSON
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

impl Command {
    /// Whether showing something is all that the command does: then nothing is done when it cannot be written.
    pub(super) fn only_shows(&self) -> bool {
        match self {
            Command::Status | Command::Proxy | Command::Completion { .. } => true,
            Command::Seed(command) => matches!(command, SeedCommand::List),
            Command::Vm(command) => matches!(command, VmCommand::List | VmCommand::Show { .. }),
            Command::Host(command) => matches!(command, HostCommand::Record(HostRecordCommand::List)),
            Command::Backup(command) => matches!(command, BackupCommand::List { .. }),
            Command::Schedule(command) => {
                matches!(command, ScheduleCommand::List | ScheduleCommand::Runs { .. })
            }
            Command::Upgrade(command) => matches!(command, UpgradeCommand::Status),
            Command::Op(command) => matches!(command, OpCommand::List { .. } | OpCommand::Show { .. }),
            Command::Repository(command) => command.only_shows(),
            Command::RowKeys(command) => matches!(command, super::row_keys::RowKeysCommand::List),
            Command::Person(command) => matches!(command, PersonCommand::List),
            Command::Up { .. }
            | Command::Keys(_)
            | Command::Bus(_)
            | Command::Release(_)
            | Command::Demo(_) => false,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Manage seeds, the base images of VMs
    #[command(subcommand)]
    Seed(SeedCommand),
    /// Manage VMs
    #[command(subcommand)]
    Vm(VmCommand),
    /// Manage the hosts that run VMs: list them, let them join the message bus, remove them
    #[command(subcommand)]
    Host(HostCommand),
    /// List the domain names that the HTTP proxy routes to VMs
    Proxy,
    /// Back up and restore VMs through the services
    ///
    /// A backup is a snapshot that the backup service made, and its VM is the machine of that snapshot. Other snapshots
    /// of the repository are not seen here. Hold, mount, extract and keys: see `loam repository --help`.
    #[command(subcommand)]
    Backup(BackupCommand),
    /// Run backups and other commands on a schedule
    #[command(subcommand)]
    Schedule(ScheduleCommand),
    /// Work on a backup repository without services, as after a disaster
    ///
    /// A backup is a snapshot that the backup service made, and its VM is the machine of that snapshot: `web@latest` in
    /// `loam backup` is `latest --machine web` here.
    #[command(subcommand)]
    Repository(super::repository::RepositoryCommand),
    /// Run the message bus and all services on this host until Ctrl-C
    Up {
        /// Settings file (default: built-in settings)
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Hypervisor that runs the VMs (default: the one in the settings, or else libvirt)
        #[arg(long, value_enum)]
        hypervisor: Option<Hypervisor>,
    },
    /// Show whether all services are healthy
    Status,
    /// Show and upgrade the versions of Loam's services
    #[command(subcommand)]
    Upgrade(UpgradeCommand),
    /// List, follow and cancel operations: work that commands began, such as a backup
    #[command(subcommand)]
    Op(OpCommand),
    /// Admit people to the message bus, and remove them
    #[command(subcommand)]
    Person(PersonCommand),
    /// Replace the keys of services
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Prepare a NATS server that `loam up` does not run, as in containers
    #[command(subcommand)]
    Bus(super::bus::BusCommand),
    /// List, add and remove the keys that variables and scripts of VMs are encrypted with in the provisioner's tables
    #[command(subcommand)]
    RowKeys(super::row_keys::RowKeysCommand),
    /// Make signing keys, and sign releases of Loam's services
    #[command(subcommand)]
    Release(super::release::ReleaseCommand),
    /// Print the script that completes commands, options and names in a shell
    #[command(after_help = examples::COMPLETION)]
    Completion {
        /// The shell
        shell: Shell,
    },
    /// Create, back up, restore and remove a VM, to show that everything works
    #[command(hide = true)]
    Demo(super::demo::DemoArgs),
}
