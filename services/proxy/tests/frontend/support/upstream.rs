//! Upstreams: a small hyper server that records its requests, and raw listeners that send anything.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http::request::Parts;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::Body;

/// An upstream that serves HTTP/1.1.
pub(crate) struct TestUpstream {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Parts>>>,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl TestUpstream {
    /// Responds to every request with the result of `respond`.
    pub(crate) async fn start<F>(respond: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let (respond, recorded, counted) = (Arc::new(respond), seen.clone(), connections.clone());
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let (respond, recorded) = (respond.clone(), recorded.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (head, body) = request.into_parts();
                    let mut record = Request::new(()).into_parts().0;
                    record.method = head.method.clone();
                    record.uri = head.uri.clone();
                    record.headers = head.headers.clone();
                    recorded.lock().expect("never poisoned").push(record);
                    let respond = respond(Request::from_parts(head, body));
                    async move { Ok::<_, std::convert::Infallible>(respond.await) }
                });
                let serving = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(socket), service)
                    .with_upgrades();
                tokio::spawn(serving);
            }
        });
        Self { address, seen, connections, task }
    }

    /// The heads of the requests it received.
    pub(crate) fn seen(&self) -> Vec<Parts> {
        self.seen.lock().expect("never poisoned").clone()
    }

    /// The head of the last request.
    pub(crate) fn last(&self) -> Parts {
        self.seen().pop().expect("it received a request")
    }

    /// How many connections it has accepted.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for TestUpstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An upstream that calls `serve` for each connection; the number counts them from 0.
pub(crate) async fn raw_upstream<F>(serve: impl Fn(usize, TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        for number in 0.. {
            let Ok((socket, _)) = listener.accept().await else {
                return;
            };
            tokio::spawn(serve(number, socket));
        }
    });
    address
}
