//! One stream for several readers.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use crate::backup::StreamSource;
use crate::pipe::Checked;

/// Bytes buffered for each reader.
const PIPE_BYTES: usize = 1024 * 1024;
const READ_BYTES: usize = 256 * 1024;

/// Splits a stream into several with the same bytes. The slowest sets the pace; one that is dropped is not waited for.
pub(super) fn split(mut source: StreamSource, readers: usize) -> Vec<StreamSource> {
    let (mut writers, mut ends) = (Vec::new(), Vec::new());
    for _ in 0..readers {
        let (writer, reader) = tokio::io::duplex(PIPE_BYTES);
        let (done, outcome) = oneshot::channel::<Result<(), Arc<io::Error>>>();
        writers.push(Some((writer, done)));
        ends.push(Checked::new(reader, outcome));
    }
    let copying = tokio::spawn(async move {
        let mut buffer = vec![0; READ_BYTES];
        let ended = loop {
            match source.read(&mut buffer).await {
                Ok(0) => break Ok(()),
                Ok(length) => {
                    for slot in &mut writers {
                        if let Some((writer, _)) = slot
                            && writer.write_all(&buffer[..length]).await.is_err()
                        {
                            *slot = None;
                        }
                    }
                    if writers.iter().all(Option::is_none) {
                        return;
                    }
                }
                Err(error) => break Err(Arc::new(error)),
            }
        };
        for (writer, done) in writers.into_iter().flatten() {
            // A reader that is gone has given up by itself.
            let _ = done.send(ended.clone());
            drop(writer);
        }
    });
    let copying = Arc::new(AbortOnDropHandle::new(copying));
    ends.into_iter()
        .map(|end| Box::new(Held { end, _copying: Arc::clone(&copying) }) as StreamSource)
        .collect()
}

/// A stream that ends the copying when the last of them is dropped.
struct Held {
    end: Checked<Arc<io::Error>>,
    _copying: Arc<AbortOnDropHandle<()>>,
}

impl tokio::io::AsyncRead for Held {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.end).poll_read(context, buffer)
    }
}
