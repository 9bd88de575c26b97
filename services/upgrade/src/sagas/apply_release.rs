//! Replaces one service by a release that was received and verified.
//!
//! ```text
//!   stage          the executable is put in place     undo: removed, unless something runs from it
//!   inspect        what runs now
//!   replace        the supervisor starts the new one  undo: it starts the one before, and that one answers
//!   await_healthy  healthy in time, and for its soak
//! ```

use std::path::PathBuf;
use std::time::Duration;

use contract::Service;
use contract::upgrade::ApplyRelease;
use operation::Saga;
use saga::{Outputs, Step, StepError};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use upgrade_domain::{HealthVerdict, HealthWatch, Release};

use crate::metrics::{ReleaseOutcome, count};
use crate::release_dir::build_of;
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
    /// Its version now, from the manifest.
    pub version: String,
    /// Its build now: 16 hexadecimal digits.
    pub build: String,
    /// Its build before; absent where the executable could not be read.
    pub build_before: Option<String>,
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
    Ok(Before { service, executable, build, answered: health.is_some(), degraded })
}

async fn replace(context: &Context, outputs: &Outputs) -> Result<PathBuf, StepError> {
    let before: Before = outputs.get("inspect")?;
    context.state.run_from(before.service, outputs.get("stage")?).await
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

async fn await_healthy(context: &Context, outputs: &Outputs) -> Result<UpgradedService, StepError> {
    let release = received(context).await?;
    let before: Before = outputs.get("inspect")?;
    let (state, service) = (&context.state, release.service());
    let watch = HealthWatch::new(release.build(), state.ready_within, state.soak);
    let mut watch = watch.ignoring(before.degraded);
    let started = Instant::now();
    loop {
        let observed = state.observe(service).await;
        let verdict =
            observed.map_or(HealthVerdict::Undecided, |observed| watch.observe(started.elapsed(), &observed));
        match verdict {
            HealthVerdict::Healthy => break,
            HealthVerdict::Failed(reason) => return Err(StepError::Permanent(reason)),
            HealthVerdict::Undecided => {}
        }
        tokio::select! {
            () = tokio::time::sleep(POLL_INTERVAL) => {}
            () = context.cancel.cancelled() => return Err(StepError::Permanent("cancelled".into())),
        }
    }
    let keep = [state.releases.executable_of(&release), before.executable];
    if let Err(error) = state.on_disk(move |releases| releases.keep_only(service, &keep)).await {
        tracing::warn!(%service, %error, "older builds stay on the disk");
    }
    count(ReleaseOutcome::Applied);
    Ok(UpgradedService {
        service,
        version: release.version().into(),
        build: release.build().into(),
        build_before: before.build,
    })
}

/// The release of this operation, verified once more.
async fn received(context: &Context) -> Result<Release, StepError> {
    let id = context.id.clone();
    context.state.on_disk(move |releases| releases.received(&id)).await
}
