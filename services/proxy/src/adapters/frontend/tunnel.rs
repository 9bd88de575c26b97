//! Upgraded connections: WebSocket, and other protocols that client and upstream agree on.
//!
//! ```text
//!   request, no body ──> upstream ──┬── 101 ──> the client's socket is taken from hyper, both ends are joined
//!                                   └── else ─> an ordinary response; the connection goes on with HTTP
//! ```
//!
//! Until the upstream has sent 101, `ClientSocket` holds back what the client sends after its request, so that one side
//! cannot take it for a request and the other for tunnel bytes. The connection to the upstream is new and never pooled.
//! A tunnel keeps the route that it began with. It ends when its ends close, when no byte moves for too long, some time
//! after its route was removed, or with the frontend.

mod relay;

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
use proxy_domain::headers::clean_response;
use thiserror::Error;
use tokio::time::timeout;

use super::access_log::{AccessRecord, ExchangeOutcome};
use super::client_socket::ClientSocket;
use super::connection_state::ConnectionState;
use super::error_page::ProxyError;
use super::request_body::RequestBody;
use super::response_body::ResponseBody;
use super::shared::FrontendShared;
use super::upstream::{UpstreamConnection, UpstreamError};
use relay::TunnelSide;

/// Takes hyper's handle of the client's connection out of a head.
pub(super) fn take_on_upgrade(head: &mut Parts) -> Option<OnUpgrade> {
    head.extensions.remove()
}

/// What an upstream replied to an upgrade request.
pub(super) enum UpgradeReply {
    /// 101.
    Granted(Box<GrantedUpgrade>),
    /// Any other response, over this connection.
    Declined(Response<Incoming>, Box<UpstreamConnection>),
}

/// Both ends of a tunnel that begins when the client has its 101.
#[derive(Debug)]
pub(super) struct GrantedUpgrade {
    route: Arc<Route>,
    on_upgrade: OnUpgrade,
    headers: HeaderMap,
    upstream: TunnelSide,
}

/// Asks an upstream to switch to `protocol`.
pub(super) async fn request_upgrade(
    shared: &FrontendShared,
    head: Parts,
    protocol: HeaderValue,
    on_upgrade: OnUpgrade,
    route: Arc<Route>,
    address: SocketAddr,
    record: &mut AccessRecord,
) -> Result<UpgradeReply, ProxyError> {
    record.attempts = 1;
    let (timeouts, metrics, span) = (&shared.settings.timeouts, &shared.metrics, &record.trace.span);
    let failed = |error: UpstreamError| error.report(span, address, metrics);
    let mut upstream = UpstreamConnection::connect(address, timeouts.connect, metrics, span).await?;
    let request = Request::from_parts(head, RequestBody::Empty);
    let response = upstream.send(request, timeouts.first_byte, || 0).await.map_err(failed)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        upstream.close_after_response();
        return Ok(UpgradeReply::Declined(response, upstream));
    }
    let switched_to = response.headers().get(UPGRADE);
    if !switched_to.is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(protocol.as_bytes())) {
        return Err(ProxyError::UpgradeProtocolMismatch);
    }
    let mut headers = response.into_parts().0.headers;
    clean_response(&mut headers);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
    let (socket, early) = upstream.into_socket(timeouts.first_byte).await.map_err(failed)?;
    let upstream = TunnelSide { socket, read_ahead: early };
    Ok(UpgradeReply::Granted(Box::new(GrantedUpgrade { route, on_upgrade, headers, upstream })))
}

impl GrantedUpgrade {
    /// Responds with 101 and spawns a task that joins both ends.
    pub(super) fn begin(
        mut self: Box<Self>,
        shared: Arc<FrontendShared>,
        connection: Arc<ConnectionState>,
        mut record: AccessRecord,
    ) -> Response<ResponseBody> {
        record.status = StatusCode::SWITCHING_PROTOCOLS.as_u16();
        let mut response = Response::new(ResponseBody::Empty);
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = std::mem::take(&mut self.headers);
        let tasks = shared.tasks.clone();
        tasks.spawn(self.run(shared, connection, record));
        response
    }

    /// Joins both ends until the tunnel ends.
    async fn run(
        self: Box<Self>,
        shared: Arc<FrontendShared>,
        connection: Arc<ConnectionState>,
        mut record: AccessRecord,
    ) {
        let timeouts = &shared.settings.timeouts;
        let tunnel = shared.tunnels.register(self.route);
        let client = match timeout(timeouts.head_read, self.on_upgrade).await {
            Ok(Ok(upgraded)) => Ok(client_end(upgraded)),
            Ok(Err(error)) => Err(UpgradeError::ClientClosed(error)),
            Err(_) => Err(UpgradeError::Timeout),
        };
        match client {
            Ok(client) => {
                let traffic = relay::TunnelTraffic::default();
                record.outcome = tokio::select! {
                    outcome = relay::join(client, self.upstream, timeouts.tunnel_idle, &traffic) => outcome,
                    () = tunnel.terminated() => ExchangeOutcome::TunnelTerminated,
                };
                (record.bytes_received, record.bytes_sent) =
                    (traffic.client_bytes(), traffic.upstream_bytes());
            }
            Err(error) => tracing::debug!(
                parent: &record.trace.span, error = &error as &dyn std::error::Error, "a tunnel did not begin"
            ),
        }
        // Returns the permit of the client connection, not earlier.
        drop(connection);
    }
}

/// Why the client's socket could not be taken from hyper.
#[derive(Debug, Error)]
enum UpgradeError {
    #[error("the client closed the connection before the switch")]
    ClientClosed(#[source] hyper::Error),
    #[error("the switch did not complete in time")]
    Timeout,
}

/// The client's socket, with what was already read from it.
fn client_end(upgraded: Upgraded) -> TunnelSide {
    let parts =
        upgraded.downcast::<TokioIo<ClientSocket>>().expect("every client connection is a ClientSocket");
    let (socket, held) = parts.io.into_inner().into_parts();
    let early = if parts.read_buf.is_empty() { held } else { concat(&parts.read_buf, &held) };
    TunnelSide { socket, read_ahead: early }
}

fn concat(first: &[u8], second: &[u8]) -> Bytes {
    let mut both = BytesMut::with_capacity(first.len() + second.len());
    both.extend_from_slice(first);
    both.extend_from_slice(second);
    both.freeze()
}
