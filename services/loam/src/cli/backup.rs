//! `loam backup`.

use clap::Subcommand;
use clap_complete::ArgValueCompleter;
use contract::backup::{
    ApplyRetention, Backup, CollectRepository, ListBackups, RestoreBackupAsVm, RetentionRules, StartBackup,
    VerifyBackup, VerifyRepository,
};
use contract::{BackupRef, ByteCount, HostName, VmName};

use super::args::{DETACH, HOST};
use super::completion;
use super::exit::CliError;
use super::output::{Text, cut, extra, number, short, short_length, show, time, whole};
use super::session::Session;
use super::watch::begin;

#[derive(Debug, Subcommand)]
pub(super) enum BackupCommand {
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
        #[arg(long, value_name = "NAME", help = HOST, add = ArgValueCompleter::new(completion::hosts))]
        host: Option<HostName>,
        /// Restore it even where the host has less memory, disk space or processors than it asks for
        #[arg(long)]
        overcommit: bool,
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
    Forget(ForgetArgs),
    /// Delete data in the repository that no backup needs
    ///
    /// `loam repository collect --dry-run` shows what would be deleted.
    Collect {
        #[arg(long, help = DETACH)]
        detach: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct ForgetArgs {
    /// Only backups of this VM
    #[arg(add = ArgValueCompleter::new(completion::vms))]
    vm: Option<VmName>,
    /// Keep the last N backups of each VM
    #[arg(long, value_name = "N")]
    keep_last: Option<u32>,
    /// Keep the last backup of each of N hours
    #[arg(long, value_name = "N")]
    keep_hourly: Option<u32>,
    /// Keep the last backup of each of N days
    #[arg(long, value_name = "N")]
    keep_daily: Option<u32>,
    /// Keep the last backup of each of N weeks
    #[arg(long, value_name = "N")]
    keep_weekly: Option<u32>,
    /// Keep the last backup of each of N months
    #[arg(long, value_name = "N")]
    keep_monthly: Option<u32>,
    /// Keep the last backup of each of N years
    #[arg(long, value_name = "N")]
    keep_yearly: Option<u32>,
    #[arg(long, help = DETACH)]
    detach: bool,
}

pub(super) async fn run(session: &Session, command: BackupCommand) -> Result<(), CliError> {
    let operation_id = None;
    match command {
        BackupCommand::Run { vm, detach } => {
            begin(session, StartBackup { vm, schedule: None, operation_id }, detach).await
        }
        BackupCommand::List { vm } => {
            show(session.json, &session.request(ListBackups { vm }).await?, |all, text| list(all, text))
        }
        BackupCommand::Restore { backup, as_vm, host, overcommit, detach } => {
            begin(session, RestoreBackupAsVm { backup, as_vm, host, overcommit, operation_id }, detach).await
        }
        BackupCommand::Verify { backup, detach } => {
            begin(session, VerifyBackup { backup, operation_id }, detach).await
        }
        BackupCommand::VerifyRepository { bytes_max, detach } => {
            begin(session, VerifyRepository { bytes_max, operation_id }, detach).await
        }
        BackupCommand::Forget(args) => begin(session, retention(&args), args.detach).await,
        BackupCommand::Collect { detach } => begin(session, CollectRepository { operation_id }, detach).await,
    }
}

fn retention(args: &ForgetArgs) -> ApplyRetention {
    let keep = RetentionRules {
        last: args.keep_last,
        hourly: args.keep_hourly,
        daily: args.keep_daily,
        weekly: args.keep_weekly,
        monthly: args.keep_monthly,
        yearly: args.keep_yearly,
    };
    ApplyRetention { keep, vm: args.vm.clone(), operation_id: None }
}

fn list(backups: &[Backup], text: &mut Text) {
    let length = short_length(backups.iter().map(|backup| backup.id.as_str()));
    let rows = backups.iter().map(|backup| {
        let consistency = serde_json::to_value(backup.consistency).ok();
        let consistency = consistency.and_then(|value| value.as_str().map(|name| name.replace('_', " ")));
        [
            format!("{}@{}", backup.vm, short(backup.id.as_str(), length)),
            time(&backup.taken),
            consistency.unwrap_or_default(),
            backup.bytes_read.to_string(),
            backup.bytes_new.to_string(),
            backup.bytes_stored.to_string(),
            backup.schedule.as_ref().map_or_else(|| "-".into(), ToString::to_string),
        ]
    });
    let head = [
        whole("BACKUP"),
        whole("TAKEN"),
        extra(cut("CONSISTENCY")),
        extra(number("READ")),
        number("NEW"),
        number("STORED"),
        cut("SCHEDULE"),
    ];
    text.table(head, rows.collect(), "no backups; `loam backup run` makes one");
}
