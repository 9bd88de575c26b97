//! A provisioner on the realm's libvirtd, answering on a memory bus.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bus::memory::MemoryTransport;
use bus::{Bus, RunningServer};
use contract::message::DurableCommand;
use contract::operation::{OperationReport, OperationState};
use contract::provisioner::{AddSeed, CreateVm, GetVm, Script, Vm, VmDefinition};
use contract::{ByteCount, OperationId, Service};
use operation::wait_for_operation;
use provisioner::config::{Config, HypervisorKind, Network, VirtTypeSetting};
use provisioner::{Limits, ServiceState, adapters};

use crate::support::{ANSWER, CallHere, bus_on, definition, open_state, seed_name, serve, vm};

/// An emulated guest boots in seven seconds on an idle machine; a busy one may take many times that.
pub(crate) const BOOT: Duration = Duration::from_secs(300);

pub(crate) struct Realm {
    pub(crate) bus: Bus,
    pub(crate) state: Arc<ServiceState>,
    pub(crate) folder: tempfile::TempDir,
    _server: RunningServer,
    _service: chassis::StartedService,
}

pub(crate) fn in_realm() -> bool {
    if std::env::var_os("LOAM_TEST_LIBVIRT").is_some() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "this test needs tests/harness/realm");
    eprintln!("SKIPPED: this test needs tests/harness/realm");
    false
}

/// A state folder that QEMU's user can pass.
pub(crate) fn state_folder() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::Builder::new().permissions(PermissionsExt::from_mode(0o711)).tempdir();
    folder.expect("a folder")
}

pub(crate) fn config() -> Config {
    Config {
        rows_key_file: None,
        backup_user: None,
        hypervisor: HypervisorKind::Libvirt,
        libvirt_socket: "/run/libvirt/libvirt-sock".into(),
        virt_type: VirtTypeSetting::Qemu,
        network: Network {
            name: "loam".into(),
            bridge: "loam0".into(),
            address: std::net::Ipv4Addr::new(10, 88, 0, 1),
            prefix: 24,
        },
        ready_seconds: BOOT.as_secs(),
    }
}

impl Realm {
    pub(crate) async fn enter() -> Option<Realm> {
        if !in_realm() {
            return None;
        }
        let folder = state_folder();
        let bus = bus_on(&MemoryTransport::new());
        let ports = adapters::real(&config(), folder.path()).await.expect("ports");
        let state = open_state(&bus, ports, Limits::standard(BOOT)).await;
        let (server, service) = serve(&bus, &state).await;
        state.hypervisor.prepare().await.expect("a network");
        Some(Realm { bus, state, folder, _server: server, _service: service })
    }

    pub(crate) async fn outcome(&self, id: &OperationId) -> OperationReport {
        wait_for_operation(&self.bus, Service::Provisioner, id, BOOT * 2, |_| {}).await.expect("an outcome")
    }

    pub(crate) async fn done(&self, id: &OperationId) -> OperationReport {
        let report = self.outcome(id).await;
        assert_eq!(report.state, OperationState::Done, "{report:?}");
        report
    }

    pub(crate) async fn add_seed(&self) {
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

    /// Sends a durable command and waits until it is done.
    pub(crate) async fn run<C: DurableCommand>(&self, command: C) -> OperationReport {
        let begun = self.bus.call_here(&command, ANSWER).await.expect("begun");
        self.done(begun.operation()).await
    }

    pub(crate) async fn create(&self, definition: VmDefinition) {
        self.run(CreateVm { definition, host: None, overcommit: false, operation_id: None }).await;
    }

    pub(crate) async fn get(&self, name: &str) -> Vm {
        self.bus.call(&GetVm { vm: vm(name) }, ANSWER).await.expect("it exists")
    }

    /// The page that a guest serves now.
    pub(crate) async fn page(&self, name: &str) -> String {
        self.file(name, "").await
    }

    /// A file that a guest serves now.
    pub(crate) async fn file(&self, name: &str, file: &str) -> String {
        let address = self.get(name).await.address.expect("it runs");
        testkit::eventually_some("the page is served", BOOT, async || {
            let answer = reqwest::get(format!("http://{address}/{file}")).await.ok()?;
            let bytes = answer.error_for_status().ok()?.bytes().await.ok()?;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        })
        .await
    }
}

/// A VM that serves a page with a greeting, at every boot.
pub(crate) fn greeter(name: &str, greeting: &str) -> VmDefinition {
    let mut wanted = definition(name);
    wanted.disk_size = ByteCount::mib(512);
    wanted.domains[0].port = 80;
    wanted.env.insert("GREETING".into(), greeting.into());
    wanted.install = vec![Script {
        name: "install.sh".into(),
        text: "#!/bin/sh\nset -e\nmkdir -p /www\necho \"$GREETING\" >/www/index.html\n\
               printf '#!/bin/sh\\nhttpd -p 80 -h /www\\n' >/etc/rc.local\nchmod +x /etc/rc.local\n\
               /etc/rc.local\necho installed\n"
            .into(),
    }];
    wanted
}

/// What a person does at the hypervisor.
pub(crate) fn virsh(arguments: &[&str]) {
    let output = Command::new("virsh").args(["-q", "-c", "qemu:///system"]).args(arguments).output();
    let output = output.expect("virsh");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

/// Copies an exported disk into a raw image.
pub(crate) fn read_export(export: &contract::provisioner::DiskExport, to: &Path) {
    let uri = format!("nbd+unix:///{}?socket={}", export.export_name, export.socket.display());
    let read = Command::new("qemu-img")
        .args(["convert", "-f", "raw", "-O", "raw", &uri])
        .arg(to)
        .status()
        .expect("qemu-img");
    assert!(read.success());
}
