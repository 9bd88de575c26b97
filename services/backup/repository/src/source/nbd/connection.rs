//! Many requests on one connection.
//!
//! The reader task owns the answers, the writer task the requests, so that a caller who goes away never leaves half a
//! message behind. After the first error every request, present or future, fails with it.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use super::super::SourceError;
use super::handshake::{Reader, Writer};
use super::settings::NbdSettings;
use super::wire::*;

/// A block status answer with more descriptors than this (8 MiB) is a lie.
const STATUS_BYTES_MAX: u32 = 8 * 1024 * 1024;
/// An error message longer than this is a lie.
const ERROR_BYTES_MAX: u32 = 8 * 1024;

/// One descriptor of a block status: length and flags.
pub(super) type Descriptor = (u32, u32);
/// The descriptors of each context.
pub(super) type Status = HashMap<u32, Vec<Descriptor>>;

#[derive(Debug)]
pub(super) struct Connection {
    what: String,
    request_timeout: Duration,
    slots: Semaphore,
    requests: mpsc::Sender<[u8; 28]>,
    pending: Arc<Mutex<Pending>>,
    /// Ends both tasks when the connection is dropped.
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Pending {
    next_cookie: u64,
    waiting: HashMap<u64, Waiting>,
    broken: Option<String>,
}

#[derive(Debug)]
struct Waiting {
    offset: u64,
    answer: Answer,
    error: Option<String>,
    done: oneshot::Sender<Result<Answer, Failure>>,
}

/// What has been answered so far.
#[derive(Debug)]
enum Answer {
    Read { bytes: Vec<u8>, filled: usize },
    Status(Status),
}

#[derive(Debug)]
enum Failure {
    /// The server refused this request.
    Refused(String),
    /// The connection is of no more use.
    Broken(String),
}

impl Connection {
    pub(super) fn start(what: String, settings: &NbdSettings, reader: Reader, writer: Writer) -> Connection {
        let in_flight = settings.requests_in_flight.max(1);
        let (requests, outgoing) = mpsc::channel(in_flight);
        let pending = Arc::new(Mutex::new(Pending::default()));
        let mut tasks = JoinSet::new();
        tasks.spawn(write_all(writer, outgoing, Arc::clone(&pending)));
        tasks.spawn(read_all(reader, Arc::clone(&pending)));
        Connection {
            what,
            request_timeout: settings.request_timeout,
            slots: Semaphore::new(in_flight),
            requests,
            pending,
            _tasks: tasks,
        }
    }

    pub(super) async fn read(&self, offset: u64, length: u32) -> Result<Bytes, SourceError> {
        let empty = Answer::Read { bytes: vec![0; length as usize], filled: 0 };
        match self.call("read from", CMD_READ, offset, length, empty).await? {
            Answer::Read { bytes, filled } if filled == length as usize => Ok(Bytes::from(bytes)),
            _ => Err(self.protocol("it answered a read with fewer bytes".into())),
        }
    }

    pub(super) async fn block_status(&self, offset: u64, length: u32) -> Result<Status, SourceError> {
        let empty = Answer::Status(Status::new());
        match self.call("ask for the holes of", CMD_BLOCK_STATUS, offset, length, empty).await? {
            Answer::Status(status) => Ok(status),
            Answer::Read { .. } => unreachable!("an answer keeps the kind it was made with"),
        }
    }

    async fn call(
        &self,
        attempt: &'static str,
        command: u16,
        offset: u64,
        length: u32,
        answer: Answer,
    ) -> Result<Answer, SourceError> {
        let answered = async {
            let _slot = self.slots.acquire().await.expect("the semaphore is never closed");
            let (done, outcome) = oneshot::channel();
            let cookie = lock(&self.pending)
                .enter(Waiting { offset, answer, error: None, done })
                .map_err(Failure::Broken)?;
            let mut request = [0; 28];
            request[..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
            request[6..8].copy_from_slice(&command.to_be_bytes());
            request[8..16].copy_from_slice(&cookie.to_be_bytes());
            request[16..24].copy_from_slice(&offset.to_be_bytes());
            request[24..].copy_from_slice(&length.to_be_bytes());
            let lost = |_| Failure::Broken("the connection ended".into());
            self.requests.send(request).await.map_err(lost_request)?;
            outcome.await.map_err(lost)?
        };
        match tokio::time::timeout(self.request_timeout, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Failure::Refused(why))) => {
                Err(SourceError::Refused { what: self.what.clone(), attempt, why })
            }
            Ok(Err(Failure::Broken(why))) => Err(SourceError::Io {
                attempt,
                what: self.what.clone(),
                source: io::Error::new(io::ErrorKind::ConnectionAborted, why),
            }),
            Err(_) => {
                lock(&self.pending).fail("an earlier request was not answered in time");
                let seconds = self.request_timeout.as_secs_f32();
                Err(SourceError::TimedOut { attempt, what: self.what.clone(), seconds })
            }
        }
    }

    pub(super) fn protocol(&self, why: String) -> SourceError {
        lock(&self.pending).fail(&why);
        SourceError::Protocol { what: self.what.clone(), why }
    }
}

fn lost_request(_: mpsc::error::SendError<[u8; 28]>) -> Failure {
    Failure::Broken("the connection ended".into())
}

fn lock(pending: &Mutex<Pending>) -> std::sync::MutexGuard<'_, Pending> {
    pending.lock().expect("nobody panics while holding the pending requests")
}

impl Pending {
    fn enter(&mut self, waiting: Waiting) -> Result<u64, String> {
        if let Some(why) = &self.broken {
            return Err(why.clone());
        }
        self.next_cookie += 1;
        self.waiting.insert(self.next_cookie, waiting);
        Ok(self.next_cookie)
    }

    /// Fails everything that waits or will wait. The first reason stays.
    fn fail(&mut self, why: &str) {
        let why = self.broken.get_or_insert_with(|| why.to_owned()).clone();
        for (_, waiting) in self.waiting.drain() {
            // Whoever asked may have gone.
            let _ = waiting.done.send(Err(Failure::Broken(why.clone())));
        }
    }
}

async fn write_all(mut writer: Writer, mut requests: mpsc::Receiver<[u8; 28]>, pending: Arc<Mutex<Pending>>) {
    while let Some(request) = requests.recv().await {
        if let Err(error) = writer.write_all(&request).await {
            lock(&pending).fail(&error.to_string());
            return;
        }
    }
}

async fn read_all(mut reader: Reader, pending: Arc<Mutex<Pending>>) {
    loop {
        if let Err(error) = read_reply(&mut reader, &pending).await {
            lock(&pending).fail(&error.to_string());
            return;
        }
    }
}

fn nonsense(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Reads one simple reply or one chunk of a structured one.
async fn read_reply(reader: &mut Reader, pending: &Mutex<Pending>) -> io::Result<()> {
    match reader.read_u32().await? {
        SIMPLE_REPLY_MAGIC => {
            let error = reader.read_u32().await?;
            let mut waiting = take(pending, reader.read_u64().await?)?;
            if error != 0 {
                waiting.error = Some(errno(error));
            } else if let Answer::Read { bytes, filled } = &mut waiting.answer {
                reader.read_exact(bytes).await?;
                *filled = bytes.len();
            }
            finish(waiting);
            Ok(())
        }
        STRUCTURED_REPLY_MAGIC => {
            let flags = reader.read_u16().await?;
            let kind = reader.read_u16().await?;
            let cookie = reader.read_u64().await?;
            let length = reader.read_u32().await?;
            let mut waiting = take(pending, cookie)?;
            read_chunk(reader, kind, length, &mut waiting).await?;
            if flags & CHUNK_FLAG_DONE == 0 {
                lock(pending).waiting.insert(cookie, waiting);
            } else {
                finish(waiting);
            }
            Ok(())
        }
        _ => Err(nonsense("a reply began with the wrong number")),
    }
}

fn take(pending: &Mutex<Pending>, cookie: u64) -> io::Result<Waiting> {
    lock(pending).waiting.remove(&cookie).ok_or_else(|| nonsense("a reply to nothing that was asked"))
}

fn finish(waiting: Waiting) {
    let outcome = match waiting.error {
        Some(why) => Err(Failure::Refused(why)),
        None => Ok(waiting.answer),
    };
    // Whoever asked may have gone.
    let _ = waiting.done.send(outcome);
}

async fn read_chunk(reader: &mut Reader, kind: u16, length: u32, waiting: &mut Waiting) -> io::Result<()> {
    match (kind, &mut waiting.answer) {
        (CHUNK_NONE, _) if length == 0 => Ok(()),
        (CHUNK_OFFSET_DATA, Answer::Read { bytes, filled }) if length >= 8 => {
            let at = place(reader.read_u64().await?, waiting.offset, length - 8, bytes.len())?;
            reader.read_exact(&mut bytes[at..at + length as usize - 8]).await?;
            *filled += length as usize - 8;
            Ok(())
        }
        (CHUNK_OFFSET_HOLE, Answer::Read { bytes, filled }) if length == 12 => {
            let offset = reader.read_u64().await?;
            let hole = reader.read_u32().await?;
            let at = place(offset, waiting.offset, hole, bytes.len())?;
            bytes[at..at + hole as usize].fill(0);
            *filled += hole as usize;
            Ok(())
        }
        (CHUNK_BLOCK_STATUS, Answer::Status(status)) if length % 8 == 4 && length <= STATUS_BYTES_MAX => {
            let context = reader.read_u32().await?;
            let mut raw = vec![0; length as usize - 4];
            reader.read_exact(&mut raw).await?;
            let field = |b: &[u8]| u32::from_be_bytes(*b.first_chunk().expect("chunks of 8 hold 4"));
            let descriptors = raw.chunks_exact(8).map(|d| (field(d), field(&d[4..]))).collect();
            status.insert(context, descriptors);
            Ok(())
        }
        (kind, _) if kind & CHUNK_FLAG_ERROR != 0 && (6..=ERROR_BYTES_MAX).contains(&length) => {
            let code = reader.read_u32().await?;
            let mut rest = vec![0; length as usize - 4];
            reader.read_exact(&mut rest).await?;
            let said = u16::from_be_bytes([rest[0], rest[1]]) as usize;
            let message = String::from_utf8_lossy(rest[2..].get(..said).unwrap_or_default()).into_owned();
            waiting.error = Some(if message.is_empty() { errno(code) } else { message });
            Ok(())
        }
        _ => Err(nonsense("a chunk of a reply makes no sense")),
    }
}

/// Where in the answer a chunk belongs.
fn place(offset: u64, asked: u64, length: u32, answer_bytes: usize) -> io::Result<usize> {
    offset
        .checked_sub(asked)
        .filter(|at| at + u64::from(length) <= answer_bytes as u64)
        .map(|at| at as usize)
        .ok_or_else(|| nonsense("a chunk lies outside of what was asked"))
}

/// NBD's error numbers are Linux's.
fn errno(code: u32) -> String {
    io::Error::from_raw_os_error(code.cast_signed()).to_string()
}
