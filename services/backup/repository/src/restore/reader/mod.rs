//! A disk of a snapshot, read at random.
//!
//! Promises: a read returns the bytes that were backed up or an error; chunks that many readers want at once are fetched
//! once; the cache is bounded in bytes; an open disk survives a collection that moves its chunks.
//!
//! ```text
//!   read_at ──> recipe: page, 32 leaves (kept) ──> chunks: kept | loading | one load for all others
//!      │                                                                      by pack, neighbours in one range
//!      '── sequential? ──> the next range is loaded meanwhile, up to 8 MiB ahead
//! ```
//!
//! It serves NBD, mounts and file system readers alike: small random reads fetch what they touch and no more, sequential
//! ones find their data already loaded. It does not know who reads.

mod ahead;
mod loads;
mod lru;
mod recipes;

use std::ops::Range;
use std::sync::{Arc, LazyLock, Mutex};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{FutureExt, Stream, TryStreamExt};
use tokio::sync::Semaphore;
use tracing::{debug, instrument};

use self::ahead::Streams;
use self::loads::LoadingCache;
use self::recipes::RecipeCache;
use super::plan::{BlobPositions, BlobRef};
use super::{ReadError, RestoreError, fetch};
use crate::damage::Damage;
use crate::format::recipe::Piece;
use crate::format::snapshot::Snapshot;
use crate::repository::Repository;
use crate::source::{Change, DiskSource, Extent, ExtentKind, SourceError};

/// Recipes are a thousandth of the data, and every read needs them.
const RECIPES_ONE_PART_IN: usize = 4;
/// The largest load of a read-ahead, so that a reader that catches up waits for a part of it only.
const LOAD_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// How much memory one open disk may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReaderSettings {
    /// Bytes of decoded chunks and recipes that are kept, least recently used first to go.
    pub cache_bytes_max: usize,
    /// Bytes that are read ahead of a sequential reader; 0 reads nothing ahead.
    pub read_ahead_bytes_max: usize,
}

impl Default for ReaderSettings {
    /// 64 MiB, and 8 MiB ahead.
    fn default() -> ReaderSettings {
        ReaderSettings { cache_bytes_max: 64 * 1024 * 1024, read_ahead_bytes_max: 8 * 1024 * 1024 }
    }
}

/// Reads of holes up to this length copy nothing: they share one buffer of zeros.
const ZERO_BYTES: usize = 4 * 1024 * 1024;
static ZEROS: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(vec![0; ZERO_BYTES]));

/// A stream of the pieces of a recipe, window by window.
trait WindowStream: Stream<Item = Result<Vec<(u64, Piece)>, Arc<ReadError>>> + Send {}
impl<S: Stream<Item = Result<Vec<(u64, Piece)>, Arc<ReadError>>> + Send> WindowStream for S {}

/// An open disk of a snapshot. Cheap to clone; all clones share what was read.
#[derive(Clone)]
pub struct SnapshotDisk {
    inner: Arc<Inner>,
}

struct Inner {
    repository: Repository,
    name: String,
    recipes: RecipeCache,
    chunks: Arc<LoadingCache<BlobRef, Bytes>>,
    streams: Mutex<Streams>,
    /// Loads that fetch and decrypt at one time.
    slots: Arc<Semaphore>,
}

impl std::fmt::Debug for SnapshotDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SnapshotDisk({})", self.inner.name)
    }
}

impl Repository {
    /// Opens a disk of a snapshot for reading at random; see [`Repository::open_disk_with`].
    ///
    /// # Errors
    /// When the snapshot has no such disk or its recipe cannot be read.
    pub async fn open_disk(&self, snapshot: &Snapshot, name: &str) -> Result<SnapshotDisk, RestoreError> {
        self.open_disk_with(snapshot, name, ReaderSettings::default()).await
    }

    /// Opens a disk of a snapshot for reading at random within the given bounds.
    ///
    /// # Errors
    /// When the snapshot has no such disk or its recipe cannot be read.
    #[instrument(name = "repository.open_disk", skip_all, fields(snapshot = %snapshot.id, disk = name))]
    pub async fn open_disk_with(
        &self,
        snapshot: &Snapshot,
        name: &str,
        settings: ReaderSettings,
    ) -> Result<SnapshotDisk, RestoreError> {
        let record = super::disk_record(snapshot, name)?;
        // The snapshot may be younger than our index.
        self.refresh().await.map_err(ReadError::Index)?;
        let disk = fetch::disk(&self.shared, record).await?;
        let recipe_bytes = settings.cache_bytes_max / RECIPES_ONE_PART_IN;
        let chunk_bytes = settings.cache_bytes_max - recipe_bytes;
        // What is read ahead must still be there when it is wanted.
        let ahead = settings.read_ahead_bytes_max.min(chunk_bytes / 4);
        let inner = Inner {
            repository: self.clone(),
            name: name.to_owned(),
            recipes: RecipeCache::new(self.clone(), disk, recipe_bytes),
            chunks: LoadingCache::new(chunk_bytes, Bytes::len),
            streams: Mutex::new(Streams::new(ahead as u64)),
            slots: Arc::new(Semaphore::new(self.shared.settings.ranges_in_flight())),
        };
        Ok(SnapshotDisk { inner: Arc::new(inner) })
    }
}

#[async_trait]
impl DiskSource for SnapshotDisk {
    fn size_bytes(&self) -> u64 {
        self.inner.recipes.size_bytes()
    }

    async fn extents(&self, range: Range<u64>) -> Result<Vec<Extent>, SourceError> {
        self.inner.check(&range)?;
        self.inner.extents(range).await.map_err(|source| self.inner.failed(source))
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, SourceError> {
        let range = offset..offset.saturating_add(length as u64);
        self.inner.check(&range)?;
        let pieces = self.inner.pieces(range.clone()).await.map_err(|source| self.inner.failed(source))?;
        let wanted = self.inner.claim(chunks_of(&pieces));
        self.read_ahead(&range);
        let chunks = wanted.all().await.map_err(|source| self.inner.failed(source))?;
        Ok(assemble(&range, &pieces, &|id| &chunks[id]))
    }
}

impl SnapshotDisk {
    /// Begins to load what is likely to be wanted next, and waits for nothing.
    fn read_ahead(&self, read: &Range<u64>) {
        let inner = &self.inner;
        let noted = inner.streams.lock().expect("no thread panics while holding the streams").note(read);
        let Some(ahead) = noted.map(|range| range.start..range.end.min(inner.recipes.size_bytes())) else {
            return;
        };
        if ahead.is_empty() {
            return;
        }
        let inner = Arc::clone(inner);
        tokio::spawn(async move {
            match inner.pieces(ahead).await {
                Ok(pieces) => {
                    for group in in_groups(&pieces) {
                        inner.claim(chunks_of(group));
                    }
                }
                // A reader that needs it gets the error itself.
                Err(error) => debug!(%error, "could not read ahead"),
            }
        });
    }
}

/// Splits pieces into runs that are loaded together.
fn in_groups(pieces: &[(u64, Piece)]) -> impl Iterator<Item = &[(u64, Piece)]> {
    pieces.chunk_by(|(a, _), (b, _)| a / LOAD_BYTES_MAX == b / LOAD_BYTES_MAX)
}

/// The chunks among some pieces, each once.
fn chunks_of(pieces: &[(u64, Piece)]) -> Vec<BlobRef> {
    let mut seen = std::collections::HashSet::new();
    let chunks = pieces.iter().filter_map(|(_, piece)| match piece {
        Piece::Chunk { id, bytes } => Some(BlobRef::chunk(*id, *bytes)),
        Piece::Hole { .. } => None,
    });
    chunks.filter(|chunk| seen.insert(*chunk)).collect()
}

/// The bytes of `range`. A read within one chunk or of a hole copies nothing.
fn assemble<'a>(
    range: &Range<u64>,
    pieces: &[(u64, Piece)],
    content: &dyn Fn(&BlobRef) -> &'a Bytes,
) -> Bytes {
    let part = |at: u64, piece: &Piece| {
        let end = at + u64::from(piece.bytes());
        (range.start.max(at) - at) as usize..(range.end.min(end) - at) as usize
    };
    if let [(at, piece @ Piece::Chunk { id, bytes })] = pieces {
        return content(&BlobRef::chunk(*id, *bytes)).slice(part(*at, piece));
    }
    let length = (range.end - range.start) as usize;
    if length <= ZERO_BYTES && pieces.iter().all(|(_, piece)| matches!(piece, Piece::Hole { .. })) {
        return ZEROS.slice(..length);
    }
    let mut bytes = BytesMut::with_capacity(length);
    for (at, piece) in pieces {
        let part = part(*at, piece);
        match piece {
            Piece::Hole { .. } => bytes.resize(bytes.len() + part.len(), 0),
            Piece::Chunk { id, bytes: of_chunk } => {
                bytes.extend_from_slice(&content(&BlobRef::chunk(*id, *of_chunk))[part]);
            }
        }
    }
    bytes.freeze()
}

impl Inner {
    fn check(&self, range: &Range<u64>) -> Result<(), SourceError> {
        if range.start <= range.end && range.end <= self.recipes.size_bytes() {
            return Ok(());
        }
        let why = std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is not that long");
        Err(SourceError::Io { attempt: "read beyond the end of", what: self.name.clone(), source: why })
    }

    fn failed(&self, source: Arc<ReadError>) -> SourceError {
        SourceError::Other { what: format!("disk {} of the snapshot", self.name), source: Box::new(source) }
    }

    async fn pieces(&self, range: Range<u64>) -> Result<Vec<(u64, Piece)>, Arc<ReadError>> {
        // Boxed: unboxed, the compiler cannot tell callers that reading is `Send`.
        let windows: Vec<_> = self.recipes.pieces(range).try_collect().boxed().await?;
        Ok(windows.concat())
    }

    async fn extents(&self, range: Range<u64>) -> Result<Vec<Extent>, Arc<ReadError>> {
        let walk = async {
            let mut extents: Vec<Extent> = Vec::new();
            let mut windows = std::pin::pin!(self.recipes.pieces(range.clone()));
            while let Some(pieces) = windows.try_next().await? {
                for (at, piece) in pieces {
                    let end = (at + u64::from(piece.bytes())).min(range.end);
                    let length = end - at.max(range.start);
                    let kind = match piece {
                        Piece::Hole { .. } => ExtentKind::Zero,
                        Piece::Chunk { .. } => ExtentKind::Data,
                    };
                    match extents.last_mut() {
                        Some(last) if last.kind == kind => last.length += length,
                        _ => extents.push(Extent { length, kind, change: Change::Unknown }),
                    }
                }
            }
            Ok(extents)
        };
        walk.boxed().await
    }

    fn claim(&self, ids: Vec<BlobRef>) -> loads::CacheLookup<BlobRef, Bytes> {
        let (repository, slots) = (self.repository.clone(), Arc::clone(&self.slots));
        self.chunks.claim(ids, |missing| async move {
            let _slot = slots.acquire().await.expect("the semaphore is never closed");
            fresh(&repository, || chunks(&repository, &missing)).await
        })
    }
}

async fn chunks(repository: &Repository, ids: &[BlobRef]) -> Result<Vec<(BlobRef, Bytes)>, ReadError> {
    let places: BlobPositions = ids.iter().zip(0..).map(|(id, index)| (*id, vec![index])).collect();
    let found = fetch::many(&repository.shared, places).await?;
    let named = |(places, content): (Vec<u64>, Vec<u8>)| {
        let index = *places.first().expect("every chunk was asked for with its number");
        (ids[index as usize], Bytes::from(content))
    };
    Ok(found.into_iter().map(named).collect())
}

/// Reads, and once more with a fresh index when a pack has gone: a collection may have moved what it held.
async fn fresh<T, F>(repository: &Repository, read: impl Fn() -> F) -> Result<T, ReadError>
where
    F: Future<Output = Result<T, ReadError>>,
{
    match read().await {
        Err(
            ReadError::Damaged(Damage::BlobMissing { .. })
            | ReadError::DamagedPack { source: Damage::Missing { .. }, .. },
        ) => {
            repository.refresh().await?;
            read().await
        }
        outcome => outcome,
    }
}
