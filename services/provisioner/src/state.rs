//! Putting the parts together.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bus::Bus;
use chassis::{BoxFuture, Chassis, PartCheck};
use contract::{ByteCount, HostName, Service};
use operation::Operations;
use provisioner_libvirt::qemu_user::QemuUser;

use crate::actors::{ExportKeeper, ExportKeeperHandle, Reconciler, Registry, RegistryHandle};
use crate::adapters::libvirt::Libvirt;
use crate::adapters::qemu_img::QemuImgDisks;
use crate::adapters::simulated::{SimulatedHypervisor, SimulatedShell};
use crate::adapters::ssh::RusshShell;
use crate::config::{Config, HypervisorKind};
use crate::ports::{Disks, GuestShell, Hypervisor};
use crate::sagas::add_seed::AddSeedWork;
use crate::sagas::adopt_vm::AdoptVmWork;
use crate::sagas::create_vm::CreateVmWork;
use crate::sagas::remove_vm::RemoveVmWork;
use crate::sagas::start_vm::StartVmWork;
use crate::sagas::stop_vm::StopVmWork;
use crate::sagas::{Limits, ServiceState, chain};
use crate::wiring;

/// Below this much room the service says that it is not well: a machine whose disk cannot grow stops.
const ROOM_LEAST: ByteCount = ByteCount::gib(1);
/// The reconciler's mailbox: nobody writes to it.
const RECONCILER_MAILBOX: usize = 1;

/// The adapters behind the ports.
#[derive(Clone)]
pub struct Ports {
    /// Machines.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// Disks.
    pub disks: Arc<dyn Disks>,
    /// The inside of machines.
    pub shell: Arc<dyn GuestShell>,
}

impl Ports {
    /// The adapters that the settings ask for, with their files under `state`.
    ///
    /// # Errors
    /// What is wrong with settings or folders.
    pub async fn open(config: &Config, state: &Path) -> anyhow::Result<Ports> {
        match config.hypervisor {
            HypervisorKind::Libvirt => {
                let qemu = QemuUser::find().context("finding the user that QEMU runs as")?;
                let disks = QemuImgDisks::open(state, Some(qemu)).context("opening the folders for disks")?;
                let libvirt = Libvirt::open(config, state).await.map_err(anyhow::Error::msg)?;
                let shell = RusshShell::open(&state.join("keys/ssh_ed25519"))?;
                Ok(Ports { hypervisor: Arc::new(libvirt), disks: Arc::new(disks), shell: Arc::new(shell) })
            }
            HypervisorKind::Simulated => {
                let disks = QemuImgDisks::open(state, None).context("opening the folders for disks")?;
                let simulated = Arc::new(SimulatedHypervisor::open(&state.join("simulated")).await?);
                tracing::warn!("machines are simulated: nothing here runs a real one");
                Ok(Ports {
                    shell: Arc::new(SimulatedShell::new(Arc::clone(&simulated))),
                    hypervisor: simulated,
                    disks: Arc::new(disks),
                })
            }
        }
    }
}

/// Everything that answers questions.
#[derive(Clone)]
pub struct House {
    /// What steps act on.
    pub state: Arc<ServiceState>,
    /// The operations.
    pub operations: Operations,
    /// The exports.
    pub exports: ExportKeeperHandle,
}

impl House {
    /// Starts the actors on the arbiter at hand, but for the reconciler.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub async fn build(bus: &Bus, host: HostName, ports: Ports, limits: Limits) -> anyhow::Result<House> {
        let registry = Registry::open(bus.clone(), host, ports.hypervisor.name())
            .await
            .context("reading the tables of machines and seeds")?;
        let state = Arc::new(ServiceState {
            registry: RegistryHandle::start(registry),
            hypervisor: ports.hypervisor,
            disks: ports.disks,
            shell: ports.shell,
            realm: bus.realm().clone(),
            limits,
        });
        let operations = Operations::of(bus.clone(), Service::Provisioner)
            .with::<AddSeedWork>(Arc::clone(&state))
            .with::<CreateVmWork>(Arc::clone(&state))
            .with::<StartVmWork>(Arc::clone(&state))
            .with::<StopVmWork>(Arc::clone(&state))
            .with::<RemoveVmWork>(Arc::clone(&state))
            .with::<AdoptVmWork>(Arc::clone(&state))
            .open();
        let warden = ExportKeeper::open(bus, Arc::clone(&state)).await.context("reading the table of exports")?;
        Ok(House { state, operations, exports: ExportKeeperHandle::start(warden) })
    }

    /// Starts the reconciler on the arbiter at hand.
    pub fn reconcile(&self) {
        let reconciler = Reconciler::new(Arc::clone(&self.state), self.operations.clone());
        actor::start(RECONCILER_MAILBOX, reconciler);
    }

    /// The parts of the state that health depends on.
    pub fn parts(&self) -> Vec<(&'static str, PartCheck)> {
        let hypervisor = Arc::clone(&self.state.hypervisor);
        let disks = Arc::clone(&self.state.disks);
        let answers: PartCheck = Arc::new(move || {
            let hypervisor = Arc::clone(&hypervisor);
            Box::pin(async move { hypervisor.check().await.err().map(|error| error.to_string()) })
                as BoxFuture<Option<String>>
        });
        let room: PartCheck = Arc::new(move || {
            let disks = Arc::clone(&disks);
            Box::pin(async move {
                match disks.free().await {
                    Ok(free) if free >= ROOM_LEAST => None,
                    Ok(free) => Some(format!(
                        "only {free} are free where disks are kept, at least {ROOM_LEAST} are needed"
                    )),
                    Err(error) => Some(chain(&error)),
                }
            }) as BoxFuture<Option<String>>
        });
        vec![(self.state.hypervisor.name(), answers), ("disks", room)]
    }
}

/// Builds the service on a chassis.
///
/// # Errors
/// When settings, folders or tables are not as they must be.
pub async fn build(chassis: Chassis<Config>) -> anyhow::Result<chassis::Service> {
    let settings = &chassis.settings;
    settings.own.check().map_err(anyhow::Error::msg)?;
    let ports = Ports::open(&settings.own, &settings.state_dir).await?;
    let limits = Limits::usual(Duration::from_secs(settings.own.ready_seconds));
    let house = House::build(&chassis.bus, settings.host.clone(), ports, limits).await?;
    if let Err(error) = house.state.hypervisor.prepare().await {
        tracing::warn!(%error, "the hypervisor is not ready; it is asked again when a machine is started");
    }
    house.reconcile();
    let (operations, parts) = (house.operations.clone(), house.parts());
    Ok(chassis::Service {
        endpoints: Some(Box::new(move |server| wiring::answer(house, server))),
        operations: Some(operations),
        parts,
        end: None,
    })
}

/// Runs the service until it is told to end.
///
/// # Errors
/// What kept it from starting.
pub fn run() -> anyhow::Result<()> {
    chassis::run(Service::Provisioner, env!("CARGO_PKG_VERSION"), crate::DEFAULTS, build)
}
