//! Release admission: one release at a time is copied and verified, and only while no upgrade is unfinished. It keeps
//! no list of its own: the received releases on disk and their operations say which upgrade is under way.

use std::sync::Arc;
use std::time::Duration;

use bus::ErrorReply;
use contract::message::{Failure, FailureKind};
use contract::upgrade::{ApplyRelease, ApplyReleaseRefused};
use operation::{Engine, PendingCommand};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::release_dir::{ReleaseDir, ReleaseDirError};

/// How long a release waits while another one of tens of megabytes is copied and hashed; below the 120 s in which the
/// bus wants an answer.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Admits releases. A check that is cut off leaves a received release without an operation; the next one removes it.
pub(crate) struct ReleaseAdmission {
    releases: ReleaseDir,
    engine: Engine,
    turn: Arc<Mutex<()>>,
}

/// A release that was received and verified; no other is admitted until this is dropped.
pub(crate) struct AdmissionGuard(#[expect(dead_code, reason = "held, never read")] OwnedMutexGuard<()>);

impl ReleaseAdmission {
    pub(crate) fn new(releases: ReleaseDir, engine: Engine) -> ReleaseAdmission {
        ReleaseAdmission { releases, engine, turn: Arc::default() }
    }

    /// Copies and verifies a release for the operation that is to begin.
    pub(crate) async fn admit(
        &self,
        candidate: PendingCommand<ApplyRelease>,
    ) -> Result<AdmissionGuard, ErrorReply<ApplyReleaseRefused>> {
        let PendingCommand { id, command, .. } = candidate;
        let turn =
            tokio::time::timeout(WAIT_MAX, Arc::clone(&self.turn).lock_owned()).await.map_err(|_| {
                let message = "another release is still being checked; try again".into();
                ErrorReply::Failed(Failure { kind: FailureKind::Busy, message })
            })?;
        // The same command may have begun while this one waited.
        let known = self.engine.find(&id).await.map_err(|error| Failure::unavailable(&error))?;
        if known.is_none() {
            self.make_way().await?;
            self.on_disk(move |releases| releases.receive(&id, &command.folder)).await?;
        }
        Ok(AdmissionGuard(turn))
    }

    /// Makes sure that no upgrade is unfinished, and removes what ended ones have left.
    async fn make_way(&self) -> Result<(), ErrorReply<ApplyReleaseRefused>> {
        for id in self.on_disk(ReleaseDir::received_ids).await? {
            let report = self.engine.find(&id).await.map_err(|error| Failure::unavailable(&error))?;
            if report.is_some_and(|report| !report.state.is_final()) {
                return Err(ErrorReply::Refused(ApplyReleaseRefused::UnderWay(id)));
            }
            self.on_disk(move |releases| releases.discard(&id)).await?;
        }
        Ok(())
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ReleaseDir) -> Result<T, ReleaseDirError> + Send + 'static,
    ) -> Result<T, ErrorReply<ApplyReleaseRefused>> {
        self.releases.in_background(work).await.map_err(|error| match error {
            ReleaseDirError::Refused(refusal) => ErrorReply::Refused(refusal),
            error @ ReleaseDirError::Disk { .. } => Failure::unavailable(&error).into(),
        })
    }
}
