//! One client: handshake, then requests in, replies out, until one side ends it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use backup_repository::nbd_wire::Request;
use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::commands::{GrantedRequest, cost_bytes};
use super::error::ConnectionError;
use super::export::Export;
use super::handshake::{self, HandshakeOutcome};
use super::reply::{InFlightPermits, Reply, ReplySender};
use super::request::{self, Command};
use super::settings::{REQUEST_BYTES_MAX, ServerSettings};

/// Small replies are gathered up to this before they are written.
const WRITE_BUFFER_BYTES: usize = 64 * 1024;
/// When the server ends, earlier requests are still answered for so long.
const LAST_REPLIES_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves one client until it disconnects, breaks the protocol, or `stop` is cancelled.
pub(super) async fn serve<R, W>(
    reader: R,
    mut writer: W,
    exports: &[Export],
    settings: &ServerSettings,
    stop: &CancellationToken,
) -> Result<(), ConnectionError>
where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let mut reader = BufReader::new(reader);
    let handshake =
        timeout(settings.handshake_timeout, handshake::negotiate(&mut reader, &mut writer, exports));
    let agreed = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        agreed = handshake => agreed.map_err(|_| ConnectionError::TooSlow("choose an export"))??,
    };
    let Some(agreed) = agreed else { return Ok(()) };
    tracing::debug!(export = agreed.export.name(), "an NBD client chose an export");

    let requests = settings.requests_in_flight.max(1);
    let bytes = settings.bytes_in_flight.clamp(REQUEST_BYTES_MAX as usize, Semaphore::MAX_PERMITS);
    let (outgoing, replies) = mpsc::channel(requests);
    let mut tasks = JoinSet::new();
    let mut writing = JoinSet::new();
    writing.spawn(write_all(writer, replies, settings.reply_timeout));
    let mut transmission = Transmission {
        reader,
        agreed,
        settings,
        outgoing,
        requests: Arc::new(Semaphore::new(requests)),
        bytes: Arc::new(Semaphore::new(bytes)),
    };
    let ended = tokio::select! {
        ended = transmission.take_requests(&mut tasks) => ended,
        () = stop.cancelled() => Ok(()),
        // The writer ends first only when the client takes no replies any more.
        written = writing.join_next() => return written.map_or(Ok(()), |joined| joined.map_err(ConnectionError::RequestPanicked)?),
    };
    drop(transmission);
    // Requests before the disconnect are carried out and answered.
    let limit = if stop.is_cancelled() { LAST_REPLIES_TIMEOUT } else { settings.reply_timeout };
    let rest = timeout(limit, async {
        while let Some(joined) = tasks.join_next().await {
            joined.map_err(ConnectionError::RequestPanicked)?;
        }
        writing.join_next().await.map_or(Ok(()), |joined| joined.map_err(ConnectionError::RequestPanicked)?)
    });
    match ended {
        Ok(()) => rest.await.map_err(|_| ConnectionError::TooSlow("take its last answers"))?,
        Err(error) => Err(error),
    }
}

struct Transmission<'a, R> {
    reader: BufReader<R>,
    agreed: HandshakeOutcome,
    settings: &'a ServerSettings,
    outgoing: mpsc::Sender<(Reply, Arc<InFlightPermits>)>,
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

impl<R: AsyncRead + Send + Unpin> Transmission<'_, R> {
    /// Until the client disconnects.
    async fn take_requests(&mut self, tasks: &mut JoinSet<()>) -> Result<(), ConnectionError> {
        let HandshakeOutcome { export, structured, base_allocation: allocation } = &self.agreed;
        let terms = export.terms(*structured, *allocation);
        loop {
            while let Some(joined) = tasks.try_join_next() {
                joined.map_err(ConnectionError::RequestPanicked)?;
            }
            let next = next_request(&mut self.reader, self.settings.request_timeout).await?;
            let Some(request) = next else { return Ok(()) };
            if request.payload_bytes() > REQUEST_BYTES_MAX {
                return Err(ConnectionError::Protocol("a write of more than 32 MiB"));
            }
            let checked = request::check(&request, &terms);
            if checked == Ok(Command::Disconnect) {
                return Ok(());
            }
            let cost = checked.map_or(0, |command| cost_bytes(command, request.length));
            let slot = Arc::new(InFlightPermits {
                _request: acquire(&self.requests, 1).await,
                _bytes: acquire(&self.bytes, cost).await,
            });
            let payload = self.payload(&request, checked.is_ok()).await?;
            let work = GrantedRequest {
                export: self.agreed.export.clone(),
                structured: self.agreed.structured,
                command: checked.unwrap_or(Command::Flush),
                request,
                payload,
                replies: ReplySender { outgoing: self.outgoing.clone(), permits: slot },
            };
            match checked {
                Ok(_) => {
                    tasks.spawn(work.run());
                }
                // The writer is gone only when this connection is about to end.
                Err(refused) => drop(work.refuse(refused.errno, refused.why).await),
            }
        }
    }

    /// Reads what follows the header; that of a refused request is discarded.
    async fn payload(&mut self, request: &Request, keep: bool) -> Result<Bytes, ConnectionError> {
        let length = request.payload_bytes();
        let reader = &mut self.reader;
        let reading = async {
            if keep {
                let mut bytes = vec![0; length as usize];
                reader.read_exact(&mut bytes).await?;
                return Ok(Bytes::from(bytes));
            }
            let skipped = tokio::io::copy(&mut reader.take(length.into()), &mut tokio::io::sink()).await?;
            if skipped < length.into() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(Bytes::new()) }
        };
        let read = timeout(self.settings.request_timeout, reading).await;
        read.map_err(|_| ConnectionError::TooSlow("send the data of a write"))?.map_err(ConnectionError::Io)
    }
}

async fn acquire(semaphore: &Arc<Semaphore>, permits: u32) -> OwnedSemaphorePermit {
    Arc::clone(semaphore).acquire_many_owned(permits).await.expect("these semaphores are never closed")
}

/// The next request; `None` when the client disconnected between two of them.
async fn next_request<R>(
    reader: &mut BufReader<R>,
    limit: Duration,
) -> Result<Option<Request>, ConnectionError>
where
    R: AsyncRead + Unpin,
{
    if reader.fill_buf().await?.is_empty() {
        return Ok(None);
    }
    let read = timeout(limit, Request::read(reader)).await;
    Ok(Some(read.map_err(|_| ConnectionError::TooSlow("finish a request"))??))
}

async fn write_all<W: AsyncWrite + Unpin>(
    writer: W,
    mut replies: mpsc::Receiver<(Reply, Arc<InFlightPermits>)>,
    limit: Duration,
) -> Result<(), ConnectionError> {
    let mut writer = BufWriter::with_capacity(WRITE_BUFFER_BYTES, writer);
    while let Some((reply, slot)) = replies.recv().await {
        let written = timeout(limit, async {
            writer.write_all(&reply.head).await?;
            writer.write_all(&reply.data).await?;
            if replies.is_empty() { writer.flush().await } else { Ok(()) }
        });
        written.await.map_err(|_| ConnectionError::TooSlow("take an answer"))??;
        drop(slot);
    }
    // All of it was flushed when the queue ran empty; this closes the stream in order.
    writer.shutdown().await?;
    Ok(())
}
