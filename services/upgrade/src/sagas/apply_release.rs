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

use contract::upgrade::ApplyRelease;
use contract::{HostName, Service};
use operation::Saga;
use saga::{Outputs, Step, StepError};
use serde::{Deserialize, Serialize};
use upgrade_domain::Release;

use super::steps::{self, AWAIT_MAX, Before, DISK_MAX, SUPERVISOR_RETRY_FOR, Started};
use crate::metrics::{ReleaseOutcome, count};
use crate::release_dir::ReleaseDir;
use crate::state::{REPLACE_MAX, UpgradeContext};

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

type Context = operation::Context<UpgradeContext, ApplyRelease>;

impl Saga<UpgradeContext> for ApplyRelease {
    fn steps() -> Vec<Step<Context>> {
        vec![
            Step::new("stage", DISK_MAX, stage).undone_by(unstage),
            Step::new("inspect", DISK_MAX, inspect).retrying_for(SUPERVISOR_RETRY_FOR),
            Step::new("replace", REPLACE_MAX, replace)
                .undone_by(steps::roll_back)
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
    steps::inspect(&context.state, received(context).await?.service()).await
}

async fn replace(context: &Context, outputs: &Outputs) -> Result<Started, StepError> {
    let before: Before = outputs.get("inspect")?;
    steps::start(&context.state, before.service, outputs.get("stage")?).await
}

async fn await_healthy(context: &Context, outputs: &Outputs) -> Result<String, StepError> {
    let release = received(context).await?;
    let before: Before = outputs.get("inspect")?;
    let watch = context.state.watch(release.build(), before.degraded).expecting_version(release.version());
    steps::await_healthy(context, before.service, watch, outputs.get("replace")?).await
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
    let restore =
        move |releases: &ReleaseDir| releases.restore_committed(service, highest_committed.as_deref());
    context.state.on_disk(restore).await
}

/// The release of this operation, verified once more.
async fn received(context: &Context) -> Result<Release, StepError> {
    let id = context.id.clone();
    context.state.on_disk(move |releases| releases.received(&id)).await
}
