//! Where a backup goes: one repository, or two from the same reading.
//!
//! ```text
//!   first        second
//!   there        there         the backup is in both; what stood in the second is brought home before
//!   not there    there         it is in the second, marked as standing in: a warning
//!   there        in trouble    it is in the first: a warning
//!   refuses us   …             failed: a wrong secret or exchanged keys are mended, not gone around
//! ```
//!
//! So no backup is ever in another place than it seems without somebody being told, each time until it is mended.

use std::sync::Arc;

use backup_repository::{
    BackupRequest, Cancel, CopyError, CopyStats, Destination, Draft, Progress, Repository, Selector,
    Snapshot, SnapshotError, SnapshotId, back_up_to_several,
};

use super::access::Access;
use super::work::{Work, shown};
use super::{trouble, which};
use crate::cli::exit::{Exit, Trouble};

/// Repositories that are there.
pub(super) struct Destinations {
    /// The first comes first.
    places: Vec<Place>,
    /// Whether the first of all is missing.
    stands_in: bool,
    pub(super) warnings: Vec<String>,
}

struct Place {
    name: String,
    repository: Repository,
}

/// A backup that is stored.
pub(super) struct Stored {
    pub(super) snapshot: Snapshot,
    /// Where it is; the first is the one that counts.
    pub(super) places: Vec<String>,
    /// A repository that has it.
    pub(super) repository: Repository,
    pub(super) warnings: Vec<String>,
}

/// What a backup would come to.
pub(super) struct Estimated {
    pub(super) stats: CopyStats,
    pub(super) warnings: Vec<String>,
}

impl Destinations {
    pub(super) async fn open(
        first: &Access,
        second: Option<Access>,
        work: &Work,
    ) -> Result<Destinations, Trouble> {
        let mut found = Destinations { places: Vec::new(), stands_in: false, warnings: Vec::new() };
        let Some(second) = second else {
            found.places.push(Place { name: first.place(), repository: first.open(work).await? });
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
        found.places.extend(one.map(|repository| Place { name: first.place(), repository }));
        match other {
            Ok(repository) => found.places.push(Place { name: second.place(), repository }),
            // Arguments that cannot be right are told before anything is done.
            Err(wrong) if wrong.exit() == Exit::Usage => return Err(wrong),
            // Whatever else is wrong with the second does not cost the backup.
            Err(trouble) => found.warnings.push(missed(&second, &trouble)),
        }
        Ok(found)
    }

    /// Copies to the first what stands in the second for want of it.
    pub(super) async fn bring_home(&mut self, work: &Work) -> Result<Vec<SnapshotId>, Trouble> {
        let [home, away] = &self.places[..] else { return Ok(Vec::new()) };
        let at_home = work.wait(home.repository.snapshot_ids()).await?;
        let mut ids: Vec<_> = work.wait(away.repository.snapshots()).await?;
        ids.retain(|snapshot| snapshot.contents.stands_in && !at_home.contains(&snapshot.id));
        let ids: Vec<_> = ids.into_iter().map(|snapshot| snapshot.id).collect();
        if ids.is_empty() {
            return Ok(ids);
        }
        let (from, to) = (&away.name, &home.name);
        if !away.repository.can_read() {
            self.warnings.push(format!(
                "{} backups are in {from} and not in {to}: bring them home with `loam repository copy --all` and a key that may read",
                ids.len()
            ));
            return Ok(Vec::new());
        }
        let progress = Arc::new(Progress::new());
        let copying = away.repository.copy_to(&home.repository, &ids, &progress, &work.cancel);
        match shown("bringing home", &progress, Box::pin(copying)).await {
            Ok(report) => Ok(report.copied),
            Err(_) if work.cancel.is_cancelled() => Err(interrupted()),
            Err(error) => {
                let why = trouble::sentence(&error);
                self.warnings.push(format!(
                    "{} backups of {from} could not be brought home to {to}: {why}",
                    ids.len()
                ));
                Ok(Vec::new())
            }
        }
    }

    /// The snapshot in each place that maps of changes refer to.
    async fn parents(
        &self,
        asked: Option<&str>,
        machine: &str,
        work: &Work,
    ) -> Result<Vec<Option<SnapshotId>>, Trouble> {
        let Some(Place { repository, .. }) = self.places.first() else { return Ok(Vec::new()) };
        let counts = match asked {
            Some("none") => None,
            None | Some("auto") => {
                match repository.find(&Selector::Latest { machine: machine.to_owned() }).await {
                    Ok(snapshot) => Some(snapshot.id),
                    Err(SnapshotError::Unknown { .. }) => None,
                    Err(error) => return Err(trouble::of(error)),
                }
            }
            // In a place that stands in, what the map refers to may be missing: then the disks are read whole.
            Some(id) => match which::find(repository, id, Some(machine), work).await {
                Ok(snapshot) => Some(snapshot.id),
                Err(unknown) if self.stands_in && unknown.kind() == Some("no_snapshot") => None,
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
        work: &Work,
    ) -> Result<Estimated, Trouble> {
        let parent = self.parents(parent, &request.machine, work).await?.into_iter().next().flatten();
        let title = format!("estimate {}", request.machine);
        let (request, progress) = (BackupRequest { parent, ..request }, Arc::new(Progress::new()));
        let reading = self.places[0].repository.estimate(request, &progress, &work.cancel);
        let stats = shown(&title, &progress, Box::pin(reading)).await.map_err(trouble::of)?;
        Ok(Estimated { stats, warnings: self.warnings })
    }

    /// Backs up to all of them.
    pub(super) async fn back_up(
        self,
        request: BackupRequest,
        parent: Option<&str>,
        work: &Work,
    ) -> Result<Stored, Trouble> {
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

    /// From here on it is a write or two, and not worth being interrupted.
    async fn seal(self, drafts: Vec<Result<Draft, CopyError>>, cancel: &Cancel) -> Result<Stored, Trouble> {
        let Destinations { places, mut stands_in, mut warnings } = self;
        let id = SnapshotId::generate();
        let (mut stored, mut failure): (Option<Stored>, Option<Trouble>) = (None, None);
        for (Place { name, repository }, draft) in places.into_iter().zip(drafts) {
            let sealed = match draft {
                Ok(draft) => {
                    let draft = if stands_in { draft.standing_in() } else { draft };
                    repository.seal(&draft, id).await.map_err(trouble::of)
                }
                Err(error) => Err(trouble::of(error)),
            };
            match sealed {
                Ok(snapshot) => match &mut stored {
                    Some(stored) => stored.places.push(name),
                    None => {
                        let places = vec![name];
                        stored = Some(Stored { snapshot, places, repository, warnings: Vec::new() });
                    }
                },
                Err(_) if cancel.is_cancelled() => failure = Some(interrupted()),
                Err(error) => {
                    // Whichever comes next stands in for it.
                    stands_in |= stored.is_none();
                    warnings.push(not_in(&name, error.sentence()));
                    failure.get_or_insert(error);
                }
            }
        }
        let told = || Trouble::new(Exit::Failed, "the backup was stored nowhere");
        let mut stored = stored.ok_or_else(|| failure.unwrap_or_else(told))?;
        stored.warnings = warnings;
        Ok(stored)
    }
}

fn missed(access: &Access, away: &Trouble) -> String {
    not_in(&access.place(), away.sentence())
}

fn not_in(place: &str, why: &str) -> String {
    format!("the backup is not in {place}: {why}")
}

/// Whether a repository is out of reach, or its place is empty as where a disk is not mounted. Anything else that is
/// wrong with it is for somebody to look at.
fn is_away(trouble: &Trouble) -> bool {
    trouble.exit() == Exit::Unreachable || trouble.kind() == Some("no_repository")
}

fn interrupted() -> Trouble {
    Trouble::new(Exit::Interrupted, "interrupted").of_kind("interrupted")
}
