//! A simulated host: a state folder, a supervisor that starts "executables" (files whose text says how they behave),
//! and a key that signs releases.

use std::collections::HashMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bus::memory::MemoryTransport;
use bus::{Bus, ErrorReply, RunningServer, ServiceInfo};
use chassis::{NatsSettings, OperationsKept, Settings, sha256_of};
use contract::health::{CheckHealth, Health, PartHealth};
use contract::message::NeverRefused;
use contract::supervisor::{ListProcesses, Process, ReplaceService, ReplaceServiceRefused, ReplacedService};
use contract::{HostName, Realm, Service, Timestamp};
use minisign::KeyPair;
use operation::new_id;
use tempfile::TempDir;
use upgrade::config::Config;
use upgrade_domain::BUILD_DIGITS;

pub(crate) const HOST: &str = "h1";
/// The executable that the service runs from before any upgrade.
pub(crate) const OLD: &str = "healthy: the old one, version 0.1.0";
/// The version of releases, and of executables whose text names none.
pub(crate) const VERSION: &str = "0.2.0";

pub(crate) fn host() -> HostName {
    HostName::new(HOST).expect("valid")
}

/// Starts processes of the proxy as their executables say: `healthy`, `unhealthy`, `silent`, or `dies` after a few
/// answers; a text that ends in `version 1.2.3` reports that version.
pub(crate) struct Supervisor {
    bus: Bus,
    state: Mutex<Running>,
}

struct Running {
    executable: PathBuf,
    before: PathBuf,
    /// What can be put back.
    executable_before: Option<PathBuf>,
    server: Option<RunningServer>,
    started: usize,
}

impl Supervisor {
    async fn open(bus: &Bus, installed: &Path) -> (Arc<Supervisor>, RunningServer) {
        let supervisor = Arc::new(Supervisor {
            bus: bus.clone(),
            state: Mutex::new(Running {
                executable: installed.into(),
                before: installed.into(),
                executable_before: None,
                server: None,
                started: 0,
            }),
        });
        supervisor.start(installed).await;
        let mut server = bus.server(service_info(Service::Supervisor, "supervisor-build"));
        let this = Arc::clone(&supervisor);
        server.on_host::<ListProcesses, _, _>(&host(), move |_| {
            let listed = this.list();
            async move { Ok::<_, ErrorReply<NeverRefused>>(listed) }
        });
        let this = Arc::clone(&supervisor);
        server.on_host::<ReplaceService, _, _>(&host(), move |call| {
            let this = Arc::clone(&this);
            async move { this.replace(call.request).await }
        });
        (supervisor, server.open().await.expect("the memory bus opens servers"))
    }

    pub(crate) fn runs(&self) -> PathBuf {
        self.state.lock().expect("no panic").executable.clone()
    }

    /// How often something was started.
    pub(crate) fn started(&self) -> usize {
        self.state.lock().expect("no panic").started
    }

    fn list(&self) -> Vec<Process> {
        vec![Process {
            service: Service::Proxy,
            pid: Some(1),
            executable: self.runs(),
            executable_before: self.state.lock().expect("no panic").executable_before.clone(),
            since: Timestamp::default(),
            restarts: 0,
        }]
    }

    async fn replace(
        &self,
        command: ReplaceService,
    ) -> Result<ReplacedService, ErrorReply<ReplaceServiceRefused>> {
        if command.service != Service::Proxy {
            return Err(ErrorReply::Refused(ReplaceServiceRefused::NotOnThisHost(command.service)));
        }
        if !command.executable.is_file() {
            return Err(ErrorReply::Refused(ReplaceServiceRefused::ExecutableNotUsable {
                path: command.executable.display().to_string(),
                reason: "it is missing".into(),
            }));
        }
        let running = self.runs();
        if running != command.executable {
            {
                let mut state = self.state.lock().expect("no panic");
                let goes_back = state.executable_before.as_ref() == Some(&command.executable);
                state.executable_before = (!goes_back).then(|| running.clone());
                state.before = running;
            }
            self.start(&command.executable).await;
        }
        Ok(ReplacedService { executable_before: self.state.lock().expect("no panic").before.clone() })
    }

    async fn start(&self, executable: &Path) {
        let text = std::fs::read_to_string(executable).expect("readable");
        let build = build_of(executable);
        drop(self.state.lock().expect("no panic").server.take());
        let server = if text.starts_with("silent") {
            None
        } else {
            let mut server = self.bus.server(service_info(Service::Proxy, &build));
            let process = Mutex::new((new_id().to_string(), 0));
            server.on_host::<CheckHealth, _, _>(&host(), move |_| {
                let mut process = process.lock().expect("no panic");
                process.1 += 1;
                if text.starts_with("dies") && process.1 % 3 == 0 {
                    process.0 = new_id().to_string();
                }
                let problem = text.starts_with("unhealthy").then(|| "the address is in use".to_string());
                let health = health(version_of(&text), &build, &process.0, problem);
                async move { Ok::<_, ErrorReply<NeverRefused>>(health) }
            });
            Some(server.open().await.expect("the memory bus opens servers"))
        };
        let mut state = self.state.lock().expect("no panic");
        state.server = server;
        state.executable = executable.into();
        state.started += 1;
    }
}

fn version_of(text: &str) -> &str {
    text.split_once("version ").map_or(VERSION, |(_, version)| version)
}

fn health(version: &str, build: &str, instance: &str, problem: Option<String>) -> Health {
    Health {
        service: Service::Proxy,
        version: version.into(),
        build: build.into(),
        instance: instance.into(),
        since: Timestamp::default(),
        parts: vec![PartHealth { part: "listener".into(), problem }],
        notices: Vec::new(),
    }
}

pub(crate) fn service_info(service: Service, build: &str) -> ServiceInfo {
    ServiceInfo {
        service,
        version: "0.1.0".into(),
        metadata: HashMap::from([
            ("host".into(), HOST.into()),
            ("build".into(), build.into()),
            ("instance".into(), new_id().to_string()),
        ]),
    }
}

pub(crate) fn build_of(executable: &Path) -> String {
    sha256_of(executable).expect("readable")[..BUILD_DIGITS].into()
}

/// A host with a supervisor that runs the proxy.
pub(crate) struct Host {
    folder: TempDir,
    pub(crate) bus: Bus,
    pub(crate) supervisor: Arc<Supervisor>,
    pub(crate) signer: KeyPair,
    _supervisor_server: RunningServer,
}

impl Host {
    pub(crate) async fn new() -> Host {
        let folder = tempfile::tempdir().expect("a folder");
        let bus = Bus::new(Arc::new(MemoryTransport::new()), Realm::default());
        let installed = folder.path().join("loam-proxy");
        std::fs::write(&installed, OLD).expect("written");
        let (supervisor, server) = Supervisor::open(&bus, &installed).await;
        let host = Host {
            folder,
            bus,
            supervisor,
            signer: KeyPair::generate_unencrypted_keypair().expect("made"),
            _supervisor_server: server,
        };
        std::fs::create_dir_all(host.keys()).expect("made");
        host.trust("ours.pub", &host.signer);
        host
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub(crate) fn keys(&self) -> PathBuf {
        self.state().join("keys/release")
    }

    pub(crate) fn installed(&self) -> PathBuf {
        self.folder.path().join("loam-proxy")
    }

    pub(crate) fn trust(&self, name: &str, pair: &KeyPair) {
        let text = pair.pk.to_box().expect("boxed").into_string();
        std::fs::write(self.keys().join(name), text).expect("written");
    }

    pub(crate) fn settings(&self, ready_seconds: u32, soak_seconds: u32) -> Settings<Config> {
        Settings {
            host: host(),
            state_dir: self.state(),
            realm: Realm::default(),
            nats: NatsSettings { url: "memory".into(), nkey_file: None, ca_file: None, people_file: None },
            operations_kept: OperationsKept::default(),
            health_socket: None,
            service: Config::of(ready_seconds, soak_seconds),
        }
    }

    /// Opens the upgrade service; it ends when the value returned is dropped.
    pub(crate) async fn upgrade(&self, ready_seconds: u32, soak_seconds: u32) -> RunningServer {
        let service = upgrade::open(self.bus.clone(), self.settings(ready_seconds, soak_seconds));
        let mut server = self.bus.server(service_info(Service::Upgrade, "upgrade-build"));
        let engine = service.serve(&mut server).engine.expect("it has operations");
        let running = server.open().await.expect("the memory bus opens servers");
        engine.resume().await.expect("readable");
        running
    }

    /// Makes a release folder, signed by our key.
    pub(crate) fn release(&self, name: &str, executable: &str) -> PathBuf {
        self.release_as(name, executable, VERSION)
    }

    /// Makes a release folder whose manifest says a version.
    pub(crate) fn release_as(&self, name: &str, executable: &str, version: &str) -> PathBuf {
        let folder = self.folder.path().join(name);
        std::fs::create_dir_all(&folder).expect("made");
        std::fs::write(folder.join("loam-proxy"), executable).expect("written");
        let digest = sha256_of(&folder.join("loam-proxy")).expect("readable");
        let text = manifest("proxy", "loam-proxy", &digest).replace(VERSION, version);
        self.sign(&folder, &text, &self.signer);
        folder
    }

    /// Writes a manifest and signs it.
    pub(crate) fn sign(&self, folder: &Path, manifest: &str, pair: &KeyPair) {
        let signature = minisign::sign(None, &pair.sk, Cursor::new(manifest), None, None).expect("signed");
        std::fs::write(folder.join("release.toml"), manifest).expect("written");
        std::fs::write(folder.join("release.toml.minisig"), signature.into_string()).expect("written");
    }

    /// The installed builds.
    pub(crate) fn builds(&self) -> Vec<String> {
        let Ok(builds) = std::fs::read_dir(self.state().join("releases/proxy")) else {
            return Vec::new();
        };
        let names = builds.map(|build| build.expect("readable").file_name().into_string().expect("text"));
        names.filter(|name| name.len() == BUILD_DIGITS).collect()
    }

    /// How many received releases there are.
    pub(crate) fn received(&self) -> usize {
        std::fs::read_dir(self.state().join("releases/.incoming")).map_or(0, Iterator::count)
    }
}

pub(crate) fn manifest(service: &str, file: &str, digest: &str) -> String {
    format!(
        "service = {service:?}\nversion = {VERSION:?}\nfile = {file:?}\nsha256 = {digest:?}\n\
         made = \"2026-05-01T00:00:00Z\"\n"
    )
}
