//! The parts of a test: a frontend with routes, upstreams that respond, and clients that send given bytes.

mod raw;
mod upstream;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use contract::{DomainName, VmName};
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use proxy::adapters::frontend::{HttpFrontend, Settings};
use proxy::ports::Frontend;
use proxy_domain::{DomainClaim, RouteTable, UpstreamState, VmDownReason};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) use raw::RawConnection;
pub(crate) use upstream::{TestUpstream, raw_upstream};

/// How long one step of a test may take.
pub(crate) const STEP_TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) type Body = BoxBody<Bytes, std::io::Error>;

/// Waits for a future that must end within [`STEP_TIMEOUT`].
pub(crate) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(STEP_TIMEOUT, future).await.unwrap_or_else(|_| panic!("not within {STEP_TIMEOUT:?}: {what}"))
}

pub(crate) async fn frontend(settings: Settings) -> HttpFrontend {
    HttpFrontend::start(SocketAddr::from(([127, 0, 0, 1], 0)), settings).await.expect("a free port")
}

/// A frontend with a route from `web.example` to an upstream.
pub(crate) async fn frontend_to(settings: Settings, upstream: SocketAddr) -> HttpFrontend {
    let frontend = frontend(settings).await;
    set_routes(&frontend, [up("web", "web.example", upstream)]);
    frontend
}

pub(crate) fn up(vm: &str, domain: &str, upstream: SocketAddr) -> DomainClaim {
    claim(vm, domain, UpstreamState::Up(upstream))
}

pub(crate) fn down(vm: &str, domain: &str, reason: VmDownReason, seconds: u64) -> DomainClaim {
    claim(vm, domain, UpstreamState::Down { reason, retry_after: Duration::from_secs(seconds) })
}

fn claim(vm: &str, domain: &str, target: UpstreamState) -> DomainClaim {
    DomainClaim {
        vm: VmName::new(vm).expect("valid"),
        domains: vec![DomainName::new(domain).expect("valid")],
        target,
    }
}

/// Puts routes for the claims in force.
pub(crate) fn set_routes(frontend: &HttpFrontend, claims: impl IntoIterator<Item = DomainClaim>) {
    let (table, conflicts) = RouteTable::build(&frontend.table(), claims);
    assert_eq!(conflicts, []);
    frontend.swap(table);
}

pub(crate) fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed()
}

pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// A body sent through a channel, so that a test decides when each part is sent.
pub(crate) fn channel_body() -> (tokio::sync::mpsc::Sender<std::io::Result<Bytes>>, Body) {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(4);
    let stream = futures::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    let frames =
        futures::StreamExt::map(stream, |part: std::io::Result<Bytes>| part.map(http_body::Frame::data));
    (
        sender,
        BodyExt::boxed(http_body_util::StreamBody::new(FramesSync(std::sync::Mutex::new(Box::pin(frames))))),
    )
}

/// Makes a stream `Sync`, as boxed bodies want it; it is only ever polled by one task.
struct FramesSync<S>(std::sync::Mutex<std::pin::Pin<Box<S>>>);

impl<S: futures::Stream> futures::Stream for FramesSync<S> {
    type Item = S::Item;
    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<S::Item>> {
        self.get_mut().0.get_mut().expect("never poisoned").as_mut().poll_next(cx)
    }
}

/// An HTTP/1.1 client connection.
pub(crate) async fn http1(address: SocketAddr) -> hyper::client::conn::http1::SendRequest<Body> {
    let socket = TcpStream::connect(address).await.expect("the frontend listens");
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.expect("no bytes are needed");
    tokio::spawn(connection);
    sender
}

/// A client connection with HTTP/2 by prior knowledge.
pub(crate) async fn http2(address: SocketAddr) -> hyper::client::conn::http2::SendRequest<Body> {
    let socket = TcpStream::connect(address).await.expect("the frontend listens");
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket))
            .await
            .expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

/// One request on a new connection.
pub(crate) async fn get(address: SocketAddr, host: &str, path: &str) -> (Response<()>, String) {
    let request = Request::get(path).header("host", host).body(empty()).expect("valid");
    let response =
        in_time("a response", http1(address).await.send_request(request)).await.expect("a response");
    read(response).await
}

pub(crate) async fn read(response: Response<Incoming>) -> (Response<()>, String) {
    let (head, body) = response.into_parts();
    let body = in_time("the end of the body", body.collect()).await.expect("a whole body").to_bytes();
    (Response::from_parts(head, ()), String::from_utf8(body.to_vec()).expect("text"))
}
