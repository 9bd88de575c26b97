//! What the tests share: a provisioner in a folder of its own, on the memory bus, with the simulated hypervisor.
#![allow(dead_code, unreachable_pub, missing_docs, async_fn_in_trait)]

pub mod suites;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bus::memory::MemoryTransport;
use bus::{Bus, CallError, Destination, RunningServer, ServiceInfo};
use contract::catalog::RequestEntry;
use contract::message::{DurableCommand, Request};
use contract::operation::{OperationReport, OperationState};
use contract::provisioner::{AddSeed, CreateVm, DomainRoute, Script, VmDefinition};
use contract::{ByteCount, HostName, OperationId, Realm, SeedName, Service, VmName};
use encryption::{RowKeys, new_key};
use operation::{Context, ProgressMeter, new_id, wait_for_operation};
use provisioner::adapters::qemu_img::QemuImgDisks;
use provisioner::adapters::simulated::{Faults, SimulatedHypervisor, SimulatedShell};
use provisioner::ports::Ports;
use provisioner::{Limits, ServiceState};
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes.
pub const WAIT_MAX: Duration = Duration::from_secs(60);
pub const ANSWER: Duration = Duration::from_secs(30);
/// A port that nobody needs rights for.
pub const PORT: u16 = 8080;

pub fn vm(name: &str) -> VmName {
    VmName::new(name).expect("a good name")
}

pub fn seed_name() -> SeedName {
    SeedName::new("tiny").expect("a good name")
}

pub fn definition(name: &str) -> VmDefinition {
    VmDefinition {
        name: vm(name),
        seed: seed_name(),
        cpu_count: 1,
        ram_size: ByteCount::mib(256),
        disk_size: ByteCount::mib(64),
        domains: vec![DomainRoute {
            domain: format!("{name}.example").parse().expect("a domain"),
            port: PORT,
        }],
        env: Default::default(),
        install: Vec::new(),
    }
}

pub fn script(name: &str, text: &str) -> Script {
    Script { name: name.into(), text: text.into() }
}

/// Short, so that failures come soon. The reconciler has its first round only, and there is always room.
pub fn limits() -> Limits {
    Limits {
        vm_ready_max: Duration::from_secs(2),
        guest_poll_interval: Duration::from_millis(5),
        agent_shutdown_max: Duration::from_millis(100),
        acpi_shutdown_max: Duration::from_millis(100),
        freeze_timeout: Duration::from_millis(200),
        export_lease: Duration::from_secs(120),
        reconcile_interval: Duration::from_secs(3600),
        host_report_interval: Duration::from_secs(3600),
        unknown_after: Duration::from_secs(3600),
        free_space_low: ByteCount(0),
        free_space_to_resume: ByteCount(0),
    }
}

pub fn host() -> HostName {
    HostName::new("h1").expect("a good name")
}

/// Sends as its senders do: what is about the disks of a host goes to that host.
pub trait CallHere {
    async fn call_here<R: Request>(
        &self,
        request: &R,
        deadline: Duration,
    ) -> Result<R::Reply, CallError<R::Refusal>>;
}

impl CallHere for Bus {
    async fn call_here<R: Request>(
        &self,
        request: &R,
        deadline: Duration,
    ) -> Result<R::Reply, CallError<R::Refusal>> {
        let to_host = RequestEntry::of::<R>().is_sent_to_one_host().then(host);
        self.call_at(Destination { service: Service::Provisioner, host: to_host }, request, deadline).await
    }
}

/// A raw image of 16 MiB with a boot sector, and its digest.
pub fn raw_image(folder: &Path) -> (PathBuf, String) {
    let path = folder.join("image.raw");
    let mut bytes = vec![0; 1 << 20];
    bytes[..12].copy_from_slice(b"boot sector!");
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    std::fs::write(&path, bytes).expect("written");
    let file = std::fs::File::options().write(true).open(&path).expect("it exists");
    file.set_len(16 << 20).expect("its size");
    let digest = chassis::sha256_of(&path).expect("hashed");
    (path, digest)
}

/// One provisioner's folder and its simulated adapters.
pub struct Simulated {
    pub state: PathBuf,
    pub hypervisor: Arc<SimulatedHypervisor>,
    pub faults: Arc<Faults>,
    pub ports: Ports,
}

impl Simulated {
    pub async fn open(state: &Path) -> Simulated {
        let disks = QemuImgDisks::open(state, None).expect("folders");
        let hypervisor = SimulatedHypervisor::open(&state.join("simulated")).await.expect("a simulation");
        let hypervisor = Arc::new(hypervisor);
        Simulated {
            state: state.into(),
            faults: Arc::clone(hypervisor.faults()),
            ports: Ports {
                hypervisor: hypervisor.clone(),
                disks: Arc::new(disks),
                shell: Arc::new(SimulatedShell::new(hypervisor.clone())),
            },
            hypervisor,
        }
    }
}

pub fn bus_on(transport: &MemoryTransport) -> Bus {
    Bus::new(Arc::new(transport.clone()), Realm::default())
}

pub async fn open_state(bus: &Bus, ports: Ports, limits: Limits) -> Arc<ServiceState> {
    open_state_on(bus, host(), ports, limits, row_keys(&[1])).await
}

/// The keys of these bytes, newest first.
pub fn row_keys(bytes: &[u8]) -> RowKeys {
    let text: String = bytes.iter().map(|byte| new_key([*byte; 32]).to_string()).collect();
    RowKeys::parse(&text).expect("keys")
}

/// The key file in the state folder of a process.
pub fn write_rows_key(state: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(state.join("keys")).expect("a folder");
    let path = state.join("keys/rows.key");
    std::fs::write(&path, new_key([1; 32])).expect("written");
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).expect("its mode");
}

pub async fn open_state_on(
    bus: &Bus,
    host: HostName,
    ports: Ports,
    limits: Limits,
    keys: RowKeys,
) -> Arc<ServiceState> {
    ServiceState::open(bus, host, ports, limits, keys).await.expect("the tables can be read")
}

/// Opens a service's endpoints and resumes its operations.
pub async fn serve(bus: &Bus, state: &Arc<ServiceState>) -> (RunningServer, chassis::StartedService) {
    let service = provisioner::service(bus, Arc::clone(state)).await.expect("a service");
    let info =
        ServiceInfo { service: Service::Provisioner, version: "0.0.0".into(), metadata: Default::default() };
    let mut server = bus.server(info);
    let running = service.serve(&mut server);
    let server = server.open().await.expect("endpoints");
    running.engine.as_ref().expect("an engine").resume().await.expect("resumed");
    (server, running)
}

/// A provisioner that answers on a memory bus.
pub struct Running {
    pub transport: MemoryTransport,
    pub bus: Bus,
    pub state: Arc<ServiceState>,
    pub simulated: Simulated,
    pub folder: Arc<tempfile::TempDir>,
    server: RunningServer,
    service: chassis::StartedService,
}

impl Running {
    pub async fn start() -> Running {
        Running::start_with(limits()).await
    }

    pub async fn start_with(limits: Limits) -> Running {
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        Running::start_in(folder, MemoryTransport::new(), limits).await
    }

    pub async fn start_in(
        folder: Arc<tempfile::TempDir>,
        transport: MemoryTransport,
        limits: Limits,
    ) -> Running {
        Running::start_on(host(), folder, transport, limits, row_keys(&[1])).await
    }

    pub async fn start_on(
        host: HostName,
        folder: Arc<tempfile::TempDir>,
        transport: MemoryTransport,
        limits: Limits,
        keys: RowKeys,
    ) -> Running {
        let simulated = Simulated::open(&folder.path().join("state")).await;
        let bus = bus_on(&transport);
        let state = open_state_on(&bus, host, simulated.ports.clone(), limits, keys).await;
        let (server, service) = serve(&bus, &state).await;
        Running { transport, bus, state, simulated, folder, server, service }
    }

    /// Ends it in order and starts it again on the same tables and folder.
    pub async fn restart(self) -> Running {
        let limits = self.state.limits;
        self.restart_with(limits).await
    }

    pub async fn restart_with(self, limits: Limits) -> Running {
        self.stop().await.start(limits).await
    }

    pub async fn restart_with_keys(self, keys: RowKeys) -> Running {
        let limits = self.state.limits;
        self.stop().await.start_with_keys(limits, keys).await
    }

    /// Ends it in order.
    pub async fn stop(self) -> Stopped {
        self.server.close().await;
        self.service.shut_down().await;
        let Running { transport, state, simulated, folder, .. } = self;
        let host = state.host.clone();
        // Its guests free their addresses before others take them.
        drop((state, simulated));
        Stopped { host, folder, transport }
    }

    pub async fn outcome(&self, id: &OperationId) -> OperationReport {
        wait_for_operation(&self.bus, Service::Provisioner, id, WAIT_MAX, |_| {}).await.expect("an outcome")
    }

    pub async fn done(&self, id: &OperationId) -> OperationReport {
        let report = self.outcome(id).await;
        assert_eq!(report.state, OperationState::Done, "{report:?}");
        report
    }

    /// Sends a durable command and waits until it is done.
    pub async fn run<C: DurableCommand>(&self, command: C) -> OperationReport {
        let begun = self.bus.call_here(&command, ANSWER).await.expect("begun");
        self.done(begun.operation()).await
    }

    /// Sends a durable command that begins and fails; why it was undone.
    pub async fn run_undone<C: DurableCommand>(&self, command: C) -> String {
        let begun = self.bus.call_here(&command, ANSWER).await.expect("begun");
        self.undone(begun.operation()).await
    }

    /// Sends a request that is refused.
    pub async fn refused<R: Request>(&self, request: R) -> R::Refusal {
        match self.bus.call_here(&request, ANSWER).await {
            Err(CallError::Refused(refusal)) => refusal,
            Err(error) => panic!("not refused: {error:?}"),
            Ok(_) => panic!("{} was not refused", R::NAME),
        }
    }

    /// What its health says that is no problem.
    pub fn notices(&self) -> &[String] {
        &self.service.notices
    }

    /// What its health says is wrong, with the names of the parts.
    pub async fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (part, check) in &self.service.health_checks {
            problems.extend(check().await.map(|problem| format!("{part}: {problem}")));
        }
        problems
    }

    /// Why an operation was undone.
    pub async fn undone(&self, id: &OperationId) -> String {
        let report = self.outcome(id).await;
        assert_eq!(report.state, OperationState::Undone, "{report:?}");
        report.reason.expect("a reason")
    }

    pub async fn add_seed(&self) {
        let (path, sha256) = raw_image(self.folder.path());
        let asked = AddSeed {
            name: seed_name(),
            from: path.display().to_string(),
            sha256,
            host: None,
            operation_id: None,
        };
        self.run(asked).await;
    }

    pub async fn create(&self, definition: VmDefinition) -> OperationReport {
        self.run(CreateVm { definition, host: None, overcommit: false, operation_id: None }).await
    }

    /// The page of a simulated guest.
    pub async fn page(&self, name: &str) -> String {
        let record = self.state.registry.vm(&vm(name)).await.expect("it exists");
        let address = record.address().expect("it runs");
        reqwest::get(format!("http://{address}:{PORT}/"))
            .await
            .expect("an answer")
            .text()
            .await
            .expect("text")
    }
}

/// A provisioner that was ended in order.
pub struct Stopped {
    pub host: HostName,
    folder: Arc<tempfile::TempDir>,
    transport: MemoryTransport,
}

impl Stopped {
    /// Starts it again on the same tables and folder.
    pub async fn start(self, limits: Limits) -> Running {
        self.start_with_keys(limits, row_keys(&[1])).await
    }

    /// The same, with these keys of rows.
    pub async fn start_with_keys(self, limits: Limits, keys: RowKeys) -> Running {
        Running::start_on(self.host, self.folder, self.transport, limits, keys).await
    }
}

/// A step's context.
pub fn context<C>(state: &Arc<ServiceState>, command: C) -> Context<ServiceState, C> {
    Context {
        state: Arc::clone(state),
        command,
        id: new_id(),
        scripts: Default::default(),
        progress: ProgressMeter::default(),
        cancel: CancellationToken::new(),
    }
}

/// Reserves a name and writes its disks, as a restore would.
pub async fn reserve(
    state: &Arc<ServiceState>,
    definition: VmDefinition,
    disks: Vec<contract::provisioner::DiskSize>,
    by: OperationId,
) {
    let name = definition.name.clone();
    state.registry.reserve(definition, disks.clone(), by).await.expect("reserved");
    let folder = state.disks.create_restore_folder(&name).await.expect("a folder");
    for disk in disks {
        let path = folder.join(format!("{}.raw", disk.disk));
        let file = std::fs::File::create(path).expect("written");
        file.set_len(disk.size.0).expect("its size");
    }
}
