//! Replaces one service by a release that was received and verified.
//!
//! ```text
//!   stage          the executable is put in place     undo: removed, unless something runs from it
//!   inspect        what runs now
//!   replace        the supervisor starts the new one  undo: it starts the one before, and that one answers
//!   await_healthy  healthy in time, and for its soak
//!   commit         its version is the highest one now, unless a higher one was committed before     undo: as before
//! ```

use std::path::PathBuf;
use std::time::Duration;

use contract::upgrade::ApplyRelease;
use contract::{HostName, Service, Timestamp};
use operation::Saga;
use saga::{Outputs, Step, StepError};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use upgrade_domain::{HealthVerdict, HealthWatch, Release};

use crate::metrics::{ReleaseOutcome, count};
use crate::release_dir::{ReleaseDir, build_of};
use crate::state::{POLL_INTERVAL, REPLACE_MAX, UpgradeContext};

/// Copies and digests of tens of megabytes, on a slow disk.
const DISK_MAX: Duration = Duration::from_secs(120);
/// `await_healthy` ends by itself when its time to get ready and its soak are over; this is above any sensible sum.
const AWAIT_MAX: Duration = Duration::from_secs(3600);
/// How long a supervisor that does not answer is tried again: it may be starting itself.
const SUPERVISOR_RETRY_FOR: Duration = Duration::from_secs(60);

/// The outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradedService {
    /// The service that was replaced.
    pub service: Service,
    /// The host it runs on.
    pub host: HostName,
    /// Its version now, from the manifest.
    pub version: String,
    /// Its build now: 16 hexadecimal digits.
    pub build: String,
    /// Its build before; absent where the executable could not be read.
    pub build_before: Option<String>,
    /// Why a version below the highest committed one was allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downgrade_reason: Option<String>,
}

/// What ran before.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Before {
    service: Service,
    executable: PathBuf,
    /// Absent where the executable is gone or cannot be read.
    build: Option<String>,
    answered: bool,
    /// The parts of its health that had a problem.
    degraded: Vec<String>,
    /// The highest version on record.
    highest_committed: Option<String>,
}

/// The start of the new build. It is in the journal, so that a process that dies while it waits does not begin to count
/// again.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Started {
    at: Timestamp,
    /// How often the supervisor had restarted the service by then; absent where it did not say.
    restarts: Option<u32>,
}

type Context = operation::Context<UpgradeContext, ApplyRelease>;

impl Saga<UpgradeContext> for ApplyRelease {
    fn steps() -> Vec<Step<Context>> {
        vec![
            Step::new("stage", DISK_MAX, stage).undone_by(unstage),
            Step::new("inspect", DISK_MAX, inspect).retrying_for(SUPERVISOR_RETRY_FOR),
            Step::new("replace", REPLACE_MAX, replace)
                .undone_by(roll_back)
                .retrying_for(SUPERVISOR_RETRY_FOR),
            Step::new("await_healthy", AWAIT_MAX, await_healthy),
            Step::new("commit", DISK_MAX, commit).undone_by(withdraw),
        ]
    }
}

async fn stage(context: &Context, _: &Outputs) -> Result<PathBuf, StepError> {
    let id = context.id.clone();
    context.state.on_disk(move |releases| releases.install(&id, &releases.received(&id)?)).await
}

async fn unstage(context: &Context, _: &Outputs) -> Result<(), StepError> {
    // Where nothing was received, nothing was staged.
    let Ok(release) = received(context).await else { return Ok(()) };
    let executable = context.state.releases.executable_of(&release);
    match context.state.processes().await {
        Ok(processes) if processes.iter().any(|process| process.executable == executable) => Ok(()),
        Ok(_) => context.state.on_disk(move |releases| releases.uninstall(&release)).await,
        // It may run from there. A verified executable that nobody starts does no harm; the next upgrade that
        // succeeds removes it.
        Err(error) => {
            tracing::warn!(%error, executable = %executable.display(), "a staged build is left");
            Ok(())
        }
    }
}

async fn inspect(context: &Context, _: &Outputs) -> Result<Before, StepError> {
    let state = &context.state;
    let service = received(context).await?.service();
    let executable = state.process(service).await?.executable;
    let path = executable.clone();
    let build = state.on_disk(move |_| build_of(&path)).await.ok();
    let health = state.health_of(service).await.ok();
    let degraded = health.iter().flat_map(|health| &health.parts).filter(|part| part.problem.is_some());
    let degraded = degraded.map(|part| part.part.clone()).collect();
    let highest_committed = state.on_disk(move |releases| releases.highest_committed(service)).await?;
    Ok(Before { service, executable, build, answered: health.is_some(), degraded, highest_committed })
}

async fn replace(context: &Context, outputs: &Outputs) -> Result<Started, StepError> {
    let before: Before = outputs.get("inspect")?;
    context.state.run_from(before.service, outputs.get("stage")?).await?;
    let restarts = context.state.process(before.service).await.ok().map(|process| process.restarts);
    Ok(Started { at: chrono::Utc::now(), restarts })
}

async fn roll_back(context: &Context, outputs: &Outputs) -> Result<(), StepError> {
    let before: Before = outputs.get("inspect")?;
    let (state, service) = (&context.state, before.service);
    state.run_from(service, before.executable).await?;
    if before.answered {
        state.wait_for_answer(service, before.build.as_deref()).await?;
    }
    count(ReleaseOutcome::RolledBack);
    tracing::warn!(%service, build = before.build, "rolled back to the build before");
    Ok(())
}

async fn await_healthy(context: &Context, outputs: &Outputs) -> Result<(), StepError> {
    let release = received(context).await?;
    let before: Before = outputs.get("inspect")?;
    let started: Started = outputs.get("replace")?;
    let (state, service) = (&context.state, release.service());
    let mut watch = HealthWatch::new(release.build(), state.ready_within, state.soak)
        .expecting_version(release.version())
        .ignoring(before.degraded)
        .counting_restarts_from(started.restarts);
    let mut clock = Clock::since(started.at);
    loop {
        let verdict = match state.observe(service).await {
            Some(observed) => watch.observe(clock.elapsed(), &observed),
            None => {
                clock.stand_still();
                HealthVerdict::Undecided
            }
        };
        match verdict {
            HealthVerdict::Healthy => return Ok(()),
            HealthVerdict::Failed(reason) => return Err(StepError::Permanent(reason)),
            HealthVerdict::Undecided => {}
        }
        tokio::select! {
            () = tokio::time::sleep(POLL_INTERVAL) => {}
            () = context.cancel.cancelled() => return Err(StepError::Permanent("cancelled".into())),
        }
    }
}

async fn commit(context: &Context, outputs: &Outputs) -> Result<UpgradedService, StepError> {
    let release = received(context).await?;
    let before: Before = outputs.get("inspect")?;
    let (state, service, version) = (&context.state, release.service(), release.version().to_string());
    let recorded = version.clone();
    state.on_disk(move |releases| releases.record_committed(service, &recorded)).await?;
    let keep = [state.releases.executable_of(&release), before.executable];
    if let Err(error) = state.on_disk(move |releases| releases.keep_only(service, &keep)).await {
        tracing::warn!(%service, %error, "older builds stay on the disk");
    }
    count(ReleaseOutcome::Applied);
    Ok(UpgradedService {
        service,
        host: state.host.clone(),
        version,
        build: release.build().into(),
        build_before: before.build,
        downgrade_reason: context.command.allow_downgrade.clone(),
    })
}

async fn withdraw(context: &Context, outputs: &Outputs) -> Result<(), StepError> {
    let Before { service, highest_committed, .. } = outputs.get("inspect")?;
    let restore = move |releases: &ReleaseDir| releases.restore_committed(service, highest_committed.as_deref());
    context.state.on_disk(restore).await
}

/// The release of this operation, verified once more.
async fn received(context: &Context) -> Result<Release, StepError> {
    let id = context.id.clone();
    context.state.on_disk(move |releases| releases.received(&id)).await
}

/// The time since the start of a build: by the wall clock where another process saw it start, by the monotonic one from
/// then on.
struct Clock {
    before: Duration,
    counted: Duration,
    last: Instant,
}

impl Clock {
    fn since(started: Timestamp) -> Clock {
        let before = (chrono::Utc::now() - started).to_std().unwrap_or_default();
        Clock { before, counted: Duration::ZERO, last: Instant::now() }
    }

    fn elapsed(&mut self) -> Duration {
        self.counted += self.last.elapsed();
        self.last = Instant::now();
        self.before + self.counted
    }

    /// Leaves out the time since it was read last.
    fn stand_still(&mut self) {
        self.last = Instant::now();
    }
}
