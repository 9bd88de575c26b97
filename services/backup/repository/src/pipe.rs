//! The reading end of a pipe that reports a broken writer as an error, not as the end of the stream.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, DuplexStream, ReadBuf};
use tokio::sync::oneshot;

/// How the writer ended.
type Outcome<E> = oneshot::Receiver<Result<(), E>>;

pub(crate) struct Checked<E> {
    reader: DuplexStream,
    outcome: Option<Outcome<E>>,
}

impl<E> Checked<E> {
    pub(crate) fn new(reader: DuplexStream, outcome: Outcome<E>) -> Checked<E> {
        Checked { reader, outcome: Some(outcome) }
    }
}

impl<E: Error + Send + Sync + 'static> AsyncRead for Checked<E> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.reader).poll_read(context, buffer))?;
        if buffer.filled().len() > before || buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        // The writer is gone: did it write everything?
        let Some(outcome) = &mut self.outcome else { return Poll::Ready(Ok(())) };
        let ended = ready!(Pin::new(outcome).poll(context));
        self.outcome = None;
        Poll::Ready(match ended {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(io::Error::other(error)),
            Err(_) => Err(io::Error::other("the writer of the stream ended without an outcome")),
        })
    }
}
