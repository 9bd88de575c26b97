//! `loam up`: the supervisor of one host. It starts the message bus and the five services, keeps them alive, and
//! ends them in order.
//!
//! ```text
//!   settings read, programs found, services asked whether they understand their parts: nothing is touched before
//!     -> state folder, lock, keys      made once, kept
//!     -> nats-server                   unless [nats] url names another bus
//!     -> buckets                       by the bootstrap role, whose connection then closes
//!     -> provisioner, backup, proxy, scheduler, upgrade        each under a keeper
//!     -> desk (list_processes, replace_service) and board
//!   Ctrl-C, SIGTERM -> desk closed, services in reverse order, nats-server last; a second one: at once
//! ```
//!
//! It does not know what the services do, and it keeps no truth of its own but which executable each runs from. Its
//! processes die with it, whatever happens to it: their work is resumed from journals at the next start.

mod board;
mod check;
pub mod child;
mod desk;
mod ending;
mod host;
pub mod keeper;
pub mod log;
mod output;
pub mod release;
mod service;
pub mod settings;

use std::path::PathBuf;

use anyhow::Context as _;
use contract::Service;
use tokio_util::sync::CancellationToken;

use crate::nats::server;
use crate::state::{State, lock};
use host::Host;
use release::Executables;
use settings::{Hypervisor, Settings};

/// What the person asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The state folder.
    pub state: PathBuf,
    /// The settings file.
    pub config: Option<PathBuf>,
    /// What is to run the machines, whatever the settings say.
    pub hypervisor: Option<Hypervisor>,
}

/// Runs until told to end.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let settings = Settings::read(options.config.as_deref())?;
    let ourselves = std::env::current_exe().context("finding our own executable")?;
    let installed = ourselves.parent().context("our executable lies in no folder")?;
    let state = State::at(std::path::absolute(&options.state)?);
    let executables = Executables::of(state.clone(), installed.into());
    executables.check()?;
    let server = match settings.nats.url {
        Some(_) => None,
        None => Some(server::find(settings.nats.server.as_deref(), std::env::var_os("PATH").as_deref())?),
    };
    if let Some(file) = &options.config {
        check::ask_services(file, &settings, &state, &executables, options.hypervisor)?;
    }
    state.prepare()?;
    let _lock = lock::take(&state)?;
    chassis::end_on_panic();
    let log = output::into(&state.log_of(Service::Supervisor.name()))?;
    let identity = telemetry::Identity {
        service: format!("loam-{}", Service::Supervisor),
        version: env!("CARGO_PKG_VERSION").into(),
        instance: operation::fresh_id().to_string(),
        host: settings.host.to_string(),
    };
    let telemetry = telemetry::init(&identity)?;
    // One thread: the kernel ends a child when the thread that started it ends, and this one lives to the last.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let host = Host {
        keys: settings.nats.keys.clone().unwrap_or_else(|| state.keys()),
        hypervisor: options.hypervisor,
        instance: identity.instance,
        settings,
        state,
        executables,
        server,
        hurry: CancellationToken::new(),
    };
    let outcome = runtime.block_on(host.live());
    if let Err(error) = &outcome {
        tracing::error!("ending: {error:#}");
    }
    telemetry.flush();
    drop(log);
    outcome
}
