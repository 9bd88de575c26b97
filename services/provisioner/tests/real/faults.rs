//! Sudden death in the middle of an operation on real VMs: nothing unknown is left behind.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bus::Bus;
use contract::health::{CheckHealth, Health};
use contract::operation::OperationState;
use contract::provisioner::{
    AddSeed, CloseDisks, CreateVm, GetVm, ListVms, OpenDisks, RemoveVm, VmDefinition, VmState,
};
use contract::{OperationId, Realm as RealmName, Service};
use operation::{new_id, wait_for_operation};
use testkit::{NatsServer, eventually_some};

use crate::realm::{BOOT, greeter, in_realm, read_export, state_folder};
use crate::support::{ANSWER, CallHere, WAIT_MAX, seed_name, vm, write_rows_key};

/// A provisioner's process with its own NATS server and state.
struct Installation {
    process: Option<Child>,
    state: tempfile::TempDir,
    config: PathBuf,
    bus: Bus,
    _server: NatsServer,
}

impl Drop for Installation {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Installation {
    async fn new(realm: &str, subnet: u8) -> Installation {
        let server = NatsServer::start();
        let state = state_folder();
        let config = state.path().join("loam.toml");
        let text = format!(
            "host = \"h1\"\nrealm = {realm:?}\nstate_dir = {:?}\n[nats]\nurl = {:?}\n[provisioner]\nvirt_type = \"qemu\"\n\
             [provisioner.network]\nname = {realm:?}\nbridge = {realm:?}\naddress = \"10.{subnet}.0.1\"\n",
            state.path(),
            server.url()
        );
        std::fs::write(&config, text).expect("written");
        write_rows_key(state.path());
        let connection = bus::nats::Connection {
            url: server.url(),
            nkey_file: None,
            ca_file: None,
            name: "test".into(),
            user: contract::permissions::User::Service(Service::Upgrade),
        };
        let transport = bus::nats::connect(&connection, WAIT_MAX).await.expect("connected");
        bus::nats::bootstrap(&transport, Service::Provisioner, 1).await.expect("buckets");
        let realm = RealmName::new(realm).expect("a realm");
        let mut this = Installation {
            process: None,
            state,
            config,
            bus: Bus::new(Arc::new(transport), realm),
            _server: server,
        };
        this.start().await;
        this
    }

    async fn start(&mut self) {
        let child = Command::new(env!("CARGO_BIN_EXE_loam-provisioner"))
            .env("LOAM_CONFIG", &self.config)
            .stdin(Stdio::null())
            .spawn();
        self.process = Some(child.expect("our own binary"));
        eventually_some("it answers", BOOT, async || {
            self.bus.call(&ListVms {}, Duration::from_secs(1)).await.ok()
        })
        .await;
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself; either way it is waited for.
            drop(process.kill());
            drop(process.wait());
        }
    }

    async fn restart(&mut self) {
        self.kill();
        self.start().await;
    }

    async fn done(&self, id: &OperationId) {
        let report = wait_for_operation(&self.bus, Service::Provisioner, id, BOOT * 2, |_| {}).await;
        let report = report.expect("an outcome");
        assert_eq!(report.state, OperationState::Done, "{report:?}");
    }

    async fn add_seed(&self) {
        let guest = PathBuf::from(std::env::var_os("LOAM_TEST_GUEST").expect("the realm names a guest"));
        let asked = AddSeed {
            name: seed_name(),
            from: guest.display().to_string(),
            sha256: chassis::sha256_of(&guest).expect("hashed"),
            host: None,
            operation_id: None,
        };
        let begun = self.bus.call(&asked, ANSWER).await.expect("begun");
        self.done(begun.operation()).await;
    }

    async fn begin(&self, definition: VmDefinition) -> OperationId {
        let id = new_id();
        let asked = CreateVm { definition, host: None, overcommit: false, operation_id: Some(id.clone()) };
        self.bus.call(&asked, ANSWER).await.expect("begun");
        id
    }

    async fn step(&self, id: &OperationId, wanted: &str) {
        eventually_some(&format!("step {wanted} is reached"), BOOT, async || {
            let asked = contract::operation::GetOperation { id: id.clone() };
            let report = self.bus.call_at(Service::Provisioner, &asked, ANSWER).await.ok()?;
            if report.state.is_final() {
                // Some steps take less time than reading their report. The kill then comes after the end, which must
                // do no harm either.
                eprintln!("step {wanted} was over before it was seen");
                return Some(());
            }
            (report.step.as_deref() == Some(wanted)).then_some(())
        })
        .await;
    }

    async fn remove(&self, name: &str) {
        let asked = RemoveVm { vm: vm(name), operation_id: None };
        let begun = self.bus.call(&asked, ANSWER).await.expect("begun");
        self.done(begun.operation()).await;
    }

    async fn health(&self) -> Health {
        let asked = self.bus.call_at(Service::Provisioner, &CheckHealth {}, ANSWER).await;
        asked.expect("an answer")
    }
}

fn virsh(arguments: &[&str]) -> String {
    let output = Command::new("virsh").args(["-q", "-c", "qemu:///system"]).args(arguments).output();
    String::from_utf8_lossy(&output.expect("virsh").stdout).into_owned()
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).expect("a folder").count() == 0
}

#[actix::test]
async fn killed_at_any_step_a_creation_ends_done_with_one_vm() {
    if !in_realm() {
        return;
    }
    let mut here = Installation::new("killed", 91).await;
    here.add_seed().await;
    for step in ["define", "ready", "install"] {
        let id = here.begin(greeter("web", "hello")).await;
        here.step(&id, step).await;
        here.restart().await;
        here.done(&id).await;
        let made = here.bus.call(&GetVm { vm: vm("web") }, ANSWER).await.expect("it exists");
        assert_eq!((made.state, made.locked_by), (VmState::Ready, None), "killed at {step}");
        assert_eq!(virsh(&["list", "--all", "--name"]).matches("killed-web").count(), 1);
        here.remove("web").await;
        assert!(!virsh(&["list", "--all", "--name"]).contains("killed-web"));
        assert!(is_empty(&here.state.path().join("vms")));
    }
}

#[actix::test]
async fn killed_while_disks_are_exported_the_exports_outlive_it_and_are_closed() {
    if !in_realm() {
        return;
    }
    let mut here = Installation::new("opened", 92).await;
    here.add_seed().await;
    let id = here.begin(greeter("web", "hello")).await;
    here.done(&id).await;
    let operation = new_id();
    let open = OpenDisks { vm: vm("web"), operation_id: operation.clone() };
    let opened = here.bus.call_here(&open, ANSWER * 3).await.expect("opened");
    here.restart().await;
    assert_eq!(here.bus.call_here(&open, ANSWER * 3).await.expect("still open"), opened);
    read_export(&opened.exports[0], &here.state.path().join("copy.raw"));
    let close = CloseDisks { operation_id: operation };
    let closed = here.bus.call_here(&close, ANSWER * 3).await.expect("closed");
    assert!(closed.was_open);
    assert!(is_empty(&here.state.path().join("exports")));
    assert!(virsh(&["domjobinfo", "opened-web"]).contains("None"));
    here.remove("web").await;
}

#[actix::test]
async fn a_libvirtd_that_hangs_is_reported_and_operations_go_on_when_it_is_back() {
    if !in_realm() {
        return;
    }
    let here = Installation::new("hung", 93).await;
    here.add_seed().await;
    let pid = std::fs::read_to_string("/run/libvirtd.pid").expect("libvirtd writes its id");
    let signal = |name: &str| {
        let sent = Command::new("kill").args([name, pid.trim()]).status();
        assert!(sent.expect("kill").success());
    };
    signal("-STOP");
    let health = here.health().await;
    let id = here.begin(greeter("web", "hello")).await;
    here.step(&id, "define").await;
    signal("-CONT");
    assert!(!health.is_healthy(), "{health:?}");
    here.done(&id).await;
    eventually_some("it is healthy again", BOOT, async || here.health().await.is_healthy().then_some(()))
        .await;
    here.remove("web").await;
}
