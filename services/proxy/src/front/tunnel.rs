//! Upgraded connections: WebSocket and whatever else two ends agree on.
//!
//! ```text
//!   request, no body ──> machine ──┬── 101 ──> the client's socket is taken out of the guard, both ends are joined
//!                                  └── else ─> an ordinary answer; the guard lets HTTP go on
//! ```
//!
//! Until the machine has said 101 the guard holds back what the client sends behind its request, so it cannot be taken
//! for a request by one side and for tunnel bytes by the other. The connection to the machine is a fresh one and is
//! never pooled. A tunnel keeps the route that it began with; it ends by itself, when nothing moves for too long, some
//! time after its route was taken away, or with the front.

mod flow;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use proxy_domain::Route;
use proxy_domain::hygiene::clean_response;
use thiserror::Error;
use tokio::time::timeout;

use super::access::{Outcome, Record};
use super::answer::Problem;
use super::client_body::RequestBody;
use super::guard::Guard;
use super::line::Line;
use super::shared::Shared;
use super::upstream::{Failure, Upstream};
use super::upstream_body::AnswerBody;
use flow::End;

/// Takes hyper's promise of the client's connection out of a head.
pub(super) fn take_upgrade(head: &mut Parts) -> Option<OnUpgrade> {
    head.extensions.remove()
}

/// What a machine replied to a request for an upgrade.
pub(super) enum UpgradeReply {
    /// 101.
    Granted(Box<GrantedUpgrade>),
    /// Any other response, over this connection.
    Declined(Response<Incoming>, Box<Upstream>),
}

/// Both ends of a tunnel that begins when the client has its 101.
#[derive(Debug)]
pub(super) struct GrantedUpgrade {
    route: Arc<Route>,
    on_upgrade: OnUpgrade,
    headers: HeaderMap,
    machine: End,
}

/// Asks a machine to switch to `protocol`.
pub(super) async fn ask(
    shared: &Shared,
    head: Parts,
    protocol: HeaderValue,
    on_upgrade: OnUpgrade,
    route: Arc<Route>,
    address: SocketAddr,
    record: &mut Record,
) -> Result<UpgradeReply, Problem> {
    record.tries = 1;
    let (timeouts, metrics, span) = (&shared.settings.timeouts, &shared.metrics, &record.trace.span);
    let mut upstream = Upstream::connect(address, timeouts.connect, metrics, span).await?;
    let first_byte = timeouts.first_byte;
    let failed = |failure: Failure| failure.report(span, address, metrics);
    let request = Request::from_parts(head, RequestBody::Empty);
    let response = upstream.ask(request, first_byte, || 0).await.map_err(failed)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        upstream.once_only();
        return Ok(UpgradeReply::Declined(response, upstream));
    }
    let switched_to = response.headers().get(UPGRADE);
    if !switched_to.is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(protocol.as_bytes())) {
        return Err(Problem::WrongProtocol);
    }
    let mut headers = response.into_parts().0.headers;
    clean_response(&mut headers);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
    let (socket, early) = upstream.into_tunnel(first_byte).await.map_err(failed)?;
    let machine = End { socket, early };
    Ok(UpgradeReply::Granted(Box::new(GrantedUpgrade { route, on_upgrade, headers, machine })))
}

impl GrantedUpgrade {
    /// Answers 101 and leaves a task behind that joins both ends.
    pub(super) fn begin(
        mut self: Box<Self>,
        shared: Arc<Shared>,
        line: Arc<Line>,
        mut record: Record,
    ) -> Response<AnswerBody> {
        record.status = StatusCode::SWITCHING_PROTOCOLS.as_u16();
        let mut response = Response::new(AnswerBody::Empty);
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = std::mem::take(&mut self.headers);
        let tasks = shared.tasks.clone();
        tasks.spawn(self.run(shared, line, record));
        response
    }

    /// Joins both ends until the tunnel is over.
    async fn run(self: Box<Self>, shared: Arc<Shared>, line: Arc<Line>, mut record: Record) {
        let timeouts = &shared.settings.timeouts;
        let entry = shared.tunnels.enter(self.route, &shared);
        let client = match timeout(timeouts.head_read, self.on_upgrade).await {
            Ok(Ok(upgraded)) => Ok(take_apart(upgraded)),
            Ok(Err(error)) => Err(NoClient::Gone(error)),
            Err(_) => Err(NoClient::TooSlow),
        };
        match client {
            Ok(client) => {
                let moved = flow::Moved::default();
                record.outcome = tokio::select! {
                    outcome = flow::join(client, self.machine, timeouts.tunnel_idle, &moved) => outcome,
                    () = entry.cut() => Outcome::Cut,
                };
                (record.bytes_in, record.bytes_out) = (moved.client_bytes(), moved.machine_bytes());
            }
            Err(error) => tracing::debug!(
                parent: &record.trace.span, error = &error as &dyn std::error::Error, "a tunnel did not begin"
            ),
        }
        // The place of the connection is given back only now.
        drop(line);
    }
}

/// Why the client's end could not be had.
#[derive(Debug, Error)]
enum NoClient {
    #[error("the client went before the switch")]
    Gone(#[source] hyper::Error),
    #[error("the switch was not finished in time")]
    TooSlow,
}

/// The client's socket, with what had been read from it already.
fn take_apart(upgraded: Upgraded) -> End {
    let parts = upgraded.downcast::<TokioIo<Guard>>().expect("every client connection is made of a guard");
    let (socket, held) = parts.io.into_inner().into_parts();
    let early = if parts.read_buf.is_empty() { held } else { joined(&parts.read_buf, &held) };
    End { socket, early }
}

fn joined(first: &[u8], second: &[u8]) -> Bytes {
    let mut both = BytesMut::with_capacity(first.len() + second.len());
    both.extend_from_slice(first);
    both.extend_from_slice(second);
    both.freeze()
}
