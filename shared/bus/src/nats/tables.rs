//! Tables over JetStream KV, by the plain requests that a service has rights for: it can neither create consumers
//! nor ask for anybody else's bucket. Formats: NATS ADR-8 (KV), ADR-31 (direct get, batched by ADR-31 for 2.11).

use std::time::Duration;

use async_nats::{HeaderMap, StatusCode};
use base64::prelude::*;
use bytes::Bytes;
use futures::StreamExt;

use super::NatsTransport;
use crate::transport::{
    CANARY_PREFIX, Canary, CanaryError, TablePage, TableRow, TransportError, WriteOutcome,
};

/// One exchange with JetStream. It answers in milliseconds; in a cluster that elects a leader, in seconds.
const TABLE_MAX: Duration = Duration::from_secs(5);
/// Messages in one batched get: few enough that a slow reader gets each page in time.
const PAGE_MAX: usize = 1000;
/// How long the server keeps the mark that a row was removed, so that late readers learn of it.
const REMOVED_MARK_TTL: &str = "1h";

const SUBJECT: &str = "Nats-Subject";
const SEQUENCE: &str = "Nats-Sequence";
const PENDING: &str = "Nats-Num-Pending";
const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";
const OPERATION: &str = "KV-Operation";
const ROLLUP: &str = "Nats-Rollup";
const TTL: &str = "Nats-TTL";
/// Written instead of `KV-Operation` when the server itself let a row go.
const MARKER: &str = "Nats-Marker-Reason";
/// How long the server keeps a canary: a bus that was away for less shows its tables to be the ones of before.
const CANARY_TTL: &str = "24h";
/// JetStream's error code for "wrong last sequence".
const WRONG_LAST_SEQUENCE: u64 = 10071;

/// JetStream's error code for "no message found".
const NO_MESSAGE_FOUND: u64 = 10037;

/// Why JetStream did not do what was asked.
#[derive(serde::Deserialize)]
struct ApiError {
    err_code: u64,
    description: String,
}

/// The answer to a read from the leader; header and data are in base 64.
#[derive(serde::Deserialize)]
struct LeaderAnswer {
    message: Option<LeaderMessage>,
    error: Option<ApiError>,
}

#[derive(serde::Deserialize)]
struct LeaderMessage {
    seq: u64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
}

impl LeaderMessage {
    fn into_found(self, key: &str) -> Result<Found, base64::DecodeError> {
        let headers = BASE64_STANDARD.decode(self.hdrs)?;
        let lines = String::from_utf8_lossy(&headers);
        let removed = lines
            .lines()
            .any(|line| line.split_once(':').is_some_and(|(name, _)| name == OPERATION || name == MARKER));
        let value = Bytes::from(BASE64_STANDARD.decode(self.data)?);
        Ok(Found { key: key.into(), revision: self.seq, value: (!removed).then_some(value) })
    }
}

/// A row, or the mark of one that was removed.
struct Found {
    key: String,
    revision: u64,
    value: Option<Bytes>,
}

impl Found {
    fn into_row(self) -> Option<TableRow> {
        let Found { key, revision, value } = self;
        value.map(|value| TableRow { key, value, revision })
    }
}

impl NatsTransport {
    pub(super) async fn get_row(&self, table: &str, key: &str) -> Result<Option<TableRow>, TransportError> {
        let found = self.find(table, key).await?;
        Ok(found.and_then(Found::into_row))
    }

    async fn find(&self, table: &str, key: &str) -> Result<Option<Found>, TransportError> {
        let subject = format!("$JS.API.DIRECT.GET.KV_{table}.$KV.{table}.{key}");
        let message =
            self.exchange(subject, None, Bytes::new(), TABLE_MAX).await.map_err(|e| missing(table, e))?;
        match message.status {
            Some(StatusCode::NOT_FOUND) => Ok(None),
            Some(status) => {
                Err(TransportError::Refused(format!("reading {table}.{key}: JetStream says {status}")))
            }
            None => read_found(table, message).map(Some),
        }
    }

    pub(super) async fn get_row_from_leader(
        &self,
        table: &str,
        key: &str,
    ) -> Result<Option<TableRow>, TransportError> {
        let found = self.find_at_leader(table, key).await?;
        Ok(found.and_then(Found::into_row))
    }

    /// Asks the stream's leader (`$JS.API.STREAM.MSG.GET`), which no follower answers.
    async fn find_at_leader(&self, table: &str, key: &str) -> Result<Option<Found>, TransportError> {
        let refused = |what: String| TransportError::Refused(format!("reading {table}.{key}: {what}"));
        let subject = format!("$JS.API.STREAM.MSG.GET.KV_{table}");
        let body = serde_json::json!({ "last_by_subj": format!("$KV.{table}.{key}") }).to_string();
        let message =
            self.exchange(subject, None, body.into(), TABLE_MAX).await.map_err(|e| missing(table, e))?;
        let answer: LeaderAnswer =
            serde_json::from_slice(&message.payload).map_err(|error| refused(error.to_string()))?;
        match answer {
            LeaderAnswer { error: Some(error), .. } if error.err_code == NO_MESSAGE_FOUND => Ok(None),
            LeaderAnswer { error: Some(error), .. } => Err(refused(error.description)),
            LeaderAnswer { message: Some(message), .. } => {
                message.into_found(key).map(Some).map_err(|error| refused(error.to_string()))
            }
            LeaderAnswer { .. } => Err(refused("JetStream answered without a message".into())),
        }
    }

    /// Reads the messages of a table after a sequence, at most `PAGE_MAX` of them.
    pub(super) async fn read_page_of(
        &self,
        table: &str,
        prefix: &str,
        after: u64,
    ) -> Result<TablePage, TransportError> {
        let start = after.saturating_add(1);
        let inbox = self.client.new_inbox();
        let mut answers = self.client.subscribe(inbox.clone()).await.map_err(|error| self.cause(error))?;
        let body = format!(r#"{{"seq":{start},"batch":{PAGE_MAX},"next_by_subj":"$KV.{table}.{prefix}>"}}"#);
        self.client
            .publish_with_reply(format!("$JS.API.DIRECT.GET.KV_{table}"), inbox, body.into())
            .await
            .map_err(|error| self.cause(error))?;
        let mut page = TablePage::default();
        let mut last = None;
        loop {
            let next = tokio::time::timeout(TABLE_MAX, answers.next()).await;
            let message = match next {
                Ok(Some(message)) => message,
                _ if !self.client_is_up() => {
                    return Err(TransportError::Disconnected { url: self.url.clone() });
                }
                _ => {
                    return Err(TransportError::TimedOut {
                        subject: format!("KV_{table}"),
                        after: TABLE_MAX,
                    });
                }
            };
            match message.status {
                None => {
                    let Found { key, revision, value } = read_found(table, message)?;
                    last = Some(revision);
                    match value {
                        _ if key.starts_with(CANARY_PREFIX) => {}
                        Some(value) => page.rows.push(TableRow { key, value, revision }),
                        None => page.removed.push((key, revision)),
                    }
                }
                // The end of the batch: how many messages are left stands in it.
                Some(status) if status.as_u16() == 204 => {
                    let headers = message.headers.as_ref();
                    let pending = headers.and_then(|headers| headers.get(PENDING));
                    let is_last = pending.is_none_or(|pending| pending.as_str() == "0");
                    page.next = last.filter(|_| !is_last);
                    return Ok(page);
                }
                // Nothing from there on.
                Some(StatusCode::NOT_FOUND) => return Ok(page),
                Some(StatusCode::NO_RESPONDERS) => {
                    return Err(missing(
                        table,
                        TransportError::NoResponder { subject: format!("KV_{table}") },
                    ));
                }
                Some(status) => {
                    return Err(TransportError::Refused(format!("listing {table}: JetStream says {status}")));
                }
            }
        }
    }

    fn client_is_up(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
    }

    pub(super) async fn put_row(
        &self,
        table: &str,
        key: &str,
        value: Bytes,
        revision: u64,
    ) -> Result<WriteOutcome, TransportError> {
        let written = self.store(table, key, value.clone(), revision, HeaderMap::new()).await?;
        if written == WriteOutcome::Conflict && revision == 0 {
            // The row may have been removed, which leaves a mark with a revision of its own.
            if let Some(Found { value: None, revision, .. }) = self.find_at_leader(table, key).await? {
                return self.store(table, key, value, revision, HeaderMap::new()).await;
            }
        }
        Ok(written)
    }

    pub(super) async fn remove_row(
        &self,
        table: &str,
        key: &str,
        revision: u64,
    ) -> Result<WriteOutcome, TransportError> {
        let mut headers = HeaderMap::new();
        headers.insert(OPERATION, "PURGE");
        headers.insert(ROLLUP, "sub");
        headers.insert(TTL, REMOVED_MARK_TTL);
        self.store(table, key, Bytes::new(), revision, headers).await
    }

    /// A message on a table's subject without an answer: no stream listens there. The server removes the row by itself.
    pub(super) async fn put_canary(&self, table: &str, over: u64) -> Result<Canary, CanaryError> {
        let first =
            if over == 0 { WriteOutcome::Conflict } else { self.store_canary(table, Some(over)).await? };
        if let WriteOutcome::At(revision) = first {
            return Ok(Canary { revision, is_predecessor_gone: false });
        }
        // One whose answer was lost is over the predecessor, too.
        let is_predecessor_gone = over > 0 && {
            let found = self.find_at_leader(table, &self.canary_key()).await;
            let found = found.map_err(|source| CanaryError::NotWritten { table: table.into(), source })?;
            found.is_none_or(|found| found.value.is_none())
        };
        match self.store_canary(table, None).await? {
            WriteOutcome::At(revision) => Ok(Canary { revision, is_predecessor_gone }),
            WriteOutcome::Conflict => {
                let source = TransportError::Refused("a write that expects nothing met a conflict".into());
                Err(CanaryError::NotWritten { table: table.into(), source })
            }
        }
    }

    fn canary_key(&self) -> String {
        format!("{CANARY_PREFIX}{}", self.canary)
    }

    async fn store_canary(&self, table: &str, over: Option<u64>) -> Result<WriteOutcome, CanaryError> {
        let mut headers = HeaderMap::new();
        headers.insert(TTL, CANARY_TTL);
        if let Some(over) = over {
            headers.insert(EXPECTED, over.to_string());
        }
        self.write(table, &self.canary_key(), Bytes::new(), headers).await.map_err(|error| match error {
            TransportError::NoResponder { .. } => CanaryError::Missing(table.into()),
            source => CanaryError::NotWritten { table: table.into(), source },
        })
    }

    async fn store(
        &self,
        table: &str,
        key: &str,
        value: Bytes,
        revision: u64,
        mut headers: HeaderMap,
    ) -> Result<WriteOutcome, TransportError> {
        headers.insert(EXPECTED, revision.to_string());
        self.write(table, key, value, headers).await.map_err(|error| missing(table, error))
    }

    async fn write(
        &self,
        table: &str,
        key: &str,
        value: Bytes,
        headers: HeaderMap,
    ) -> Result<WriteOutcome, TransportError> {
        #[derive(serde::Deserialize)]
        struct Ack {
            seq: Option<u64>,
            error: Option<ApiError>,
        }
        let message = self.exchange(format!("$KV.{table}.{key}"), Some(headers), value, TABLE_MAX).await?;
        let refused = |what: String| TransportError::Refused(format!("writing {table}.{key}: {what}"));
        let ack: Ack =
            serde_json::from_slice(&message.payload).map_err(|error| refused(error.to_string()))?;
        match ack {
            Ack { error: Some(error), .. } if error.err_code == WRONG_LAST_SEQUENCE => {
                Ok(WriteOutcome::Conflict)
            }
            Ack { error: Some(error), .. } => Err(refused(error.description)),
            Ack { seq: Some(revision), .. } => Ok(WriteOutcome::At(revision)),
            Ack { .. } => Err(refused("JetStream answered without a sequence".into())),
        }
    }
}

fn missing(table: &str, error: TransportError) -> TransportError {
    match error {
        TransportError::NoResponder { .. } => TransportError::Refused(format!(
            "table {table} is not there now: not made yet, or its servers elect a leader"
        )),
        other => other,
    }
}

fn read_found(table: &str, message: async_nats::Message) -> Result<Found, TransportError> {
    let unreadable = |what: &str| TransportError::Refused(format!("a row of {table} came without {what}"));
    let headers = message.headers.as_ref().ok_or_else(|| unreadable("headers"))?;
    let text = |name: &str| headers.get(name).map(|value| value.as_str().to_string());
    let subject = text(SUBJECT).ok_or_else(|| unreadable(SUBJECT))?;
    let key =
        subject.strip_prefix(&format!("$KV.{table}.")).ok_or_else(|| unreadable("its key"))?.to_string();
    let revision = text(SEQUENCE).and_then(|text| text.parse().ok()).ok_or_else(|| unreadable(SEQUENCE))?;
    let removed = text(OPERATION).is_some() || text(MARKER).is_some();
    Ok(Found { key, revision, value: (!removed).then_some(message.payload) })
}
