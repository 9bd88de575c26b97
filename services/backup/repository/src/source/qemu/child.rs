//! Our own `qemu-nbd`.
//!
//! ```text
//!   socket in a private folder, listening ──> handed to the child (systemd's LISTEN_FDS) ──> folder removed
//!        ^── we connect: the only client there will ever be
//! ```
//!
//! The child ends with its only client: when we close, are dropped, or are killed and the kernel closes for us. Handed
//! a listening socket, there is nothing to wait for and no name by which another client could connect.

use std::ffi::OsString;
use std::fs::Permissions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Child;
use tokio::task::JoinHandle;

use super::super::SourceError;
use super::super::nbd::{NbdAddress, NbdExportSettings, NbdSource};
use super::inspect::{STDERR_BYTES_MAX, stderr_text, tool};

/// After its client has gone it writes what it held back and ends.
const END_TIMEOUT: Duration = Duration::from_secs(300);
/// A busy host starts a program slowly.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// A child that failed has already ended.
const STDERR_TIMEOUT: Duration = Duration::from_secs(5);
/// Passes the socket as file descriptor 3 with LISTEN_FDS and LISTEN_PID, see sd_listen_fds(3).
const HAND_OVER: &str = r#"exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$@""#;

/// A child that serves one image to us.
pub(crate) struct Server {
    child: Child,
    said: JoinHandle<Vec<u8>>,
    what: String,
}

impl Server {
    /// Starts `qemu-nbd` with these arguments and connects to it.
    pub(crate) async fn start(
        path: &Path,
        arguments: Vec<OsString>,
        dirty_bitmap: Option<&str>,
    ) -> Result<(Server, NbdSource), SourceError> {
        let what = path.display().to_string();
        let failed = |attempt| {
            let what = what.clone();
            move |source| SourceError::Io { attempt, what, source }
        };
        let folder = tempfile::Builder::new()
            .prefix("qemu-nbd-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir()
            .map_err(failed("make a private folder to serve"))?;
        let socket = folder.path().join("socket");
        let listener = UnixListener::bind(&socket).map_err(failed("make a socket to serve"))?;
        let mut command = tool("sh");
        command.args(["-c", HAND_OVER, "qemu-nbd"]).args(arguments);
        command.stdin(Stdio::from(OwnedFd::from(listener))).stdout(Stdio::null());
        let mut child = command.spawn().map_err(failed("run qemu-nbd to serve"))?;
        // Our copy of the listening socket would keep clients waiting after the child has died.
        drop(command);
        let mut stderr = child.stderr.take().expect("its errors are piped");
        let said = tokio::spawn(async move {
            let mut kept = Vec::new();
            let mut piece = [0; 1024];
            while let Ok(read @ 1..) = stderr.read(&mut piece).await {
                let room = STDERR_BYTES_MAX.saturating_sub(kept.len());
                kept.extend_from_slice(&piece[..read.min(room)]);
            }
            kept
        });
        let mut server = Server { child, said, what };
        let mut settings = NbdExportSettings::new(NbdAddress::Unix(socket), "");
        settings.dirty_bitmap = dirty_bitmap.map(str::to_owned);
        settings.connect_timeout = START_TIMEOUT;
        let connecting = NbdSource::connect(&settings);
        match connecting.await {
            Ok(source) => Ok((server, source)),
            Err(error) => Err(server.why("serve", error).await),
        }
    }

    /// The error with the child's stderr where it has ended, else the error that was seen.
    pub(crate) async fn why(&mut self, attempt: &'static str, seen: SourceError) -> SourceError {
        match tokio::time::timeout(STDERR_TIMEOUT, self.child.wait()).await {
            Ok(Ok(status)) if !status.success() => self.said(attempt).await,
            _ => seen,
        }
    }

    /// Waits for the end of a child whose client has gone.
    pub(crate) async fn end(mut self) -> Result<(), SourceError> {
        let status: ExitStatus = match tokio::time::timeout(END_TIMEOUT, self.child.wait()).await {
            Ok(Ok(status)) => status,
            Ok(Err(source)) => {
                return Err(SourceError::Io {
                    attempt: "wait for the end of serving",
                    what: self.what,
                    source,
                });
            }
            Err(_) => {
                let seconds = END_TIMEOUT.as_secs_f32();
                return Err(SourceError::TimedOut { attempt: "end serving", what: self.what, seconds });
            }
        };
        if status.success() { Ok(()) } else { Err(self.said("finish").await) }
    }

    async fn said(&mut self, attempt: &'static str) -> SourceError {
        // The pipe ends with the child.
        let said = (&mut self.said).await.unwrap_or_default();
        SourceError::Tool { attempt, what: self.what.clone(), stderr: stderr_text(&said) }
    }
}
