//! Health for whoever watches the process on its own host: a container's health check, a monitoring agent.
//!
//! ```text
//!   loam-backup                  with `health_socket` in its settings: answers each connection with its health
//!   loam-backup --check-health   same settings: connects, prints what is wrong; exit code 0 where nothing is
//! ```
//!
//! A service's key may not ask for its own health over the bus, and need not: the check has no key and no right beyond
//! the socket, which only our user can open. It is answered by the service itself, so that a process that hangs fails the
//! check, and it says whether the bus is connected, which nobody can ask over the bus.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use contract::health::Health;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use crate::start::BoxFuture;

/// How long a check may take, its start included: container health checks give it three seconds.
const CHECK_MAX: Duration = Duration::from_millis(2500);
/// How long an answer may take to be written to one who asked.
const WRITE_MAX: Duration = Duration::from_secs(5);
/// The health of a service has some hundred bytes.
const HEALTH_BYTES_MAX: u64 = 64 * 1024;
/// After an error of the listener, which is one of the whole process.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Answers on the socket until it is dropped.
pub(crate) struct LocalHealth {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl LocalHealth {
    /// Opens the socket, in place of one that an earlier process left.
    pub(crate) fn open(
        path: &Path,
        answer: impl Fn() -> BoxFuture<Health> + Send + Sync + 'static,
    ) -> anyhow::Result<LocalHealth> {
        let listener =
            bind(path).with_context(|| format!("opening the socket for health {}", path.display()))?;
        let task = tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    // One at a time: whoever asks again and again cannot make more work than that.
                    Ok((stream, _)) => reply(stream, &answer().await).await,
                    Err(error) => {
                        tracing::warn!(%error, "the socket for health failed");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        });
        Ok(LocalHealth { path: path.into(), task })
    }
}

impl Drop for LocalHealth {
    fn drop(&mut self) {
        self.task.abort();
        // The next start removes what stays.
        drop(std::fs::remove_file(&self.path));
    }
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => std::fs::remove_file(path)?,
        // Anything else is not ours: binding fails.
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(listener)
}

async fn reply(mut stream: UnixStream, health: &Health) {
    let text = serde_json::to_vec(health).expect("health is plain data");
    match tokio::time::timeout(WRITE_MAX, stream.write_all(&text)).await {
        Ok(Ok(())) => {}
        // Whoever asked did not wait.
        Ok(Err(error)) => tracing::debug!(%error, "health was not read"),
        Err(_) => tracing::debug!("health was not read in time"),
    }
}

/// Asks the service that runs with these settings.
///
/// # Errors
/// What is wrong with it, also that it does not answer in time.
pub(crate) fn check(socket: Option<&Path>) -> anyhow::Result<()> {
    let socket = socket.context("the settings name no health_socket")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async { tokio::time::timeout(CHECK_MAX, ask(socket)).await });
    let health = answer.map_err(|_| anyhow::anyhow!("no answer within {CHECK_MAX:?}"))??;
    let problems =
        health.parts.iter().filter_map(|part| Some(format!("{}: {}", part.part, part.problem.as_ref()?)));
    let problems: Vec<String> = problems.collect();
    anyhow::ensure!(problems.is_empty(), "{}", problems.join("; "));
    Ok(())
}

async fn ask(socket: &Path) -> anyhow::Result<Health> {
    let stream = UnixStream::connect(socket).await;
    let stream = stream.with_context(|| format!("connecting to {}", socket.display()))?;
    let mut text = Vec::new();
    stream.take(HEALTH_BYTES_MAX).read_to_end(&mut text).await.context("reading the health")?;
    serde_json::from_slice(&text).context("the health cannot be read")
}
