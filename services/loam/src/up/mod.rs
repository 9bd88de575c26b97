//! `loam up`: the supervisor of one host. It starts the message bus and the five services, restarts them when they die,
//! and ends them in order.
//!
//! ```text
//!   settings read, programs found, each service checks its part of the settings: nothing is changed before
//!     -> users                         as root: one for each process, made once
//!     -> state directory, lock, keys   made once, kept
//!     -> nats-server                   unless [nats] url names another bus, or the host joined one
//!     -> tables                        by `loam bus tables`, a process that then ends; not on a host that joined
//!     -> provisioner, backup, proxy, scheduler, upgrade        each under a keeper, which restarts it
//!     -> handlers (list_processes, replace_service) and status view
//!   Ctrl-C, SIGTERM, at any moment -> endpoints closed, services in reverse order, nats-server last; a second: at once
//!   SIGHUP -> nothing
//! ```
//!
//! It does not know what the services do, and it stores nothing of its own but which executable each runs from. A build
//! that keeps dying soon after an upgrade is replaced by the one before (`put_back`). Its processes die with it, however it dies: their work is resumed from journals at the next start.

mod check;
pub mod child;
mod handlers;
mod host;
pub mod keeper;
pub mod log;
mod metrics;
mod put_back;
mod redirect;
pub mod release;
mod service;
pub mod settings;
mod shutdown;
mod status_view;
mod table_repair;
mod users;
mod verified;

use std::path::PathBuf;

use anyhow::Context as _;
use contract::Service;
use tokio_util::sync::CancellationToken;

use crate::admission::join::JoinedBus;
use crate::nats::server;
use crate::state::{State, lock};
use host::Host;
use release::Executables;
use settings::{Hypervisor, Settings};
use users::Users;

/// The options of `loam up`.
#[derive(Clone, Debug)]
pub struct Options {
    /// The state directory.
    pub state: PathBuf,
    /// The settings file.
    pub config: Option<PathBuf>,
    /// The hypervisor, instead of the one in the settings.
    pub hypervisor: Option<Hypervisor>,
}

/// Runs until a signal ends it.
pub fn run(options: &Options) -> anyhow::Result<()> {
    // One thread: the kernel ends a child when the thread that started it ends, and this one ends last.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { shutdown::outlive_terminal() })?;
    let mut settings = Settings::read(options.config.as_deref())?;
    let executable = std::env::current_exe().context("finding our own executable")?;
    let installed = executable.parent().context("our executable lies in no folder")?;
    let state = State::at(std::path::absolute(&options.state)?);
    let joined = JoinedBus::read(&state)?;
    if let Some(joined) = &joined {
        settings.follow(joined)?;
    }
    let executables = Executables::of(state.clone(), installed.into());
    executables.check()?;
    let server = match settings.nats.url {
        Some(_) => None,
        None => Some(server::find(settings.nats.server.as_deref(), std::env::var_os("PATH").as_deref())?),
    };
    if let Some(file) = &options.config {
        check::check_services(file, &settings, &state, &executables, options.hypervisor)?;
    }
    let users = Users::prepare(&settings, options.hypervisor)?;
    users.check_way_to(state.root())?;
    state.prepare()?;
    let _lock = lock::take(&state)?;
    chassis::end_on_panic();
    let log = redirect::stderr_into(&state.log_of(Service::Supervisor.name()))?;
    let identity = telemetry::Identity {
        service: format!("loam-{}", Service::Supervisor),
        version: env!("CARGO_PKG_VERSION").into(),
        instance: operation::new_id().to_string(),
        host: settings.host.to_string(),
    };
    let telemetry = telemetry::init(&identity)?;
    let host = Host {
        keys: settings.nats.keys.clone().unwrap_or_else(|| state.keys()),
        joined,
        hypervisor: options.hypervisor,
        instance_id: identity.instance,
        settings,
        state,
        executables,
        server,
        users,
        force_shutdown: CancellationToken::new(),
    };
    let outcome = runtime.block_on(host.run());
    if let Err(error) = &outcome {
        tracing::error!("ending: {error:#}");
    }
    telemetry.flush();
    drop(log);
    outcome
}
