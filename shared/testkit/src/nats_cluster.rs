//! Three real NATS servers that elect a leader, on loopback.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

const SIZE: usize = 3;

/// Three `nats-server`s as one cluster with JetStream. They end with this value.
pub struct NatsCluster {
    folder: TempDir,
    ports: [u16; SIZE],
    routes: [u16; SIZE],
    children: [Option<Child>; SIZE],
}

impl NatsCluster {
    /// Starts them. They need a moment to elect a leader; a client's first requests wait for it.
    pub fn start() -> NatsCluster {
        let folder = tempfile::tempdir().expect("a folder for the servers' data");
        let free: Vec<u16> = free_ports(2 * SIZE);
        let mut cluster = NatsCluster {
            folder,
            ports: [free[0], free[1], free[2]],
            routes: [free[3], free[4], free[5]],
            children: [None, None, None],
        };
        for index in 0..SIZE {
            cluster.revive(index);
        }
        cluster
    }

    /// How many servers there are.
    pub const fn size(&self) -> usize {
        SIZE
    }

    /// Where they answer, separated by commas.
    pub fn url(&self) -> String {
        self.ports.map(|port| format!("nats://127.0.0.1:{port}")).join(",")
    }

    /// Kills one (SIGKILL).
    pub fn kill(&mut self, index: usize) {
        if let Some(mut child) = self.children[index].take() {
            // It may have ended by itself; then there is nothing to kill.
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Starts one, again on its old data.
    pub fn revive(&mut self, index: usize) {
        let data = self.folder.path().join(format!("n{index}"));
        let log = self.folder.path().join(format!("n{index}.log"));
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(log).expect("a log can be written");
        let others = self.routes.map(|port| format!("nats-route://127.0.0.1:{port}")).join(",");
        let child = Command::new("nats-server")
            .args(["-a", "127.0.0.1", "-js", "--cluster_name", "test", "--name", &format!("n{index}")])
            .args(["-p", &self.ports[index].to_string()])
            .args([
                "--cluster",
                &format!("nats-route://127.0.0.1:{}", self.routes[index]),
                "--routes",
                &others,
            ])
            .arg("-sd")
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nats-server is in PATH; tests/run installs it");
        self.children[index] = Some(child);
    }
}

impl Drop for NatsCluster {
    fn drop(&mut self) {
        for index in 0..SIZE {
            self.kill(index);
        }
    }
}

/// Ports that were free a moment ago: the members of a cluster must know each other's before they start.
fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("loopback has free ports")).collect();
    held.iter().map(|listener| listener.local_addr().expect("bound").port()).collect()
}
