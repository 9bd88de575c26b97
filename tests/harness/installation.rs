//! `loam up` in a folder of its own, and the operator who speaks to it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bus::nats::NatsTransport;
use bus::{Bus, CallError};
use contract::health::CheckHealth;
use contract::operation::OperationReport;
use contract::proxy::ListRoutes;
use contract::supervisor::{ListProcesses, Process};
use contract::{OperationId, Realm, Request, Service};
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use testkit::{eventually, eventually_some};

/// How long one question may take.
pub const CALL_MAX: Duration = Duration::from_secs(20);
/// How long a whole installation may take to come up on a busy machine.
const UP_MAX: Duration = Duration::from_secs(90);
/// How long it may take to end in order.
const DOWN_MAX: Duration = Duration::from_secs(60);

/// What a test asks of its installation.
#[derive(Clone, Debug, Default)]
pub struct InstallationOptions {
    /// Settings beyond the usual ones, as TOML tables.
    pub settings: String,
    /// Settings of the bus, as lines of `[nats]`.
    pub nats: String,
    /// Variables for `loam up` and what it starts.
    pub environment: Vec<(String, String)>,
    /// Real libvirt instead of the simulated hypervisor.
    pub libvirt: bool,
    /// The bus keeps its data on a file system of this size, in MiB.
    pub nats_disk_mib: Option<u32>,
}

/// An installation under test.
pub struct Installation {
    up: Child,
    state: TempDir,
    options: InstallationOptions,
    bus: Bus,
}

/// One of our own executables, built beside the test's.
pub fn binary(name: &str) -> PathBuf {
    let mut folder = std::env::current_exe().expect("we run");
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    let path = folder.join(name);
    assert!(path.exists(), "{} is not built; `cargo build --workspace --bins` first", path.display());
    path
}

impl Installation {
    /// The usual installation: simulated hypervisor, local store.
    pub async fn simulated() -> Installation {
        Installation::start(InstallationOptions::default()).await
    }

    /// A installation as asked for.
    pub async fn start(options: InstallationOptions) -> Installation {
        let state = tempfile::Builder::new().prefix("loam-").tempdir().expect("a folder for the state");
        open_to_qemu(state.path());
        if let Some(size) = options.nats_disk_mib {
            let nats = state.path().join("nats");
            std::fs::create_dir(&nats).expect("made");
            let size = format!("size={size}m,mode=700");
            nix::mount::mount(Some("nats"), &nats, Some("tmpfs"), MsFlags::empty(), Some(size.as_str()))
                .expect("tests run as root");
        }
        let up = launch(state.path(), &options);
        let bus = connect(state.path()).await;
        let installation = Installation { up, state, options, bus };
        installation.ready().await;
        installation
    }

    /// The operator's connection.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Another connection of the operator, for what is below any message.
    pub async fn operator(&self) -> NatsTransport {
        operator_transport(self.state.path()).await.expect("connected")
    }

    /// The state folder.
    pub fn state(&self) -> &Path {
        self.state.path()
    }

    /// Asks and expects a reply; a service that is just starting again is asked again, as any client would.
    pub async fn ask<R: Request>(&self, request: R) -> R::Reply {
        replied::<R>(async || self.bus.call(&request, CALL_MAX).await).await
    }

    /// The same of a request that every service answers for itself.
    pub async fn ask_at<R: Request>(&self, service: Service, request: R) -> R::Reply {
        replied::<R>(async || self.bus.call_at(service, &request, CALL_MAX).await).await
    }

    /// Asks and expects a refusal.
    pub async fn refused<R: Request>(&self, request: R) -> R::Refusal
    where
        R::Reply: std::fmt::Debug,
    {
        match self.bus.call(&request, CALL_MAX).await {
            Err(CallError::Refused(refusal)) => refusal,
            other => panic!("{}: {other:?}", R::NAME),
        }
    }

    /// Waits until an operation has ended, however.
    pub async fn end_of(&self, service: Service, id: &OperationId) -> OperationReport {
        let ask = contract::operation::GetOperation { id: id.clone() };
        eventually_some(&format!("the end of operation {id}"), Duration::from_secs(180), async || {
            let report = self.bus.call_at(service, &ask, CALL_MAX).await.ok()?;
            report.state.is_final().then_some(report)
        })
        .await
    }

    /// Waits until every service is there and healthy.
    pub async fn ready(&self) {
        eventually_some("every service is there and healthy", UP_MAX, async || {
            for service in Service::ALL {
                let health = self.bus.call_at(service, &CheckHealth {}, CALL_MAX).await.ok()?;
                if !health.is_healthy() {
                    return None;
                }
            }
            Some(())
        })
        .await;
    }

    /// Runs the `loam` command against this installation.
    pub fn loam(&self, arguments: &[&str]) -> Output {
        Command::new(binary("loam"))
            .arg("--state")
            .arg(self.state.path())
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("loam runs")
    }

    /// Runs the `loam` command with `--json`, expects success and reads what it prints.
    pub fn loam_json(&self, arguments: &[&str]) -> serde_json::Value {
        let mut all = arguments.to_vec();
        all.push("--json");
        let output = self.loam(&all);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(output.status.success(), "loam {}: {}\n{text}{stderr}", arguments.join(" "), output.status);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("loam {arguments:?}: {error}: {text}"))
    }

    /// Where the proxy listens.
    pub async fn proxy(&self) -> SocketAddr {
        self.ask(ListRoutes {}).await.http_listener.parse().expect("an address")
    }

    /// The process of a service.
    pub async fn process(&self, service: Service) -> Process {
        eventually_some("the process is listed", CALL_MAX, async || {
            let processes = self.bus.call(&ListProcesses {}, CALL_MAX).await.ok()?;
            processes.into_iter().find(|process| process.service == service && process.pid.is_some())
        })
        .await
    }

    /// Kills a service in the middle of whatever it does (SIGKILL). It is started again by its supervisor.
    pub async fn kill(&self, service: Service) {
        let pid = self.process(service).await.pid.expect("it runs");
        kill(Pid::from_raw(pid as i32), Signal::SIGKILL).expect("it can be killed");
        eventually("another process took its place", async || self.process(service).await.pid != Some(pid))
            .await;
    }

    /// Kills the bus, and does something before its supervisor starts it again.
    pub fn while_the_bus_is_down(&self, work: impl FnOnce()) {
        let [up, server] = [self.up.id() as i32, child_named(self.up.id(), "nats-server")].map(Pid::from_raw);
        kill(up, Signal::SIGSTOP).expect("it runs");
        kill(server, Signal::SIGKILL).expect("it runs");
        work();
        kill(up, Signal::SIGCONT).expect("it runs");
    }

    /// Ends everything in order, as Ctrl-C does, and says how it ended.
    pub async fn end(&mut self) -> std::process::ExitStatus {
        kill(Pid::from_raw(self.up.id() as i32), Signal::SIGINT).expect("it runs");
        eventually_some("loam up has ended", DOWN_MAX, async || {
            self.up.try_wait().expect("it can be waited for")
        })
        .await
    }

    /// Starts it again on the same state.
    pub async fn restart(&mut self) {
        self.up = launch(self.state.path(), &self.options);
        self.bus = connect(self.state.path()).await;
        self.ready().await;
    }

    /// Other settings beyond the usual ones, from the next start on.
    pub fn set_settings(&mut self, settings: &str) {
        self.options.settings = settings.into();
    }

    /// The logs of everything, for when a test fails.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for folder in ["log", "."] {
            let Ok(entries) = std::fs::read_dir(self.state.path().join(folder)) else {
                continue;
            };
            for path in entries.flatten().map(|entry| entry.path()) {
                if path.extension().is_some_and(|extension| extension == "log") {
                    let log = std::fs::read_to_string(&path).unwrap_or_default();
                    let tail: Vec<&str> = log.lines().rev().take(60).collect();
                    text += &format!("--- {}\n", path.display());
                    text.extend(tail.into_iter().rev().map(|line| format!("{line}\n")));
                }
            }
        }
        text
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        // In order if it listens, by force if it does not; it may have ended already.
        if kill(Pid::from_raw(self.up.id() as i32), Signal::SIGTERM).is_err() {
            return;
        }
        let until = std::time::Instant::now() + DOWN_MAX;
        while std::time::Instant::now() < until && matches!(self.up.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(self.up.kill());
        drop(self.up.wait());
        if self.options.nats_disk_mib.is_some() {
            let unmounted = umount2(&self.state.path().join("nats"), MntFlags::MNT_DETACH);
            if let Err(errno) = unmounted {
                eprintln!("the file system of the bus stays mounted: {errno}");
            }
        }
    }
}

/// The process of this name that a process, or one of its children, started.
fn child_named(parent: u32, name: &str) -> i32 {
    let children = |pid: u32| -> Vec<u32> {
        let listed = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        listed.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    };
    let mut waiting = vec![parent];
    while let Some(pid) = waiting.pop() {
        if std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name) {
            return pid as i32;
        }
        waiting.extend(children(pid));
    }
    panic!("no process {name} runs");
}

async fn replied<R: Request>(call: impl AsyncFn() -> Result<R::Reply, CallError<R::Refusal>>) -> R::Reply {
    eventually_some(R::NAME, CALL_MAX, async || match call().await {
        Ok(reply) => Some(reply),
        Err(error) if error.is_transient() => None,
        Err(error) => panic!("{}: {error}", R::NAME),
    })
    .await
}

/// QEMU runs as a user of its own and must pass through the folder.
fn open_to_qemu(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("the folder is ours");
}

fn launch(state: &Path, options: &InstallationOptions) -> Child {
    let hypervisor = if options.libvirt { "libvirt" } else { "simulated" };
    let settings = format!(
        "host = \"h1\"\n{}\n[nats]\nport = 0\n{}\n[proxy]\nhttp_listen = \"127.0.0.1:0\"\n",
        options.settings, options.nats
    );
    let file = state.join("loam.toml");
    std::fs::write(&file, settings).expect("settings are written");
    let log =
        std::fs::OpenOptions::new().create(true).append(true).open(state.join("up.log")).expect("a log");
    Command::new(binary("loam"))
        .arg("--state")
        .arg(state)
        .arg("up")
        .arg("--config")
        .arg(&file)
        .args(["--hypervisor", hypervisor])
        .envs(options.environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log)
        .spawn()
        .expect("loam up starts")
}

/// Connects as the operator, as soon as `loam up` has written down where.
async fn connect(state: &Path) -> Bus {
    let transport =
        eventually_some("the operator can connect", UP_MAX, async || operator_transport(state).await).await;
    Bus::new(Arc::new(transport), Realm::default())
}

/// The operator's connection, below any message.
async fn operator_transport(state: &Path) -> Option<NatsTransport> {
    let text = std::fs::read_to_string(state.join("client.toml")).ok()?;
    let value = |key: &str| {
        let line = text.lines().find(|line| line.split('=').next().is_some_and(|name| name.trim() == key))?;
        Some(line.split('"').nth(1)?.to_string())
    };
    let connection = bus::nats::Connection {
        url: value("url")?,
        nkey_file: Some(value("key")?.into()),
        ca_file: value("ca_file").map(Into::into),
        name: "system-test".into(),
        user: contract::permissions::User::Person(value("person")?),
    };
    bus::nats::connect(&connection, Duration::from_secs(2)).await.ok()
}
