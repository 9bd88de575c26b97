//! `loam repository`: commands that open a repository themselves. They need no service and no bus, so that disaster
//! recovery needs this program, the store, and a secret.
//!
//! ```text
//!   args ──> access: store, secret, cache ──> Repository (the engine, in this process)
//!              │                                   │            │ Progress
//!              │                                 result         └──> work: a bar on stderr, Ctrl-C
//!              v                                   v
//!   errors: exit code, kind, message    answer: ok | ok with warnings, a table or JSON
//! ```
//!
//! Promises: `init` alone makes a repository; secrets come from files that only their owner can write, never from
//! arguments or the environment; Ctrl-C ends in order, and a second one at once; with `--json` there is one object on
//! stdout, whatever happens. Next: `answer` for outcomes, `errors` for exit codes.

mod access;
mod answer;
mod backup;
mod collect;
mod copy;
mod destinations;
mod diff;
mod errors;
mod file;
mod files;
mod forget;
mod holds;
mod init;
mod keys;
mod mount;
mod restore;
mod serve;
mod snapshot_arg;
mod snapshots;
mod undelete;
mod values;
mod verify;
mod work;

use std::time::Duration;

use clap::Subcommand;

use self::work::CommandContext;
use super::examples;
use super::exit::CliError;

/// How long threads that still write or wait for stdin get when the command has ended.
const THREADS_END_MAX: Duration = Duration::from_secs(1);

/// The heading of the options that open a repository.
pub(super) const OPTIONS: &str = "Options that open a repository";

/// The end of `loam repository --help`.
pub(super) const HELP_END: &str = "\
Examples:
  loam repository snapshots --store s3://backups/loam --endpoint https://s3.example \\
      --access-key-id ID --secret-access-key-file s3.secret --passphrase-file passphrase
  loam repository restore --store file:///mnt/backups --passphrase-file passphrase \\
      latest --machine web --disk vda=web.qcow2 --format qcow2
  loam repository serve --store file:///mnt/backups --passphrase-file passphrase \\
      latest --machine web --disk vda --socket /run/web.sock
  loam repository extract --store file:///mnt/backups --passphrase-file passphrase \\
      latest --machine web --disk vda --partition 1 /etc/fstab --output fstab

For users of restic: prune is `collect`, check is `verify`, dump is `extract`, stats is `info`, key is `keys`, and
--host is --machine. No unlock is needed: the lease of a backup that died expires by itself.

Exit codes:
  0    done, also when the reader of standard output closed it early
  1    failed: no repository there, not a repository, a newer format, damage, …
  2    wrong arguments, or a secret file that cannot be used
  3    refused, nothing was done: wrong or removed secret, write-only key, held snapshot, untrusted clock
  4    the store cannot be reached
  6    done, with warnings; done, but the result could not be written
  130  interrupted; it can be run again
  141  the reader closed standard output before a disk, stream or file was whole

Global options, such as --json: see `loam --help`";

#[derive(Debug, Subcommand)]
pub(super) enum RepositoryCommand {
    /// Initialize a new repository
    ///
    /// A missing directory is created; a bucket must exist. The passphrase, key file or identity becomes the first key.
    /// Without any of its keys nobody can read the backups.
    Init(Box<init::InitArgs>),
    /// Show properties and statistics of a repository
    Info(Box<init::InfoArgs>),
    /// List snapshots, oldest first
    Snapshots(Box<snapshots::SnapshotsArgs>),
    /// Back up disks and standard input as one snapshot
    ///
    /// Disks must not change while they are read: of a running VM give an NBD export of a point in time. Only data that
    /// the repository does not hold is stored. With --to the backup goes to a second repository as well; while the first
    /// cannot be reached it goes to the second alone, with a warning, and the next backup copies it to the first. Ends
    /// with 6 when the backup is stored but looks unusual: too small, a disk missing, far more changed than usual, as
    /// when malware encrypts.
    #[command(after_help = examples::REPOSITORY_BACKUP)]
    Backup(Box<backup::BackupArgs>),
    /// Restore disks and streams of a snapshot
    ///
    /// A new image gets its name when it is complete and on stable storage. Needs a key that may read.
    Restore(Box<restore::RestoreArgs>),
    /// Serve a disk over NBD until Ctrl-C, for QEMU, nbdcopy and the like
    ///
    /// Prints the URI when clients may connect. With --overlay a VM can boot from it at once. Ends with 0 on Ctrl-C.
    Serve(Box<serve::ServeArgs>),
    /// Mount the disks of a snapshot as files until Ctrl-C
    ///
    /// Needs /dev/fuse, and root or fusermount3; --with-file-systems needs root. Everything is read-only. Ends with 0 on
    /// Ctrl-C, and with 6 where a file system could not be mounted.
    Mount(Box<mount::MountArgs>),
    /// List disks, partitions or files of a snapshot (ext2/3/4, FAT), without root
    Ls(Box<files::LsArgs>),
    /// Extract one file of a disk (ext2/3/4, FAT), without root
    Extract(Box<files::ExtractArgs>),
    /// Show differences between the disks of two snapshots, in segments of 4 MiB
    Diff(Box<diff::DiffArgs>),
    /// Read stored data again and check every byte
    ///
    /// With --bytes-max, run daily, it reads every pack in time; only --all finds missing packs. After --quarantine the
    /// next backup stores lost data again where it can. Ends with 1 when anything is not as it was stored. Needs a key
    /// that may read.
    Verify(Box<verify::VerifyArgs>),
    /// Build a new index from the packs, when it is lost or damaged
    ///
    /// Ends with 6 when packs could not be read: `verify --all` then shows what is lost.
    RebuildIndex(Box<verify::RebuildIndexArgs>),
    /// Remove snapshots by id or by rules; `collect` frees their space
    ///
    /// Rules remove nothing while the clock cannot be trusted. Held snapshots are never removed.
    Forget(Box<forget::ForgetArgs>),
    /// Protect a snapshot from `forget` until it is released
    Hold(Box<holds::HoldArgs>),
    /// End the hold of a snapshot
    Release(Box<holds::ReleaseArgs>),
    /// List held snapshots and why they are held
    Holds(Box<holds::HoldsArgs>),
    /// Delete data that no snapshot needs, as restic prune does
    ///
    /// Backups may run meanwhile: what they may need is kept until a later run.
    Collect(Box<collect::CollectArgs>),
    /// Bring back deleted or overwritten objects in a bucket that keeps versions
    ///
    /// No key of the repository is needed, since its config may have been deleted: a secret is accepted and not read.
    /// Objects that people and `collect` deleted since then come back as well; the next `collect` removes them again.
    /// Then run `rebuild-index` and `verify --all`.
    Undelete(Box<undelete::UndeleteArgs>),
    /// Copy snapshots to a second repository, which must exist
    ///
    /// Data that it holds already is not stored again. Needs a key that may read here, and any key there.
    Copy(Box<copy::CopyArgs>),
    /// Manage the keys that open a repository
    #[command(subcommand)]
    Keys(keys::KeysCommand),
}

impl RepositoryCommand {
    /// Whether showing something is all that the command does.
    pub(super) fn only_shows(&self) -> bool {
        use keys::KeysCommand;
        match self {
            RepositoryCommand::Info(_)
            | RepositoryCommand::Snapshots(_)
            | RepositoryCommand::Ls(_)
            | RepositoryCommand::Diff(_)
            | RepositoryCommand::Holds(_)
            | RepositoryCommand::Keys(KeysCommand::List(_)) => true,
            // The URI and the recipient are what the command is for.
            RepositoryCommand::Serve(_) | RepositoryCommand::Keys(KeysCommand::GenerateIdentity { .. }) => {
                true
            }
            _ => false,
        }
    }
}

/// Runs a command; `json` chooses how the answer is shown.
pub(super) fn run(json: bool, command: RepositoryCommand) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| errors::while_doing("starting", error))?;
    let outcome = runtime.block_on(async {
        let work = CommandContext::begin(json)?;
        Box::pin(run_command(command, &work)).await
    });
    runtime.shutdown_timeout(THREADS_END_MAX);
    outcome
}

async fn run_command(command: RepositoryCommand, work: &CommandContext) -> Result<(), CliError> {
    match command {
        RepositoryCommand::Init(args) => init::init(*args, work).await,
        RepositoryCommand::Info(args) => init::info(*args, work).await,
        RepositoryCommand::Snapshots(args) => snapshots::run(*args, work).await,
        RepositoryCommand::Backup(args) => backup::run(*args, work).await,
        RepositoryCommand::Restore(args) => restore::run(*args, work).await,
        RepositoryCommand::Serve(args) => serve::run(*args, work).await,
        RepositoryCommand::Mount(args) => mount::run(*args, work).await,
        RepositoryCommand::Ls(args) => files::ls(*args, work).await,
        RepositoryCommand::Extract(args) => files::extract(*args, work).await,
        RepositoryCommand::Diff(args) => diff::run(*args, work).await,
        RepositoryCommand::Verify(args) => verify::verify(*args, work).await,
        RepositoryCommand::RebuildIndex(args) => verify::rebuild_index(*args, work).await,
        RepositoryCommand::Forget(args) => forget::run(*args, work).await,
        RepositoryCommand::Hold(args) => holds::hold(*args, work).await,
        RepositoryCommand::Release(args) => holds::release(*args, work).await,
        RepositoryCommand::Holds(args) => holds::holds(*args, work).await,
        RepositoryCommand::Collect(args) => collect::run(*args, work).await,
        RepositoryCommand::Undelete(args) => undelete::run(*args, work).await,
        RepositoryCommand::Copy(args) => copy::run(*args, work).await,
        RepositoryCommand::Keys(command) => Box::pin(keys::run(command, work)).await,
    }
}
