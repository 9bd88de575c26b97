//! The command line.
//!
//! Every name and id completes itself from the bus (`completion`). `help` decides which help shows which option.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::{ArgValueCandidates, ArgValueCompleter};
use contract::{BackupRef, ByteCount, ScheduleId, SeedName, Service, VmName};

use super::completion::{self, Shell};
use super::schedule;
use crate::state::STATE_DEFAULT;
use crate::up::settings::Hypervisor;

const GLOBAL: &str = "Global options";
/// Manage virtual machines: create, back up, route, schedule, upgrade
#[derive(Debug, Parser)]
#[command(name = "loam", version, after_help = super::exit::TABLE, disable_help_subcommand = true)]
pub(super) struct Args {
    /// State directory of this host
    #[arg(long, global = true, env = "LOAM_STATE", default_value = STATE_DEFAULT, value_name = "DIR")]
    #[arg(help_heading = GLOBAL)]
    pub state: PathBuf,
    /// URL of the message bus (default: from client.toml in the state directory)
    #[arg(long, global = true, value_name = "URL", help_heading = GLOBAL)]
    pub url: Option<String>,
    /// File with your nkey seed (default: from client.toml in the state directory)
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
            Command::Status | Command::Proxy { .. } | Command::Completion { .. } => true,
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
    /// Run the message bus and all services on this host until Ctrl-C
    Up {
        /// Settings file (default: built-in settings)
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Hypervisor that runs the VMs (default: the one in the settings, or else libvirt)
        #[arg(long, value_enum)]
        hypervisor: Option<Hypervisor>,
    },
    /// Show the health of all services
    Status,
    /// Manage seeds, the base images of VMs
    #[command(subcommand)]
    Seed(Seed),
    /// Manage VMs
    #[command(subcommand)]
    Vm(Vm),
    /// List domains and the VMs they are routed to
    Proxy {
        #[command(subcommand)]
        command: Option<Proxy>,
    },
    /// Back up and restore VMs
    #[command(subcommand)]
    Backup(Backup),
    /// Send commands on a schedule, such as backups
    #[command(subcommand)]
    Schedule(Schedule),
    /// Show versions of services, and replace services by signed releases
    #[command(subcommand)]
    Upgrade(Upgrade),
    /// List, follow and cancel operations
    #[command(subcommand)]
    Op(Op),
    /// Prepare a NATS server that `loam up` does not run, as in containers
    #[command(subcommand)]
    Bus(super::bus::BusCommand),
    /// Work on a backup repository directly, with no service running
    #[command(subcommand)]
    Repository(super::repository::RepositoryCommand),
    /// Make signing keys and sign releases of services
    #[command(subcommand)]
    Release(super::release::ReleaseCommand),
    /// Create, back up, restore and remove a VM, to show that everything works
    #[command(hide = true)]
    Demo(super::demo::DemoArgs),
    /// Print the script that completes commands, options and names in a shell
    ///
    /// Put `source <(loam completion bash)` into ~/.bashrc, the same with zsh into ~/.zshrc, or
    /// `loam completion fish | source` into ~/.config/fish/config.fish.
    Completion {
        /// The shell
        shell: Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Seed {
    /// Add a seed from a cloud image (qcow2 or raw)
    Add {
        /// Name of the seed
        name: SeedName,
        /// Image to add: a file on the provisioner's host, or an http(s) URL
        #[arg(long, value_name = "FILE|URL")]
        from: String,
        /// SHA-256 of the image, 64 hexadecimal digits
        #[arg(long, value_name = "DIGEST")]
        sha256: String,
        /// Print the operation's id and do not wait for its end
        #[arg(long)]
        detach: bool,
    },
    /// List seeds
    List,
    /// Remove a seed that no VM uses
    Remove {
        /// Name of the seed
        #[arg(add = ArgValueCompleter::new(completion::seeds))]
        name: SeedName,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Vm {
    /// Create a VM from its definition and start it
    Create {
        /// Definition of the VM, a TOML file
        file: PathBuf,
        /// Print the operation's id and do not wait for its end
        #[arg(long)]
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
        /// Print the operation's id and do not wait for its end
        #[arg(long)]
        detach: bool,
    },
    /// Shut down a VM, and power it off after 3 minutes
    Stop {
        /// Name of the VM
        #[arg(add = ArgValueCompleter::new(completion::vms))]
        vm: VmName,
        /// Print the operation's id and do not wait for its end
        #[arg(long)]
        detach: bool,
    },
    /// Remove a VM and its disk; its backups stay
    Remove {
        /// Name of the VM
        #[arg(add = ArgValueCompleter::new(completion::vms))]
        vm: VmName,
        /// Print the operation's id and do not wait for its end
        #[arg(long)]
        detach: bool,
    },
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(super) enum Proxy {
    /// List routes; the same as `loam proxy`
    Routes,
}

#[derive(Debug, Subcommand)]
pub(super) enum Backup {
    /// Back up a VM now
    Run {
        /// Name of the VM
        #[arg(add = ArgValueCompleter::new(completion::vms))]
        vm: VmName,
        /// Print the operation's id and do not wait for its end
        #[arg(long)]
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
        /// Print the operation's id and do not wait for its end
        #[arg(long)]
        detach: bool,
    },
    /// Read a backup and check every byte
    Verify {
        /// VM@latest, or VM@ID with the first characters of a backup's id
        #[arg(add = ArgValueCompleter::new(completion::backups))]
        backup: BackupRef,
        /// Print the operation's id and do not wait for its end
        #[arg(long)]
        detach: bool,
    },
    /// Read the packs of the repository and check every byte
    VerifyRepository {
        /// Read at most this much, such as 10G, beginning with what was not verified for the longest time
        #[arg(long, value_name = "SIZE")]
        max: Option<ByteCount>,
        /// Print the operation's id and do not wait for its end
        #[arg(long)]
        detach: bool,
    },
    /// Forget the backups that no rule keeps (never held ones, nor the newest three of a VM)
    Forget(Forget),
    /// Delete data in the repository that no backup needs
    Collect {
        /// Print the operation's id and do not wait for its end
        #[arg(long)]
        detach: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Forget {
    /// Only backups of this VM
    #[arg(add = ArgValueCompleter::new(completion::vms))]
    pub(super) vm: Option<VmName>,
    /// Keep this many of the newest backups of each VM
    #[arg(long, value_name = "COUNT")]
    pub(super) keep_last: Option<u32>,
    /// Keep one backup an hour, for this many hours
    #[arg(long, value_name = "COUNT")]
    pub(super) keep_hourly: Option<u32>,
    /// Keep one backup a day, for this many days
    #[arg(long, value_name = "COUNT")]
    pub(super) keep_daily: Option<u32>,
    /// Keep one backup a week, for this many weeks
    #[arg(long, value_name = "COUNT")]
    pub(super) keep_weekly: Option<u32>,
    /// Keep one backup a month, for this many months
    #[arg(long, value_name = "COUNT")]
    pub(super) keep_monthly: Option<u32>,
    /// Keep one backup a year, for this many years
    #[arg(long, value_name = "COUNT")]
    pub(super) keep_yearly: Option<u32>,
    /// Print the operation's id and do not wait for its end
    #[arg(long)]
    pub(super) detach: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Schedule {
    /// Add a schedule
    Add {
        /// Name of the schedule
        #[arg(value_name = "NAME")]
        id: ScheduleId,
        /// When to run: five cron fields, six with seconds first, or @daily and the like
        #[arg(long)]
        cron: String,
        /// Time zone of the cron fields, such as Europe/Paris
        #[arg(long, default_value = "UTC")]
        zone: String,
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
    /// Remove a schedule; what it has started goes on
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
    /// List running services with version and build
    Status,
    /// Replace a service by a signed release
    Apply {
        /// Release directory on the upgrade service's host
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// Print the operation's id and do not wait for its end
        #[arg(long)]
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
        /// Only operations of this service
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
        /// Do not wait until it is undone
        #[arg(long)]
        detach: bool,
    },
}
