//! The handle that services hold, and events: publish and subscribe.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use contract::bucket::KvBucket;
use contract::{Event, Realm, Subject};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use tracing::Span;

use crate::body::{CONTENT_TYPE, Encoding};
use crate::generation::Generations;
use crate::people::People;
use crate::row::UnreadableRows;
use crate::transport::{CanaryError, DiscoveredService, Envelope, Transport, TransportError};

/// The bus. Cloning is cheap.
#[derive(Clone)]
pub struct Bus {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) realm: Realm,
    pub(crate) people: People,
    pub(crate) unreadable: Arc<UnreadableRows>,
    pub(crate) generations: Arc<Generations>,
}

impl Bus {
    /// A bus over a transport, in a realm.
    pub fn new(transport: Arc<dyn Transport>, realm: Realm) -> Self {
        Bus {
            transport,
            realm,
            people: People::default(),
            unreadable: Arc::default(),
            generations: Arc::default(),
        }
    }

    /// The same bus, on which callers have the names in a list of people.
    pub fn with_people(self, people: People) -> Self {
        Bus { people, ..self }
    }

    /// The list of people.
    pub fn people(&self) -> &People {
        &self.people
    }

    /// The realm: the first token of every subject.
    pub fn realm(&self) -> &Realm {
        &self.realm
    }

    /// Whether there is a connection now.
    pub fn is_connected(&self) -> bool {
        self.transport.is_connected()
    }

    /// Publishes an event. Nothing depends on a subscriber; the truth is in the tables.
    ///
    /// # Errors
    /// When there is no connection, or the server refuses the subject.
    pub async fn publish<E: Event>(&self, event: &E) -> Result<(), TransportError> {
        let body = Encoding::MessagePack.write(event).map_err(TransportError::Refused)?;
        let mut headers = telemetry::inject(&Span::current());
        headers.insert(CONTENT_TYPE.into(), Encoding::MessagePack.content_type().into());
        let subject = Subject::of_event(&self.realm, event).to_string();
        self.transport.publish(Envelope { subject, headers, body }).await
    }

    /// Subscribes to every event of a kind, from when this returns. What cannot be decoded is logged and skipped.
    ///
    /// # Errors
    /// When there is no connection, or the server refuses the subject.
    pub async fn subscribe<E: Event>(&self) -> Result<EventSubscription<E>, TransportError> {
        let subject = Subject::of_events::<E>(&self.realm);
        let envelopes = self.transport.subscribe(subject.as_str()).await?;
        let events = envelopes.filter_map(|envelope| async move {
            let encoding =
                Encoding::of(envelope.headers.get(CONTENT_TYPE).map(String::as_str), &envelope.body);
            match encoding.read::<E>(&envelope.body) {
                Ok(event) => Some((event, envelope.headers)),
                Err(reason) => {
                    tracing::warn!(subject = envelope.subject, reason, "an event could not be read");
                    None
                }
            }
        });
        Ok(EventSubscription { events: events.boxed() })
    }

    /// Finds out whether a table can be written, and whether it was made anew since it was checked last (`Table::generation`).
    ///
    /// # Errors
    /// When it is missing, or cannot be written now.
    pub async fn check_table(&self, bucket: &KvBucket) -> Result<(), CanaryError> {
        let over = self.generations.canary_of(bucket.name);
        let canary = self.transport.write_canary(bucket.name, over).await?;
        self.generations.set_canary(bucket.name, canary.revision, canary.is_predecessor_gone);
        Ok(())
    }

    /// Asks by service discovery which services run; collects answers for `wait`.
    ///
    /// # Errors
    /// When there is no connection.
    pub async fn discover(&self, wait: Duration) -> Result<Vec<DiscoveredService>, TransportError> {
        self.transport.discover(wait).await
    }
}

/// Events as they arrive, each with the trace context that came along.
pub struct EventSubscription<E> {
    events: BoxStream<'static, (E, telemetry::TraceContext)>,
}

impl<E> Stream for EventSubscription<E> {
    type Item = (E, telemetry::TraceContext);
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.poll_next_unpin(cx)
    }
}
