//! `loam repository`: commands on a store itself. No service runs and no bus is asked, so that disaster recovery needs
//! this program, the store, and a secret.
//!
//! ```text
//!   args ──> access: store, secret, cache ──> Repository (the engine, in this process)
//!              │                                   │            │ Progress
//!              │                              what it did       └──> work: a bar on stderr, Ctrl-C
//!              v                                   v
//!   trouble: an exit code, a word, a sentence    answer: ok | ok with warnings, a table or JSON
//! ```
//!
//! Promises: a repository is made by `init` and nothing else; secrets come from files that only their owner can write,
//! never from arguments or the environment; Ctrl-C ends in order, and a second one at once; with `--json` there is one
//! object on stdout, whatever happens. Next: `answer` for outcomes, `trouble` for exit codes.

mod access;
mod answer;
mod backup;
mod collect;
mod copy;
mod destinations;
mod diff;
mod file;
mod files;
mod forget;
mod holds;
mod init;
mod keys;
mod mount;
mod restore;
mod revive;
mod serve;
mod snapshots;
mod trouble;
mod values;
mod verify;
mod which;
mod work;

use std::time::Duration;

use clap::Subcommand;

use self::work::Work;
use super::exit::Trouble;

/// Threads that still write or wait for stdin are given this long when the command has ended.
const THREADS_END_MAX: Duration = Duration::from_secs(1);

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed: no repository there, something else there, a newer format, damage, ...
  2    wrong arguments, or a secret file that cannot be used
  3    refused: wrong or removed secret, write-only key, held snapshot, distrusted clock
  4    the store cannot be reached
  6    done, with warnings
  130  interrupted; it can be run again";

#[derive(Debug, Subcommand)]
pub(super) enum RepositoryCommand {
    /// Make a repository in an empty place
    ///
    /// The folder is made where it is missing; a bucket must exist. Needs a passphrase or key file, which becomes the
    /// first key. Whoever loses all keys loses all backups.
    #[command(after_help = EXIT_CODES)]
    Init(Box<init::InitArgs>),
    /// What a repository is and how much is in it
    #[command(after_help = EXIT_CODES)]
    Info(Box<init::InfoArgs>),
    /// List the snapshots, oldest first
    #[command(after_help = EXIT_CODES)]
    Snapshots(Box<snapshots::SnapshotsArgs>),
    /// Back up disks and stdin as one snapshot
    ///
    /// The disks must not change while they are read: of a running machine give an NBD export that is frozen in time.
    /// Only what the repository does not hold is stored. With --to the same reading goes to a second repository, too;
    /// while the first cannot be reached it goes to that one alone, with a warning, and is brought home by the first
    /// backup after. It ends with 6 when the backup is there but looks unusual: too
    /// small, a disk gone, far more changed than usual, as when malware encrypts.
    #[command(after_help = EXIT_CODES)]
    Backup(Box<backup::BackupArgs>),
    /// Write disks or streams of a snapshot back
    ///
    /// A new image has its name only when it is whole and on stable storage. Needs a key that may read, and room.
    #[command(after_help = EXIT_CODES)]
    Restore(Box<restore::RestoreArgs>),
    /// Show a disk over NBD until Ctrl-C, for QEMU, nbdcopy and the like
    ///
    /// Prints the URI when clients may connect. With --overlay a machine can boot from it at once. Ends with 0 on Ctrl-C.
    #[command(after_help = EXIT_CODES)]
    Serve(Box<serve::ServeArgs>),
    /// Show all disks as files in a folder until Ctrl-C, and their file systems
    ///
    /// Needs /dev/fuse, and root or fusermount3; --file-system needs root. All is read-only. Ends with 0 on Ctrl-C, and
    /// with 6 where a file system could not be mounted.
    #[command(after_help = EXIT_CODES)]
    Mount(Box<mount::MountArgs>),
    /// List disks, partitions, folders: ext2/3/4 and FAT, without a mount and without root
    #[command(after_help = EXIT_CODES)]
    Ls(Box<files::LsArgs>),
    /// Get one file of a disk: from ext2/3/4 and FAT, without a mount and without root
    #[command(after_help = EXIT_CODES)]
    Extract(Box<files::ExtractArgs>),
    /// Where the disks of two snapshots differ, in segments of 4 MiB
    #[command(after_help = EXIT_CODES)]
    Diff(Box<diff::DiffArgs>),
    /// Read stored data again and check every byte
    ///
    /// Ends with 1 when anything is not as it was stored. Needs a key that may read.
    #[command(after_help = EXIT_CODES)]
    Verify(Box<verify::VerifyArgs>),
    /// Make the index anew from the packs, when it is lost or damaged
    ///
    /// Ends with 6 when packs could not be read; `verify --all` then tells what is lost.
    #[command(after_help = EXIT_CODES)]
    RebuildIndex(Box<verify::RebuildIndexArgs>),
    /// Forget snapshots, by name or by rules; `collect` then gives back the room
    ///
    /// By rules nothing is forgotten while the clock cannot be trusted. Held snapshots are never forgotten.
    #[command(after_help = EXIT_CODES)]
    Forget(Box<forget::ForgetArgs>),
    /// Keep a snapshot whatever rules and people say, until it is released
    #[command(after_help = EXIT_CODES)]
    Hold(Box<holds::HoldArgs>),
    /// End a hold
    #[command(after_help = EXIT_CODES)]
    Release(Box<holds::ReleaseArgs>),
    /// List what is held, and why
    #[command(after_help = EXIT_CODES)]
    Holds(Box<holds::HoldsArgs>),
    /// Delete what no snapshot needs, beside running backups; packs that are mostly waste are rewritten
    #[command(after_help = EXIT_CODES)]
    Collect(Box<collect::CollectArgs>),
    /// Bring back what was deleted or written over in a bucket that keeps versions, as one with Object Lock does
    ///
    /// Needs no key of the repository: it may be its config that was deleted. What people and collections deleted since
    /// then comes back, too; the next `collect` removes again what nobody needs. Afterwards run
    /// `rebuild-index` and `verify --all`.
    #[command(after_help = EXIT_CODES)]
    Revive(Box<revive::ReviveArgs>),
    /// Copy snapshots into a second repository, which must exist
    ///
    /// What it has already is not stored again. Needs a key that may read here, and any key there.
    #[command(after_help = EXIT_CODES)]
    Copy(Box<copy::CopyArgs>),
    /// Who may open the repository
    #[command(subcommand)]
    Keys(keys::KeysCommand),
}

/// Carries a command out; `json` chooses how the answer is shown.
pub(super) fn run(json: bool, command: RepositoryCommand) -> Result<(), Trouble> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| trouble::while_doing("starting", error))?;
    let outcome = runtime.block_on(async {
        let work = Work::begin(json)?;
        Box::pin(carry_out(command, &work)).await
    });
    runtime.shutdown_timeout(THREADS_END_MAX);
    outcome
}

async fn carry_out(command: RepositoryCommand, work: &Work) -> Result<(), Trouble> {
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
        RepositoryCommand::Revive(args) => revive::run(*args, work).await,
        RepositoryCommand::Copy(args) => copy::run(*args, work).await,
        RepositoryCommand::Keys(command) => Box::pin(keys::run(command, work)).await,
    }
}
