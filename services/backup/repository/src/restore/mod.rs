//! Restore: a disk of a snapshot becomes an image again.
//!
//! Promises: every chunk is opened and hashed before it is written; the image appears under its name only when it
//! is whole and on stable storage; a path that exists is never touched.
//!
//! ```text
//!   snapshot ──> disk ──> page ──> leaves ──> chunks of 4 GiB of disk
//!                                               │ sorted by pack and offset, neighbours joined
//!                                               v
//!              ranges in flight ──> worker threads: open, check, write at every place that wants it
//! ```
//!
//! Holes stay holes. It does not know what the image is for.

pub(crate) mod fetch;
mod image;
pub(crate) mod plan;

use std::path::Path;
use std::sync::Arc;

use futures::TryStreamExt;
use tokio::task::spawn_blocking;
use tracing::instrument;

use crate::format::Damage;
use crate::format::blob::BlobId;
use crate::format::recipe::{Disk, LEAVES_PER_PAGE, Piece};
use crate::format::snapshot::Snapshot;
use crate::progress::{Progress, raise};
use crate::repository::Repository;
use crate::store::StoreError;
use crate::{Cancel, IndexError, WriteOnly};

pub use image::{ImageError, partial_path};

use self::image::Image;
use self::plan::Places;

/// Stored content could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// What is stored is not what was stored.
    #[error("stored content is damaged")]
    Damaged(#[from] Damage),
    /// A pack is damaged.
    #[error("pack {pack} is damaged")]
    Pack {
        /// The pack's name.
        pack: String,
        /// What is wrong with it.
        #[source]
        source: Damage,
    },
    /// This key may not.
    #[error(transparent)]
    WriteOnly(WriteOnly),
    /// The index could not be loaded.
    #[error("could not load the index")]
    Index(#[from] IndexError),
    /// The store failed.
    #[error("could not read from the store")]
    Store(#[from] StoreError),
}

impl ReadError {
    /// What it means that something of a pack does not open.
    pub(crate) fn of(damage: Damage, pack: impl FnOnce() -> String) -> ReadError {
        match damage {
            Damage::WriteOnly(write_only) => ReadError::WriteOnly(write_only),
            source => ReadError::Pack { pack: pack(), source },
        }
    }
}

/// A disk could not be restored. No image of that name was made.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The snapshot has no such disk.
    #[error("the snapshot has no disk {disk}")]
    NoSuchDisk {
        /// What was asked for.
        disk: String,
    },
    /// The store or what it holds is not in order.
    #[error("could not read the disk from the repository")]
    Read(#[from] ReadError),
    /// The image could not be written.
    #[error("could not write the image")]
    Image(#[from] ImageError),
    /// It was told to stop.
    #[error("the restore was cancelled")]
    Cancelled,
}

impl Repository {
    /// Writes a disk of a snapshot as a sparse raw image at `path`, which must not exist. Until it is whole it is
    /// called [`partial_path`]; one left there by an earlier attempt that died is begun anew.
    ///
    /// # Errors
    /// When the disk is unknown, content is damaged, the store or the file system fails, or it is cancelled.
    #[instrument(name = "repository.restore_disk", skip_all, fields(snapshot = %snapshot.id, disk = disk_name))]
    pub async fn restore_disk(
        &self,
        snapshot: &Snapshot,
        disk_name: &str,
        path: &Path,
        progress: &Arc<Progress>,
        cancel: &Cancel,
    ) -> Result<(), RestoreError> {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(RestoreError::Cancelled),
            done = self.restore_all(snapshot, disk_name, path, progress) => done,
        }
    }

    async fn restore_all(
        &self,
        snapshot: &Snapshot,
        disk_name: &str,
        path: &Path,
        progress: &Arc<Progress>,
    ) -> Result<(), RestoreError> {
        let record = snapshot
            .disk(disk_name)
            .ok_or_else(|| RestoreError::NoSuchDisk { disk: disk_name.to_owned() })?;
        // The snapshot may be younger than our index.
        self.refresh().await.map_err(ReadError::Index)?;
        let disk = fetch::disk(&self.shared, record).await?;
        progress.expect_bytes(disk.size_bytes);
        let image = {
            let (path, size) = (path.to_owned(), disk.size_bytes);
            blocking(move || Image::begin(&path, size)).await?
        };
        for page in 0..disk.pages.len() as u64 {
            self.restore_page(&disk, page, &image, progress).await?;
        }
        blocking(move || image.finish()).await?;
        Ok(())
    }

    async fn restore_page(
        &self,
        disk: &Disk,
        page: u64,
        image: &Image,
        progress: &Arc<Progress>,
    ) -> Result<(), RestoreError> {
        let first = page * LEAVES_PER_PAGE as u64;
        let leaves = fetch::page(&self.shared, disk, page).await?;
        let (places, hole_bytes) = self.places(disk, first, &leaves).await?;
        progress.done(hole_bytes);
        let reads = plan::planned(&self.shared, places).await?;
        let in_flight = self.shared.settings.ranges_in_flight();
        futures::stream::iter(reads.into_iter().map(Ok))
            .try_for_each_concurrent(in_flight, |read| async move {
                let object = fetch::range(&self.shared, &read).await?;
                raise(&progress.read_bytes, object.len() as u64);
                let (shared, image, progress) =
                    (Arc::clone(&self.shared), image.writer(), Arc::clone(progress));
                spawn_blocking(move || {
                    fetch::open_all(&shared.keys(), &read, &object, |blob, content| {
                        for &at in &blob.wanted_at {
                            image.write_at(at, &content)?;
                            progress.done(content.len() as u64);
                        }
                        Ok(())
                    })
                })
                .await
                .expect("opening chunks does not panic")
            })
            .await
    }

    /// Where each chunk of some segments goes, and how many bytes are holes.
    async fn places(
        &self,
        disk: &Disk,
        first: u64,
        leaves: &[Option<BlobId>],
    ) -> Result<(Places, u64), ReadError> {
        let mut places = Places::default();
        let mut hole_bytes = 0;
        let segments = fetch::leaves(&self.shared, disk, first, leaves).await?;
        for (range, pieces) in segments {
            let mut at = range.start;
            for piece in &pieces {
                match piece {
                    Piece::Hole { bytes } => hole_bytes += u64::from(*bytes),
                    Piece::Chunk { id, .. } => places.entry(*id).or_default().push(at),
                }
                at += u64::from(piece.bytes());
            }
        }
        for (index, _) in leaves.iter().enumerate().filter(|(_, leaf)| leaf.is_none()) {
            let range = disk.segment(first + index as u64);
            hole_bytes += range.end - range.start;
        }
        Ok((places, hole_bytes))
    }
}

/// Runs a piece of file work off the async threads.
async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    spawn_blocking(job).await.expect("writing an image does not panic")
}
