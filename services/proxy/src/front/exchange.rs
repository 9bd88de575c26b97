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
use super::head;
use super::line::Line;
use super::shared::Shared;
use super::trace::Trace;
use super::tunnel::{self, GrantedUpgrade, UpgradeReply};
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
    let reply = match line.refusal(&head) {
        Some(violation) => Err(Problem::Framing(violation)),
        None => lead(&shared, head, body, &identity, &mut record).await,
    };
    Ok(match reply {
        Ok(Reply::Response(response, upstream)) => streamed(shared, response, upstream, record),
        Ok(Reply::Upgrade(granted)) => granted.begin(shared, line, record),
        Err(problem) => page(&problem, record),
    })
}

/// What the upstream replied.
enum Reply {
    /// A response, over this connection.
    Response(Response<Incoming>, Box<Upstream>),
    /// 101: the upgrade is granted.
    Upgrade(Box<GrantedUpgrade>),
}

async fn lead(
    shared: &Shared,
    mut head: Parts,
    body: Incoming,
    identity: &Identity,
    record: &mut Record,
) -> Result<Reply, Problem> {
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
        return Ok(match tunnel::ask(shared, head, protocol, on_upgrade, route, address, record).await? {
            UpgradeReply::Granted(granted) => Reply::Upgrade(granted),
            UpgradeReply::Declined(response, upstream) => Reply::Response(response, upstream),
        });
    }
    let keep = head.method.is_idempotent();
    let source = has_body.then(|| Source::new(body, keep, shared.settings.pace));
    record.request_body = source.clone();
    let (response, upstream) = forward(shared, head, source, address, record).await?;
    Ok(Reply::Response(response, upstream))
}

/// Asks the machine, twice if that is safe.
async fn forward(
    shared: &Shared,
    head: Parts,
    source: Option<Arc<Source>>,
    address: SocketAddr,
    record: &mut Record,
) -> Result<(Response<Incoming>, Box<Upstream>), Problem> {
    let connect_max = shared.settings.timeouts.connect;
    let body = || source.as_ref().map_or(RequestBody::Empty, Source::body);
    let method = head.method.clone();
    let mut request = Request::from_parts(head, body());
    shared.budget.lock().unwrap_or_else(PoisonError::into_inner).request();
    let mut attempt = 0;
    loop {
        attempt += 1;
        record.tries = attempt;
        let pooled = if attempt == 1 { shared.pool.take(address) } else { None };
        let mut upstream = match pooled {
            Some(upstream) => upstream,
            None => Upstream::connect(address, connect_max, &shared.metrics, &record.trace.span).await?,
        };
        // A kept connection may have been closed while the request was on its way; a fresh one that breaks is in earnest.
        let spare = (upstream.reused && method.is_idempotent()).then(|| request_again(&request));
        let progress = || source.as_ref().map_or(0, |source| source.taken());
        let failure = match upstream.ask(request, shared.settings.timeouts.first_byte, progress).await {
            Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                return Err(Problem::WrongProtocol);
            }
            Ok(response) => return Ok((response, upstream)),
            Err(failure) => failure,
        };
        match source.as_ref().map(|source| source.fate()) {
            Some(Fate::Broken) => return Err(Problem::BodyBroken),
            Some(Fate::TooSlow) => return Err(Problem::BodyTooSlow),
            Some(Fate::Sound) | None => {}
        }
        let problem = failure.report(&record.trace.span, address, &shared.metrics);
        let (progress, again) = match failure {
            Failure::Unsent(request) => (Progress::NothingSent, Some(*request)),
            Failure::Broke(_) => (Progress::Sent, spare.map(|head| Request::from_parts(head, body()))),
            Failure::Connect(_) | Failure::ConnectTimeout | Failure::Silent => (Progress::Sent, None),
        };
        let replay = source.as_ref().map_or(Replay::Whole, |source| source.replay());
        match again {
            Some(again) if may_retry(&method, replay, progress, attempt) && shared.pay_for_retry() => {
                request = again;
            }
            _ => return Err(problem),
        }
    }
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
