//! A real NATS server for one test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const START_MAX: Duration = Duration::from_secs(20);

/// A `nats-server` with JetStream. It ends with this value.
pub struct NatsServer {
    child: Child,
    folder: TempDir,
    port: u16,
    config: Option<PathBuf>,
}

impl NatsServer {
    /// Starts one on a free port, open to everybody on loopback. `nats-server` must be in `PATH`.
    pub fn start() -> NatsServer {
        let folder = tempfile::tempdir().expect("a folder for the server's data");
        let (child, port) = spawn(folder.path(), 0, None);
        NatsServer { child, folder, port, config: None }
    }

    /// Starts one with a configuration of its own; the port in it must be -1.
    pub fn start_with(config: &str) -> NatsServer {
        let folder = tempfile::tempdir().expect("a folder for the server's data");
        std::fs::write(folder.path().join("nats.conf"), config).expect("the configuration can be written");
        let path = folder.path().join("nats.conf");
        let (child, port) = spawn(folder.path(), 0, Some(&path));
        NatsServer { child, folder, port, config: Some(path) }
    }

    /// Where it answers.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Its process, for a signal.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes another configuration and has the server read it (SIGHUP). Only for one with a configuration of its own.
    pub fn reload(&self, config: &str) {
        let path = self.config.as_ref().expect("a server with a configuration");
        std::fs::write(path, config).expect("the configuration can be written");
        signal(&self.child, "HUP");
    }

    /// Kills it (SIGKILL); its data stay until the value is dropped.
    pub fn kill(&mut self) {
        end(&mut self.child);
    }

    /// Starts it again after `kill`, on the same port with the same data.
    pub fn revive(&mut self) {
        let (child, _) = spawn(self.folder.path(), self.port, self.config.as_deref());
        self.child = child;
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn spawn(folder: &Path, port: u16, config: Option<&Path>) -> (Child, u16) {
    let mut command = Command::new("nats-server");
    command.args(["-a", "127.0.0.1", "-js", "--ports_file_dir"]).arg(folder);
    command.arg("-p").arg(if port == 0 { "-1".to_string() } else { port.to_string() });
    command.arg("-sd").arg(folder.join("data"));
    if let Some(config) = config {
        command.arg("-c").arg(config);
    }
    let log = std::fs::File::create(folder.join("nats.log")).expect("a log can be written");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let child = command.spawn().expect("nats-server is in PATH; tests/run installs it");
    let ports = folder.join(format!("nats-server_{}.ports", child.id()));
    let port = wait_for_port(&ports, folder);
    (child, port)
}

/// Sends a signal by name.
pub(crate) fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &child.id().to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "the server runs");
}

fn end(child: &mut Child) {
    // It may have ended by itself; then there is nothing to kill.
    drop(child.kill());
    drop(child.wait());
}

fn wait_for_port(ports: &Path, folder: &Path) -> u16 {
    let until = Instant::now() + START_MAX;
    loop {
        let read = std::fs::read_to_string(ports)
            .ok()
            .and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
        let port = read.and_then(|ports| {
            let url = ports["nats"][0].as_str()?.to_string();
            url.rsplit(':').next()?.parse().ok()
        });
        if let Some(port) = port {
            return port;
        }
        if Instant::now() > until {
            let log = std::fs::read_to_string(folder.join("nats.log")).unwrap_or_default();
            panic!("nats-server did not start: {log}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
