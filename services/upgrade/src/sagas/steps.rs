//! Steps that both sagas share: what runs before, the start of another build, its proof, and the way back.

use std::path::PathBuf;
use std::time::Duration;

use contract::{DurableCommand, Service, Timestamp};
use operation::Context;
use saga::{Outputs, StepError};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use upgrade_domain::{HealthVerdict, HealthWatch};

use crate::metrics::{ReleaseOutcome, count};
use crate::release_dir::build_of;
use crate::state::{POLL_INTERVAL, UpgradeContext};

/// Copies and digests of tens of megabytes, on a slow disk.
pub(super) const DISK_MAX: Duration = Duration::from_secs(120);
/// `await_healthy` ends by itself when its time to get ready and its soak are over; this is above any sensible sum.
pub(super) const AWAIT_MAX: Duration = Duration::from_secs(3600);
/// How long a supervisor that does not answer is tried again: it may be starting itself.
pub(super) const SUPERVISOR_RETRY_FOR: Duration = Duration::from_secs(60);

/// What ran before.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Before {
    pub(super) service: Service,
    pub(super) executable: PathBuf,
    /// What the supervisor would put back; absent where there is nothing.
    pub(super) executable_before: Option<PathBuf>,
    /// Absent where the executable is gone or cannot be read.
    pub(super) build: Option<String>,
    answered: bool,
    /// The parts of its health that had a problem.
    pub(super) degraded: Vec<String>,
    /// The highest version on record.
    pub(super) highest_committed: Option<String>,
}

/// The start of the new build. It is in the journal, so that a process that dies while it waits does not begin to count
/// again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Started {
    at: Timestamp,
    /// How often the supervisor had restarted the service by then; absent where it did not say.
    restarts: Option<u32>,
}

/// Finds out what runs now.
pub(super) async fn inspect(state: &UpgradeContext, service: Service) -> Result<Before, StepError> {
    let process = state.process(service).await?;
    let path = process.executable.clone();
    let build = state.on_disk(move |_| build_of(&path)).await.ok();
    let health = state.health_of(service).await.ok();
    let degraded = health.iter().flat_map(|health| &health.parts).filter(|part| part.problem.is_some());
    let degraded = degraded.map(|part| part.part.clone()).collect();
    let highest_committed = state.on_disk(move |releases| releases.highest_committed(service)).await?;
    Ok(Before {
        service,
        executable: process.executable,
        executable_before: process.executable_before,
        build,
        answered: health.is_some(),
        degraded,
        highest_committed,
    })
}

/// Lets the supervisor start an executable in place of what runs.
pub(super) async fn start(
    state: &UpgradeContext,
    service: Service,
    executable: PathBuf,
) -> Result<Started, StepError> {
    state.run_from(service, executable).await?;
    let restarts = state.process(service).await.ok().map(|process| process.restarts);
    Ok(Started { at: chrono::Utc::now(), restarts })
}

/// Undoes a start: what ran before runs again, and answers if it answered then.
pub(super) async fn roll_back<C: DurableCommand>(
    context: &Context<UpgradeContext, C>,
    outputs: &Outputs,
) -> Result<(), StepError> {
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

/// Waits until a build that was started is proved, or has failed. Returns the version that it reports.
pub(super) async fn await_healthy<C: DurableCommand>(
    context: &Context<UpgradeContext, C>,
    service: Service,
    watch: HealthWatch,
    started: Started,
) -> Result<String, StepError> {
    let mut watch = watch.counting_restarts_from(started.restarts);
    let mut clock = Clock::since(started.at);
    loop {
        let observed = context.state.observe(service).await;
        let verdict = match &observed {
            Some(observed) => watch.observe(clock.elapsed(), observed),
            None => {
                clock.stand_still();
                HealthVerdict::Undecided
            }
        };
        match (verdict, observed.and_then(|observed| observed.health)) {
            (HealthVerdict::Healthy, Some(health)) => return Ok(health.version),
            (HealthVerdict::Failed(reason), _) => return Err(StepError::Permanent(reason)),
            (HealthVerdict::Healthy | HealthVerdict::Undecided, _) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(POLL_INTERVAL) => {}
            () = context.cancel.cancelled() => return Err(StepError::Permanent("cancelled".into())),
        }
    }
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

    /// Leaves out the time since it was read last: the bus was away, which is not the build's fault.
    fn stand_still(&mut self) {
        self.last = Instant::now();
    }
}
