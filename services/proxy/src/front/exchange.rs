//! One request, from its head to the head of its answer. Read this file to follow a request.
//!
//! ```text
//!   who asks? ──> begin the trace ──> sound? ──> whose host? ──> is it up? ──> rewrite the head ──> ask the machine
//!                                       │            │              │                                  │
//!                                      4xx          404            503                        502, 504, or its answer
//! ```

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use proxy_domain::Target;
use proxy_domain::forwarded::{Identity, Scheme};
use proxy_domain::hygiene::clean_response;
use proxy_domain::request::examine;
use proxy_domain::retry::{Progress, Replay, may_retry};

use super::access::{Outcome, Record};
use super::answer::Problem;
use super::client_body::{Fate, RequestBody, Source};
use super::guard::REFUSED_METHOD;
use super::head;
use super::line::Line;
use super::shared::Shared;
use super::trace::Trace;
use super::tunnel;
use super::upstream::{Failure, Upstream};
use super::upstream_body::{AnswerBody, UpstreamBody};

/// Answers a request, one way or another.
pub(super) async fn answer(
    shared: Arc<Shared>,
    line: Arc<Line>,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Infallible> {
    let (head, body) = request.into_parts();
    let identity = shared.settings.trusted.identify(line.peer.ip(), Scheme::Http, &head.headers);
    let trace = Trace::begin(&head, identity.peer_is_trusted);
    let mut record = Record::begin(trace, &head, identity.client(), line.clone(), shared.metrics.clone());
    let led = match line.refused.get() {
        Some(&violation) if head.method.as_str() == REFUSED_METHOD => Err(Problem::Framing(violation)),
        _ => lead(&shared, head, body, &identity, &mut record).await,
    };
    Ok(match led {
        Ok(Led::Answered(response, upstream)) => streamed(shared, response, upstream, record),
        Ok(Led::Switched(switched)) => switched.begin(shared, line, record),
        Err(problem) => page(&problem, record),
    })
}

/// Where a request led.
pub(super) enum Led {
    /// A machine answered, over this connection.
    Answered(Response<Incoming>, Box<Upstream>),
    /// A machine granted an upgrade.
    Switched(Box<tunnel::Switched>),
}

async fn lead(
    shared: &Shared,
    mut head: Parts,
    body: Incoming,
    identity: &Identity,
    record: &mut Record,
) -> Result<Led, Problem> {
    let asked = examine(&head, shared.settings.limits.head.fields_max)?;
    // The entry is taken once; whatever happens to the table, this request keeps it.
    let route = shared.table.load().find(&asked.host).cloned();
    record.host = Some(asked.host.clone());
    record.route = route.clone();
    let route = route.ok_or(Problem::UnknownHost)?;
    let address = match route.target {
        Target::Up(address) => address,
        Target::Down { why, retry_after } => return Err(Problem::Down { why, retry_after }),
    };
    record.upstream = Some(address);
    let on_upgrade = tunnel::take_upgrade(&mut head);
    let has_body = !body.is_end_stream();
    head::prepare(&mut head, &asked, identity, &record.trace, has_body);
    if let (Some(protocol), Some(on_upgrade)) = (asked.upgrade, on_upgrade) {
        return tunnel::ask(shared, head, protocol, on_upgrade, address, record).await;
    }
    let keep = head.method.is_idempotent();
    record.source = has_body.then(|| Source::new(body, keep, shared.settings.pace));
    forward(shared, head, address, record).await
}

/// Asks the machine, twice if that is safe.
async fn forward(
    shared: &Shared,
    head: Parts,
    address: SocketAddr,
    record: &mut Record,
) -> Result<Led, Problem> {
    let source = record.source.clone();
    let body = || source.as_ref().map_or(RequestBody::Empty, Source::body);
    let method = head.method.clone();
    let mut request = Request::from_parts(head, body());
    shared.budget.lock().unwrap_or_else(PoisonError::into_inner).request();
    loop {
        record.tries += 1;
        let pooled = if record.tries == 1 { shared.pool.take(address) } else { None };
        let mut upstream = match pooled {
            Some(upstream) => upstream,
            None => connect(shared, address, record).await?,
        };
        // A kept connection may have been closed while the request was on its way; a fresh one that breaks is in earnest.
        let spare = (upstream.reused && method.is_idempotent()).then(|| request_again(&request));
        let progress = || source.as_ref().map_or(0, |source| source.taken());
        let failure = match upstream.ask(request, shared.settings.timeouts.first_byte, progress).await {
            Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                return Err(Problem::WrongProtocol);
            }
            Ok(response) => return Ok(Led::Answered(response, upstream)),
            Err(failure) => failure,
        };
        match source.as_ref().map(|source| source.fate()) {
            Some(Fate::Broken) => return Err(Problem::BodyBroken),
            Some(Fate::TooSlow) => return Err(Problem::BodyTooSlow),
            Some(Fate::Sound) | None => {}
        }
        let problem = failure.problem();
        failure.log(&record.trace.span, address);
        shared.metrics.upstream_failed(failure.kind());
        let (progress, again) = match failure {
            Failure::Unsent(request) => (Progress::NothingSent, Some(*request)),
            Failure::Broke(_) => (Progress::Sent, spare.map(|head| Request::from_parts(head, body()))),
            Failure::Connect(_) | Failure::ConnectTimeout | Failure::Silent => (Progress::Sent, None),
        };
        let replay = source.as_ref().map_or(Replay::Whole, |source| source.replay());
        match again {
            Some(again) if may_retry(&method, replay, progress, record.tries) && shared.pay_for_retry() => {
                request = again;
            }
            _ => return Err(problem),
        }
    }
}

/// Connects, and counts it when that fails.
pub(super) async fn connect(
    shared: &Shared,
    address: SocketAddr,
    record: &Record,
) -> Result<Box<Upstream>, Problem> {
    Upstream::connect(address, shared.settings.timeouts.connect).await.map_err(|failure| {
        failure.log(&record.trace.span, address);
        shared.metrics.upstream_failed(failure.kind());
        failure.problem()
    })
}

fn request_again(request: &Request<RequestBody>) -> Parts {
    let mut head = Request::new(()).into_parts().0;
    head.method = request.method().clone();
    head.uri = request.uri().clone();
    head.headers = request.headers().clone();
    head
}

/// The machine's answer, cleaned and streamed.
fn streamed(
    shared: Arc<Shared>,
    response: Response<Incoming>,
    upstream: Box<Upstream>,
    mut record: Record,
) -> Response<AnswerBody> {
    let (mut head, incoming) = response.into_parts();
    clean_response(&mut head.headers);
    head.extensions.clear();
    record.status = head.status.as_u16();
    let is_event_stream = head
        .headers
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().to_ascii_lowercase().starts_with(b"text/event-stream"));
    let timeouts = &shared.settings.timeouts;
    let idle_max = if is_event_stream { timeouts.tunnel_idle } else { timeouts.upstream_idle };
    let body = UpstreamBody::new(incoming, upstream, shared, idle_max, record);
    Response::from_parts(head, AnswerBody::Streamed(Box::new(body)))
}

/// Our own answer.
fn page(problem: &Problem, mut record: Record) -> Response<AnswerBody> {
    let page = problem.page(&record.trace.id(), record.version());
    record.status = page.status().as_u16();
    record.outcome = Outcome::Complete;
    page.map(|text| AnswerBody::Page(Some(text), Box::new(record)))
}
