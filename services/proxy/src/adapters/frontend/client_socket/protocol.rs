//! Tells HTTP/1 from HTTP/2 with prior knowledge by the first bytes of a connection.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;

use tokio_util::io::poll_read_buf;

use super::{ClientSocket, READ_BYTES};

/// The connection preface of HTTP/2 (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The client's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::adapters::frontend) enum Protocol {
    Http1,
    Http2,
}

impl ClientSocket {
    /// Reads until the protocol is known; `None` if the stream ends before. The caller has the timeout.
    pub(in crate::adapters::frontend) async fn protocol(&mut self) -> io::Result<Option<Protocol>> {
        loop {
            let known = self.held.len().min(PREFACE.len());
            if self.held[..known] != PREFACE[..known] {
                self.unchecked = true;
                return Ok(Some(Protocol::Http1));
            }
            if known == PREFACE.len() {
                self.framing.tunnel();
                self.unchecked = true;
                return Ok(Some(Protocol::Http2));
            }
            self.held.reserve(READ_BYTES);
            let count = poll_fn(|cx| match poll_read_buf(Pin::new(&mut self.socket), cx, &mut self.held) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(read) => Poll::Ready(read),
            })
            .await?;
            if count == 0 {
                return Ok(None);
            }
        }
    }
}
