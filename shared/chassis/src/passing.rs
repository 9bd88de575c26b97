//! Open descriptors passed from one service to another on the same host, over a unix socket.
//!
//! ```text
//!   reader                                   owner of the files (DescriptorServer)
//!     connect ------------------------------> who is it?  (SO_PEERCRED: our own user, or the one named)
//!     one line of JSON: what is wanted -----> its table decides
//!     <------------ one line of JSON: passed, with the descriptor (SCM_RIGHTS); or refused, with the reason
//! ```
//!
//! So a service can use what only another's user may open, and nothing else. One request for each connection, one
//! descriptor for each request; every wait has a deadline, and the number of connections is bounded. A request names no
//! path, and none is made of what it names: the answer is looked up. Whoever asks is a process of this host; what it may
//! have is decided by the closure that a server is opened with.

use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use nix::unistd::{Uid, chown, geteuid};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

/// A request names an operation and an export: some hundred bytes.
const REQUEST_BYTES_MAX: u64 = 4096;
/// An answer is a word, or a sentence that says why not.
const ANSWER_BYTES_MAX: usize = 4096;
/// The reason of a refusal is cut here, so that an answer is written at once.
const REASON_CHARS_MAX: usize = 500;
/// A reader writes its request at once.
const READ_MAX: Duration = Duration::from_secs(5);
/// An answer fits into the socket's buffer.
const WRITE_MAX: Duration = Duration::from_secs(5);
/// Connections at one time: a few backups run on one host, each with up to 16 disks one after the other.
const CONNECTIONS_MAX: usize = 16;
/// After an error of the listener, which is one of the whole process.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Passed,
    Refused(String),
}

/// Why no descriptor was received.
#[derive(Debug, thiserror::Error)]
pub enum PassingError {
    /// Nothing answers there.
    #[error("cannot ask at {path}")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// The owner says no.
    #[error("refused: {0}")]
    Refused(String),
    /// The answer is not one.
    #[error("the answer at {path} cannot be read: {why}")]
    BadAnswer {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// There was no answer in time.
    #[error("no answer at {path} within {seconds} s")]
    TimedOut {
        /// The socket.
        path: PathBuf,
        /// How long it was waited for.
        seconds: u64,
    },
}

/// Passes descriptors until it is dropped.
pub struct DescriptorServer {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl DescriptorServer {
    /// Opens the socket, in place of one that an earlier process left. Only root, our own user and `reader`, where it is
    /// another, can connect; and of those only our own user and `reader` get an answer. `answer` gives the descriptor for
    /// a request, or says why not; it has to end in bounded time.
    ///
    /// # Errors
    /// When the socket cannot be made, or not be given to `reader`.
    pub fn open<R, F>(
        path: &Path,
        reader: Option<u32>,
        answer: impl Fn(R) -> F + Send + Sync + 'static,
    ) -> anyhow::Result<DescriptorServer>
    where
        R: DeserializeOwned + Send + 'static,
        F: Future<Output = Result<OwnedFd, String>> + Send + 'static,
    {
        let listener = bind(path, reader)
            .with_context(|| format!("opening the socket for descriptors {}", path.display()))?;
        let allowed = [geteuid().as_raw(), reader.unwrap_or_else(|| geteuid().as_raw())];
        let task = tokio::spawn(serve(listener, allowed, Arc::new(answer)));
        Ok(DescriptorServer { path: path.into(), task })
    }
}

impl Drop for DescriptorServer {
    fn drop(&mut self) {
        self.task.abort();
        // The next start removes what stays.
        drop(std::fs::remove_file(&self.path));
    }
}

fn bind(path: &Path, reader: Option<u32>) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => std::fs::remove_file(path)?,
        // Anything else is not ours: binding fails.
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // Closed to all first: who connects before is asked for its user like everybody.
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))?;
    if let Some(reader) = reader.filter(|reader| *reader != geteuid().as_raw()) {
        chown(path, Some(Uid::from_raw(reader)), None)?;
    }
    Ok(listener)
}

async fn serve<R, F, A>(listener: UnixListener, allowed: [u32; 2], answer: Arc<A>)
where
    R: DeserializeOwned + Send + 'static,
    F: Future<Output = Result<OwnedFd, String>> + Send + 'static,
    A: Fn(R) -> F + Send + Sync + 'static,
{
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // They end with this task.
    let mut connections = JoinSet::new();
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let answer = Arc::clone(&answer);
                connections.spawn(async move {
                    if let Err(error) = serve_one(stream, allowed, answer.as_ref()).await {
                        tracing::warn!(error = format!("{error:#}"), "a request for a descriptor ended");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the socket for descriptors failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_one<R, F>(
    stream: UnixStream,
    allowed: [u32; 2],
    answer: &(impl Fn(R) -> F + Send + Sync),
) -> anyhow::Result<()>
where
    R: DeserializeOwned,
    F: Future<Output = Result<OwnedFd, String>>,
{
    let uid = stream.peer_cred().context("who asks is not known")?.uid();
    // Nothing is read of what others write.
    anyhow::ensure!(allowed.contains(&uid), "user {uid} is not the one that may ask");
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    let mut bounded = (&mut stream).take(REQUEST_BYTES_MAX);
    let read = tokio::time::timeout(READ_MAX, bounded.read_until(b'\n', &mut line)).await;
    read.map_err(|_| anyhow::anyhow!("no request within {READ_MAX:?}"))?.context("reading the request")?;
    let outcome = match serde_json::from_slice(&line) {
        Ok(request) => answer(request).await,
        Err(error) => Err(format!("the request cannot be read: {error}")),
    };
    let (answer, descriptor) = match outcome {
        Ok(descriptor) => (Answer::Passed, Some(descriptor)),
        Err(reason) => (Answer::Refused(reason.chars().take(REASON_CHARS_MAX).collect()), None),
    };
    let mut text = serde_json::to_vec(&answer).expect("an answer is plain data");
    text.push(b'\n');
    let sent = tokio::time::timeout(WRITE_MAX, send(stream.get_ref(), &text, descriptor.as_ref()));
    sent.await.map_err(|_| anyhow::anyhow!("the answer was not taken within {WRITE_MAX:?}"))??;
    Ok(())
}

async fn send(stream: &UnixStream, text: &[u8], descriptor: Option<&OwnedFd>) -> io::Result<()> {
    let descriptors: Vec<BorrowedFd<'_>> = descriptor.map(AsFd::as_fd).into_iter().collect();
    let sent = stream
        .async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() {
                assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)), "there is room for one");
            }
            Ok(sendmsg(stream, &[IoSlice::new(text)], &mut control, SendFlags::NOSIGNAL)?)
        })
        .await?;
    // So short a text is taken whole.
    if sent == text.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Asks at a socket for what a request names: the open descriptor. `timeout` is for all of it.
///
/// # Errors
/// When it is not passed: refused, or no answer that can be read in time.
pub async fn request_descriptor(
    path: &Path,
    request: &(impl Serialize + Sync),
    timeout: Duration,
) -> Result<OwnedFd, PassingError> {
    let timed_out = |_| PassingError::TimedOut { path: path.into(), seconds: timeout.as_secs() };
    tokio::time::timeout(timeout, ask(path, request)).await.map_err(timed_out)?
}

async fn ask(path: &Path, request: &(impl Serialize + Sync)) -> Result<OwnedFd, PassingError> {
    let unreachable = |source| PassingError::Unreachable { path: path.into(), source };
    let bad = |why: String| PassingError::BadAnswer { path: path.into(), why };
    let mut line = serde_json::to_vec(request).map_err(|error| bad(error.to_string()))?;
    line.push(b'\n');
    let mut stream = UnixStream::connect(path).await.map_err(unreachable)?;
    stream.write_all(&line).await.map_err(unreachable)?;
    let (mut text, mut descriptor) = (Vec::new(), None);
    while !text.ends_with(b"\n") {
        let received = stream.async_io(Interest::READABLE, || receive(&stream, &mut text, &mut descriptor));
        match received.await.map_err(unreachable)? {
            0 => return Err(bad("it ends early".into())),
            _ if text.len() > ANSWER_BYTES_MAX => return Err(bad("it does not end".into())),
            _ => {}
        }
    }
    match (serde_json::from_slice(&text), descriptor) {
        (Ok(Answer::Passed), Some(descriptor)) => Ok(descriptor),
        (Ok(Answer::Passed), None) => Err(bad("no descriptor came with it".into())),
        (Ok(Answer::Refused(reason)), _) => Err(PassingError::Refused(reason)),
        (Err(error), _) => Err(bad(error.to_string())),
    }
}

/// Appends what has arrived; the last descriptor that came along is kept, any other closed.
fn receive(stream: &UnixStream, text: &mut Vec<u8>, descriptor: &mut Option<OwnedFd>) -> io::Result<usize> {
    let mut bytes = [0; ANSWER_BYTES_MAX];
    // Room for one: the kernel closes what does not fit.
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let count = recvmsg(stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            *descriptor = passed.last().or(descriptor.take());
        }
    }
    text.extend_from_slice(&bytes[..count]);
    Ok(count)
}

#[cfg(test)]
mod tests;
