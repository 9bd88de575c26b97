//! A read-only NBD server for the image of a VM that is off: qemu-nbd, as a process that outlives us, so that a restart
//! of ours does not interrupt a reader. Its process id is in a file beside its socket.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;

use crate::ports::{Disk, DiskError};

/// How long the server may take to open its image and socket.
const START_MAX: Duration = Duration::from_secs(20);
/// How long it may take to end after each signal.
const END_MAX: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Readers at a time: more than any backup opens.
const READERS_MAX: &str = "16";

fn pid_file(socket: &Path) -> PathBuf {
    socket.with_extension("pid")
}

/// Serves a disk at a socket. Idempotent.
pub(crate) async fn serve(disk: &Disk, socket: &Path) -> Result<(), DiskError> {
    let attempt = format!("serve {} over NBD", disk.image.path.display());
    if process(socket).is_some() && socket.exists() {
        return Ok(());
    }
    stop(socket).await?;
    let failed =
        |reason: String| DiskError::QemuImgFailed { attempt: attempt.clone(), source: reason.into() };
    let log = socket.with_extension("log");
    let errors = File::create(&log).map_err(|source| DiskError::Io { attempt: attempt.clone(), source })?;
    // A file, not a pipe: the server keeps it, and a pipe would not end before the server does.
    let mut command = Command::new("qemu-nbd");
    command
        .args(["--read-only", "--persistent", "--fork", "--shared", READERS_MAX])
        .args(["--format", disk.image.format.name(), "--export-name", disk.name.as_str()])
        .arg("--pid-file")
        .arg(pid_file(socket))
        .arg("--socket")
        .arg(socket)
        .arg(&disk.image.path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors)
        .kill_on_drop(true);
    match tokio::time::timeout(START_MAX, command.status()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            Err(failed(format!("qemu-nbd ended with {status}: {}", text.trim())))
        }
        Ok(Err(error)) => Err(failed(format!("qemu-nbd cannot be started: {error}"))),
        Err(_) => Err(failed(format!("qemu-nbd took longer than {} s", START_MAX.as_secs()))),
    }
}

/// Ends the server at a socket. Idempotent.
pub(crate) async fn stop(socket: &Path) -> Result<(), DiskError> {
    if let Some(pid) = process(socket) {
        for (signal, within) in [(Signal::SIGTERM, END_MAX), (Signal::SIGKILL, END_MAX)] {
            // It may have ended by itself.
            let _ = kill(pid, signal);
            let gone = tokio::time::timeout(within, async {
                while process(socket).is_some() {
                    tokio::time::sleep(POLL_INTERVAL).await;
                }
            });
            if gone.await.is_ok() {
                break;
            }
        }
        if process(socket).is_some() {
            return Err(DiskError::QemuImgFailed {
                attempt: format!("end the NBD server at {}", socket.display()),
                source: format!("process {pid} does not end").into(),
            });
        }
    }
    for file in [socket.to_owned(), pid_file(socket), socket.with_extension("log")] {
        match std::fs::remove_file(&file) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(DiskError::Io { attempt: format!("remove {}", file.display()), source });
            }
        }
    }
    Ok(())
}

/// The server at a socket: the process of the stored id, if it is alive and really serves there.
fn process(socket: &Path) -> Option<Pid> {
    let stored = std::fs::read_to_string(pid_file(socket)).ok()?;
    let pid: i32 = stored.trim().parse().ok()?;
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let serves = line.split(|byte| *byte == 0).any(|argument| argument == socket.as_os_str().as_bytes());
    serves.then(|| Pid::from_raw(pid))
}
