//! The command line.
//!
//! Every name and id completes itself from the bus (`completion`). `help` decides which help shows which option.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::{ArgValueCandidates, ArgValueCompleter};
use contract::{BackupRef, ByteCount, ScheduleId, SeedName, Service, VmName};

use super::completion::{self, Shell};
use super::{examples, schedule};
use crate::state::STATE_DEFAULT;
use crate::up::settings::Hypervisor;

const GLOBAL: &str = "Global options";
/// The help of `--detach`, the same for every command that begins an operation.
const DETACH: &str = "Print the operation's id and do not wait for its end";

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
            Command::Seed(command) => matches!(command, Seed::List),
            Command::Vm(command) => matches!(command, Vm::List | Vm::Show { .. }),
            Command::Backup(command) => matches!(command, Backup::List { .. }),
            Command::Schedule(command) => matches!(command, Schedule::List | Schedule::Runs { .. }),
            Command::Upgrade(command) => matches!(command, Upgrade::Status),
            Command::Op(command) => matches!(command, Op::List { .. } | Op::Show { .. }),
            Command::Repository(command) => command.only_shows(),
            Command::Up { .. } | Command::Bus(_) | Command::Release(_) | Command::Demo(_) => false,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Manage seeds, the base images of VMs
    #[command(subcommand)]
    Seed(Seed),
    /// Manage VMs
    #[command(subcommand)]
    Vm(Vm),
    /// List the domain names that the HTTP proxy routes to VMs
    Proxy,
    /// Back up and restore VMs through the services
    ///
    /// A backup is a snapshot that the backup service made, and its VM is the machine of that snapshot. Other snapshots
    /// of the repository are not seen here. Hold, mount, extract and keys: see `loam repository --help`.
    #[command(subcommand)]
    Backup(Backup),
    /// Run backups and other commands on a schedule
    #[command(subcommand)]
    Schedule(Schedule),
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
    Upgrade(Upgrade),
    /// List, follow and cancel operations: work that commands began, such as a backup
    #[command(subcommand)]
    Op(Op),
    /// Prepare a NATS server that `loam up` does not run, as in containers
    #[command(subcommand)]
    Bus(super::bus::BusCommand),
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

#[derive(Debug, Subcommand)]
pub(super) enum Seed {
    /// Add a seed, a base image of VMs, from a cloud image (qcow2 or raw)
    Add {
        /// Name of the seed
        name: SeedName,
        /// Image to add: a file on the provisioner's host, or an http(s) URL
        #[arg(long, value_name = "FILE|URL")]
        from: String,
        /// SHA-256 of the image, 64 hexadecimal digits
        #[arg(long, value_name = "DIGEST")]
        sha256: String,
        #[arg(long, help = DETACH)]
        detach: bool,
    },
    /// List seeds, the base images of VMs
    List,
    /// Remove a seed, a base image that no VM uses
    Remove {
        /// Name of the seed
        #[arg(add = ArgValueCompleter::new(completion::seeds))]
        name: SeedName,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Vm {
    /// Create a VM from its definition and start it
    #[command(after_help = examples::VM_CREATE)]
    Create {
        /// Definition of the VM, a TOML file
        file: PathBuf,
        #[arg(long, help = DETACH)]
        detach: bool,
    },
    /// List VMs
    List,
    /// Show one VM
    Show {
        /// Name of the VM
        #[arg(add = ArgValueCompleter::new(completion::vms))]
        vm: VmName,
    },
    /// Open a shell in a VM over SSH, or run one command
    ///
    /// Needs root: it uses the key that the provisioner keeps in the state directory. Ends with the exit code of ssh.
    #[command(after_help = examples::VM_SSH)]
    Ssh {
        /// Name of the VM
        #[arg(add = ArgValueCompleter::new(completion::vms))]
        vm: VmName,
        /// Command to run in the VM (default: a shell)
        #[arg(last = true)]
        command: Vec<OsString>,
    },
    /// Start a stopped VM
    Start {
        /// Name of the VM
        #[arg(add = ArgValueCompleter::new(completion::vms))]
        vm: VmName,
        #[arg(long, help = DETACH)]
        detach: bool,
    },
    /// Shut down a VM, and power it off if it still runs after 3 minutes
    Stop {
        /// Name of the VM
        #[arg(add = ArgValueCompleter::new(completion::vms))]
        vm: VmName,
        #[arg(long, help = DETACH)]
        detach: bool,
    },
    /// Power off and remove a VM with its disk, without asking; its backups stay
    Remove {
        /// Name of the VM
        #[arg(add = ArgValueCompleter::new(completion::vms))]
        vm: VmName,
        #[arg(long, help = DETACH)]
        detach: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Backup {
    /// Back up a VM now
    Run {
        /// Name of the VM
        #[arg(add = ArgValueCompleter::new(completion::vms))]
        vm: VmName,
        #[arg(long, help = DETACH)]
        detach: bool,
    },
    /// List backups, newest first
    List {
        /// Only backups of this VM
        #[arg(add = ArgValueCompleter::new(completion::vms))]
        vm: Option<VmName>,
    },
    /// Create a new VM from a backup
    Restore {
        /// VM@latest, or VM@ID with the first characters of a backup's id
        #[arg(add = ArgValueCompleter::new(completion::backups))]
        backup: BackupRef,
        /// Name of the new VM
        #[arg(long = "as", value_name = "NAME")]
        as_vm: VmName,
        #[arg(long, help = DETACH)]
        detach: bool,
    },
    /// Read a backup and check every byte
    Verify {
        /// VM@latest, or VM@ID with the first characters of a backup's id
        #[arg(add = ArgValueCompleter::new(completion::backups))]
        backup: BackupRef,
        #[arg(long, help = DETACH)]
        detach: bool,
    },
    /// Read the whole backup repository and check every byte
    VerifyRepository {
        /// Check at most SIZE, such as 10G (powers of 1024), first what was checked longest ago
        #[arg(long, value_name = "SIZE")]
        bytes_max: Option<ByteCount>,
        #[arg(long, help = DETACH)]
        detach: bool,
    },
    /// Remove backups that no --keep rule keeps
    ///
    /// The newest three of each VM, held backups and snapshots that the service did not make stay. Hours, days, weeks,
    /// months and years are those of UTC. `loam repository forget --dry-run` shows what rules would remove. Then
    /// `loam backup collect` frees the space.
    Forget(Forget),
    /// Delete data in the repository that no backup needs
    ///
    /// `loam repository collect --dry-run` shows what would be deleted.
    Collect {
        #[arg(long, help = DETACH)]
        detach: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Forget {
    /// Only backups of this VM
    #[arg(add = ArgValueCompleter::new(completion::vms))]
    pub(super) vm: Option<VmName>,
    /// Keep the last N backups of each VM
    #[arg(long, value_name = "N")]
    pub(super) keep_last: Option<u32>,
    /// Keep the last backup of each of N hours
    #[arg(long, value_name = "N")]
    pub(super) keep_hourly: Option<u32>,
    /// Keep the last backup of each of N days
    #[arg(long, value_name = "N")]
    pub(super) keep_daily: Option<u32>,
    /// Keep the last backup of each of N weeks
    #[arg(long, value_name = "N")]
    pub(super) keep_weekly: Option<u32>,
    /// Keep the last backup of each of N months
    #[arg(long, value_name = "N")]
    pub(super) keep_monthly: Option<u32>,
    /// Keep the last backup of each of N years
    #[arg(long, value_name = "N")]
    pub(super) keep_yearly: Option<u32>,
    #[arg(long, help = DETACH)]
    pub(super) detach: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Schedule {
    /// Add a schedule
    #[command(after_help = examples::SCHEDULE_ADD)]
    Add {
        /// Name of the schedule
        #[arg(value_name = "NAME")]
        id: ScheduleId,
        /// When to run: five cron fields, six with seconds first, or @daily and the like
        #[arg(long)]
        cron: String,
        /// Time zone of the cron fields, such as Europe/Paris
        #[arg(long, value_name = "ZONE", default_value = "UTC")]
        time_zone: String,
        /// Back up this VM
        #[arg(long, value_name = "VM", add = ArgValueCompleter::new(completion::vms))]
        #[arg(required_unless_present = "command", conflicts_with = "command")]
        backup: Option<VmName>,
        /// Send this command instead, such as backup.verify_repository
        #[arg(long, value_name = "SERVICE.COMMAND", value_parser = schedule::service_command)]
        command: Option<(Service, String)>,
        /// Fields of the command as a JSON object, such as {"keep":{"daily":7}}
        #[arg(long, value_name = "JSON", requires = "command", value_parser = schedule::json_object)]
        body: Option<serde_json::Value>,
    },
    /// List schedules
    List,
    /// Remove a schedule; a run that has begun goes on
    Remove {
        /// Name of the schedule
        #[arg(value_name = "NAME", add = ArgValueCompleter::new(completion::schedules))]
        id: ScheduleId,
    },
    /// List the latest runs of a schedule
    Runs {
        /// Name of the schedule
        #[arg(value_name = "NAME", add = ArgValueCompleter::new(completion::schedules))]
        id: ScheduleId,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Upgrade {
    /// List the versions and builds of running services
    Status,
    /// Replace a service by a signed release
    Apply {
        /// Release directory on the upgrade service's host
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        #[arg(long, help = DETACH)]
        detach: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Op {
    /// List operations, newest first
    List {
        /// Only operations that have not ended
        #[arg(long)]
        unfinished: bool,
        /// Only operations of this service: provisioner, backup or upgrade
        #[arg(long, add = ArgValueCandidates::new(completion::workers))]
        service: Option<Service>,
    },
    /// Show one operation
    Show {
        /// Id of the operation, or its first characters
        #[arg(add = ArgValueCompleter::new(completion::operations))]
        id: String,
    },
    /// Follow an operation until it ends
    Watch {
        /// Id of the operation, or its first characters
        #[arg(add = ArgValueCompleter::new(completion::operations))]
        id: String,
    },
    /// Cancel an operation and undo what it did
    Cancel {
        /// Id of the operation, or its first characters
        #[arg(add = ArgValueCompleter::new(completion::operations))]
        id: String,
        #[arg(long, help = DETACH)]
        detach: bool,
    },
}
