//! The provisioner: manages VMs from their creation to their removal, keeps the seeds (base images) that they are created
//! from, and exports their disks for backups.
//!
//! ```text
//!    requests on the bus (contract::provisioner)
//!         |
//!      wiring ---- begins ----> sagas (durable operations; each step through a port)
//!         |                        |
//!      handlers                    |          workers (reconcile_vms, expire_exports)
//!         |                        |              |
//!      actors: Registry (records, tables)   ExportKeeper (leases)
//!         |                        |              |
//!      ports:  Hypervisor        Disks        GuestShell
//!         |        |                |             |
//!      adapters: libvirt | simulated   qemu-img, qemu-nbd   SSH | simulated
//! ```
//!
//! Each host has a provisioner of its own, which alone manages the VMs there. Whichever receives a request passes it on to the
//! host that it concerns (`handlers/routing`); what belongs to all hosts, such as names, is in `installation`.
//!
//! The backup service reads disks through connections that it is passed (`connections`), and writes restored ones into a
//! folder that it is given for them; no other file of VMs is open to its user.
//!
//! It promises that a command sent twice has one effect; that a durable operation survives the death of this process and
//! ends done or as before; that no row holds the variables and scripts of a VM in clear; that what is observed never erases what is desired; and that a VM without our mark is never
//! touched. It does not know what a backup or a route is.
//!
//! Next: `wiring` for the requests, `sagas` for the operations, `secrets` for what is encrypted, `ports` for what is needed from outside, and the package
//! `provisioner-domain` for every decision.

pub mod actors;
pub mod adapters;
pub mod config;
mod connections;
mod handlers;
pub mod installation;
pub mod metrics;
pub mod ports;
mod sagas;
pub mod secrets;
pub mod state;
pub mod vm_spec;
mod wiring;
pub mod workers;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bus::Bus;
use chassis::{PartCheck, Service, ServiceContext, Workers};
use contract::message::with_causes;
use contract::operation::ListOperations;

pub use config::{Config, DEFAULTS};
use handlers::Handlers;
use operation::Engine;
use ports::Ports;
use provisioner_domain::VmRecord;
pub use state::{Limits, ServiceState};

/// Opens the service on a chassis, with the adapters that `main` chose.
///
/// # Errors
/// When the tables cannot be read.
pub async fn open(chassis: ServiceContext<Config>, ports: Ports) -> anyhow::Result<Service> {
    let settings = chassis.settings;
    let limits = Limits::standard(Duration::from_secs(settings.service.ready_seconds));
    let keys = secrets::read_keys(&settings.service.rows_key_file(&settings.state_dir));
    let state = ServiceState::open(&chassis.bus, settings.host, ports, limits, keys).await?;
    if let Err(error) = state.hypervisor.prepare().await {
        tracing::warn!(
            error = with_causes(&error),
            "the hypervisor is not ready; it is asked again at each start of a VM"
        );
    }
    service(&chassis.bus, state).await
}

/// The service over its state: actors, workers and endpoints, on the current arbiter.
///
/// # Errors
/// When the table of exports cannot be read, or the socket for descriptors not be opened.
pub async fn service(bus: &Bus, state: Arc<ServiceState>) -> anyhow::Result<Service> {
    let wiring = wiring::wiring().encrypted_with(Arc::clone(&state.keys));
    let (engine, wiring) = wiring.open_engine(bus, contract::Service::Provisioner, &state.host, &state);
    let keeper = actors::ExportKeeper::open(bus, Arc::clone(&state)).await;
    let exports = actors::ExportKeeperHandle::start(keeper.context("reading the table of disk exports")?);
    let (row_keys, unused_keys) = (check_row_keys(&state, &engine), unused_keys(&state, &engine).await?);
    let mut workers = Workers::default();
    let waker = workers.start(workers::VmReconciler::new(Arc::clone(&state), engine));
    if let Err(error) = state.hypervisor.watch(Arc::new(move || waker.wake())) {
        let interval = state.limits.reconcile_interval;
        tracing::warn!(error = with_causes(&error), ?interval, "VMs are asked for at an interval only");
    }
    workers.start(workers::HostReporter::new(Arc::clone(&state)));
    workers.start(workers::RowRestorer::new(bus, state.registry.clone()));
    workers.start(workers::ExportExpirer::new(exports.clone(), state.limits.export_lease));
    let connections = connections::pass(state.disks.reader(), exports.clone())?;
    let info = state.hypervisor.info();
    let (hypervisor, network) = (check_hypervisor(&state), check_network(&state));
    let (room, problems) = (check_room(&state), check_vms(&state));
    Ok(Service::new(wiring, Handlers { state, export_keeper: exports })
        .with_workers(workers)
        .with_notices(info.notice())
        .with_notices(unused_keys)
        .with_part(info.name, hypervisor)
        .with_part("network", network)
        .with_part("disks", room)
        .with_part("vms", problems)
        .with_part("row keys", row_keys)
        .ending_with(Box::pin(async move { drop(connections) })))
}

fn check_hypervisor(state: &Arc<ServiceState>) -> PartCheck {
    let hypervisor = Arc::clone(&state.hypervisor);
    Arc::new(move || {
        let hypervisor = Arc::clone(&hypervisor);
        Box::pin(async move { hypervisor.check().await.err().map(|error| with_causes(&error)) })
    })
}

/// Prepares it, too: it may have been taken down.
fn check_network(state: &Arc<ServiceState>) -> PartCheck {
    let hypervisor = Arc::clone(&state.hypervisor);
    Arc::new(move || {
        let hypervisor = Arc::clone(&hypervisor);
        Box::pin(async move { hypervisor.prepare().await.err().map(|error| with_causes(&error)) })
    })
}

fn check_vms(state: &Arc<ServiceState>) -> PartCheck {
    let state = Arc::clone(state);
    Arc::new(move || {
        let registry = state.registry.clone();
        Box::pin(async move {
            let inventory = match registry.snapshot().await {
                Ok(inventory) => inventory,
                Err(failure) => return Some(failure.to_string()),
            };
            let problem = |vm: &VmRecord| Some(format!("VM {}: {}", vm.name(), vm.problem()?));
            let problems: Vec<String> = inventory.vms().filter_map(problem).collect();
            (!problems.is_empty()).then(|| problems.join("; "))
        })
    })
}

/// The keys of rows, and what does not decrypt with them.
fn check_row_keys(state: &Arc<ServiceState>, engine: &Engine) -> PartCheck {
    let (state, engine) = (Arc::clone(state), engine.clone());
    Arc::new(move || {
        let (registry, keys, operations) =
            (state.registry.clone(), Arc::clone(&state.keys), engine.undecryptable());
        Box::pin(async move {
            // Where the registry does not answer, the part `vms` says so.
            let inventory = registry.snapshot().await.unwrap_or_default();
            let mut problems = secrets::problems(&keys, &inventory);
            problems.extend(operations.iter().map(|id| format!("operation {id} does not decrypt; it waits")));
            (!problems.is_empty()).then(|| problems.join("; "))
        })
    })
}

/// A sentence about the keys of the file that nothing is encrypted with any more. While an operation has not ended, it
/// may have put aside something that an older key is needed for.
async fn unused_keys(state: &ServiceState, engine: &Engine) -> anyhow::Result<Option<String>> {
    let query = ListOperations { unfinished_only: true, ..ListOperations::default() };
    let unfinished = engine.list(&query).await.context("reading the table of operations")?;
    let inventory = state.registry.snapshot().await?;
    let unused = secrets::unused(&state.keys, &inventory);
    let names: Vec<String> = unused.iter().map(ToString::to_string).collect();
    Ok((unfinished.is_empty() && !names.is_empty()).then(|| {
        format!(
            "nothing is encrypted with row keys {} any more; `loam row-keys remove` removes them",
            names.join(", ")
        )
    }))
}

fn check_room(state: &Arc<ServiceState>) -> PartCheck {
    let state = Arc::clone(state);
    Arc::new(move || {
        let (disks, low) = (Arc::clone(&state.disks), state.limits.free_space_low);
        Box::pin(async move {
            match disks.free().await {
                Ok(free) if free >= low => None,
                Ok(free) => Some(format!("only {free} are free for disks, at least {low} are needed")),
                Err(error) => Some(with_causes(&error)),
            }
        })
    })
}
