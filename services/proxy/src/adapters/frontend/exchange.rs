//! One exchange: from the head of a request to the head of its response. Start here to follow a request.
//!
//! ```text
//!   client? ──> start the trace ──> valid? ──> route? ──> upstream up? ──> rewrite the head ──> send to the upstream
//!                                     │          │             │                                        │
//!                                    4xx        404           503                        502, 504, or its response
//! ```

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use proxy_domain::UpstreamState;
use proxy_domain::forwarded::{ClientInfo, Scheme};
use proxy_domain::headers::clean_response;
use proxy_domain::request::validate;
use proxy_domain::retry::{AttemptProgress, BodyReplay, may_retry};

use super::access_log::{AccessRecord, ExchangeOutcome};
use super::connection_state::ConnectionState;
use super::error_page::ProxyError;
use super::request_body::{BodySource, BodyStatus, RequestBody};
use super::request_head;
use super::response_body::{ProxiedBody, ResponseBody};
use super::shared::FrontendShared;
use super::trace::RequestTrace;
use super::tunnel::{self, GrantedUpgrade, UpgradeReply};
use super::upstream::{UpstreamConnection, UpstreamError};

/// Responds to a request: with the upstream's response, or with an error page.
pub(super) async fn handle(
    shared: Arc<FrontendShared>,
    connection: Arc<ConnectionState>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let (head, body) = request.into_parts();
    let client =
        shared.settings.trusted_proxies.client_info(connection.peer.ip(), Scheme::Http, &head.headers);
    let trace = RequestTrace::begin(&head, client.peer_is_trusted);
    let mut record =
        AccessRecord::begin(trace, &head, client.address(), connection.clone(), shared.metrics.clone());
    let reply = match connection.refusal(&head) {
        Some(violation) => Err(ProxyError::Framing(violation)),
        None => route(&shared, head, body, &client, &mut record).await,
    };
    Ok(match reply {
        Ok(Reply::Response(response, upstream)) => stream_response(shared, response, upstream, record),
        Ok(Reply::Upgrade(granted)) => granted.begin(shared, connection, record),
        Err(error) => error_page(&error, record),
    })
}

/// What the upstream replied.
enum Reply {
    /// A response, over this connection.
    Response(Response<Incoming>, Box<UpstreamConnection>),
    /// 101: the upgrade is granted.
    Upgrade(Box<GrantedUpgrade>),
}

/// Finds the route of a request and sends the request to its upstream.
async fn route(
    shared: &FrontendShared,
    mut head: Parts,
    body: Incoming,
    client: &ClientInfo,
    record: &mut AccessRecord,
) -> Result<Reply, ProxyError> {
    let target = validate(&head, shared.settings.limits.head.fields_max)?;
    // The route is read once: this request keeps it, whatever happens to the table.
    let route = shared.table.load().find(&target.host).cloned();
    record.host = Some(target.host.clone());
    record.route = route.clone();
    let route = route.ok_or(ProxyError::UnknownHost)?;
    let address = match route.target {
        UpstreamState::Up(address) => address,
        UpstreamState::Down { reason, retry_after } => {
            return Err(ProxyError::VmDown { reason, retry_after });
        }
    };
    record.upstream = Some(address);
    let on_upgrade = tunnel::take_on_upgrade(&mut head);
    let has_body = !body.is_end_stream();
    request_head::rewrite(&mut head, &target, client, &record.trace, has_body);
    if let (Some(protocol), Some(on_upgrade)) = (target.upgrade_protocol, on_upgrade) {
        let reply = tunnel::request_upgrade(shared, head, protocol, on_upgrade, route, address, record);
        return Ok(match reply.await? {
            UpgradeReply::Granted(granted) => Reply::Upgrade(granted),
            UpgradeReply::Declined(response, upstream) => Reply::Response(response, upstream),
        });
    }
    let keep = head.method.is_idempotent();
    let source = has_body.then(|| BodySource::new(body, keep, shared.settings.slow_transfer));
    record.request_body = source.clone();
    let (response, upstream) = forward(shared, head, source, address, record).await?;
    Ok(Reply::Response(response, upstream))
}

/// Sends a request to the upstream, and once more if that is safe.
async fn forward(
    shared: &FrontendShared,
    head: Parts,
    source: Option<Arc<BodySource>>,
    address: SocketAddr,
    record: &mut AccessRecord,
) -> Result<(Response<Incoming>, Box<UpstreamConnection>), ProxyError> {
    let timeouts = &shared.settings.timeouts;
    let body = || source.as_ref().map_or(RequestBody::Empty, BodySource::body);
    let method = head.method.clone();
    let mut request = Request::from_parts(head, body());
    shared.retry_budget.lock().unwrap_or_else(PoisonError::into_inner).deposit();
    let mut attempt = 0;
    loop {
        attempt += 1;
        record.attempts = attempt;
        let pooled = if attempt == 1 { shared.pool.take(address) } else { None };
        let mut upstream = match pooled {
            Some(upstream) => upstream,
            None => {
                let (metrics, span) = (&shared.metrics, &record.trace.span);
                UpstreamConnection::connect(address, timeouts.connect, metrics, span).await?
            }
        };
        // The upstream may have closed a reused connection while the request was on its way. A new connection that
        // breaks is a real failure.
        let spare = (upstream.reused && method.is_idempotent()).then(|| copy_head(&request));
        let progress = || source.as_ref().map_or(0, |source| source.bytes_read());
        let error = match upstream.send(request, timeouts.first_byte, progress).await {
            Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                return Err(ProxyError::UpgradeProtocolMismatch);
            }
            Ok(response) => return Ok((response, upstream)),
            Err(error) => error,
        };
        match source.as_ref().map(|source| source.status()) {
            Some(BodyStatus::Invalid) => return Err(ProxyError::BodyInvalid),
            Some(BodyStatus::TooSlow) => return Err(ProxyError::BodyTimeout),
            Some(BodyStatus::Intact) | None => {}
        }
        let reported = error.report(&record.trace.span, address, &shared.metrics);
        let (progress, again) = match error {
            UpstreamError::ClosedBeforeSend(request) => (AttemptProgress::NothingSent, Some(*request)),
            UpstreamError::NoValidResponse(_) => {
                (AttemptProgress::Sent, spare.map(|head| Request::from_parts(head, body())))
            }
            UpstreamError::Connect(_) | UpstreamError::ConnectTimeout | UpstreamError::ResponseTimeout => {
                (AttemptProgress::Sent, None)
            }
        };
        let replay = source.as_ref().map_or(BodyReplay::Whole, |source| source.replay());
        match again {
            Some(again) if may_retry(&method, replay, progress, attempt) && shared.withdraw_retry() => {
                request = again;
            }
            _ => return Err(reported),
        }
    }
}

fn copy_head(request: &Request<RequestBody>) -> Parts {
    let mut head = Request::new(()).into_parts().0;
    head.method = request.method().clone();
    head.uri = request.uri().clone();
    head.headers = request.headers().clone();
    head
}

/// The upstream's response, with its headers cleaned and its body streamed.
fn stream_response(
    shared: Arc<FrontendShared>,
    response: Response<Incoming>,
    upstream: Box<UpstreamConnection>,
    mut record: AccessRecord,
) -> Response<ResponseBody> {
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
    let body = ProxiedBody::new(incoming, upstream, shared, idle_max, record);
    Response::from_parts(head, ResponseBody::Proxied(Box::new(body)))
}

fn error_page(error: &ProxyError, mut record: AccessRecord) -> Response<ResponseBody> {
    let page = error.page(&record.trace.id(), record.version());
    record.status = page.status().as_u16();
    record.outcome = ExchangeOutcome::Complete;
    page.map(|text| ResponseBody::ErrorPage(Some(text), Box::new(record)))
}
