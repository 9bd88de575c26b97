//! Machines: a tiny hyper server that notes what it is asked, and raw listeners that say anything.

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

/// A machine that serves HTTP/1.1.
pub(crate) struct Machine {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Parts>>>,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Machine {
    /// Answers every request with what `answer` makes of it.
    pub(crate) async fn start<F>(answer: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let (answer, noted, counted) = (Arc::new(answer), seen.clone(), connections.clone());
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let (answer, noted) = (answer.clone(), noted.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (head, body) = request.into_parts();
                    let mut note = Request::new(()).into_parts().0;
                    note.method = head.method.clone();
                    note.uri = head.uri.clone();
                    note.headers = head.headers.clone();
                    noted.lock().expect("never poisoned").push(note);
                    let answer = answer(Request::from_parts(head, body));
                    async move { Ok::<_, std::convert::Infallible>(answer.await) }
                });
                let serving = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(socket), service)
                    .with_upgrades();
                tokio::spawn(serving);
            }
        });
        Self { address, seen, connections, task }
    }

    /// The heads it was asked with.
    pub(crate) fn seen(&self) -> Vec<Parts> {
        self.seen.lock().expect("never poisoned").clone()
    }

    /// The head it was asked with last.
    pub(crate) fn last(&self) -> Parts {
        self.seen().pop().expect("it was asked")
    }

    /// How many connections it has accepted.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A machine that does with each connection what `serve` says; the number counts them from 0.
pub(crate) async fn raw_machine<F>(serve: impl Fn(usize, TcpStream) -> F + Send + 'static) -> SocketAddr
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
