//! Real images and NBD servers from QEMU's tools.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use chassis::DescriptorServer;
use contract::provisioner::{ConnectToExport, DiskExport};
use contract::{ByteCount, DiskName};
use tokio::net::UnixStream;

use super::FakeProvisioner;

/// Whether QEMU's tools are installed. Missing is an error where tests must be complete (`CI=true`).
pub fn is_installed() -> bool {
    let runs = |tool: &&str| Command::new(tool).arg("--version").stdout(Stdio::null()).status().is_ok();
    let installed = ["qemu-nbd", "qemu-img", "qemu-io"].iter().all(runs);
    assert!(installed || std::env::var("CI").as_deref() != Ok("true"), "qemu-utils are not installed");
    if !installed {
        println!("skipped: qemu-utils are not installed");
    }
    installed
}

/// Runs a tool that must succeed.
pub fn run(tool: &str, arguments: &[&str]) {
    let output = Command::new(tool).args(arguments).output().expect("the tool runs");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{tool} {arguments:?}: {errors}");
}

/// A `qemu-nbd` that serves one qcow2 read-only on a unix socket as `vda`; it ends when this is dropped.
pub struct Served {
    child: Child,
    socket: PathBuf,
    size: u64,
}

impl Served {
    pub async fn start(image: &Path, size: u64) -> Served {
        let socket = image.with_extension("sock");
        let child = Command::new("qemu-nbd")
            .args(["--read-only", "-t", "-e", "8", "-x", "vda", "-f", "qcow2", "-k"])
            .args([&socket, &image.to_path_buf()])
            .stdin(Stdio::null())
            .spawn()
            .expect("qemu-nbd starts");
        let served = Served { child, socket, size };
        testkit::eventually("qemu-nbd answers", async || UnixStream::connect(&served.socket).await.is_ok())
            .await;
        served
    }

    pub fn export(&self) -> DiskExport {
        DiskExport {
            disk: DiskName::new("vda").expect("a valid name"),
            size: ByteCount(self.size),
            socket: self.socket.clone(),
            export_name: "vda".into(),
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may be dead already; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Passes connections to the exports that a provisioner has open.
pub fn pass_connections(provisioner: &FakeProvisioner, at: &Path) -> DescriptorServer {
    let provisioner = provisioner.clone();
    let answer = move |wanted: ConnectToExport| {
        let state = provisioner.state();
        let vm = state.open.get(&wanted.operation_id).and_then(|vm| state.vms.get(vm));
        let export = vm.and_then(|(_, exports)| {
            exports.iter().find(|export| export.export_name == wanted.export_name).cloned()
        });
        async move {
            let export = export.ok_or("no such export is open")?;
            let stream = std::os::unix::net::UnixStream::connect(&export.socket);
            stream.map(Into::into).map_err(|error| error.to_string())
        }
    };
    DescriptorServer::open(at, None, answer).expect("the socket is opened")
}
