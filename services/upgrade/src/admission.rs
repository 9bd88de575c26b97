//! Release admission: one release at a time is copied and verified, and only while no operation of this host is
//! unfinished. It keeps no list of its own: the folders of operations on disk and the operations themselves say what is
//! under way.
//!
//! No version below the highest that was ever committed on this host is admitted without a reason. That one is the
//! highest of three: the record on disk, the operations that applied a release, and the version that runs. So a record
//! that was deleted changes nothing while either of the others is there; with one that cannot be read nothing is applied
//! until a person has removed it.

use std::sync::Arc;
use std::time::Duration;

use bus::ErrorReply;
use contract::message::{Failure, FailureKind};
use contract::operation::ListOperations;
use contract::upgrade::{ApplyRelease, ApplyReleaseRefused, RollBackService, RollBackServiceRefused};
use contract::{OperationId, Service};
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
        let guard = self.take_turn().await?;
        // The same command may have begun while this one waited.
        let known = self.engine.find(&id).await.map_err(|error| Failure::unavailable(&error))?;
        if known.is_none() {
            if let Some(other) = self.under_way().await? {
                return Err(ErrorReply::Refused(ApplyReleaseRefused::UnderWay(other)));
            }
            let (ours, folder) = (id.clone(), command.folder);
            let release = self.on_disk(move |releases| releases.receive(&ours, &folder)).await?;
            let admitted = self.refuse_downgrade(&release, command.allow_downgrade.as_deref()).await;
            if admitted.is_err() {
                self.on_disk(move |releases| releases.discard(&id)).await?;
            }
            admitted?;
        }
        Ok(guard)
    }

    /// Makes sure that there is a build to go back to.
    pub(crate) async fn admit_roll_back(
        &self,
        candidate: PendingCommand<RollBackService>,
    ) -> Result<AdmissionGuard, ErrorReply<RollBackServiceRefused>> {
        let PendingCommand { id, command: RollBackService { service, .. }, .. } = candidate;
        let guard = self.take_turn().await?;
        let known = self.engine.find(&id).await.map_err(|error| Failure::unavailable(&error))?;
        if known.is_none() {
            let refused = |refusal| Err(ErrorReply::Refused(refusal));
            if let Some(other) = self.under_way().await? {
                return refused(RollBackServiceRefused::UnderWay(other));
            }
            let processes = self.state.processes().await.map_err(|error| Failure::unavailable(&error))?;
            match processes.into_iter().find(|process| process.service == service) {
                None => return refused(RollBackServiceRefused::NotOnThisHost(service)),
                Some(process) if process.executable_before.is_none() => {
                    return refused(RollBackServiceRefused::NothingBefore(service));
                }
                Some(_) => {}
            }
            let reserve = move |releases: &ReleaseDir| releases.reserve(&id);
            let reserved = self.state.releases.in_background(reserve).await;
            reserved.map_err(|error| Failure::unavailable(&error))?;
        }
        Ok(guard)
    }

    async fn take_turn(&self) -> Result<AdmissionGuard, Failure> {
        let turn = tokio::time::timeout(WAIT_MAX, Arc::clone(&self.turn).lock_owned()).await;
        turn.map(AdmissionGuard).map_err(|_| {
            let message = "another release is still being checked; try again".into();
            Failure { kind: FailureKind::Busy, message }
        })
    }

    /// An operation of this host that has not ended. What ended ones have left is removed.
    async fn under_way(&self) -> Result<Option<OperationId>, Failure> {
        let on_disk = |error: ReleaseDirError| Failure::unavailable(&error);
        for id in self.state.releases.in_background(ReleaseDir::received_ids).await.map_err(on_disk)? {
            let report = self.engine.find(&id).await.map_err(|error| Failure::unavailable(&error))?;
            if report.is_some_and(|report| !report.state.is_final()) {
                return Ok(Some(id));
            }
            let discard = move |releases: &ReleaseDir| releases.discard(&id);
            self.state.releases.in_background(discard).await.map_err(on_disk)?;
        }
        Ok(None)
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
        // As many as one list gives; what is recorded on the disk does not depend on them.
        let newest = ListOperations { limit: Some(u16::MAX), ..ListOperations::default() };
        let ended = self.engine.list(&newest).await.map_err(|error| error.to_failure())?;
        let applied = ended.into_iter().filter_map(|report| {
            let applied: UpgradedService = serde_json::from_value(report.output?).ok()?;
            (applied.service == service && applied.host == self.state.host).then_some(applied.version)
        });
        let known: Vec<String> = recorded.into_iter().chain(running).chain(applied).collect();
        Ok(highest_version(known.iter().map(String::as_str)).map(str::to_string))
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
