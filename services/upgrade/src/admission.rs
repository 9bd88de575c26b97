//! Release admission: one release at a time is copied and verified, and only while no upgrade is unfinished. It keeps
//! no list of its own: the received releases on disk and their operations say which upgrade is under way.
//!
//! No version below the highest that was ever committed on this host is admitted without a reason. That one is the
//! highest of three: the record on disk, the operations that applied a release, and the version that runs. So a record
//! that was deleted changes nothing while either of the others is there; one that cannot be read refuses every release
//! without a reason.

use std::sync::Arc;
use std::time::Duration;

use bus::ErrorReply;
use contract::Service;
use contract::message::{Failure, FailureKind};
use contract::upgrade::{ApplyRelease, ApplyReleaseRefused};
use operation::{Engine, PendingCommand};
use tokio::sync::{Mutex, OwnedMutexGuard};
use upgrade_domain::{Release, highest_version, is_older_version};

use crate::release_dir::{ReleaseDir, ReleaseDirError};
use crate::sagas::UpgradedService;
use crate::state::UpgradeContext;

/// How long a release waits while another one of tens of megabytes is copied and hashed; below the 120 s in which the
/// bus wants an answer.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Admits releases. A check that is cut off leaves a received release without an operation; the next one removes it.
pub(crate) struct ReleaseAdmission {
    state: Arc<UpgradeContext>,
    engine: Engine,
    turn: Arc<Mutex<()>>,
}

/// A release that was received and verified; no other is admitted until this is dropped.
pub(crate) struct AdmissionGuard(#[expect(dead_code, reason = "held, never read")] OwnedMutexGuard<()>);

impl ReleaseAdmission {
    pub(crate) fn new(state: Arc<UpgradeContext>, engine: Engine) -> ReleaseAdmission {
        ReleaseAdmission { state, engine, turn: Arc::default() }
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
            let (ours, folder) = (id.clone(), command.folder);
            let release = self.on_disk(move |releases| releases.receive(&ours, &folder)).await?;
            let admitted = self.refuse_downgrade(&release, command.allow_downgrade.as_deref()).await;
            if admitted.is_err() {
                self.on_disk(move |releases| releases.discard(&id)).await?;
            }
            admitted?;
        }
        Ok(AdmissionGuard(turn))
    }

    async fn refuse_downgrade(
        &self,
        release: &Release,
        reason: Option<&str>,
    ) -> Result<(), ErrorReply<ApplyReleaseRefused>> {
        let (service, version) = (release.service(), release.version());
        if let Some(reason) = reason.filter(|reason| !reason.trim().is_empty()) {
            tracing::warn!(%service, version, reason, "an older version is allowed");
            return Ok(());
        }
        match self.highest_committed(service).await? {
            Some(highest) if is_older_version(version, &highest) => {
                let version = version.into();
                Err(ErrorReply::Refused(ApplyReleaseRefused::Downgrade { service, version, highest }))
            }
            _ => Ok(()),
        }
    }

    /// The highest version that was ever committed here, as far as anything still says so.
    async fn highest_committed(
        &self,
        service: Service,
    ) -> Result<Option<String>, ErrorReply<ApplyReleaseRefused>> {
        let recorded = self.on_disk(move |releases| releases.highest_committed(service)).await?;
        // One that does not answer may be the reason for the upgrade.
        let running = self.state.health_of(service).await.ok().map(|health| health.version);
        let ended = self.engine.list(false).await.map_err(|error| Failure::unavailable(&error))?;
        let applied = ended.into_iter().filter_map(|report| {
            let applied: UpgradedService = serde_json::from_value(report.output?).ok()?;
            (applied.service == service && applied.host == self.state.host).then_some(applied.version)
        });
        let known: Vec<String> = recorded.into_iter().chain(running).chain(applied).collect();
        Ok(highest_version(known.iter().map(String::as_str)).map(str::to_string))
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
        self.state.releases.in_background(work).await.map_err(|error| match error {
            ReleaseDirError::Refused(refusal) => ErrorReply::Refused(refusal),
            error @ ReleaseDirError::Disk { .. } => Failure::unavailable(&error).into(),
        })
    }
}
