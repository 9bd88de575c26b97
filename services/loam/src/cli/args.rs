//! The command line.

use std::path::PathBuf;

use clap::{Args as Arguments, Parser, Subcommand};
use contract::{BackupRef, OperationId, ScheduleId, SeedName, Service, VmName};

use crate::state::STATE_DEFAULT;
use crate::up::settings::Hypervisor;

/// `loam repository` needs no service: there these are of no use.
const SERVICES: &str = "Where the services are";

/// Grows virtual machines, guards their disks, leads traffic to them, keeps their appointments and renews itself.
#[derive(Debug, Parser)]
#[command(name = "loam", version, after_help = super::exit::TABLE, disable_help_subcommand = true)]
pub(super) struct Args {
    /// The state folder of the host
    #[arg(long, global = true, env = "LOAM_STATE", default_value = STATE_DEFAULT, value_name = "DIR")]
    #[arg(help_heading = SERVICES)]
    pub state: PathBuf,
    /// Where the bus is, instead of what client.toml in the state folder says
    #[arg(long, global = true, value_name = "URL", help_heading = SERVICES)]
    pub url: Option<String>,
    /// The file with your nkey seed, instead of what client.toml says
    #[arg(long, global = true, value_name = "FILE", help_heading = SERVICES)]
    pub key: Option<PathBuf>,
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
        /// What runs the machines, whatever the settings say; everything that shows a pretended one says so
        #[arg(long, value_enum)]
        hypervisor: Option<Hypervisor>,
    },
    /// How every service is
    Status,
    /// Cloud images that machines grow from
    #[command(subcommand)]
    Seed(Seed),
    /// Virtual machines
    #[command(subcommand)]
    Vm(Vm),
    /// Where each domain leads
    Proxy {
        #[command(subcommand)]
        command: Option<Proxy>,
    },
    /// Backups of machines
    #[command(subcommand)]
    Backup(Backup),
    /// Appointments
    #[command(subcommand)]
    Schedule(Schedule),
    /// Running services and their renewal
    #[command(subcommand)]
    Upgrade(Upgrade),
    /// Operations: work that lasts
    #[command(subcommand)]
    Op(Op),
    /// Prepare a message bus that `loam up` does not run, as in containers
    #[command(subcommand)]
    Bus(super::bus::BusCommand),
    /// Back up, restore and look after a store of backups itself, with no service running
    #[command(subcommand)]
    Repository(super::repository::RepositoryCommand),
    /// Make keys, and sign builds of services
    #[command(subcommand)]
    Release(super::release::ReleaseCommand),
    /// Do the main job by itself, to show that it works
    #[command(hide = true)]
    Demo(super::demo::DemoArgs),
    /// Write the completions of a shell to stdout
    #[command(alias = "completions")]
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// How a command that lasts is given.
#[derive(Clone, Copy, Debug, Arguments)]
pub(super) struct Lasting {
    /// Return at once with the operation's id
    #[arg(long)]
    pub detach: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Seed {
    /// Make a seed of a cloud image (qcow2 or raw)
    Add {
        /// Its name
        name: SeedName,
        /// A file on the provisioner's host, or an http(s) URL
        #[arg(long, value_name = "FILE|URL")]
        from: String,
        /// What the image must hash to
        #[arg(long, value_name = "DIGEST")]
        sha256: String,
        #[command(flatten)]
        lasting: Lasting,
    },
    /// List the seeds
    List,
    /// Remove a seed that no machine grows from
    Remove {
        /// Which
        name: SeedName,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Vm {
    /// Make a machine from its definition and start it
    Create {
        /// The definition
        file: PathBuf,
        #[command(flatten)]
        lasting: Lasting,
    },
    /// List the machines
    List,
    /// Show one machine
    Show {
        /// Which
        vm: VmName,
    },
    /// Start a machine that is off
    Start {
        /// Which
        vm: VmName,
        #[command(flatten)]
        lasting: Lasting,
    },
    /// Shut a machine down
    Stop {
        /// Which
        vm: VmName,
        #[command(flatten)]
        lasting: Lasting,
    },
    /// Remove a machine with its disk; its backups stay
    Remove {
        /// Which
        vm: VmName,
        #[command(flatten)]
        lasting: Lasting,
    },
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(super) enum Proxy {
    /// List the domains; what `loam proxy` alone does, too
    Routes,
}

#[derive(Debug, Subcommand)]
pub(super) enum Backup {
    /// Back a machine up now
    Run {
        /// Which
        vm: VmName,
        #[command(flatten)]
        lasting: Lasting,
    },
    /// List backups, newest first
    List {
        /// Only those of this machine
        vm: Option<VmName>,
    },
    /// Make a second machine from a backup
    Restore {
        /// VM@latest, or VM@ and the first characters of an id
        backup: BackupRef,
        /// The new machine's name
        #[arg(long = "as", value_name = "NAME")]
        as_vm: VmName,
        #[command(flatten)]
        lasting: Lasting,
    },
    /// Read a backup back and check every byte
    Verify {
        /// VM@latest, or VM@ and the first characters of an id
        backup: BackupRef,
        #[command(flatten)]
        lasting: Lasting,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Schedule {
    /// Add an appointment
    Add {
        /// Its name
        id: ScheduleId,
        /// When: five fields, six with seconds first, or @daily and its like
        #[arg(long)]
        cron: String,
        /// In which time zone, as in Europe/Paris
        #[arg(long, default_value = "UTC")]
        zone: String,
        /// What: back this machine up
        #[arg(long, value_name = "VM")]
        backup: VmName,
    },
    /// List the appointments
    List,
    /// Remove an appointment
    Remove {
        /// Which
        id: ScheduleId,
    },
    /// How it went lately
    Runs {
        /// Which
        id: ScheduleId,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Upgrade {
    /// Every running service with its version and build
    Status,
    /// Replace a service by a signed build
    Apply {
        /// The release folder, on the upgrade service's host
        folder: PathBuf,
        #[command(flatten)]
        lasting: Lasting,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Op {
    /// List operations, newest first
    List {
        /// Only those that still move
        #[arg(long)]
        unfinished: bool,
        /// Only those of this service
        #[arg(long)]
        service: Option<Service>,
    },
    /// Show one operation
    Show {
        /// Which
        id: OperationId,
    },
    /// Watch one operation until it ends
    Watch {
        /// Which
        id: OperationId,
    },
    /// Give an operation up: what it did is undone
    Cancel {
        /// Which
        id: OperationId,
        #[command(flatten)]
        lasting: Lasting,
    },
}
