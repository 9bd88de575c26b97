//! The transport for tests: one process, no server, the same behaviour. It keeps no more than a NATS server would:
//! messages without a receiver are gone, an endpoint gets each request once, tables compare and set.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use contract::permissions::{Account, User};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use tokio::sync::{mpsc, oneshot};

use crate::caller::{REQUEST_INFO_HEADER, RequestInfo};
use crate::transport::{
    Canary, CanaryError, DiscoveredService, EndpointInfo, Envelope, IncomingMessage, OpenEndpoints,
    Registration, ReplyHandle, ServiceInfo, TablePage, TableRow, Transport, TransportError, WriteOutcome,
};

/// Messages that wait for a slow subscriber; a NATS client holds 65,536, a test never needs that many.
const WAITING_MAX: usize = 1024;

/// A bus inside one process. It has no accounts for those who share it as it is, and for users of it ([`Self::as_user`])
/// it has them: who asks is stamped, and each account has its own tables.
#[derive(Clone, Default)]
pub struct MemoryTransport {
    state: Arc<Mutex<State>>,
    user: Option<User>,
}

#[derive(Default)]
struct MemoryTable {
    /// Value and revision by key.
    rows: BTreeMap<String, (Bytes, u64)>,
    /// Revision of the removal by key.
    removed: BTreeMap<String, u64>,
    revision: u64,
    /// Revision of the last canary. One process has the whole bus.
    canary: u64,
}

#[derive(Default)]
struct State {
    listeners: Vec<(String, mpsc::Sender<Envelope>)>,
    /// Of each subject, with the instance that opened it.
    endpoints: HashMap<String, Vec<(u64, mpsc::Sender<IncomingMessage>)>>,
    next_at: usize,
    peers: HashMap<u64, DiscoveredService>,
    next_peer: u64,
    tables: HashMap<(Option<Account>, String), MemoryTable>,
    cut: bool,
    losing: Option<String>,
}

impl MemoryTransport {
    /// An empty bus.
    pub fn new() -> Self {
        MemoryTransport::default()
    }

    /// The same bus, for one of its users.
    pub fn as_user(&self, user: User) -> Self {
        MemoryTransport { user: Some(user), ..self.clone() }
    }

    fn of_table(&self, table: &str) -> (Option<Account>, String) {
        (self.account(), table.into())
    }

    /// Writes who asks, as a NATS server does for a request that goes to another account.
    fn stamp(&self, envelope: &mut Envelope) {
        envelope.headers.remove(REQUEST_INFO_HEADER);
        let Some(user) = &self.user else { return };
        let account = user.account();
        if let Account::Service(service) = account
            && envelope.subject.split('.').nth(2) == Some(service.name())
        {
            return;
        }
        let info = RequestInfo { acc: account.name().into(), user: user.to_string(), kind: "Client".into() };
        let text = serde_json::to_string(&info).expect("plain text");
        envelope.headers.insert(REQUEST_INFO_HEADER.into(), text);
    }

    /// Cuts the connection: every exchange fails until `mend`. What the tables hold stays.
    pub fn cut(&self) {
        self.state().cut = true;
    }

    /// Restores the connection.
    pub fn mend(&self) {
        self.state().cut = false;
    }

    /// Loses a table and makes it anew, empty.
    pub fn lose_table(&self, table: &str) {
        self.state().tables.remove(&self.of_table(table));
    }

    /// Loses the answer to the next write of a row of this table; the row is written.
    pub fn lose_answer_of(&self, table: &str) {
        self.state().losing = Some(table.into());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code here panics while it holds the lock")
    }

    fn linked(&self) -> Result<MutexGuard<'_, State>, TransportError> {
        let state = self.state();
        if state.cut { Err(TransportError::Disconnected { url: "memory".into() }) } else { Ok(state) }
    }
}

fn matches(pattern: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for part in pattern.split('.') {
        match (part, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (literal, Some(token)) if literal == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

struct MemoryReply(oneshot::Sender<Envelope>);

#[async_trait]
impl ReplyHandle for MemoryReply {
    async fn answer(self: Box<Self>, answer: Envelope) -> Result<(), TransportError> {
        self.0.send(answer).map_err(|envelope| TransportError::NoResponder { subject: envelope.subject })
    }
}

struct MemoryRegistration {
    transport: MemoryTransport,
    subjects: Vec<String>,
    peer: u64,
}

#[async_trait]
impl Registration for MemoryRegistration {
    async fn deregister(self: Box<Self>) {}
}

impl Drop for MemoryRegistration {
    fn drop(&mut self) {
        let mut state = self.transport.state();
        state.peers.remove(&self.peer);
        for subject in &self.subjects {
            if let Some(endpoints) = state.endpoints.get_mut(subject) {
                endpoints.retain(|(peer, _)| *peer != self.peer);
            }
        }
    }
}

#[async_trait]
impl Transport for MemoryTransport {
    async fn request(&self, mut envelope: Envelope, deadline: Duration) -> Result<Envelope, TransportError> {
        self.stamp(&mut envelope);
        let subject = envelope.subject.clone();
        let no_responder = || TransportError::NoResponder { subject: subject.clone() };
        let (back, answer) = oneshot::channel();
        let opened = {
            let mut state = self.linked()?;
            state.next_at = state.next_at.wrapping_add(1);
            let turn = state.next_at;
            let endpoints = state
                .endpoints
                .get(&subject)
                .filter(|endpoints| !endpoints.is_empty())
                .ok_or_else(no_responder)?;
            endpoints[turn % endpoints.len()].1.clone()
        };
        let incoming = IncomingMessage { envelope, reply_allowed: true, reply: Box::new(MemoryReply(back)) };
        let exchange = async {
            opened.send(incoming).await.map_err(|_| no_responder())?;
            answer.await.map_err(|_| no_responder())
        };
        match tokio::time::timeout(deadline, exchange).await {
            Ok(answered) => answered,
            Err(_) => Err(TransportError::TimedOut { subject: subject.clone(), after: deadline }),
        }
    }

    async fn publish(&self, envelope: Envelope) -> Result<(), TransportError> {
        let mut state = self.linked()?;
        state.listeners.retain(|(_, listener)| !listener.is_closed());
        for (pattern, listener) in &state.listeners {
            if matches(pattern, &envelope.subject) && listener.try_send(envelope.clone()).is_err() {
                tracing::warn!(subject = envelope.subject, "a slow listener missed an event");
            }
        }
        Ok(())
    }

    async fn subscribe(&self, pattern: &str) -> Result<BoxStream<'static, Envelope>, TransportError> {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        self.linked()?.listeners.push((pattern.into(), sender));
        Ok(receiver_stream(receiver).boxed())
    }

    async fn open(
        &self,
        info: &ServiceInfo,
        endpoints: &[EndpointInfo],
    ) -> Result<OpenEndpoints, TransportError> {
        let mut state = self.linked()?;
        state.next_peer += 1;
        let peer = state.next_peer;
        let mut streams = Vec::new();
        for endpoint in endpoints {
            let (sender, receiver) = mpsc::channel(WAITING_MAX);
            state.endpoints.entry(endpoint.subject.clone()).or_default().push((peer, sender));
            streams.push(receiver_stream(receiver).boxed());
        }
        let found = DiscoveredService {
            name: info.service.name().into(),
            version: info.version.clone(),
            metadata: info.metadata.clone(),
        };
        state.peers.insert(peer, found);
        let subjects = endpoints.iter().map(|endpoint| endpoint.subject.clone()).collect();
        Ok(OpenEndpoints {
            streams,
            registration: Box::new(MemoryRegistration { transport: self.clone(), subjects, peer }),
        })
    }

    async fn discover(&self, _wait: Duration) -> Result<Vec<DiscoveredService>, TransportError> {
        Ok(self.linked()?.peers.values().cloned().collect())
    }

    fn account(&self) -> Option<Account> {
        self.user.as_ref().map(User::account)
    }

    fn is_connected(&self) -> bool {
        !self.state().cut
    }

    async fn get(&self, table: &str, key: &str) -> Result<Option<TableRow>, TransportError> {
        let state = self.linked()?;
        let row = state.tables.get(&self.of_table(table)).and_then(|table| table.rows.get(key));
        Ok(row.map(|(value, revision)| TableRow {
            key: key.into(),
            value: value.clone(),
            revision: *revision,
        }))
    }

    async fn write_canary(&self, table: &str, over: u64) -> Result<Canary, CanaryError> {
        let mut state =
            self.linked().map_err(|source| CanaryError::NotWritten { table: table.into(), source })?;
        let rows = state.tables.entry(self.of_table(table)).or_default();
        let is_predecessor_gone = over > 0 && rows.canary == 0;
        rows.revision += 1;
        rows.canary = rows.revision;
        Ok(Canary { revision: rows.canary, is_predecessor_gone })
    }

    async fn get_from_leader(&self, table: &str, key: &str) -> Result<Option<TableRow>, TransportError> {
        self.get(table, key).await
    }

    async fn read_page(&self, table: &str, prefix: &str, after: u64) -> Result<TablePage, TransportError> {
        let state = self.linked()?;
        let Some(table) = state.tables.get(&self.of_table(table)) else { return Ok(TablePage::default()) };
        let wanted = |key: &str, revision: u64| key.starts_with(prefix) && revision > after;
        let mut rows: Vec<TableRow> = table
            .rows
            .iter()
            .filter(|(key, (_, revision))| wanted(key, *revision))
            .map(|(key, (value, revision))| TableRow {
                key: key.clone(),
                value: value.clone(),
                revision: *revision,
            })
            .collect();
        rows.sort_by_key(|row| row.revision);
        let removed = table.removed.iter().filter(|(key, revision)| wanted(key, **revision));
        Ok(TablePage {
            rows,
            removed: removed.map(|(key, revision)| (key.clone(), *revision)).collect(),
            next: None,
        })
    }

    async fn put(
        &self,
        name: &str,
        key: &str,
        value: Bytes,
        revision: u64,
    ) -> Result<WriteOutcome, TransportError> {
        let mut state = self.linked()?;
        let table = state.tables.entry(self.of_table(name)).or_default();
        if table.rows.get(key).map_or(0, |(_, held)| *held) != revision {
            return Ok(WriteOutcome::Conflict);
        }
        table.revision += 1;
        let written = table.revision;
        table.removed.remove(key);
        table.rows.insert(key.into(), (value, written));
        if state.losing.take_if(|losing| losing == name).is_some() {
            return Err(TransportError::TimedOut { subject: name.into(), after: Duration::ZERO });
        }
        Ok(WriteOutcome::At(written))
    }

    async fn remove(&self, table: &str, key: &str, revision: u64) -> Result<WriteOutcome, TransportError> {
        let mut state = self.linked()?;
        let table = state.tables.entry(self.of_table(table)).or_default();
        if table.rows.get(key).map(|(_, held)| *held) != Some(revision) {
            return Ok(WriteOutcome::Conflict);
        }
        table.rows.remove(key);
        table.revision += 1;
        table.removed.insert(key.into(), table.revision);
        Ok(WriteOutcome::At(table.revision))
    }
}

fn receiver_stream<T: Send + 'static>(receiver: mpsc::Receiver<T>) -> impl Stream<Item = T> + Send {
    futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|item| (item, receiver))
    })
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_as_a_nats_server_matches_them() {
        assert!(matches("a.*.c", "a.b.c"));
        assert!(matches("a.>", "a.b.c"));
        assert!(!matches("a.>", "a"));
        assert!(!matches("a.*", "a.b.c"));
        assert!(!matches("a.b", "a"));
    }
}
