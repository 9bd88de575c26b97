//! A client without manners: it sends the bytes it is given, and reads answers as they are.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::soon;

/// A raw connection.
pub(crate) struct Wire {
    pub(crate) socket: TcpStream,
    read: Vec<u8>,
}

/// An answer with a body of known length.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}:");
        self.head
            .lines()
            .find(|line| line.to_ascii_lowercase().starts_with(&prefix))
            .map(|line| line[prefix.len()..].trim())
    }
}

impl Wire {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.expect("somebody listens"))
    }

    pub(crate) fn over(socket: TcpStream) -> Self {
        Self { socket, read: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon("the bytes are taken", self.socket.write_all(bytes.as_ref())).await.expect("an open connection");
    }

    /// A GET without ado.
    pub(crate) async fn get(&mut self, host: &str, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        self.answer().await
    }

    /// The next head, up to and with its empty line.
    pub(crate) async fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head = self.read.drain(..end + 4).collect();
                return String::from_utf8(head).expect("text");
            }
            assert!(self.more().await > 0, "the connection ended within a head: {:?}", self.text());
        }
    }

    /// The next answer, with the body that its Content-Length promises.
    pub(crate) async fn answer(&mut self) -> Answer {
        let head = self.head().await;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
        let mut answer = Answer { status, head, body: String::new() };
        let length = answer.field("content-length").map_or(0, |length| length.parse().expect("a number"));
        answer.body = String::from_utf8(self.bytes(length).await).expect("text");
        answer
    }

    /// So many bytes.
    pub(crate) async fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count {
            assert!(self.more().await > 0, "the connection ended early: {:?}", self.text());
        }
        self.read.drain(..count).collect()
    }

    /// Everything until the other side ends, however it ends.
    pub(crate) async fn rest(&mut self) -> String {
        while self.more().await > 0 {}
        let text = self.text();
        self.read.clear();
        text
    }

    /// Whether the other side ends without another byte.
    pub(crate) async fn ends(&mut self) -> bool {
        self.rest().await.is_empty()
    }

    async fn more(&mut self) -> usize {
        soon("more bytes", self.socket.read_buf(&mut self.read)).await.unwrap_or(0)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.read).into_owned()
    }
}
