//! Many requests on one connection.
//!
//! The reader task owns the replies, the writer task the requests, so that a cancelled caller never leaves half a message
//! on the connection. After the first error every request, present or future, fails with it.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use super::super::SourceError;
use super::handshake::{Reader, Writer};
use super::replies::read_all;
use super::settings::NbdExportSettings;
use crate::nbd_wire::{
    CMD_BLOCK_STATUS, CMD_FLUSH, CMD_READ, CMD_WRITE, CMD_WRITE_ZEROES, Descriptor, Request,
};

/// The descriptors of each context.
pub(super) type Status = HashMap<u32, Vec<Descriptor>>;

#[derive(Debug)]
pub(super) struct Connection {
    what: String,
    request_timeout: Duration,
    slots: Semaphore,
    requests: mpsc::Sender<Message>,
    pending: Arc<Mutex<PendingRequests>>,
    /// Ends both tasks when the connection is dropped.
    _tasks: JoinSet<()>,
}

/// A request, and what is to be written.
type Message = ([u8; Request::BYTES], Bytes);

#[derive(Debug, Default)]
pub(super) struct PendingRequests {
    next_cookie: u64,
    pub(super) in_flight: HashMap<u64, PendingRequest>,
    broken: Option<String>,
}

#[derive(Debug)]
pub(super) struct PendingRequest {
    pub(super) offset: u64,
    pub(super) partial_reply: PartialReply,
    pub(super) error: Option<String>,
    pub(super) done: oneshot::Sender<Result<PartialReply, RequestFailure>>,
}

/// What has been answered so far.
#[derive(Debug)]
pub(super) enum PartialReply {
    Read {
        bytes: Vec<u8>,
        filled: usize,
    },
    Status(Status),
    /// Done, without data.
    Done,
}

#[derive(Debug)]
pub(super) enum RequestFailure {
    /// The server refused this request.
    Refused(String),
    /// The connection is of no more use.
    ConnectionBroken(String),
}

impl Connection {
    pub(super) fn start(
        what: String,
        settings: &NbdExportSettings,
        reader: Reader,
        writer: Writer,
    ) -> Connection {
        let in_flight = settings.requests_in_flight.max(1);
        let (requests, outgoing) = mpsc::channel(in_flight);
        let pending = Arc::new(Mutex::new(PendingRequests::default()));
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
        let empty = PartialReply::Read { bytes: vec![0; length as usize], filled: 0 };
        match self.call("read from", CMD_READ, offset, length, Bytes::new(), empty).await? {
            PartialReply::Read { bytes, filled } if filled == length as usize => Ok(Bytes::from(bytes)),
            _ => Err(self.protocol("it answered a read with fewer bytes".into())),
        }
    }

    pub(super) async fn block_status(&self, offset: u64, length: u32) -> Result<Status, SourceError> {
        let empty = PartialReply::Status(Status::new());
        let attempt = "ask for the holes of";
        match self.call(attempt, CMD_BLOCK_STATUS, offset, length, Bytes::new(), empty).await? {
            PartialReply::Status(status) => Ok(status),
            _ => unreachable!("an answer keeps the kind it was made with"),
        }
    }

    pub(super) async fn write(&self, offset: u64, bytes: Bytes) -> Result<(), SourceError> {
        let length = bytes.len() as u32;
        self.call("write to", CMD_WRITE, offset, length, bytes, PartialReply::Done).await.map(drop)
    }

    pub(super) async fn write_zeroes(&self, offset: u64, length: u32) -> Result<(), SourceError> {
        let command = CMD_WRITE_ZEROES;
        self.call("write zeros to", command, offset, length, Bytes::new(), PartialReply::Done).await.map(drop)
    }

    /// All that was written before is on stable storage afterwards. The caller sets the deadline.
    pub(super) async fn flush(&self) -> Result<(), SourceError> {
        let answered = self.ask(CMD_FLUSH, 0, 0, Bytes::new(), PartialReply::Done);
        self.outcome("flush", answered.await).map(drop)
    }

    async fn call(
        &self,
        attempt: &'static str,
        command: u16,
        offset: u64,
        length: u32,
        payload: Bytes,
        answer: PartialReply,
    ) -> Result<PartialReply, SourceError> {
        let answered = self.ask(command, offset, length, payload, answer);
        match tokio::time::timeout(self.request_timeout, answered).await {
            Ok(answered) => self.outcome(attempt, answered),
            Err(_) => Err(self.timed_out(attempt, self.request_timeout)),
        }
    }

    async fn ask(
        &self,
        command: u16,
        offset: u64,
        length: u32,
        payload: Bytes,
        answer: PartialReply,
    ) -> Result<PartialReply, RequestFailure> {
        let _slot = self.slots.acquire().await.expect("the semaphore is never closed");
        let (done, outcome) = oneshot::channel();
        let cookie = lock(&self.pending)
            .enter(PendingRequest { offset, partial_reply: answer, error: None, done })
            .map_err(RequestFailure::ConnectionBroken)?;
        let header = Request { flags: 0, command, cookie, offset, length }.encode();
        let lost = || RequestFailure::ConnectionBroken("the connection ended".into());
        self.requests.send((header, payload)).await.map_err(|_| lost())?;
        outcome.await.map_err(|_| lost())?
    }

    fn outcome(
        &self,
        attempt: &'static str,
        answered: Result<PartialReply, RequestFailure>,
    ) -> Result<PartialReply, SourceError> {
        let what = self.what.clone();
        answered.map_err(|failure| match failure {
            RequestFailure::Refused(why) => SourceError::Refused { what, attempt, why },
            RequestFailure::ConnectionBroken(why) => {
                let source = io::Error::new(io::ErrorKind::ConnectionAborted, why);
                SourceError::Io { attempt, what, source }
            }
        })
    }

    /// After a request without an answer no other is answered: its late answer would be taken for another's.
    pub(super) fn timed_out(&self, attempt: &'static str, waited: Duration) -> SourceError {
        lock(&self.pending).fail("an earlier request was not answered in time");
        SourceError::TimedOut { attempt, what: self.what.clone(), seconds: waited.as_secs_f32() }
    }

    pub(super) fn protocol(&self, why: String) -> SourceError {
        lock(&self.pending).fail(&why);
        SourceError::Protocol { what: self.what.clone(), why }
    }
}

pub(super) fn lock(pending: &Mutex<PendingRequests>) -> std::sync::MutexGuard<'_, PendingRequests> {
    pending.lock().expect("no thread panics while holding the pending requests")
}

impl PendingRequests {
    fn enter(&mut self, waiting: PendingRequest) -> Result<u64, String> {
        if let Some(why) = &self.broken {
            return Err(why.clone());
        }
        self.next_cookie += 1;
        self.in_flight.insert(self.next_cookie, waiting);
        Ok(self.next_cookie)
    }

    /// Fails everything that waits or will wait. The first reason stays.
    pub(super) fn fail(&mut self, why: &str) {
        let why = self.broken.get_or_insert_with(|| why.to_owned()).clone();
        for (_, waiting) in self.in_flight.drain() {
            // The caller may be gone.
            let _ = waiting.done.send(Err(RequestFailure::ConnectionBroken(why.clone())));
        }
    }
}

async fn write_all(
    mut writer: Writer,
    mut requests: mpsc::Receiver<Message>,
    pending: Arc<Mutex<PendingRequests>>,
) {
    while let Some((header, payload)) = requests.recv().await {
        let sent = async {
            writer.write_all(&header).await?;
            writer.write_all(&payload).await
        };
        if let Err(error) = sent.await {
            lock(&pending).fail(&error.to_string());
            return;
        }
    }
}
