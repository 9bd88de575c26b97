//! The first bytes of a connection: HTTP/1, or HTTP/2 by a client that knows us.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;

use tokio_util::io::poll_read_buf;

use super::{Guard, READ_BYTES};

/// What an HTTP/2 client says first (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::front) enum Protocol {
    Http1,
    Http2,
}

impl Guard {
    /// Reads until it is clear what the client speaks; `None` if it ends before. The caller sets the deadline.
    pub(in crate::front) async fn greet(&mut self) -> io::Result<Option<Protocol>> {
        loop {
            let known = self.held.len().min(PREFACE.len());
            if self.held[..known] != PREFACE[..known] {
                self.unjudged = true;
                return Ok(Some(Protocol::Http1));
            }
            if known == PREFACE.len() {
                self.framing.tunnel();
                self.unjudged = true;
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
