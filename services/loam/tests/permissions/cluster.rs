//! Three servers with the configuration that `loam bus generate-config` writes, as a cluster with TLS and three copies of
//! each table: one server stops, by SIGSTOP or SIGTERM, and requests and tables go on; people come and go on all of them.

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::nats::{Connection, Trust, connect, is_let_in};
use bus::{Bus, ErrorReply, Table};
use contract::message::NeverRefused;
use contract::permissions::User;
use contract::provisioner::ListVms;
use contract::{Realm, Service, bucket};
use loam::state::State;
use loam::state::keys;
use testkit::eventually_some;

use crate::reload::Counted;
use crate::test_bus::{info, operator};

const SIZE: usize = 3;
/// A client notices that its server hangs after two pings without an answer, 20 s or more; then it goes to another one.
const GOES_ON_MAX: Duration = Duration::from_secs(90);
const SOON: Duration = Duration::from_secs(5);
/// The clients' interval of pings, twice and a little more.
const STOPPED_FOR: Duration = Duration::from_secs(25);

struct Cluster {
    folder: tempfile::TempDir,
    ports: Vec<u16>,
    servers: Vec<Child>,
}

impl Cluster {
    fn start() -> Cluster {
        let folder = tempfile::tempdir().expect("a folder");
        let ports = free_ports(2 * SIZE);
        let mut cluster = Cluster { folder, ports, servers: Vec::new() };
        for index in 0..SIZE {
            cluster.generate(index);
        }
        for index in 0..SIZE {
            let server = cluster.launch(index);
            cluster.servers.push(server);
        }
        cluster
    }

    fn state(&self) -> State {
        State::at(self.folder.path().join("state"))
    }

    fn url(&self) -> String {
        let urls: Vec<String> =
            self.ports[..SIZE].iter().map(|port| format!("tls://127.0.0.1:{port}")).collect();
        urls.join(",")
    }

    fn generate(&self, index: usize) {
        let routes = (0..SIZE).filter(|other| *other != index);
        let routes = routes.map(|other| format!("nats-route://127.0.0.1:{}", self.ports[SIZE + other]));
        let mut loam = Command::new(env!("CARGO_BIN_EXE_loam"));
        loam.arg("--state").arg(self.state().root()).args(["bus", "generate-config", "--url", &self.url()]);
        loam.args(["--listen", &format!("0.0.0.0:{}", self.ports[index])]);
        loam.arg("--data").arg(self.folder.path().join(format!("n{index}")));
        loam.args(["--server-name", &format!("n{index}")]);
        loam.args(["--cluster-listen", &format!("0.0.0.0:{}", self.ports[SIZE + index])]);
        // What a person's program does: bring the settings to every server, and have it read them.
        let program = self.folder.path().join("reload");
        let pids = self.folder.path().join("pids");
        std::fs::write(&program, format!("#!/bin/sh\nexec kill -s HUP $(cat {})\n", pids.display()))
            .expect("written");
        std::fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("ours");
        loam.arg("--reload-program").arg(program);
        loam.args(routes.flat_map(|route| ["--route".to_string(), route]));
        assert!(loam.status().expect("it runs").success());
    }

    fn configuration(&self, index: usize) -> std::path::PathBuf {
        self.state().nats().join(format!("n{index}.conf"))
    }

    fn launch(&self, index: usize) -> Child {
        let log = self.folder.path().join(format!("n{index}.log"));
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).expect("a log");
        let mut server = Command::new("nats-server");
        server.arg("--config").arg(self.configuration(index)).stdin(Stdio::null()).stdout(Stdio::null());
        server.stderr(log).spawn().expect("nats-server is in PATH; tests/run installs it")
    }

    /// Runs `loam` with these words and expects it to succeed without a warning.
    fn loam(&self, words: &[&str]) {
        let pids: Vec<String> = self.servers.iter().map(|server| server.id().to_string()).collect();
        std::fs::write(self.folder.path().join("pids"), pids.join(" ")).expect("written");
        let mut loam = Command::new(env!("CARGO_BIN_EXE_loam"));
        let output = loam.arg("--state").arg(self.state().root()).args(words).output().expect("it runs");
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn signal(&self, index: usize, name: &str) {
        let pid = self.servers[index].id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().is_ok_and(|sent| sent.success()));
    }

    async fn make_tables(&self) {
        let state = self.state();
        eventually_some("a leader is elected and the tables are made", GOES_ON_MAX, async || {
            let mut loam = Command::new(env!("CARGO_BIN_EXE_loam"));
            loam.arg("--ca-file").arg(state.authority());
            loam.args(["bus", "tables", "--replicas", "3", "--url", &self.url(), "--keys"]);
            loam.arg(keys::bootstrap_folder(&state.keys())).stderr(Stdio::null());
            loam.status().expect("it runs").success().then_some(())
        })
        .await;
    }

    async fn bus(&self, user: User) -> Bus {
        let connection = Connection {
            url: self.url(),
            nkey_file: Some(keys::file_of(&self.state().keys(), &user)),
            ca_file: Some(self.state().authority()),
            name: user.to_string(),
            user,
        };
        let transport = connect(&connection, GOES_ON_MAX).await.expect("let in");
        Bus::new(Arc::new(transport), Realm::default())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for server in &mut self.servers {
            // It may have ended by itself.
            drop(server.kill());
            drop(server.wait());
        }
    }
}

/// Ports that were free a moment ago: the members of a cluster must know each other's before they start.
fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("loopback has free ports")).collect();
    held.iter().map(|listener| listener.local_addr().expect("bound").port()).collect()
}

/// A row that counts, changed by compare-and-set. A write without an answer is decided by a read from the leader.
struct Counter {
    table: Table<Counted>,
    count: u64,
    revision: u64,
    undecided: bool,
}

impl Counter {
    async fn add_one(&mut self) -> Option<()> {
        if !self.undecided {
            let next = Counted { count: self.count + 1 };
            if let Ok(revision) = self.table.update("counted", &next, self.revision).await {
                (self.count, self.revision) = (next.count, revision);
                return Some(());
            }
            self.undecided = true;
        }
        let row = self.table.get_from_leader("counted").await.ok()?.expect("no row is lost");
        let found = row.value.count;
        assert!(
            found == self.count || found == self.count + 1,
            "{found} is neither {} nor one more",
            self.count
        );
        let added = found > self.count;
        (self.count, self.revision, self.undecided) = (found, row.revision, false);
        added.then_some(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_three_goes_on_without_any_one_of_its_servers() {
    let mut cluster = Cluster::start();
    cluster.make_tables().await;
    // All clients come to the first server, since the others hang meanwhile.
    for index in 1..SIZE {
        cluster.signal(index, "STOP");
    }
    let provisioner = cluster.bus(User::Service(Service::Provisioner)).await;
    let person = cluster.bus(operator()).await;
    for index in 1..SIZE {
        cluster.signal(index, "CONT");
    }
    let mut server = provisioner.server(info(Service::Provisioner));
    server.on::<ListVms, _, _>(|_| std::future::ready(Ok::<_, ErrorReply<NeverRefused>>(Vec::new())));
    let _open = server.open().await.expect("open");
    let table = provisioner.table::<Counted>(bucket::SEEDS);
    let revision = eventually_some("the first row is written", GOES_ON_MAX, async || {
        table.create("counted", &Counted { count: 0 }).await.ok()
    })
    .await;
    let mut counter = Counter { table, count: 0, revision, undecided: false };
    let mut goes_on = async |what: &str| {
        eventually_some(what, GOES_ON_MAX, async || {
            person.call(&ListVms {}, SOON).await.ok()?;
            counter.add_one().await
        })
        .await;
    };
    goes_on("all three run").await;
    // In effect on every server, or `loam` would say so.
    let key_file = cluster.folder.path().join("ada.nk");
    cluster.loam(&["person", "add", "ada", "--new-key", &key_file.display().to_string()]);
    let seed = std::fs::read_to_string(&key_file).expect("written");
    let trust = Trust::AuthorityIn(cluster.state().authority());
    let urls: Vec<String> = cluster.url().split(',').map(String::from).collect();
    for url in &urls {
        assert!(is_let_in(url, seed.trim(), &trust).await.expect("it answers"), "{url}");
        is_let_in(&url.replace("tls:", "nats:"), seed.trim(), &Trust::Any)
            .await
            .expect_err("not without TLS");
    }
    cluster.loam(&["person", "remove", "ada"]);
    for url in &urls {
        assert!(!is_let_in(url, seed.trim(), &trust).await.expect("it answers"), "{url}");
    }
    goes_on("a person came and went").await;
    cluster.signal(0, "STOP");
    let until = Instant::now() + STOPPED_FOR;
    while Instant::now() < until {
        goes_on("the server hangs that all clients are connected to").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    cluster.signal(0, "CONT");
    goes_on("all three run again").await;
    // Each in turn ends, so that the leader of the table is among them.
    for index in 0..SIZE {
        cluster.signal(index, "TERM");
        assert!(cluster.servers[index].wait().is_ok(), "it ends");
        goes_on(&format!("server {index} has ended")).await;
        cluster.servers[index] = cluster.launch(index);
        goes_on(&format!("server {index} is back")).await;
    }
}
