//! A raw connection: sends given bytes, and reads what arrives.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::in_time;

/// A raw connection.
pub(crate) struct RawConnection {
    pub(crate) socket: TcpStream,
    read: Vec<u8>,
}

/// A response with a body of known length.
#[derive(Debug)]
pub(crate) struct RawResponse {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl RawResponse {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}:");
        self.head
            .lines()
            .find(|line| line.to_ascii_lowercase().starts_with(&prefix))
            .map(|line| line[prefix.len()..].trim())
    }
}

impl RawConnection {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.expect("the address listens"))
    }

    pub(crate) fn over(socket: TcpStream) -> Self {
        Self { socket, read: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        in_time("the bytes are sent", self.socket.write_all(bytes.as_ref()))
            .await
            .expect("an open connection");
    }

    /// Sends a minimal GET and reads its response.
    pub(crate) async fn get(&mut self, host: &str, path: &str) -> RawResponse {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        self.response().await
    }

    /// The next head, including its empty line.
    pub(crate) async fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head = self.read.drain(..end + 4).collect();
                return String::from_utf8(head).expect("text");
            }
            assert!(self.more().await > 0, "the connection ended within a head: {:?}", self.text());
        }
    }

    /// The next response, with the body that its Content-Length announces.
    pub(crate) async fn response(&mut self) -> RawResponse {
        let head = self.head().await;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
        let mut response = RawResponse { status, head, body: String::new() };
        let length = response.field("content-length").map_or(0, |length| length.parse().expect("a number"));
        response.body = String::from_utf8(self.bytes(length).await).expect("text");
        response
    }

    /// The next `count` bytes.
    pub(crate) async fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count {
            assert!(self.more().await > 0, "the connection ended early: {:?}", self.text());
        }
        self.read.drain(..count).collect()
    }

    /// Everything until the other side closes or resets the connection.
    pub(crate) async fn rest(&mut self) -> String {
        while self.more().await > 0 {}
        let text = self.text();
        self.read.clear();
        text
    }

    /// Whether the other side closes the connection without another byte.
    pub(crate) async fn ends(&mut self) -> bool {
        self.rest().await.is_empty()
    }

    async fn more(&mut self) -> usize {
        in_time("more bytes", self.socket.read_buf(&mut self.read)).await.unwrap_or(0)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.read).into_owned()
    }
}
