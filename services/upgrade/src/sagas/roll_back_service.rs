//! Replaces one service by the build that it ran before, which the supervisor has kept.
//!
//! ```text
//!   inspect        what runs now, and what ran before
//!   replace        the supervisor starts the one before    undo: it starts what ran, and that one answers
//!   await_healthy  healthy in time, and for its soak
//! ```
//!
//! The highest version that was committed stays what it is: the build that was left is not applied again by mistake.

use std::path::PathBuf;

use contract::upgrade::{RollBackService, RollBackServiceRefused};
use contract::{HostName, Service};
use operation::Saga;
use saga::{Outputs, Step, StepError};
use serde::{Deserialize, Serialize};

use super::steps::{self, AWAIT_MAX, Before, DISK_MAX, SUPERVISOR_RETRY_FOR, Started};
use crate::release_dir::build_of;
use crate::state::{REPLACE_MAX, UpgradeContext};

/// The outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolledBackService {
    /// The service that was replaced.
    pub service: Service,
    /// The host it runs on.
    pub host: HostName,
    /// Its version now, as it reports it.
    pub version: String,
    /// Its build now: 16 hexadecimal digits.
    pub build: String,
    /// The build that was left; absent where its executable could not be read.
    pub build_before: Option<String>,
}

type Context = operation::Context<UpgradeContext, RollBackService>;

impl Saga<UpgradeContext> for RollBackService {
    fn steps() -> Vec<Step<Context>> {
        vec![
            Step::new("inspect", DISK_MAX, inspect).retrying_for(SUPERVISOR_RETRY_FOR),
            Step::new("replace", REPLACE_MAX, replace)
                .undone_by(steps::roll_back)
                .retrying_for(SUPERVISOR_RETRY_FOR),
            Step::new("await_healthy", AWAIT_MAX, await_healthy),
        ]
    }
}

async fn inspect(context: &Context, _: &Outputs) -> Result<Before, StepError> {
    steps::inspect(&context.state, context.command.service).await
}

async fn replace(context: &Context, outputs: &Outputs) -> Result<Started, StepError> {
    steps::start(&context.state, context.command.service, executable_before(context, outputs)?).await
}

async fn await_healthy(context: &Context, outputs: &Outputs) -> Result<RolledBackService, StepError> {
    let (state, service) = (&context.state, context.command.service);
    let before: Before = outputs.get("inspect")?;
    let executable = executable_before(context, outputs)?;
    let build = state.on_disk(move |_| build_of(&executable)).await?;
    let watch = state.watch(&build, before.degraded);
    let version = steps::await_healthy(context, service, watch, outputs.get("replace")?).await?;
    let (host, build_before) = (state.host.clone(), before.build);
    Ok(RolledBackService { service, host, version, build, build_before })
}

fn executable_before(context: &Context, outputs: &Outputs) -> Result<PathBuf, StepError> {
    let before: Before = outputs.get("inspect")?;
    let refused = RollBackServiceRefused::NothingBefore(context.command.service);
    before.executable_before.ok_or_else(|| StepError::Permanent(refused.to_string()))
}
