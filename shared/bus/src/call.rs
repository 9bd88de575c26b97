//! Calls: one request, one reply, one deadline.

use std::fmt::{Debug, Display};
use std::time::Duration;

use contract::message::{Caller, Failure, FailureKind, with_causes};
use contract::permissions::Account;
use contract::{HostName, MessageOwner, Request, Service, Subject};
use serde::Deserialize;
use tokio::time::Instant;
use tracing::{Instrument, Span, field};

use crate::body::{CONTENT_TYPE, Encoding, MESSAGE_BYTES_MAX};
use crate::caller::{Callers, FORWARDED_FOR_HEADER, forwarded_for, on_behalf_of};
use crate::metrics;
use crate::publish::Bus;
use crate::serve::{
    ERROR_CODE_HEADER, ERROR_TEXT_HEADER, ErrorReply, IncomingRequest, MESSAGE_ID_HEADER, REFUSED, Refusal,
};
use crate::transport::{Envelope, TransportError};

/// The first pause before a busy service is asked again; doubled each time.
const BUSY_FIRST: Duration = Duration::from_millis(50);
/// The longest such pause.
const BUSY_MAX: Duration = Duration::from_secs(2);

/// Why a call brought no reply.
#[derive(Debug, thiserror::Error)]
pub enum CallError<F: Debug + Display> {
    /// The owner understood and says no.
    #[error("{0}")]
    Refused(F),
    /// The owner says no, for a reason that only its later version knows.
    #[error("{sentence}")]
    RefusedByLaterVersion {
        /// The refusal in words.
        sentence: String,
    },
    /// The owner could not do it.
    #[error("{0}")]
    Failed(Failure),
    /// The request or the reply did not get through.
    #[error("sending {request} to {service}")]
    Transport {
        /// Who was asked.
        service: Service,
        /// What was asked.
        request: &'static str,
        /// What happened.
        source: TransportError,
    },
    /// The answer cannot be understood; the two sides are of versions that do not fit.
    #[error("the answer of {service} to {request} cannot be read: {reason}")]
    UnreadableReply {
        /// Who answered.
        service: Service,
        /// What was asked.
        request: &'static str,
        /// What is wrong.
        reason: String,
    },
}

impl<F: Debug + Display> CallError<F> {
    /// Whether the same call may succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            CallError::Refused(_)
            | CallError::RefusedByLaterVersion { .. }
            | CallError::UnreadableReply { .. } => false,
            CallError::Transport { .. } => true,
            CallError::Failed(failure) => failure.is_transient(),
        }
    }

    /// The failure to report onwards, when a service could not get what it needed from another. A refusal, too, is
    /// a failure for a caller that did not send that request.
    pub fn into_failure(self) -> Failure {
        match self {
            CallError::Failed(failure) => failure,
            other => {
                let kind =
                    if other.is_transient() { FailureKind::Unavailable } else { FailureKind::Internal };
                Failure { kind, message: with_causes(&other) }
            }
        }
    }
}

/// A header's name and value.
type Header = (String, String);

/// Which service, and if it matters on which host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The service.
    pub service: Service,
    /// The host; any instance where absent.
    pub host: Option<HostName>,
}

impl Destination {
    /// The instance of a service on one host.
    pub fn on(service: Service, host: &HostName) -> Destination {
        Destination { service, host: Some(host.clone()) }
    }
}

impl From<Service> for Destination {
    fn from(service: Service) -> Self {
        Destination { service, host: None }
    }
}

impl Bus {
    /// Asks the owner of a request.
    ///
    /// # Errors
    /// A refusal, a failure, or why no reply came.
    pub async fn call<R: Request>(
        &self,
        request: &R,
        deadline: Duration,
    ) -> Result<R::Reply, CallError<R::Refusal>> {
        self.call_at(owner_of::<R>(), request, deadline).await
    }

    /// Sends a request to its owner on behalf of a person: the owner records both, and checks that both may send it.
    /// It accepts that from the scheduler only.
    ///
    /// # Errors
    /// As `call`.
    pub async fn call_for<R: Request>(
        &self,
        caller: &Caller,
        request: &R,
        deadline: Duration,
    ) -> Result<R::Reply, CallError<R::Refusal>> {
        let headers = on_behalf_of(caller).into_iter().collect();
        self.send(owner_of::<R>().into(), headers, request, deadline).await
    }

    /// Passes a request on to the instance of the same service on another host, which answers it in the name of its
    /// callers and passes it on no further.
    ///
    /// # Errors
    /// What that instance answered, or that it does not answer.
    pub async fn forward<R: Request>(
        &self,
        place: Destination,
        call: IncomingRequest<R>,
        deadline: Duration,
    ) -> Result<R::Reply, ErrorReply<R::Refusal>> {
        let IncomingRequest { request, caller, on_behalf_of, message_id } = call;
        let mut headers = vec![forwarded_for(&Callers { caller, on_behalf_of })];
        headers.extend(message_id.map(|id| (MESSAGE_ID_HEADER.to_string(), id)));
        match self.send(place, headers, &request, deadline).await {
            Ok(reply) => Ok(reply),
            Err(CallError::Refused(refusal)) => Err(ErrorReply::Refused(refusal)),
            Err(error) => Err(ErrorReply::Failed(error.into_failure())),
        }
    }

    /// Asks at a place named by the caller.
    ///
    /// # Errors
    /// A refusal, a failure, or why no reply came.
    pub async fn call_at<R: Request>(
        &self,
        place: impl Into<Destination>,
        request: &R,
        deadline: Duration,
    ) -> Result<R::Reply, CallError<R::Refusal>> {
        self.send(place.into(), Vec::new(), request, deadline).await
    }

    async fn send<R: Request>(
        &self,
        place: Destination,
        headers: Vec<Header>,
        request: &R,
        deadline: Duration,
    ) -> Result<R::Reply, CallError<R::Refusal>> {
        let span = tracing::info_span!(
            "call",
            otel.name = R::NAME,
            otel.kind = "client",
            otel.status_code = field::Empty,
            rpc.system = "nats",
            rpc.service = place.service.name()
        );
        let called =
            self.exchange_unless_busy(&place, &headers, request, deadline).instrument(span.clone()).await;
        metrics::called::<R>(&called);
        if let Err(error) = &called
            && !matches!(error, CallError::Refused(_) | CallError::RefusedByLaterVersion { .. })
        {
            span.record("otel.status_code", "ERROR");
        }
        called
    }

    /// Asks again, with back-off and within the deadline, while the owner is busy: then nothing was done.
    async fn exchange_unless_busy<R: Request>(
        &self,
        place: &Destination,
        headers: &[Header],
        request: &R,
        deadline: Duration,
    ) -> Result<R::Reply, CallError<R::Refusal>> {
        let until = Instant::now() + deadline;
        let mut pause = BUSY_FIRST;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let called = self.exchange(place, headers, request, left).await;
            let is_busy =
                matches!(&called, Err(CallError::Failed(failure)) if failure.kind == FailureKind::Busy);
            if !is_busy || Instant::now() + pause >= until {
                return called;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BUSY_MAX);
        }
    }

    async fn exchange<R: Request>(
        &self,
        place: &Destination,
        extra: &[Header],
        request: &R,
        deadline: Duration,
    ) -> Result<R::Reply, CallError<R::Refusal>> {
        let service = place.service;
        let link = |source| CallError::Transport { service, request: R::NAME, source };
        let is_forwarded = extra.iter().any(|(name, _)| name == FORWARDED_FOR_HEADER);
        let is_ours = self.transport.account() == Some(Account::Service(service));
        let mut subject = if is_ours || is_forwarded {
            Subject::internal(&self.realm, service, R::NAME)
        } else {
            Subject::at_service(&self.realm, service, R::NAME)
        };
        if let Some(host) = &place.host {
            subject = subject.on_host(host);
        }
        let body = Encoding::MessagePack.write(request).map_err(|e| link(TransportError::Refused(e)))?;
        if body.len() > MESSAGE_BYTES_MAX {
            let message =
                format!("the request has {} bytes, the bus carries at most {MESSAGE_BYTES_MAX}", body.len());
            return Err(CallError::Failed(Failure { kind: FailureKind::TooLarge, message }));
        }
        let mut headers = telemetry::inject(&Span::current());
        headers.insert(CONTENT_TYPE.into(), Encoding::MessagePack.content_type().into());
        headers.extend(extra.iter().cloned());
        let answer = self
            .transport
            .request(Envelope { subject: subject.to_string(), headers, body }, deadline)
            .await
            .map_err(link)?;
        read_answer::<R>(service, &answer)
    }
}

/// The one service that answers a request.
fn owner_of<R: Request>() -> Service {
    match R::OWNER {
        MessageOwner::One(service) => service,
        _ => panic!("{} is answered by several services, each for itself; use call_at", R::NAME),
    }
}

fn read_answer<R: Request>(service: Service, answer: &Envelope) -> Result<R::Reply, CallError<R::Refusal>> {
    let unreadable = |reason| CallError::UnreadableReply { service, request: R::NAME, reason };
    let encoding = Encoding::of(answer.headers.get(CONTENT_TYPE).map(String::as_str), &answer.body);
    if !answer.headers.contains_key(ERROR_CODE_HEADER) {
        return encoding.read::<R::Reply>(&answer.body).map_err(unreadable);
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Negative<F> {
        Refused(F),
        Failed(Failure),
    }
    let negative = match encoding.read::<Negative<Refusal<R>>>(&answer.body) {
        Ok(negative) => negative,
        Err(reason) => return Err(unknown_refusal(answer).unwrap_or_else(|| unreadable(reason))),
    };
    match negative {
        Negative::Refused(refusal) => Err(CallError::Refused(refusal)),
        Negative::Failed(failure) => Err(CallError::Failed(failure)),
    }
}

/// A refusal that this version has no case for.
fn unknown_refusal<F: Debug + Display>(answer: &Envelope) -> Option<CallError<F>> {
    let is_refusal = answer.headers.get(ERROR_CODE_HEADER).is_some_and(|code| code == REFUSED);
    let sentence = answer.headers.get(ERROR_TEXT_HEADER).filter(|_| is_refusal)?.clone();
    Some(CallError::RefusedByLaterVersion { sentence })
}

#[cfg(test)]
mod tests {
    use contract::provisioner::GetVm;

    use super::*;

    #[test]
    fn a_refusal_of_a_later_version_is_known_by_its_sentence() {
        let header = |key: &str, value: &str| (key.to_string(), value.to_string());
        let mut answer = Envelope {
            headers: [header(ERROR_CODE_HEADER, REFUSED), header(ERROR_TEXT_HEADER, "VM web is being moved")]
                .into(),
            body: br#"{"refused":{"moving":{"vm":"web"}}}"#.as_slice().into(),
            ..Envelope::default()
        };
        let refused = read_answer::<GetVm>(Service::Provisioner, &answer).expect_err("refused");
        assert_eq!(refused.to_string(), "VM web is being moved");
        assert!(matches!(refused, CallError::RefusedByLaterVersion { .. }) && !refused.is_transient());
        answer.headers.insert(ERROR_CODE_HEADER.into(), "500".into());
        let other = read_answer::<GetVm>(Service::Provisioner, &answer);
        assert!(matches!(other, Err(CallError::UnreadableReply { .. })), "{other:?}");
    }
}
