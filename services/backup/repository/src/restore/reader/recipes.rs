//! The recipe of a disk, fetched piece by piece as it is needed.

use std::ops::Range;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};

use super::loads::LoadingCache;
use super::{WindowStream, fresh};
use crate::format::recipe::{DiskRecipe, LEAVES_PER_PAGE, Piece};
use crate::ids::BlobId;
use crate::repository::Repository;
use crate::restore::{ReadError, fetch};

/// Leaves are fetched this many at a time: they are neighbours, and one takes 2 KiB.
const WINDOW_SEGMENTS: u64 = 32;
/// Windows fetched at one time by a walk over many.
const WINDOWS_IN_FLIGHT: usize = 4;

type Page = Arc<Vec<Option<BlobId>>>;
/// The pieces of some segments; a segment without a leaf is one hole.
type Window = Arc<Vec<Vec<Piece>>>;

pub(super) struct RecipeCache {
    repository: Repository,
    disk: Arc<DiskRecipe>,
    pages: Arc<LoadingCache<u64, Page>>,
    windows: Arc<LoadingCache<u64, Window>>,
}

impl RecipeCache {
    pub(super) fn new(repository: Repository, disk: DiskRecipe, bytes_max: usize) -> RecipeCache {
        RecipeCache {
            repository,
            disk: Arc::new(disk),
            pages: LoadingCache::new(bytes_max / 2, |page: &Page| page.len() * size_of::<Option<BlobId>>()),
            windows: LoadingCache::new(bytes_max / 2, |window: &Window| {
                window.iter().map(|pieces| size_of::<Vec<Piece>>() + pieces.len() * size_of::<Piece>()).sum()
            }),
        }
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.disk.size_bytes
    }

    /// The pieces that touch `range`, each with its place on the disk, in order, some at a time.
    pub(super) fn pieces(&self, range: Range<u64>) -> impl WindowStream + '_ {
        let segment_bytes = u64::from(self.disk.segment_bytes);
        let segments = range.start / segment_bytes..range.end.div_ceil(segment_bytes);
        let windows = segments.start / WINDOW_SEGMENTS..segments.end.div_ceil(WINDOW_SEGMENTS);
        futures::stream::iter(windows)
            .map(move |window| async move { Ok((window, self.window(window).await?)) })
            .buffered(WINDOWS_IN_FLIGHT)
            .map_ok(move |(window, found)| {
                let first = window * WINDOW_SEGMENTS;
                let mut touched = Vec::new();
                for (segment, pieces) in (first..).zip(found.iter()) {
                    if !segments.contains(&segment) {
                        continue;
                    }
                    let mut at = segment * segment_bytes;
                    for piece in pieces {
                        let end = at + u64::from(piece.bytes());
                        if end > range.start && at < range.end {
                            touched.push((at, *piece));
                        }
                        at = end;
                    }
                }
                touched
            })
    }

    async fn window(&self, window: u64) -> Result<Window, Arc<ReadError>> {
        let first = window * WINDOW_SEGMENTS;
        let page = first / LEAVES_PER_PAGE as u64;
        if self.disk.pages[page as usize].is_none() {
            return Ok(Arc::new(self.holes(first).collect()));
        }
        let leaves = self.page(page).await?;
        let (repository, disk) = (self.repository.clone(), Arc::clone(&self.disk));
        let mut segments: Vec<_> = self.holes(first).collect();
        let claim = self.windows.claim([window], |_| async move {
            let at = (first % LEAVES_PER_PAGE as u64) as usize;
            let wanted = &leaves[at..at + segments.len()];
            let found =
                fresh(&repository, || fetch::leaves(&repository.shared, &disk, first, wanted)).await?;
            for (range, pieces) in found {
                let index = range.start / u64::from(disk.segment_bytes) - first;
                segments[index as usize] = pieces;
            }
            Ok(vec![(window, Arc::new(segments))])
        });
        Ok(claim.all().await?.remove(&window).expect("a window was claimed and came"))
    }

    async fn page(&self, page: u64) -> Result<Page, Arc<ReadError>> {
        let (repository, disk) = (self.repository.clone(), Arc::clone(&self.disk));
        let claim = self.pages.claim([page], |_| async move {
            let leaves = fresh(&repository, || fetch::page(&repository.shared, &disk, page)).await?;
            Ok(vec![(page, Arc::new(leaves))])
        });
        Ok(claim.all().await?.remove(&page).expect("a page was claimed and came"))
    }

    /// The segments of a window as if all were holes.
    fn holes(&self, first: u64) -> impl Iterator<Item = Vec<Piece>> {
        let last = (first + WINDOW_SEGMENTS).min(self.disk.segments());
        (first..last).map(|segment| {
            let range = self.disk.segment(segment);
            vec![Piece::Hole { bytes: (range.end - range.start) as u32 }]
        })
    }
}
