//! What carries messages. There are two: a NATS server, and memory for tests.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use contract::Service;
use contract::permissions::Account;
use futures::stream::BoxStream;

/// A body with headers on its way to a subject.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// Where it goes.
    pub subject: String,
    /// Headers; keys are matched as written.
    pub headers: HashMap<String, String>,
    /// The body.
    pub body: Bytes,
}

/// Why an envelope did not get through.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// No service answers on the subject.
    #[error("no service answers on {subject}")]
    NoResponder {
        /// The subject.
        subject: String,
    },
    /// No answer within the deadline.
    #[error("no answer on {subject} within {} s", .after.as_secs_f32())]
    TimedOut {
        /// The subject.
        subject: String,
        /// The deadline.
        after: Duration,
    },
    /// There is no connection to the bus now; it is being sought.
    #[error("the message bus at {url} cannot be reached")]
    Disconnected {
        /// Where it was sought.
        url: String,
    },
    /// The bus refused or cannot do what was asked.
    #[error("{0}")]
    Refused(String),
}

/// What discovery shows of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceInfo {
    /// Which service.
    pub service: Service,
    /// Its semantic version.
    pub version: String,
    /// Free pairs: build, instance, host.
    pub metadata: HashMap<String, String>,
}

/// A service found by discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveredService {
    /// The service's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its pairs.
    pub metadata: HashMap<String, String>,
}

/// One endpoint of a service.
#[derive(Clone, Debug)]
pub struct EndpointInfo {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub subject: String,
    /// Free pairs; the schemas.
    pub metadata: HashMap<String, String>,
}

/// A request that arrived, and how to reply.
pub struct IncomingMessage {
    /// The request.
    pub envelope: Envelope,
    /// Whether the reply subject is one that a caller may name.
    pub reply_allowed: bool,
    /// Sends the reply.
    pub reply: Box<dyn ReplyHandle>,
}

/// Sends the reply to one caller.
#[async_trait]
pub trait ReplyHandle: Send + Sync {
    /// Sends the reply.
    async fn answer(self: Box<Self>, answer: Envelope) -> Result<(), TransportError>;
}

/// Open endpoints: a stream of requests for each. Dropping a stream closes its endpoint.
pub struct OpenEndpoints {
    /// In the order of the endpoints given.
    pub streams: Vec<BoxStream<'static, IncomingMessage>>,
    /// Ends the service in discovery when dropped or closed.
    pub registration: Box<dyn Registration>,
}

/// The registration of a service with discovery.
#[async_trait]
pub trait Registration: Send + Sync {
    /// Ends it: discovery no longer finds the service, its endpoints end.
    async fn deregister(self: Box<Self>);
}

/// A row of a durable table as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRow {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Bytes,
    /// The revision that a change must name.
    pub revision: u64,
}

/// Keys of rows that show whether a table can be written begin so. No name of ours does.
pub(crate) const CANARY_PREFIX: &str = "_canary.";

/// A part of a table, in the order of the revisions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TablePage {
    /// Rows that are there.
    pub rows: Vec<TableRow>,
    /// Rows that were removed, and the revision of their removal. The server remembers that for an hour.
    pub removed: Vec<(String, u64)>,
    /// The revision after which the next page begins; absent where this is the last one.
    pub next: Option<u64>,
}

/// A row that was written only to find out whether a table can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canary {
    /// Its revision.
    pub revision: u64,
    /// The one before is gone: the table was lost and made anew, or nothing was written for a day.
    pub is_predecessor_gone: bool,
}

/// Why a table cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CanaryError {
    /// There is no such table.
    #[error("table {0} is missing")]
    Missing(String),
    /// It cannot be written now: no room on the disk of the bus, no leader, no connection.
    #[error("table {table} cannot be written")]
    NotWritten {
        /// The table.
        table: String,
        /// What happened.
        source: TransportError,
    },
}

/// What a write to a table came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// It is stored under this revision.
    At(u64),
    /// Another writer was first; nothing was changed.
    Conflict,
}

/// Carries envelopes and keeps tables.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Sends a request and waits for its reply.
    async fn request(&self, envelope: Envelope, deadline: Duration) -> Result<Envelope, TransportError>;
    /// Sends a message to all subscribers.
    async fn publish(&self, envelope: Envelope) -> Result<(), TransportError>;
    /// Receives every message to a subject pattern, from when this returns.
    async fn subscribe(&self, pattern: &str) -> Result<BoxStream<'static, Envelope>, TransportError>;
    /// Opens endpoints; when this returns, requests reach them.
    async fn open(
        &self,
        info: &ServiceInfo,
        endpoints: &[EndpointInfo],
    ) -> Result<OpenEndpoints, TransportError>;
    /// Asks which services run, each instance of each, and collects answers for `wait`.
    async fn discover(&self, wait: Duration) -> Result<Vec<DiscoveredService>, TransportError>;
    /// The account of our user, on a bus with accounts: there the server names the caller of each request that comes from
    /// another account.
    fn account(&self) -> Option<Account>;
    /// Whether there is a connection now.
    fn is_connected(&self) -> bool;
    /// Writes a row of this process that nobody reads, over the one of the revision `over` (0: the first), and so finds out
    /// whether the table can be written, and whether it is the one of before.
    async fn write_canary(&self, table: &str, over: u64) -> Result<Canary, CanaryError>;
    /// Reads a row. In a cluster the answer may be a little old.
    async fn get(&self, table: &str, key: &str) -> Result<Option<TableRow>, TransportError>;
    /// Reads a row as the leader of the table has it: never older than what was written before.
    async fn get_from_leader(&self, table: &str, key: &str) -> Result<Option<TableRow>, TransportError>;
    /// Reads rows of a revision above `after` whose key begins with `prefix` (empty, or whole tokens ending in a dot).
    async fn read_page(&self, table: &str, prefix: &str, after: u64) -> Result<TablePage, TransportError>;
    /// Writes a row if its revision is the one named; 0 means that there is none.
    async fn put(
        &self,
        table: &str,
        key: &str,
        value: Bytes,
        revision: u64,
    ) -> Result<WriteOutcome, TransportError>;
    /// Removes a row if its revision is the one named.
    async fn remove(&self, table: &str, key: &str, revision: u64) -> Result<WriteOutcome, TransportError>;
}
