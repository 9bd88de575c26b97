//! One host: what it runs, in the order in which it is started.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bus::nats::{Connection, connect};
use bus::{Bus, People, RunningServer};
use contract::Service;
use contract::permissions::User;
use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::child::SELF_EXE;
use super::handlers::{Handlers, Identity};
use super::keeper::{self, Keeper, ProcessState};
use super::log;
use super::put_back;
use super::release::{BUILD_DIGITS, Executables};
use super::service::{self, CommonSettings};
use super::settings::{Hypervisor, Settings};
use super::shutdown;
use super::status_view::{self, HealthTable, StatusView};
use super::table_repair::{Repair, TableRepair};
use super::users::Users;
use crate::admission;
use crate::admission::answer::expire_tokens;
use crate::admission::hosts::Hosts;
use crate::admission::join::JoinedBus;
use crate::admission::servers::{ALONE, BusServer, BusServers};
use crate::nats::server;
use crate::state::keys::{self, OPERATOR};
use crate::state::{State, write_private};

/// How long the bus may take to accept the first connection.
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// How long creating the tables may take; in a cluster leaders are elected first.
const TABLES_MAX: Duration = Duration::from_secs(60);
/// Room that the embedded NATS server needs to go on writing for a while.
const ROOM_BYTES_MIN: u64 = 64 << 20;
/// A host whose hypervisor or store is away for longer than this has started all the same: its services wait for it.
const STARTED_MAX: Duration = Duration::from_secs(120);
/// How often the status view is updated.
const POLL_EVERY: Duration = Duration::from_millis(250);

/// Where the bus is.
struct BusPlace {
    url: String,
    ca_file: Option<PathBuf>,
    /// Whether the settings of its servers are written here.
    is_ours_to_admit: bool,
}

/// A host that is to be started.
pub(super) struct Host {
    /// The bus that it joined, where it did.
    pub(super) joined: Option<JoinedBus>,
    pub(super) settings: Settings,
    pub(super) state: State,
    pub(super) executables: Executables,
    pub(super) keys: PathBuf,
    pub(super) server: Option<PathBuf>,
    pub(super) hypervisor: Option<Hypervisor>,
    pub(super) instance_id: String,
    pub(super) users: Users,
    pub(super) force_shutdown: CancellationToken,
}

/// What has been started so far, in this order.
#[derive(Default)]
pub(super) struct StartedServices {
    pub(super) processes: Vec<Keeper>,
    pub(super) supervisor_server: Option<RunningServer>,
    pub(super) status_view: Option<StatusView>,
}

impl Host {
    /// Starts everything, shows its status, and ends it in order at a signal.
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut signals = shutdown::Signals::listen()?;
        let mut started = StartedServices::default();
        let outcome = tokio::select! {
            never = self.start_and_watch(&mut started) => never.map(|never| match never {}),
            never = log::rotate_in_background(self.state.log()) => match never {},
            name = signals.next() => { tracing::info!(name, "shutting down"); Ok(()) }
        };
        notify(&[NotifyState::Stopping]);
        signals.force_at_next(self.force_shutdown.clone());
        shutdown::in_order(started).await;
        outcome
    }

    async fn start_and_watch(
        &self,
        started: &mut StartedServices,
    ) -> anyhow::Result<std::convert::Infallible> {
        let since = chrono::Utc::now();
        // Its server reads its settings then; the keys may be made by the first start of the bus.
        self.users.share_state(&self.state)?;
        let place = self.open_bus(started).await?;
        self.users.share_state(&self.state)?;
        // A host that joined has no keys that create tables, and none of a person.
        if self.joined.is_none() {
            self.create_tables(&place).await?;
            self.write_client(&place)?;
        }
        let common = CommonSettings {
            state: &self.state,
            settings: &self.settings,
            url: &place.url,
            ca_file: place.ca_file.as_deref(),
            keys: &self.keys,
            hypervisor: self.hypervisor,
            users: &self.users,
        };
        for &service in &self.settings.services {
            service::write_settings(&common, service)?;
        }
        let mut keepers = HashMap::new();
        for &service in &self.settings.services {
            let keeper = self.keep_service(service);
            keepers.insert(service, keeper.handle());
            started.processes.push(keeper);
        }
        let bus = self.connect_supervisor(&place).await?;
        let mut build = chassis::sha256_of(Path::new(SELF_EXE)).context("hashing our executable")?;
        build.truncate(BUILD_DIGITS);
        let identity =
            Identity { host: self.settings.host.clone(), build, instance: self.instance_id.clone(), since };
        let host = self.settings.host.clone();
        let handlers = Handlers::over(self.executables.clone(), keepers.clone(), host);
        let admits = place.is_ours_to_admit.then(|| self.state.clone());
        let opened = Arc::clone(&handlers).open(&bus, identity, admits.clone()).await;
        started.supervisor_server = Some(opened.context("opening the supervisor's endpoints")?);
        if let Some(state) = admits {
            tokio::spawn(expire_tokens(state));
        }
        for (service, keeper) in keepers {
            tokio::spawn(put_back::watch(service, keeper, Arc::clone(&handlers), bus.clone()));
        }
        self.watch(&place, bus, &handlers, started).await
    }

    /// Starts a server, or takes the one that this host joined or that the settings name.
    async fn open_bus(&self, started: &mut StartedServices) -> anyhow::Result<BusPlace> {
        if let Some(joined) = &self.joined {
            keys::prepare_encryption_keys(&self.state)?;
            let (url, ca_file) = (joined.url.clone(), Some(joined.ca_file.clone()));
            return Ok(BusPlace { url, ca_file, is_ours_to_admit: false });
        }
        let Some(program) = self.server.clone() else { return self.open_bus_of_others().await };
        let nats = &self.settings.nats;
        let names = nats.server_names().context(
            "[nats] listen takes all addresses; say under `names` by which names or addresses other hosts reach this one",
        )?;
        let lock = admission::lock(&self.state).await?;
        let (wanted, address) = (nats.port, nats.local_address());
        let mut servers = self.our_server(&names);
        servers.write(&self.state)?;
        let public = admission::public_keys(&self.state, &Hosts::read(&self.state)?, chrono::Utc::now())?;
        servers.write_settings(&self.state, &public)?;
        if wanted != 0 {
            server::refuse_taken_port(address, wanted)?;
        }
        server::remove_ports_files(&self.state);
        let config = servers.server[0].settings(&self.state);
        let port = server::ChosenPort::default();
        let (plan_port, state) = (Arc::clone(&port), self.state.clone());
        let user = self.users.of(server::NAME);
        let plan = move || Ok(server::launch(&program, &config, &state, &plan_port).as_user(user));
        let keeper = self.keep(server::NAME, Box::new(plan));
        let handle = keeper.handle();
        started.processes.push(keeper);
        let chosen = server::wait_for_port(&self.state, &handle).await?;
        port.set(chosen).expect("the port is set once");
        let ca_file = servers.ca_file(&self.state);
        let url_of = |name: &str| {
            let scheme = if ca_file.is_some() { "tls" } else { "nats" };
            match name.parse::<IpAddr>() {
                Ok(address) => format!("{scheme}://{}", SocketAddr::new(address, chosen)),
                Err(_) => format!("{scheme}://{name}:{chosen}"),
            }
        };
        let url = url_of(&address.to_string());
        servers.url = names.iter().map(|name| url_of(name)).collect::<Vec<_>>().join(",");
        servers.local_url = Some(url.clone());
        servers.write(&self.state)?;
        drop(lock);
        Ok(BusPlace { url, ca_file, is_ours_to_admit: true })
    }

    /// The server that this host runs; its URLs are known once it has its port.
    fn our_server(&self, names: &[String]) -> BusServers {
        let nats = &self.settings.nats;
        let port = if nats.port == 0 { "-1".to_string() } else { nats.port.to_string() };
        let host = |address: IpAddr| match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        let mut certified = names.to_vec();
        certified.push(nats.local_address().to_string());
        certified.dedup();
        let server = BusServer {
            name: ALONE.into(),
            listen: format!("{}:{port}", host(nats.listen)),
            data: self.state.nats().join("data"),
            names: certified,
            tls_dir: self.state.nats(),
            is_ours: true,
            cluster: None,
        };
        BusServers {
            realm: self.settings.realm.clone(),
            host: Some(self.settings.host.clone()),
            url: String::new(),
            local_url: None,
            reload_program: None,
            server: vec![server],
        }
    }

    /// A bus of the user's own. Where its settings are written here, hosts that join are answered here.
    async fn open_bus_of_others(&self) -> anyhow::Result<BusPlace> {
        keys::prepare(&self.state)?;
        let url = self.settings.nats.url.clone().expect("without a server there is a url");
        let mut ca_file = self.settings.nats.ca_file.clone();
        let _lock = admission::lock(&self.state).await?;
        let servers =
            BusServers::read(&self.state)?.filter(|servers| !servers.server.iter().any(|it| it.is_ours));
        let is_ours_to_admit = servers.is_some();
        if let Some(mut servers) = servers {
            ca_file = ca_file.or(servers.ca_file(&self.state));
            servers.host = Some(self.settings.host.clone());
            servers.write(&self.state)?;
        }
        Ok(BusPlace { url, ca_file, is_ours_to_admit })
    }

    /// Runs `loam bus tables`: a process that ends at once is the only one that reads the keys which may create tables.
    async fn create_tables(&self, place: &BusPlace) -> anyhow::Result<()> {
        let mut command = tokio::process::Command::new(SELF_EXE);
        if let Some(ca_file) = &place.ca_file {
            command.arg("--ca-file").arg(ca_file);
        }
        command
            .args(["bus", "tables", "--url", &place.url, "--keys"])
            .arg(keys::bootstrap_folder(&self.keys));
        command.args(["--replicas", &self.settings.nats.replicas.to_string()]);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let ended = tokio::time::timeout(TABLES_MAX, command.output()).await;
        let output =
            ended.context("creating the tables: no end within a minute")?.context("creating the tables")?;
        if !output.status.success() {
            anyhow::bail!("creating the tables: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    async fn connect_supervisor(&self, place: &BusPlace) -> anyhow::Result<Bus> {
        let user = User::Service(Service::Supervisor);
        let connection = Connection {
            url: place.url.clone(),
            nkey_file: Some(keys::file_of(&self.keys, &user)),
            ca_file: place.ca_file.clone(),
            name: format!("loam-{user}@{}", self.settings.host),
            user,
        };
        let transport = connect(&connection, CONNECT_MAX).await?;
        let people = People::in_file(self.state.people());
        Ok(Bus::new(Arc::new(transport), self.settings.realm.clone()).with_people(people))
    }

    /// Whether the disk under the embedded NATS server has room again.
    fn has_room(&self) -> bool {
        let free = nix::sys::statvfs::statvfs(&self.state.nats());
        free.is_ok_and(|found| found.blocks_available() * found.fragment_size() >= ROOM_BYTES_MIN)
    }

    async fn repair(&self, action: Option<Repair>, place: &BusPlace, processes: &[Keeper]) {
        match action {
            None => {}
            Some(Repair::CreateTables) if self.joined.is_some() => {
                tracing::error!("tables are missing; the host that runs the bus creates them");
            }
            Some(Repair::CreateTables) => match self.create_tables(place).await {
                Ok(()) => tracing::warn!("tables were missing and were created again, empty"),
                Err(error) => tracing::error!("tables are missing: {error:#}"),
            },
            Some(Repair::RestartServer) => {
                tracing::warn!("the NATS server cannot write and its disk has room; restarting it");
                let server = processes.iter().find(|keeper| keeper.name == server::NAME);
                if let Some(server) = server
                    && let Err(error) = server.handle().restart().await
                {
                    tracing::error!(error, "the NATS server was not restarted");
                }
            }
        }
    }

    fn write_client(&self, place: &BusPlace) -> anyhow::Result<()> {
        let client = crate::cli::client::ClientConfig {
            url: place.url.clone(),
            ca_file: place.ca_file.clone(),
            key: keys::file_of(&self.keys, &User::Person(OPERATOR.into())),
            person: OPERATOR.into(),
            realm: self.settings.realm.clone(),
        };
        let text = toml::to_string(&client).expect("a few texts are plain data");
        Ok(write_private(&self.state.client(), text.as_bytes())?)
    }

    fn keep_service(&self, service: Service) -> Keeper {
        let (executables, state) = (self.executables.clone(), self.state.clone());
        let user = self.users.of(service.name());
        let plan = move || Ok(service::launch(&state, service, &executables.choose(service)).as_user(user));
        self.keep(service.name(), Box::new(plan))
    }

    fn keep(&self, name: &str, plan: keeper::Plan) -> Keeper {
        Keeper::start(name, SELF_EXE.into(), self.state.log_of(name), plan, self.force_shutdown.clone())
    }

    async fn watch(
        &self,
        place: &BusPlace,
        bus: Bus,
        handlers: &Handlers,
        started: &mut StartedServices,
    ) -> anyhow::Result<std::convert::Infallible> {
        let (sender, health) = watch::channel(HealthTable::new());
        let _polling = tokio::spawn(status_view::poll_health(
            bus,
            self.settings.host.clone(),
            self.settings.services.clone(),
            sender,
        ));
        let (version, root) = (env!("CARGO_PKG_VERSION"), self.state.root().display());
        let url = &place.url;
        let head = format!("loam {version}  realm {}  {url}  {root}", self.settings.realm);
        let names: Vec<String> = started.processes.iter().map(|keeper| keeper.name.clone()).collect();
        let shown = started.status_view.insert(StatusView::of(
            &head,
            &names,
            self.settings.is_simulated(self.hypervisor),
        ));
        let (mut all_ready_shown, mut is_started, begun) = (false, false, Instant::now());
        let mut repair = TableRepair::default();
        loop {
            let table = health.borrow().clone();
            let action = repair.decide(&table, Instant::now(), || self.server.is_some() && self.has_room());
            self.repair(action, place, &started.processes).await;
            let mut ready = 0;
            for keeper in &started.processes {
                let status = keeper.status();
                let Ok(service) = keeper.name.parse::<Service>() else {
                    shown.show_plain(&keeper.name, &status, url);
                    continue;
                };
                // An answer from before the last start is another process's.
                let current = table.get(&service).filter(|health| health.since >= status.since);
                let up = matches!(status.state, ProcessState::Up(_));
                ready += usize::from(up && current.is_some_and(|health| health.is_healthy()));
                shown.show(service, &status, current, handlers.notice(service));
            }
            let all_ready = ready == self.settings.services.len();
            notify(&[NotifyState::Watchdog]);
            if !is_started && (all_ready || begun.elapsed() >= STARTED_MAX) {
                is_started = true;
                notify(&[NotifyState::Ready]);
            }
            if all_ready && !all_ready_shown {
                all_ready_shown = true;
                shown.all_ready();
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }
}

/// Sends to systemd, where it has started us with `Type=notify`.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "nothing was sent to systemd");
    }
}
