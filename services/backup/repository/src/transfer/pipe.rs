//! The reading end of a pipe that does not take a broken writer for the end of the stream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, DuplexStream, ReadBuf};
use tokio::sync::oneshot;

use crate::restore::RestoreError;

type Outcome = oneshot::Receiver<Result<(), RestoreError>>;

pub(super) struct Checked {
    reader: DuplexStream,
    outcome: Option<Outcome>,
}

impl Checked {
    pub(super) fn new(reader: DuplexStream, outcome: Outcome) -> Checked {
        Checked { reader, outcome: Some(outcome) }
    }
}

impl AsyncRead for Checked {
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
            Err(_) => Err(io::Error::other("the reading of the stream ended without a word")),
        })
    }
}
