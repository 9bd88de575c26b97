//! Envelopes over NATS.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::connection::State;
use async_nats::service::{Service as MicroService, ServiceExt};
use async_nats::{HeaderMap, Request};
use async_trait::async_trait;
use bytes::Bytes;
use contract::Service;
use contract::permissions::{Account, discovery_subject};
use futures::StreamExt;
use futures::stream::BoxStream;

use super::NatsTransport;
use crate::transport::{
    Canary, CanaryError, DiscoveredService, EndpointInfo, Envelope, IncomingMessage, OpenEndpoints,
    Registration, ReplyHandle, ServiceInfo, TablePage, TableRow, Transport, TransportError, WriteOutcome,
};

/// All instances of a service share its requests: each goes to one of them.
const QUEUE_GROUP: &str = "q";
/// Reply subjects that the server itself makes for requests from another account.
const CROSS_ACCOUNT_REPLY: &str = "_R_.";
/// The beginning of all inboxes.
const INBOX: &str = "_INBOX";
/// When a request is sent again that nobody received: while a server reads its settings again, for some milliseconds
/// nothing passes from one account to another.
const NO_RESPONDER_PAUSES: [Duration; 3] =
    [Duration::from_millis(10), Duration::from_millis(40), Duration::from_millis(150)];
/// How soon a waiting caller learns that the connection was lost.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

impl NatsTransport {
    pub(super) fn cause(&self, error: impl std::fmt::Display) -> TransportError {
        match self.client.connection_state() {
            State::Connected => TransportError::Refused(error.to_string()),
            _ => TransportError::Disconnected { url: self.url.clone() },
        }
    }

    /// One request and its answer, as the client gives it. Nobody received a request that has no responders, so that it
    /// can be sent again.
    pub(super) async fn exchange(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        body: Bytes,
        deadline: Duration,
    ) -> Result<async_nats::Message, TransportError> {
        let until = tokio::time::Instant::now() + deadline;
        for pause in NO_RESPONDER_PAUSES {
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            match self.exchange_once(subject.clone(), headers.clone(), body.clone(), left).await {
                Err(TransportError::NoResponder { .. }) if left > pause => tokio::time::sleep(pause).await,
                answer => return answer,
            }
        }
        let left = until.saturating_duration_since(tokio::time::Instant::now());
        self.exchange_once(subject, headers, body, left).await
    }

    async fn exchange_once(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        body: Bytes,
        deadline: Duration,
    ) -> Result<async_nats::Message, TransportError> {
        if !self.is_connected() {
            // The client would hold the envelope back for us, but an old command must not be carried out after its
            // caller has given up.
            return Err(TransportError::Disconnected { url: self.url.clone() });
        }
        let mut request = Request::new().payload(body).timeout(Some(deadline));
        if let Some(headers) = headers {
            request = request.headers(headers);
        }
        let connects = self.connects();
        tokio::select! {
            answer = self.client.send_request(subject.clone(), request) => answer.map_err(|error| match error.kind() {
                RequestErrorKind::NoResponders => TransportError::NoResponder { subject },
                RequestErrorKind::TimedOut if self.is_connected() => TransportError::TimedOut { subject, after: deadline },
                _ => self.cause(error),
            }),
            // A reply to a request from before the loss does not come any more: the server has forgotten it.
            () = self.lost_since(connects) => Err(TransportError::Disconnected { url: self.url.clone() }),
        }
    }

    fn connects(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Relaxed)
    }

    /// Returns when the connection that was there is there no more.
    async fn lost_since(&self, connects: u64) {
        while self.is_connected() && self.connects() == connects {
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
    }
}

fn to_headers(pairs: &HashMap<String, String>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (key, value) in pairs {
        headers.insert(key.as_str(), value.as_str());
    }
    headers
}

fn to_envelope(message: async_nats::Message) -> Envelope {
    let pairs = message.headers.iter().flat_map(HeaderMap::iter).filter_map(|(key, values)| {
        values.first().map(|value| (key.to_string(), value.as_str().to_string()))
    });
    Envelope { subject: message.subject.to_string(), headers: pairs.collect(), body: message.payload }
}

/// Whether a caller may name this reply subject: one that the server made, or in our account an inbox of our own; on a
/// bus without accounts any inbox.
fn reply_allowed(reply: Option<&str>, account: Option<Account>, inbox_prefix: &str) -> bool {
    reply.is_some_and(|reply| match account {
        Some(_) => {
            let own = reply.strip_prefix(inbox_prefix).is_some_and(|rest| rest.starts_with('.'));
            own || reply.starts_with(CROSS_ACCOUNT_REPLY)
        }
        None => reply.starts_with(INBOX),
    })
}

struct NatsReply(async_nats::service::Request);

#[async_trait]
impl ReplyHandle for NatsReply {
    async fn answer(self: Box<Self>, answer: Envelope) -> Result<(), TransportError> {
        let headers = to_headers(&answer.headers);
        self.0
            .respond_with_headers(Ok(answer.body), headers)
            .await
            .map_err(|e| TransportError::Refused(e.to_string()))
    }
}

struct NatsRegistration(Option<MicroService>);

#[async_trait]
impl Registration for NatsRegistration {
    async fn deregister(mut self: Box<Self>) {
        if let Some(service) = self.0.take()
            && let Err(error) = service.stop().await
        {
            tracing::debug!(%error, "taking the service down from discovery");
        }
    }
}

#[async_trait]
impl Transport for NatsTransport {
    async fn request(&self, envelope: Envelope, deadline: Duration) -> Result<Envelope, TransportError> {
        let headers = to_headers(&envelope.headers);
        self.exchange(envelope.subject, Some(headers), envelope.body, deadline).await.map(to_envelope)
    }

    async fn publish(&self, envelope: Envelope) -> Result<(), TransportError> {
        let headers = to_headers(&envelope.headers);
        self.client
            .publish_with_headers(envelope.subject, headers, envelope.body)
            .await
            .map_err(|error| self.cause(error))
    }

    async fn subscribe(&self, pattern: &str) -> Result<BoxStream<'static, Envelope>, TransportError> {
        let envelopes =
            self.client.subscribe(pattern.to_string()).await.map_err(|error| self.cause(error))?;
        self.client.flush().await.map_err(|error| self.cause(error))?;
        Ok(envelopes.map(to_envelope).boxed())
    }

    async fn open(
        &self,
        info: &ServiceInfo,
        endpoints: &[EndpointInfo],
    ) -> Result<OpenEndpoints, TransportError> {
        let service = self
            .client
            .service_builder()
            .queue_group(QUEUE_GROUP)
            .metadata(info.metadata.clone())
            .start(info.service.name(), &info.version)
            .await
            .map_err(|error| self.cause(error))?;
        let mut streams = Vec::new();
        for endpoint in endpoints {
            let requests = service
                .endpoint_builder()
                .name(&endpoint.name)
                .metadata(endpoint.metadata.clone())
                .add(&endpoint.subject)
                .await
                .map_err(|error| self.cause(error))?;
            let (account, inbox_prefix) = (self.account, self.inbox_prefix.clone());
            let incoming = requests.map(move |request| IncomingMessage {
                envelope: to_envelope(request.message.clone()),
                reply_allowed: reply_allowed(request.message.reply.as_deref(), account, &inbox_prefix),
                reply: Box::new(NatsReply(request)),
            });
            streams.push(incoming.boxed());
        }
        self.client.flush().await.map_err(|error| self.cause(error))?;
        Ok(OpenEndpoints { streams, registration: Box::new(NatsRegistration(Some(service))) })
    }

    async fn discover(&self, wait: Duration) -> Result<Vec<DiscoveredService>, TransportError> {
        #[derive(serde::Deserialize)]
        struct Pong {
            name: String,
            version: String,
            #[serde(default)]
            metadata: HashMap<String, String>,
        }
        let inbox = self.client.new_inbox();
        let mut answers = self.client.subscribe(inbox.clone()).await.map_err(|error| self.cause(error))?;
        for service in Service::ALL {
            self.client
                .publish_with_reply(discovery_subject("PING", service), inbox.clone(), Bytes::new())
                .await
                .map_err(|error| self.cause(error))?;
        }
        let mut peers = Vec::new();
        let until = tokio::time::Instant::now() + wait;
        while let Ok(Some(message)) = tokio::time::timeout_at(until, answers.next()).await {
            if message.status.is_some() {
                continue; // No instance of one service answers.
            }
            match serde_json::from_slice::<Pong>(&message.payload) {
                Ok(pong) => peers.push(DiscoveredService {
                    name: pong.name,
                    version: pong.version,
                    metadata: pong.metadata,
                }),
                Err(error) => tracing::debug!(%error, "an answer to discovery could not be read"),
            }
        }
        Ok(peers)
    }

    fn account(&self) -> Option<Account> {
        self.account
    }

    fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    async fn get(&self, table: &str, key: &str) -> Result<Option<TableRow>, TransportError> {
        self.get_row(table, key).await
    }

    async fn write_canary(&self, table: &str, over: u64) -> Result<Canary, CanaryError> {
        self.put_canary(table, over).await
    }

    async fn get_from_leader(&self, table: &str, key: &str) -> Result<Option<TableRow>, TransportError> {
        self.get_row_from_leader(table, key).await
    }

    async fn read_page(&self, table: &str, prefix: &str, after: u64) -> Result<TablePage, TransportError> {
        self.read_page_of(table, prefix, after).await
    }

    async fn put(
        &self,
        table: &str,
        key: &str,
        value: Bytes,
        revision: u64,
    ) -> Result<WriteOutcome, TransportError> {
        self.put_row(table, key, value, revision).await
    }

    async fn remove(&self, table: &str, key: &str, revision: u64) -> Result<WriteOutcome, TransportError> {
        self.remove_row(table, key, revision).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_inbox_and_carried_over_replies_are_answered() {
        let account = Some(Account::Service(Service::Backup));
        let allowed = |reply, account| reply_allowed(reply, account, "_INBOX_backup");
        assert!(allowed(Some("_INBOX_backup.abc.1"), account));
        assert!(allowed(Some("_R_.abc.1"), account));
        assert!(allowed(Some("_INBOX.abc"), None), "a bus without accounts");
        let apply = Some("loam.v1.upgrade.apply_release");
        for (reply, account) in [
            (None, account),
            (apply, account),
            (Some("_INBOX.abc"), account),
            (Some("_INBOX_backupper.x"), account),
            (apply, None),
        ] {
            assert!(!allowed(reply, account), "{reply:?} {account:?}");
        }
    }
}
