//! The parts of a test: a front with routes, machines that answer, and clients that say exactly what they are told.

mod machine;
mod wire;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use contract::{DomainName, VmName};
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use proxy::front::{Front, Settings};
use proxy_domain::{Claim, DownReason, RouteTable, Target};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) use machine::{Machine, raw_machine};
pub(crate) use wire::Wire;

/// What one step of a test may take before it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) type Body = BoxBody<Bytes, std::io::Error>;

/// Waits for what must come.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited {PATIENCE:?} in vain: {what}"))
}

pub(crate) async fn front(settings: Settings) -> Front {
    Front::start(SocketAddr::from(([127, 0, 0, 1], 0)), settings)
        .await
        .expect("a port of the system's choice")
}

/// A front that leads `web.example` to a machine.
pub(crate) async fn front_to(settings: Settings, machine: SocketAddr) -> Front {
    let front = front(settings).await;
    lead(&front, [up("web", "web.example", machine)]);
    front
}

pub(crate) fn up(owner: &str, domain: &str, machine: SocketAddr) -> Claim {
    claim(owner, domain, Target::Up(machine))
}

pub(crate) fn down(owner: &str, domain: &str, why: DownReason, seconds: u64) -> Claim {
    claim(owner, domain, Target::Down { why, retry_after: Duration::from_secs(seconds) })
}

fn claim(owner: &str, domain: &str, target: Target) -> Claim {
    Claim {
        owner: VmName::new(owner).expect("valid"),
        domains: vec![DomainName::new(domain).expect("valid")],
        target,
    }
}

/// Puts the claims in force.
pub(crate) fn lead(front: &Front, claims: impl IntoIterator<Item = Claim>) {
    let (table, conflicts) = RouteTable::build(&front.table(), claims);
    assert_eq!(conflicts, []);
    front.swap(table);
}

pub(crate) fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed()
}

pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// A body fed through a channel, so that a test decides when each piece comes.
pub(crate) fn fed() -> (tokio::sync::mpsc::Sender<std::io::Result<Bytes>>, Body) {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(4);
    let stream = futures::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    let frames =
        futures::StreamExt::map(stream, |piece: std::io::Result<Bytes>| piece.map(http_body::Frame::data));
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

/// A well-behaved HTTP/1.1 client connection.
pub(crate) async fn http1(address: SocketAddr) -> hyper::client::conn::http1::SendRequest<Body> {
    let socket = TcpStream::connect(address).await.expect("the front listens");
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.expect("no bytes are needed");
    tokio::spawn(connection);
    sender
}

/// A client that knows that the front speaks HTTP/2.
pub(crate) async fn http2(address: SocketAddr) -> hyper::client::conn::http2::SendRequest<Body> {
    let socket = TcpStream::connect(address).await.expect("the front listens");
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket))
            .await
            .expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

/// Asks once, on a connection of its own.
pub(crate) async fn get(address: SocketAddr, host: &str, path: &str) -> (Response<()>, String) {
    let request = Request::get(path).header("host", host).body(empty()).expect("valid");
    let response = soon("an answer", http1(address).await.send_request(request)).await.expect("an answer");
    read(response).await
}

pub(crate) async fn read(response: Response<Incoming>) -> (Response<()>, String) {
    let (head, body) = response.into_parts();
    let body = soon("the end of the body", body.collect()).await.expect("a whole body").to_bytes();
    (Response::from_parts(head, ()), String::from_utf8(body.to_vec()).expect("text"))
}
