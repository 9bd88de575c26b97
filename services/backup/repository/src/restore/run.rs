//! Writing one disk to a target, page by page.
//!
//! ```text
//!   page n+1   recipe ──> compare each segment: kept, zeroed, wanted        while
//!   page n     wanted chunks by pack ──ranges in flight──> worker threads: decrypt, check, write at every position
//! ```

use std::ops::Range;
use std::sync::{Arc, Mutex};

use futures::{FutureExt, StreamExt, TryStreamExt};
use tokio::task::spawn_blocking;

use super::compare::{SegmentDiff, TargetContent, compare, first_difference};
use super::plan::{self, BlobPositions, PackRangeRead};
use super::request::RestoreReport;
use super::target::Target;
use super::{ImageError, ReadError, RestoreError, fetch};
use crate::format::recipe::{DiskRecipe, LEAVES_PER_PAGE, Piece};
use crate::progress::{Progress, raise};
use crate::shared::Shared;

/// A disk on its way to a target.
pub(super) struct Run {
    shared: Arc<Shared>,
    disk: DiskRecipe,
    target: Arc<dyn Target>,
    progress: Arc<Progress>,
    report: Arc<Mutex<RestoreReport>>,
}

impl Run {
    pub(super) fn new(
        shared: &Arc<Shared>,
        disk: DiskRecipe,
        target: Arc<dyn Target>,
        progress: &Arc<Progress>,
    ) -> Run {
        let (shared, progress) = (Arc::clone(shared), Arc::clone(progress));
        Run { shared, disk, target, progress, report: Arc::default() }
    }

    /// Writes all that the target lacks and puts it on stable storage.
    pub(super) async fn write(&self, before: TargetContent) -> Result<RestoreReport, RestoreError> {
        let pages = self.disk.pages.len() as u64;
        let mut next = match pages {
            0 => Vec::new(),
            _ => self.plan(0, before).boxed().await?,
        };
        for page in 0..pages {
            let reads = std::mem::take(&mut next);
            let plan_next =
                async { if page + 1 < pages { self.plan(page + 1, before).await } else { Ok(Vec::new()) } };
            ((), next) = futures::future::try_join(self.fill(reads).boxed(), plan_next.boxed()).await?;
        }
        let target = Arc::clone(&self.target);
        blocking(move || target.sync()).await?;
        Ok(*self.report.lock().expect("no thread panics while counting"))
    }

    /// Compares the segments of one page and plans the reading of what they lack.
    async fn plan(&self, page: u64, before: TargetContent) -> Result<Vec<PackRangeRead>, RestoreError> {
        let segments = self.segments(page).await?;
        let mut diffs = futures::stream::iter(segments.into_iter().map(|(range, pieces)| {
            let (target, keys) = (Arc::clone(&self.target), self.shared.keys());
            blocking(move || compare(&*target, &keys, before, range.start, &pieces))
        }))
        .buffer_unordered(self.shared.settings.workers.get());
        let mut places = BlobPositions::default();
        while let Some(SegmentDiff { chunks_to_write: wanted, report, skipped_bytes }) =
            diffs.try_next().await?
        {
            for (asked, at) in wanted {
                places.entry(asked).or_default().push(at);
            }
            self.progress.done(report.kept_bytes + report.zeroed_bytes + skipped_bytes);
            let mut sum = self.report.lock().expect("no thread panics while counting");
            sum.kept_bytes += report.kept_bytes;
            sum.zeroed_bytes += report.zeroed_bytes;
        }
        Ok(plan::planned(&self.shared, places).await?)
    }

    /// The pieces of every segment of a page; a segment without a leaf is one hole.
    async fn segments(&self, page: u64) -> Result<Vec<(Range<u64>, Vec<Piece>)>, ReadError> {
        let first = page * LEAVES_PER_PAGE as u64;
        let leaves = fetch::page(&self.shared, &self.disk, page).await?;
        let mut segments = fetch::leaves(&self.shared, &self.disk, first, &leaves).await?;
        let holes = (first..).zip(&leaves).filter(|(_, leaf)| leaf.is_none());
        segments.extend(holes.map(|(index, _)| {
            let range = self.disk.segment(index);
            let bytes = (range.end - range.start) as u32;
            (range, vec![Piece::Hole { bytes }])
        }));
        Ok(segments)
    }

    async fn fill(&self, reads: Vec<PackRangeRead>) -> Result<(), RestoreError> {
        let in_flight = self.shared.settings.ranges_in_flight();
        futures::stream::iter(reads.into_iter().map(Ok))
            .try_for_each_concurrent(in_flight, |read| async move {
                let object = fetch::range(&self.shared, &read).await?;
                raise(&self.progress.read_bytes, object.len() as u64);
                let (shared, target) = (Arc::clone(&self.shared), Arc::clone(&self.target));
                let (progress, report) = (Arc::clone(&self.progress), Arc::clone(&self.report));
                spawn_blocking(move || {
                    fetch::open_all(&shared.keys(), &read, &object, |blob, content| {
                        for &at in &blob.positions {
                            target.write_at(at, &content)?;
                            progress.done(content.len() as u64);
                            report.lock().expect("no thread panics while counting").written_bytes +=
                                content.len() as u64;
                        }
                        Ok(())
                    })
                })
                .await
                .expect("decrypting chunks does not panic")
            })
            .await
    }

    /// Reads the whole target and compares it with the recipe; returns the first difference.
    pub(super) async fn read_back(&self) -> Result<Option<u64>, RestoreError> {
        for page in 0..self.disk.pages.len() as u64 {
            let segments = self.segments(page).await?;
            let different = futures::stream::iter(segments.into_iter().map(|(range, pieces)| {
                let (target, keys) = (Arc::clone(&self.target), self.shared.keys());
                blocking(move || first_difference(&*target, &keys, range.start, &pieces))
            }))
            .buffer_unordered(self.shared.settings.workers.get())
            .try_filter_map(|different| std::future::ready(Ok(different)));
            let first = std::pin::pin!(different).try_next().await?;
            if first.is_some() {
                return Ok(first);
            }
        }
        Ok(None)
    }
}

/// Runs a piece of work on a target off the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    spawn_blocking(job).await.expect("writing an image does not panic")
}
