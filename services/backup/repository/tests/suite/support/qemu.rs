//! Real images and NBD servers from QEMU's tools.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use backup_repository::{NbdAddress, NbdExportSettings, NbdSource};

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// QEMU's tools, without which the test would show nothing.
pub(crate) fn must_be_there() {
    for tool in ["qemu-nbd", "qemu-img", "qemu-io"] {
        let started = Command::new(tool).arg("--version").stdout(Stdio::null()).status();
        assert!(started.is_ok_and(|status| status.success()), "{tool} is missing: install qemu-utils");
    }
}

/// Runs a tool that must succeed.
pub(crate) fn run(tool: &str, arguments: &[&str]) {
    let output = Command::new(tool).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{tool} {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A `qemu-nbd` that serves one image read-only on a Unix socket as `vda`; it ends when this is dropped.
pub(crate) struct Served {
    pub(crate) child: Child,
    socket: PathBuf,
}

impl Served {
    pub(crate) async fn start(image: &Path, format: &str, bitmap: Option<&str>) -> Served {
        let socket = image.with_extension(format!("{}.sock", bitmap.unwrap_or("all")));
        let mut command = Command::new("qemu-nbd");
        command.args(["-r", "-t", "-e", "8", "-x", "vda", "-f", format, "-k"]).arg(&socket).arg(image);
        if let Some(bitmap) = bitmap {
            command.args(["-B", bitmap]);
        }
        let served = Served { child: command.stdin(Stdio::null()).spawn().unwrap(), socket };
        let give_up = Instant::now() + START_TIMEOUT;
        while NbdSource::connect(&served.settings()).await.is_err() {
            assert!(Instant::now() < give_up, "qemu-nbd did not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        served
    }

    pub(crate) fn settings(&self) -> NbdExportSettings {
        NbdExportSettings::new(NbdAddress::Unix(self.socket.clone()), "vda")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
