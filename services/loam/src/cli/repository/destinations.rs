//! Where a backup goes: one repository, or two from one reading of the disks.
//!
//! ```text
//!   first        second
//!   reachable    reachable     the backup is in both; backups of the second alone are copied to the first before
//!   away         reachable     it is in the second, marked as standing in: a warning
//!   reachable    any error     it is in the first: a warning
//!   refuses      …             failed: a wrong secret or replaced keys must be repaired, not gone around
//! ```
//!
//! So a backup that is in one repository alone is warned of each time, until both have it.

use std::sync::Arc;

use backup_repository::{
    BackupRequest, BackupStats, Cancel, CopyDisksError, Destination, Draft, Progress, Repository, Selector,
    Snapshot, SnapshotError, SnapshotId, back_up_to_several,
};

use super::access::Access;
use super::work::{CommandContext, shown};
use super::{errors, snapshot_arg};
use crate::cli::exit::{CliError, CliExitCode};

/// Repositories that were opened.
pub(super) struct BackupDestinations {
    /// In the order of the command line.
    places: Vec<BackupDestination>,
    /// Whether the first repository is away, so that the second stands in for it.
    stands_in: bool,
    pub(super) warnings: Vec<String>,
}

struct BackupDestination {
    name: String,
    repository: Repository,
}

/// A backup that is stored.
pub(super) struct StoredBackup {
    pub(super) snapshot: Snapshot,
    /// The repositories that have it.
    pub(super) stored_in: Vec<String>,
    /// A repository that has it.
    pub(super) repository: Repository,
    pub(super) warnings: Vec<String>,
}

/// What a backup would store.
pub(super) struct BackupEstimate {
    pub(super) stats: BackupStats,
    pub(super) warnings: Vec<String>,
}

impl BackupDestinations {
    pub(super) async fn open(
        first: &Access,
        second: Option<Access>,
        work: &CommandContext,
    ) -> Result<BackupDestinations, CliError> {
        let mut found = BackupDestinations { places: Vec::new(), stands_in: false, warnings: Vec::new() };
        let Some(second) = second else {
            found.places.push(BackupDestination { name: first.place(), repository: first.open(work).await? });
            return Ok(found);
        };
        let (one, other) = (first.open(work).await, second.open(work).await);
        let one = match (one, &other) {
            (Err(away), Ok(_)) if is_away(&away) => {
                found.warnings.push(missed(first, &away));
                found.stands_in = true;
                None
            }
            (one, _) => Some(one?),
        };
        found.places.extend(one.map(|repository| BackupDestination { name: first.place(), repository }));
        match other {
            Ok(repository) => found.places.push(BackupDestination { name: second.place(), repository }),
            // Wrong arguments are reported before anything is done.
            Err(wrong) if wrong.exit() == CliExitCode::Usage => return Err(wrong),
            // Any other error of the second repository does not prevent the backup.
            Err(error) => found.warnings.push(missed(&second, &error)),
        }
        Ok(found)
    }

    /// Copies to the first the backups that went to the second alone while the first was away.
    pub(super) async fn copy_to_first(&mut self, work: &CommandContext) -> Result<Vec<SnapshotId>, CliError> {
        let [first, second] = &self.places[..] else { return Ok(Vec::new()) };
        let in_first = work.wait(first.repository.snapshot_ids()).await?;
        let mut ids: Vec<_> = work.wait(second.repository.snapshots()).await?;
        ids.retain(|snapshot| snapshot.contents.stored_as_failover && !in_first.contains(&snapshot.id));
        let ids: Vec<_> = ids.into_iter().map(|snapshot| snapshot.id).collect();
        if ids.is_empty() {
            return Ok(ids);
        }
        let (from, to) = (&second.name, &first.name);
        if !second.repository.can_read() {
            self.warnings.push(format!(
                "{} backups are in {from} and not in {to}: copy them with `loam repository copy --all` and a key that may read",
                ids.len()
            ));
            return Ok(Vec::new());
        }
        let progress = Arc::new(Progress::new());
        let copying = second.repository.copy_to(&first.repository, &ids, &progress, &work.cancel);
        match shown("copying earlier backups", &progress, Box::pin(copying)).await {
            Ok(report) => Ok(report.copied),
            Err(_) if work.cancel.is_cancelled() => Err(interrupted()),
            Err(error) => {
                let why = errors::message(&error);
                self.warnings
                    .push(format!("{} backups of {from} could not be copied to {to}: {why}", ids.len()));
                Ok(Vec::new())
            }
        }
    }

    /// The snapshot in each repository that dirty bitmaps refer to.
    async fn parents(
        &self,
        asked: Option<&str>,
        machine: &str,
        work: &CommandContext,
    ) -> Result<Vec<Option<SnapshotId>>, CliError> {
        let Some(BackupDestination { repository, .. }) = self.places.first() else { return Ok(Vec::new()) };
        let counts = match asked {
            Some("none") => None,
            None | Some("auto") => {
                match repository.find(&Selector::Latest { machine: machine.to_owned() }).await {
                    Ok(snapshot) => Some(snapshot.id),
                    Err(SnapshotError::Unknown { .. }) => None,
                    Err(error) => return Err(errors::of(error)),
                }
            }
            // A repository that stands in may lack the snapshot: then the disks are read whole.
            Some(id) => match snapshot_arg::find(repository, id, Some(machine), work).await {
                Ok(snapshot) => Some(snapshot.id),
                Err(unknown) if self.stands_in && unknown.kind() == "no_snapshot" => None,
                Err(error) => return Err(error),
            },
        };
        let mut parents = vec![counts];
        for place in &self.places[1..] {
            let there = work.wait(place.repository.snapshot_ids()).await?;
            parents.push(counts.filter(|id| there.contains(id)));
        }
        Ok(parents)
    }

    /// What a backup to the first of them would store.
    pub(super) async fn estimate(
        self,
        request: BackupRequest,
        parent: Option<&str>,
        work: &CommandContext,
    ) -> Result<BackupEstimate, CliError> {
        let parent = self.parents(parent, &request.machine, work).await?.into_iter().next().flatten();
        let title = format!("estimate {}", request.machine);
        let (request, progress) = (BackupRequest { parent, ..request }, Arc::new(Progress::new()));
        let reading = self.places[0].repository.estimate(request, &progress, &work.cancel);
        let stats = shown(&title, &progress, Box::pin(reading)).await.map_err(errors::of)?;
        Ok(BackupEstimate { stats, warnings: self.warnings })
    }

    /// Backs up to all of them.
    pub(super) async fn back_up(
        self,
        request: BackupRequest,
        parent: Option<&str>,
        work: &CommandContext,
    ) -> Result<StoredBackup, CliError> {
        let parents = self.parents(parent, &request.machine, work).await?;
        let title = format!("backup {}", request.machine);
        let to: Vec<_> = self
            .places
            .iter()
            .zip(parents)
            .map(|(place, parent)| Destination {
                repository: &place.repository,
                parent,
                progress: Arc::default(),
            })
            .collect();
        let progress = Arc::clone(&to[0].progress);
        let drafts = shown(&title, &progress, Box::pin(back_up_to_several(request, &to, &work.cancel))).await;
        drop(to);
        self.seal(drafts, &work.cancel).await
    }

    /// From here on it is a write or two, which is not interrupted.
    async fn seal(
        self,
        drafts: Vec<Result<Draft, CopyDisksError>>,
        cancel: &Cancel,
    ) -> Result<StoredBackup, CliError> {
        let BackupDestinations { places, mut stands_in, mut warnings } = self;
        let id = SnapshotId::generate();
        let (mut stored, mut failure): (Option<StoredBackup>, Option<CliError>) = (None, None);
        for (BackupDestination { name, repository }, draft) in places.into_iter().zip(drafts) {
            let sealed = match draft {
                Ok(draft) => {
                    let draft = if stands_in { draft.standing_in() } else { draft };
                    repository.seal(&draft, id).await.map_err(errors::of)
                }
                Err(error) => Err(errors::of(error)),
            };
            match sealed {
                Ok(snapshot) => match &mut stored {
                    Some(stored) => stored.stored_in.push(name),
                    None => {
                        let places = vec![name];
                        stored = Some(StoredBackup {
                            snapshot,
                            stored_in: places,
                            repository,
                            warnings: Vec::new(),
                        });
                    }
                },
                Err(_) if cancel.is_cancelled() => failure = Some(interrupted()),
                Err(error) => {
                    // The next repository stands in for it.
                    stands_in |= stored.is_none();
                    warnings.push(not_in(&name, error.message()));
                    failure.get_or_insert(error);
                }
            }
        }
        let nowhere = || CliError::new(CliExitCode::Failed, "the backup was stored nowhere");
        let mut stored = stored.ok_or_else(|| failure.unwrap_or_else(nowhere))?;
        stored.warnings = warnings;
        Ok(stored)
    }
}

fn missed(access: &Access, away: &CliError) -> String {
    not_in(&access.place(), away.message())
}

fn not_in(place: &str, why: &str) -> String {
    format!("the backup is not in {place}: {why}")
}

/// Whether a repository cannot be reached, or its folder is empty, as where a disk is not mounted. Any other error
/// needs a person.
fn is_away(error: &CliError) -> bool {
    error.exit() == CliExitCode::Unreachable || error.kind() == "no_repository"
}

fn interrupted() -> CliError {
    CliError::new(CliExitCode::Interrupted, "interrupted").with_kind("interrupted")
}
