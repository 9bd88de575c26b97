//! A proxy between a client and an S3 server that does to some requests what networks and servers do to them.
//!
//! ```text
//!   client ── one request a connection ──> plan(request) ── no fault ──> server
//!                                               └── a fault: refused, lost, cut off, slow, carried out without a response
//! ```
//!
//! It listens on the loopback interface only, and ends when it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Larger requests do not come from this crate's tests.
const REQUEST_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What a slow answer brings at a time, and how often.
const DRIP_BYTES: usize = 16;
const DRIP_EVERY: Duration = Duration::from_millis(50);
/// How long after its client gave up a late request arrives: after the check whether it did, before the next attempt.
const LATE_BY: Duration = Duration::from_millis(50);

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The server does not get it; this is the response: a status line, and an S3 error code.
    Answer(&'static str, &'static str),
    /// It is accepted and never answered, and the server does not get it.
    Hang,
    /// It is never answered, and the server hears of it when the client has given up.
    ArriveLate,
    /// The connection is reset in the middle of the request.
    ResetInRequest,
    /// The server does what was asked, and the connection is reset before its answer.
    LoseAnswer,
    /// The connection is reset in the middle of the answer.
    ResetInAnswer,
    /// The answer is half as long as it should be, and says that this is all.
    Truncate,
    /// The answer comes a few bytes at a time.
    Drip,
}

/// What is known of a request when its fault is chosen.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Whether it writes only where nothing is (`If-None-Match: *`).
    pub(crate) is_create: bool,
    /// How many came before it.
    pub(crate) number: usize,
}

pub(crate) type Plan = Arc<dyn Fn(&Request) -> Option<Fault> + Send + Sync>;

pub(crate) struct Proxy {
    port: u16,
    requests: Arc<AtomicUsize>,
    _serving: tokio_util::task::AbortOnDropHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(server_port: u16, plan: Plan) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&requests);
        let serving = tokio::spawn(async move {
            // They end with the proxy.
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (plan, count) = (Arc::clone(&plan), Arc::clone(&count));
                // Either side may have gone; that is what this is for.
                connections.spawn(async move { serve(client, server_port, &plan, &count).await.ok() });
                while connections.try_join_next().is_some() {}
            }
        });
        Proxy { port, requests, _serving: tokio_util::task::AbortOnDropHandle::new(serving) }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// An HTTP message: its first line and headers with the empty line, and what came of its body.
struct Message {
    head: String,
    body: Vec<u8>,
}

impl Message {
    /// Reads a head; `None` when the other side has nothing more to say.
    async fn head(stream: &mut TcpStream) -> std::io::Result<Option<Message>> {
        let mut bytes = Vec::new();
        let head_bytes = loop {
            if let Some(at) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(None);
            }
        };
        let body = bytes.split_off(head_bytes);
        Ok(Some(Message { head: String::from_utf8_lossy(&bytes).into_owned(), body }))
    }

    fn body_bytes(&self) -> usize {
        let length = header(&self.head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        assert!(length <= REQUEST_BYTES_MAX, "{}", self.head);
        length
    }

    /// Reads on until so much of the body is there, or there is no more.
    async fn read_body(&mut self, stream: &mut TcpStream, bytes: usize) -> std::io::Result<()> {
        while self.body.len() < bytes && stream.read_buf(&mut self.body).await? > 0 {}
        Ok(())
    }

    /// The same head, and the connection ends with this message.
    fn last(&self) -> String {
        let mut lines: Vec<_> = self.head.trim_end().split("\r\n").collect();
        lines.retain(|line| !line.to_ascii_lowercase().starts_with("connection:"));
        lines.join("\r\n") + "\r\nConnection: close\r\n\r\n"
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.split("\r\n")
        .filter_map(|line| line.split_once(':'))
        .find_map(|(found, value)| found.eq_ignore_ascii_case(name).then_some(value.trim()))
}

async fn serve(
    mut client: TcpStream,
    server_port: u16,
    plan: &Plan,
    count: &AtomicUsize,
) -> std::io::Result<()> {
    let Some(mut request) = Message::head(&mut client).await? else {
        return Ok(());
    };
    let mut words = request.head.split(' ');
    let method = words.next().unwrap_or_default();
    let is_create = header(&request.head, "if-none-match") == Some("*");
    let number = count.fetch_add(1, Ordering::SeqCst);
    let fault = plan(&Request { method: method.into(), is_create, number });
    let body_bytes = request.body_bytes();
    if fault == Some(Fault::ResetInRequest) {
        request.read_body(&mut client, body_bytes / 2).await?;
        return reset(&client);
    }
    request.read_body(&mut client, body_bytes).await?;
    match fault {
        Some(Fault::Answer(status, code)) => {
            let body = format!("<Error><Code>{code}</Code></Error>");
            let head =
                format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            return client.write_all((head + &body).as_bytes()).await;
        }
        Some(Fault::Hang) => return gone(&mut client).await,
        Some(Fault::ArriveLate) => {
            gone(&mut client).await.ok();
            tokio::time::sleep(LATE_BY).await;
        }
        _ => {}
    }
    let mut server = TcpStream::connect(("127.0.0.1", server_port)).await?;
    server.write_all(request.last().as_bytes()).await?;
    server.write_all(&request.body).await?;
    let Some(mut answer) = Message::head(&mut server).await? else {
        return Ok(());
    };
    answer.read_body(&mut server, usize::MAX).await?;
    let (head, body) = (answer.last(), answer.body);
    match fault {
        Some(Fault::LoseAnswer) => reset(&client),
        Some(Fault::ResetInAnswer) => {
            client.write_all(head.as_bytes()).await?;
            client.write_all(&body[..body.len() / 2]).await?;
            client.flush().await?;
            reset(&client)
        }
        Some(Fault::Truncate) => {
            let half = body.len() / 2;
            let of_whole = format!("Content-Length: {}", body.len());
            let head = head.replace(&of_whole, &format!("Content-Length: {half}"));
            client.write_all(head.as_bytes()).await?;
            client.write_all(&body[..half]).await
        }
        Some(Fault::Drip) => {
            for drop in [head.as_bytes(), &body].concat().chunks(DRIP_BYTES) {
                client.write_all(drop).await?;
                tokio::time::sleep(DRIP_EVERY).await;
            }
            Ok(())
        }
        _ => {
            client.write_all(head.as_bytes()).await?;
            client.write_all(&body).await?;
            client.shutdown().await
        }
    }
}

/// Waits until the client has had enough.
async fn gone(client: &mut TcpStream) -> std::io::Result<()> {
    let mut more = [0; 64];
    while client.read(&mut more).await? > 0 {}
    Ok(())
}

/// Ends a connection as a broken network does.
fn reset(stream: &TcpStream) -> std::io::Result<()> {
    SockRef::from(stream).set_linger(Some(Duration::ZERO))
}
