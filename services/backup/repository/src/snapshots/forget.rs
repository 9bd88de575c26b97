//! Forgetting by a retention policy: planned first, and carried out only when the clock passes its checks.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;

use futures::{StreamExt, TryStreamExt};
use tracing::{info, instrument, warn};

use super::SnapshotError;
use crate::format::snapshot::SnapshotId;
use crate::lease;
use crate::repository::{Repository, unix_ms_now};
use crate::retention::clock::{self, ClockError, ClockReadings, TrustedTime};
use crate::retention::{self, Candidate, Plan, PlanError, Policy};
use crate::store::StoreError;

const CLOCK_FILE: &str = "clock";
/// Snapshots forgotten at one time: small requests, bound by latency.
const IN_FLIGHT: usize = 16;

/// A plan of what to forget, and the check of the clock.
#[derive(Debug)]
pub struct ForgetPlan {
    /// Which snapshots are kept, why, and which are forgotten.
    pub plan: Plan,
    /// The check of the clock; where it failed, nothing is forgotten.
    pub clock_check: Result<TrustedTime, ClockError>,
}

/// The plan could not be made or carried out. What was not forgotten is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// The snapshots could not be listed or removed.
    #[error("could not list or remove snapshots")]
    Snapshots(#[from] SnapshotError),
    /// No plan could be made.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The clock did not pass its checks.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// The store failed.
    #[error("could not reach the store")]
    Store(#[from] StoreError),
}

impl Repository {
    /// Plans what a policy forgets, and checks the clock. Forgets nothing.
    ///
    /// # Errors
    /// When the store fails or a snapshot cannot be read.
    #[instrument(name = "repository.plan_to_forget", skip_all)]
    pub async fn plan_to_forget(&self, policy: &Policy) -> Result<ForgetPlan, ForgetError> {
        let snapshots = self.snapshots().await?;
        let held: HashSet<_> = self.held().await?.into_iter().collect();
        let newest = snapshots.iter().map(|snapshot| snapshot.contents.taken_at_unix_ms).max();
        let candidates: Vec<_> =
            snapshots.iter().map(|snapshot| Candidate::new(snapshot, held.contains(&snapshot.id))).collect();
        let plan = retention::plan(policy, &candidates)?;
        Ok(ForgetPlan { plan, clock_check: self.check_clock(newest).await? })
    }

    /// Forgets what was planned, and returns what was forgotten. A snapshot that was held since the plan was made is kept.
    ///
    /// # Errors
    /// When the clock did not pass its checks: then nothing is forgotten. When the store fails in the middle, the rest is
    /// kept.
    #[instrument(name = "repository.forget_planned", skip_all)]
    pub async fn forget_planned(&self, planned: ForgetPlan) -> Result<Vec<SnapshotId>, ForgetError> {
        planned.clock_check?;
        let forgetting = planned.plan.forgotten().map(|id| async move {
            match self.forget(id).await {
                Ok(()) => Ok(Some(id)),
                Err(SnapshotError::Held { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        });
        let outcomes = futures::stream::iter(forgetting.collect::<Vec<_>>()).buffered(IN_FLIGHT);
        let forgotten: Vec<_> = outcomes.try_filter_map(async |id| Ok(id)).try_collect().await?;
        info!(forgotten = forgotten.len(), "forgotten by policy");
        Ok(forgotten)
    }

    async fn check_clock(&self, newest: Option<u64>) -> Result<Result<TrustedTime, ClockError>, ForgetError> {
        let folder = self.shared.cache.folder();
        let store = lease::store_clock(&self.shared.store).await;
        let clocks = ClockReadings {
            local_unix_ms: unix_ms_now(),
            store_unix_ms: store.ok().and_then(|ms| u64::try_from(ms).ok()),
            newest_snapshot_unix_ms: newest,
            last_seen_unix_ms: folder.and_then(seen),
        };
        let trusted = clock::check(&clocks);
        if let (Some(folder), Ok(trusted)) = (folder, &trusted)
            && let Err(error) = store_seen(folder, trusted.seen_unix_ms())
        {
            warn!(%error, "the time could not be stored for the next check of the clock");
        }
        Ok(trusted)
    }
}

fn seen(folder: &Path) -> Option<u64> {
    fs::read_to_string(folder.join(CLOCK_FILE)).ok()?.trim().parse().ok()
}

fn store_seen(folder: &Path, seen_unix_ms: u64) -> io::Result<()> {
    let path = folder.join(CLOCK_FILE);
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    fs::write(&beside, seen_unix_ms.to_string())?;
    fs::rename(&beside, &path)
}
