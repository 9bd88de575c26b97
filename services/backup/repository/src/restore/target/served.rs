//! An image that `qemu-nbd` writes for us.
//!
//! Worker threads submit jobs and wait; one async task runs them, many at a time. When the restore is dropped the task
//! ends, and every waiting thread gets an error.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use super::Target;
use crate::restore::ImageError;
use crate::source::qemu::Server;
use crate::source::{DiskSource, ExtentKind, NbdSource, SourceError};

/// As many as the connection has in flight; more would only wait there.
const JOBS_IN_FLIGHT: usize = 16;

type Job = Box<dyn FnOnce(Arc<NbdSource>) -> BoxFuture<'static, ()> + Send>;

/// The image, its server, and the task that runs the jobs.
pub(in crate::restore) struct ServedImage {
    pump: AbortOnDropHandle<()>,
    server: Server,
    path: PathBuf,
}

/// The target that worker threads use.
pub(in crate::restore) struct ServedTarget {
    jobs: mpsc::Sender<Job>,
    path: PathBuf,
}

impl ServedImage {
    pub(in crate::restore) fn begin(
        path: &Path,
        server: Server,
        nbd: NbdSource,
    ) -> (ServedImage, Arc<ServedTarget>) {
        let (jobs, mut todo) = mpsc::channel::<Job>(JOBS_IN_FLIGHT);
        let nbd = Arc::new(nbd);
        let pump = tokio::spawn(async move {
            let jobs = futures::stream::poll_fn(|context| todo.poll_recv(context));
            jobs.for_each_concurrent(JOBS_IN_FLIGHT, |job| job(Arc::clone(&nbd))).await;
        });
        let path = path.to_owned();
        let target = Arc::new(ServedTarget { jobs, path: path.clone() });
        (ServedImage { pump: AbortOnDropHandle::new(pump), server, path }, target)
    }

    /// Closes the connection when all was written and synced, and waits until the server has closed the image.
    pub(in crate::restore) async fn finish(self) -> Result<(), ImageError> {
        self.pump.abort();
        // It ends by being aborted, and drops the connection.
        let _ = self.pump.await;
        self.server.end().await.map_err(|source| ImageError::QemuWrite { path: self.path, source })
    }

    /// The error with the server's stderr, where it has ended.
    pub(in crate::restore) async fn why(mut self, error: ImageError) -> ImageError {
        match error {
            ImageError::QemuWrite { path, source } => {
                ImageError::QemuWrite { path, source: self.server.why("write", source).await }
            }
            other => other,
        }
    }
}

impl ServedTarget {
    fn submit<T: Send + 'static>(
        &self,
        work: impl FnOnce(Arc<NbdSource>) -> BoxFuture<'static, Result<T, SourceError>> + Send + 'static,
    ) -> Result<T, ImageError> {
        let (done, outcome) = oneshot::channel();
        let job: Job = Box::new(move |nbd| {
            work(nbd)
                .map(|outcome| {
                    // The submitting thread waits for the outcome.
                    let _ = done.send(outcome);
                })
                .boxed()
        });
        let stopped = || ImageError::Stopped { path: self.path.clone() };
        self.jobs.blocking_send(job).map_err(|_| stopped())?;
        let answered = outcome.blocking_recv().map_err(|_| stopped())?;
        answered.map_err(|source| ImageError::QemuWrite { path: self.path.clone(), source })
    }
}

impl Target for ServedTarget {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), ImageError> {
        let length = into.len();
        let bytes = self.submit(move |nbd| async move { nbd.read_at(offset, length).await }.boxed())?;
        into.copy_from_slice(&bytes);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), ImageError> {
        let bytes = Bytes::copy_from_slice(bytes);
        self.submit(move |nbd| async move { nbd.write_at(offset, bytes).await }.boxed())
    }

    fn zero(&self, range: Range<u64>) -> Result<(), ImageError> {
        self.submit(move |nbd| async move { nbd.zero(range).await }.boxed())
    }

    fn next_data(&self, range: Range<u64>) -> Result<u64, ImageError> {
        let end = range.end;
        let asked = range.clone();
        let extents = self.submit(move |nbd| async move { nbd.extents(asked).await }.boxed())?;
        let zeros = extents.iter().take_while(|extent| extent.kind == ExtentKind::Zero);
        Ok((range.start + zeros.map(|extent| extent.length).sum::<u64>()).min(end))
    }

    fn sync(&self) -> Result<(), ImageError> {
        self.submit(|nbd| async move { nbd.flush().await }.boxed())
    }
}
