//! Answering: a service opens one server with an endpoint for each request.
//!
//! Each request is answered in a task of its own, at most `CONCURRENT_MAX` at a time for each endpoint; `QUEUED_MAX` more
//! wait for at most `QUEUED_FOR_MAX`. Any other is answered as busy: nothing was done, and the caller asks again. What
//! cannot be read is answered with a failure and changes nothing.

use std::collections::HashMap;
use std::fmt::Display;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use contract::catalog::may_send;
use contract::message::{Caller, Failure, FailureKind, NeverRefused};
use contract::{HostName, OperationId, Request, Subject};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::{Instrument, field};

use crate::body::{CONTENT_TYPE, Encoding, MESSAGE_BYTES_MAX, cut};
use crate::caller::{Arrival, Callers, check};
use crate::metrics;
use crate::publish::Bus;
use crate::transport::{EndpointInfo, Envelope, IncomingMessage, Registration, ServiceInfo, TransportError};

pub(crate) const ERROR_CODE_HEADER: &str = "Nats-Service-Error-Code";
/// The code of a refusal.
pub(crate) const REFUSED: &str = "409";
pub(crate) const ERROR_TEXT_HEADER: &str = "Nats-Service-Error";
pub(crate) const MESSAGE_ID_HEADER: &str = "Nats-Msg-Id";

/// Requests that one endpoint works on at a time: more than any service here can use, few enough to hold in memory.
const CONCURRENT_MAX: usize = 64;
/// Requests of one endpoint that wait: a burst of thousands is worked off by callers that ask again, not by memory.
const QUEUED_MAX: usize = 512;
/// How long one waits. Its caller may have given up soon after, and what nobody waits for must not be carried out.
const QUEUED_FOR_MAX: Duration = Duration::from_secs(2);
/// The largest answer; NATS servers take messages of 1 MiB with their headers.
const ANSWER_BYTES_MAX: usize = 960 * 1024;
/// No answer may take longer: what lasts is an operation.
const ANSWER_MAX: Duration = Duration::from_secs(120);
/// The sentence of a refusal travels as a header, beside its typed case; there it is cut here.
const REFUSAL_CHARS_MAX: usize = 1000;
/// How long the end of a service waits for answers under way.
const DRAIN_MAX: Duration = Duration::from_secs(10);

pub(crate) type Refusal<R> = <R as Request>::Refusal;

/// A request as a handler receives it.
#[derive(Clone, Debug)]
pub struct IncomingRequest<R> {
    /// The request.
    pub request: R,
    /// Who asks.
    pub caller: Caller,
    /// For whom: a person whose schedule the scheduler carries out.
    pub on_behalf_of: Option<Caller>,
    /// `Nats-Msg-Id`, where the caller set one: the same id twice is the same command.
    pub message_id: Option<String>,
}

impl<R> IncomingRequest<R> {
    /// Who asks in the end: for whom it was sent, or else who sent it.
    pub fn asked_by(&self) -> &Caller {
        self.on_behalf_of.as_ref().unwrap_or(&self.caller)
    }

    /// The operation id that the caller's message id stands for, where it set one: the same id, the same operation.
    pub fn operation_of_message(&self) -> Option<OperationId> {
        let id = self.message_id.as_ref()?;
        if let Ok(operation) = OperationId::new(id.clone()) {
            return Some(operation);
        }
        let mut bits = [0; 16];
        bits.copy_from_slice(&blake3::hash(id.as_bytes()).as_bytes()[..16]);
        Some(OperationId::from_bits(u128::from_be_bytes(bits)))
    }
}

/// An answer that is not the reply.
#[derive(Clone, Debug)]
pub enum ErrorReply<F> {
    /// Understood, and no.
    Refused(F),
    /// Not possible now, or not at all.
    Failed(Failure),
}

impl<F> From<Failure> for ErrorReply<F> {
    fn from(failure: Failure) -> Self {
        ErrorReply::Failed(failure)
    }
}

type Handler = Arc<dyn Fn(IncomingMessage) -> BoxFuture<'static, ()> + Send + Sync>;

struct Endpoint {
    info: EndpointInfo,
    handler: Handler,
}

/// A server that is being set up.
pub struct Server {
    bus: Bus,
    info: ServiceInfo,
    endpoints: Vec<Endpoint>,
}

/// A server that answers.
pub struct RunningServer {
    registration: Box<dyn Registration>,
    loops: JoinSet<()>,
}

impl Bus {
    /// Begins to set up a server.
    pub fn server(&self, info: ServiceInfo) -> Server {
        Server { bus: self.clone(), info, endpoints: Vec::new() }
    }
}

impl Server {
    /// Answers a request by a handler; where the service may send it to itself, on its internal subject, too.
    pub fn on<R, H, F>(&mut self, handler: H) -> &mut Self
    where
        R: Request,
        H: Fn(IncomingRequest<R>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<R::Reply, ErrorReply<R::Refusal>>> + Send + 'static,
    {
        self.add::<R, H, F>(None, handler)
    }

    /// Answers a request by a handler, on the subject of one host.
    pub fn on_host<R, H, F>(&mut self, host: &HostName, handler: H) -> &mut Self
    where
        R: Request,
        H: Fn(IncomingRequest<R>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<R::Reply, ErrorReply<R::Refusal>>> + Send + 'static,
    {
        self.add::<R, H, F>(Some(host), handler)
    }

    /// Answers a request that another instance of the service received and that this host has to answer.
    pub fn on_forwarded<R, H, F>(&mut self, host: &HostName, handler: H) -> &mut Self
    where
        R: Request,
        H: Fn(IncomingRequest<R>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<R::Reply, ErrorReply<R::Refusal>>> + Send + 'static,
    {
        let subject = Subject::internal(&self.bus.realm, self.info.service, R::NAME);
        self.add_at::<R, H, F>(subject, Some(host), true, Arc::new(handler));
        self
    }

    fn add<R, H, F>(&mut self, host: Option<&HostName>, handler: H) -> &mut Self
    where
        R: Request,
        H: Fn(IncomingRequest<R>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<R::Reply, ErrorReply<R::Refusal>>> + Send + 'static,
    {
        let (realm, service) = (self.bus.realm.clone(), self.info.service);
        let handler = Arc::new(handler);
        let subject = Subject::at_service(&realm, service, R::NAME);
        self.add_at::<R, H, F>(subject, host, false, Arc::clone(&handler));
        if may_send(R::SENDERS, R::SCHEDULABLE, service, service) {
            self.add_at::<R, H, F>(Subject::internal(&realm, service, R::NAME), host, true, handler);
        }
        self
    }

    fn add_at<R, H, F>(
        &mut self,
        subject: Subject,
        host: Option<&HostName>,
        is_internal: bool,
        handler: Arc<H>,
    ) where
        R: Request,
        H: Fn(IncomingRequest<R>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<R::Reply, ErrorReply<R::Refusal>>> + Send + 'static,
    {
        let prefix = if is_internal { "internal-" } else { "" };
        let (name, subject) = match host {
            None => (format!("{prefix}{}", R::NAME), subject),
            Some(host) => (format!("{prefix}{}-{host}", R::NAME), subject.on_host(host)),
        };
        let (service, people) = (self.info.service, self.bus.people.clone());
        let has_accounts = self.bus.transport.account().is_some();
        self.endpoints.push(Endpoint {
            info: EndpointInfo { name, subject: subject.to_string(), metadata: schemas::<R>() },
            handler: Arc::new(move |incoming| {
                let (handler, people) = (Arc::clone(&handler), people.clone());
                async move {
                    let arrival = Arrival { service, has_accounts, is_internal, people: &people };
                    answer::<R, H, F>(incoming, arrival, handler).await;
                }
                .boxed()
            }),
        });
    }

    /// Opens the endpoints. When this returns, requests reach them.
    ///
    /// # Errors
    /// When the bus cannot be reached or refuses them.
    pub async fn open(self) -> Result<RunningServer, TransportError> {
        let infos: Vec<EndpointInfo> = self.endpoints.iter().map(|endpoint| endpoint.info.clone()).collect();
        let opened = self.bus.transport.open(&self.info, &infos).await?;
        let mut loops = JoinSet::new();
        for (endpoint, stream) in self.endpoints.into_iter().zip(opened.streams) {
            loops.spawn(serve_endpoint(stream, endpoint.handler));
        }
        Ok(RunningServer { registration: opened.registration, loops })
    }
}

impl RunningServer {
    /// Takes the registration down and waits, in bounded time, until the answers under way are given.
    pub async fn close(mut self) {
        self.registration.deregister().await;
        let drained =
            tokio::time::timeout(DRAIN_MAX, async { while self.loops.join_next().await.is_some() {} }).await;
        if drained.is_err() {
            tracing::warn!("answers under way were cut off at the end");
        }
    }
}

async fn serve_endpoint(mut requests: BoxStream<'static, IncomingMessage>, handler: Handler) {
    let places = Arc::new(Semaphore::new(CONCURRENT_MAX));
    let queue = Arc::new(Semaphore::new(CONCURRENT_MAX + QUEUED_MAX));
    let mut under_way = JoinSet::new();
    while let Some(incoming) = requests.next().await {
        while under_way.try_join_next().is_some() {}
        let queued = Arc::clone(&queue).try_acquire_owned();
        let (places, handler) = (Arc::clone(&places), Arc::clone(&handler));
        under_way.spawn(async move {
            let place = match &queued {
                Ok(_) => tokio::time::timeout(QUEUED_FOR_MAX, places.acquire()).await.ok(),
                Err(_) => None,
            };
            match place {
                Some(_place) => handler(incoming).await,
                None => send::<(), NeverRefused>(incoming, Encoding::Json, Err(busy().into())).await,
            }
        });
    }
    while under_way.join_next().await.is_some() {}
}

async fn answer<R, H, F>(incoming: IncomingMessage, arrival: Arrival<'_>, handler: Arc<H>)
where
    R: Request,
    H: Fn(IncomingRequest<R>) -> F + Send + Sync + 'static,
    F: Future<Output = Result<R::Reply, ErrorReply<R::Refusal>>> + Send + 'static,
{
    if !incoming.reply_allowed {
        tracing::warn!(
            request = R::NAME,
            "a request named a reply subject that is not its caller's; not answered"
        );
        return;
    }
    let arrived = Instant::now();
    let envelope = &incoming.envelope;
    let encoding = Encoding::of(envelope.headers.get(CONTENT_TYPE).map(String::as_str), &envelope.body);
    let span = tracing::info_span!(
        "serve",
        otel.name = R::NAME,
        otel.kind = "server",
        otel.status_code = field::Empty
    );
    telemetry::continue_trace(&span, &envelope.headers);
    let work = async {
        let Callers { caller, on_behalf_of } = check::<R>(&envelope.headers, arrival)?;
        let request = read::<R>(envelope, encoding, &caller)?;
        let message_id = envelope.headers.get(MESSAGE_ID_HEADER).cloned();
        let call = IncomingRequest { request, caller, on_behalf_of, message_id };
        // A panic in a handler is a bug; the abort hook of the chassis ends the process before this returns. In
        // tests there is no hook, and the caller must still get a reply.
        let handled = tokio::time::timeout(ANSWER_MAX, AssertUnwindSafe(handler(call)).catch_unwind()).await;
        match handled {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(internal(R::NAME).into()),
            Err(_) => {
                let message = format!("{} was not answered within {} s", R::NAME, ANSWER_MAX.as_secs());
                Err(Failure { kind: FailureKind::TimedOut, message }.into())
            }
        }
    };
    let answer: Result<R::Reply, ErrorReply<R::Refusal>> = work.instrument(span.clone()).await;
    metrics::served::<R>(&answer, arrived.elapsed());
    if let Err(ErrorReply::Failed(failure)) = &answer {
        span.record("otel.status_code", "ERROR");
        span.in_scope(|| tracing::warn!(request = R::NAME, kind = ?failure.kind, "{}", failure.message));
    }
    send(incoming, encoding, answer).await;
}

fn busy() -> Failure {
    let message = format!("more than {CONCURRENT_MAX} requests of this kind are being answered; ask again");
    Failure { kind: FailureKind::Busy, message }
}

fn internal(name: &str) -> Failure {
    Failure { kind: FailureKind::Internal, message: format!("{name} met a defect of the service") }
}

/// Reads a request. People are told of a field that does not exist: it is misspelt, or they expect what we do not do.
fn read<R: Request>(envelope: &Envelope, encoding: Encoding, caller: &Caller) -> Result<R, Failure> {
    if envelope.body.len() > MESSAGE_BYTES_MAX {
        let message =
            format!("the request has {} bytes, a message may have {MESSAGE_BYTES_MAX}", envelope.body.len());
        return Err(Failure { kind: FailureKind::TooLarge, message });
    }
    let read = match caller {
        Caller::Service(_) | Caller::JoiningHost { .. } => encoding.read::<R>(&envelope.body),
        Caller::Person { .. } | Caller::Anonymous | Caller::Unknown => encoding.read_strictly(&envelope.body),
    };
    read.map_err(|reason| Failure {
        kind: FailureKind::Malformed,
        message: format!("{} cannot be read: {}", R::NAME, cut(&reason)),
    })
}

async fn send<T: Serialize, F: Serialize + Display>(
    incoming: IncomingMessage,
    encoding: Encoding,
    answer: Result<T, ErrorReply<F>>,
) {
    #[derive(Serialize)]
    #[serde(rename_all = "snake_case")]
    enum Negative<'a, F> {
        Refused(&'a F),
        Failed(&'a Failure),
    }
    let mut headers = HashMap::from([(CONTENT_TYPE.to_string(), encoding.content_type().to_string())]);
    let mut mark = |code: &str, text: String| {
        headers.insert(ERROR_CODE_HEADER.into(), code.into());
        headers.insert(ERROR_TEXT_HEADER.into(), cut(&text));
    };
    let body = match &answer {
        Ok(reply) => encoding.write(reply),
        Err(ErrorReply::Refused(refusal)) => {
            // For callers of an earlier version, which may not know the case.
            mark(REFUSED, refusal.to_string().chars().take(REFUSAL_CHARS_MAX).collect());
            encoding.write(&Negative::Refused(refusal))
        }
        Err(ErrorReply::Failed(failure)) => {
            mark(code_of(failure.kind), failure.message.clone());
            encoding.write(&Negative::<F>::Failed(failure))
        }
    };
    let mut body = body.expect("every message of the contract can be written in both encodings");
    if body.len() > ANSWER_BYTES_MAX {
        let message =
            format!("the answer has {} bytes, more than a message may have; ask for less", body.len());
        mark(code_of(FailureKind::TooLarge), message.clone());
        let failure = Failure { kind: FailureKind::TooLarge, message };
        body = encoding.write(&Negative::<F>::Failed(&failure)).expect("a failure is plain text");
    }
    let subject = incoming.envelope.subject.clone();
    if let Err(error) = incoming.reply.answer(Envelope { subject: String::new(), headers, body }).await {
        tracing::warn!(subject, %error, "an answer did not get through");
    }
}

fn code_of(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Malformed => "400",
        FailureKind::NotAllowed => "403",
        FailureKind::TooLarge => "413",
        FailureKind::Busy => "429",
        FailureKind::Internal | FailureKind::Unknown => "500",
        FailureKind::Unavailable => "503",
        FailureKind::TimedOut => "504",
    }
}

fn schemas<R: Request>() -> HashMap<String, String> {
    let text = |schema: schemars::Schema| serde_json::to_string(&schema).expect("a schema is plain JSON");
    HashMap::from([
        ("request_schema".into(), text(schemars::schema_for!(R))),
        ("reply_schema".into(), text(schemars::schema_for!(R::Reply))),
        ("refusal_schema".into(), text(schemars::schema_for!(R::Refusal))),
    ])
}
