//! Restore: a disk of a snapshot becomes a disk again.
//!
//! Promises: every chunk is decrypted and hashed before it is written; a new image appears under its name only when it
//! is whole and on stable storage; an existing path is never touched unless it is the target, and then only where it
//! differs; an interrupted restore can be run again and does only what is left.
//!
//! ```text
//!   snapshot ──> disk ──> page ──> leaves ──┬─ in any order, planned by pack ──> raw | qcow2 | existing | device
//!                                           ├─ in order of the disk ───────────> any `AsyncWrite`, or a part of it
//!                                           └─ at random, on demand ───────────> SnapshotDisk
//! ```
//!
//! Holes stay holes. What an existing target holds, or an interrupted restore left, is never trusted: it is hashed and
//! compared with the recipe, so no journal is kept that could be wrong. It does not know what the image is for.

mod compare;
mod error;
pub(crate) mod fetch;
mod image;
mod in_order;
pub(crate) mod plan;
mod reader;
mod request;
mod run;
mod stream;
mod target;

use std::path::Path;
use std::sync::Arc;

use tracing::instrument;

use crate::Cancel;
use crate::format::recipe::DiskRecipe;
use crate::format::snapshot::{DiskRecord, RecordKind, Snapshot};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::source::{ImageFormat, ImageReferencePolicy, SourceError, probe, qemu};

pub use error::{ReadError, RestoreError};
pub use image::{ImageError, partial_path};
pub use reader::{ReaderSettings, SnapshotDisk};
pub use request::{
    DeviceContent, FailedImageAction, ReadBack, Resize, RestoreReport, RestoreRequest, RestoreTarget,
};

use self::compare::TargetContent;
use self::image::{Image, PartialImageAction};
use self::run::{Run, blocking};
use self::target::{FileTarget, Fit, ServedImage, Target, uncache};

/// QEMU's images are multiples of this.
const QEMU_SECTOR_BYTES: u64 = 512;

impl Repository {
    /// Writes a disk of a snapshot as a sparse raw image at `path`, which must not exist. Until it is whole it is
    /// called [`partial_path`]; one left there by an interrupted attempt is compared and continued.
    ///
    /// # Errors
    /// When the disk is unknown, content is damaged, the store or the file system fails, or it is cancelled.
    pub async fn restore_disk(
        &self,
        snapshot: &Snapshot,
        disk_name: &str,
        path: &Path,
        progress: &Arc<Progress>,
        cancel: &Cancel,
    ) -> Result<(), RestoreError> {
        let target = RestoreTarget::NewRaw { path: path.to_owned() };
        self.restore(snapshot, &RestoreRequest::new(disk_name, target), progress, cancel).await.map(drop)
    }

    /// Writes a disk of a snapshot to a target. A restore that is cancelled or dropped may write for a moment longer
    /// to a target that exists; another that begins meanwhile fails as in use.
    ///
    /// # Errors
    /// When the disk is unknown, content is damaged, the target is not fit or in use, the store, the file system or
    /// QEMU fails, the target does not give back what was written, or it is cancelled.
    #[instrument(name = "repository.restore", skip_all, fields(snapshot = %snapshot.id, disk = request.disk))]
    pub async fn restore(
        &self,
        snapshot: &Snapshot,
        request: &RestoreRequest,
        progress: &Arc<Progress>,
        cancel: &Cancel,
    ) -> Result<RestoreReport, RestoreError> {
        let work = async {
            let record = disk_record(snapshot, &request.disk)?;
            // The snapshot may be younger than our index.
            self.refresh().await.map_err(ReadError::Index)?;
            let disk = fetch::disk(&self.shared, record).await?;
            progress.expect_bytes(disk.size_bytes);
            let restore = Restore { repository: self, request, disk, progress };
            match &request.target {
                RestoreTarget::NewRaw { path } => restore.new_raw(path).await,
                RestoreTarget::NewQcow2 { path } => restore.new_qcow2(path).await,
                RestoreTarget::OverwriteDevice { path, before } => {
                    let before = match before {
                        DeviceContent::Unknown => TargetContent::Unknown,
                        DeviceContent::Zeros => TargetContent::Zeros,
                    };
                    restore.into_file(path, Fit::Device, before).await
                }
                RestoreTarget::Existing { path, format, resize, references } => {
                    let format = match format {
                        Some(format) => *format,
                        None => probe(path).await.map_err(|source| served(path, source))?,
                    };
                    match format {
                        ImageFormat::Raw => {
                            restore
                                .into_file(path, Fit::Either(*resize), TargetContent::UnknownReadable)
                                .await
                        }
                        other => restore.into_served(path, other, *references).await,
                    }
                }
            }
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(RestoreError::Cancelled),
            done = work => done,
        }
    }
}

/// The record of a disk.
fn disk_record<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a DiskRecord, RestoreError> {
    match snapshot.disk(name) {
        Some(record) if record.kind == RecordKind::Disk => Ok(record),
        Some(_) => Err(RestoreError::NotADisk { stream: name.to_owned() }),
        None => Err(RestoreError::NoSuchDisk { disk: name.to_owned() }),
    }
}

/// The error of a target that does not read back what was written, at its first difference.
fn check_read_back(different: Option<u64>, path: &Path) -> Result<(), RestoreError> {
    match different {
        None => Ok(()),
        Some(at) => Err(ImageError::ReadBackDiffers { path: path.to_owned(), at }.into()),
    }
}

fn served(path: &Path, source: SourceError) -> ImageError {
    ImageError::QemuWrite { path: path.to_owned(), source }
}

/// One restore, by kind of target.
struct Restore<'a> {
    repository: &'a Repository,
    request: &'a RestoreRequest,
    disk: DiskRecipe,
    progress: &'a Arc<Progress>,
}

impl Restore<'_> {
    async fn new_raw(self, path: &Path) -> Result<RestoreReport, RestoreError> {
        let image = self.begin(path, self.disk.size_bytes, PartialImageAction::Continue).await?;
        let before = if image.is_continued() { TargetContent::UnknownReadable } else { TargetContent::Zeros };
        let target = FileTarget::fresh(image.file()?, image.partial().to_owned());
        let report = self.write(Arc::new(target), before, image.partial()).await?;
        blocking(move || image.finish()).await?;
        Ok(report)
    }

    async fn into_file(
        self,
        path: &Path,
        fit: Fit,
        before: TargetContent,
    ) -> Result<RestoreReport, RestoreError> {
        let target = {
            let (path, size_bytes) = (path.to_owned(), self.disk.size_bytes);
            blocking(move || FileTarget::existing(&path, size_bytes, fit)).await?
        };
        self.write(Arc::new(target), before, path).await
    }

    async fn new_qcow2(self, path: &Path) -> Result<RestoreReport, RestoreError> {
        let image = self.begin(path, 0, PartialImageAction::Replace).await?;
        let partial = image.partial();
        qemu::create_qcow2(partial, self.disk.size_bytes).await.map_err(|source| served(partial, source))?;
        let report = self
            .write_served(partial, ImageFormat::Qcow2, ImageReferencePolicy::Refuse, TargetContent::Zeros)
            .await?;
        if self.request.read_back == ReadBack::Yes {
            self.read_back_served(partial, ImageFormat::Qcow2, ImageReferencePolicy::Refuse).await?;
        }
        blocking(move || image.finish()).await?;
        Ok(report)
    }

    async fn into_served(
        self,
        path: &Path,
        format: ImageFormat,
        references: ImageReferencePolicy,
    ) -> Result<RestoreReport, RestoreError> {
        let report = self.write_served(path, format, references, TargetContent::UnknownReadable).await?;
        if self.request.read_back == ReadBack::Yes {
            self.read_back_served(path, format, references).await?;
        }
        Ok(report)
    }

    async fn begin(
        &self,
        path: &Path,
        size_bytes: u64,
        leftover: PartialImageAction,
    ) -> Result<Image, ImageError> {
        let (path, unfinished) = (path.to_owned(), self.request.on_failure);
        blocking(move || Image::begin(&path, size_bytes, leftover, unfinished)).await
    }

    /// Writes a file or device, and reads it back when that was asked for.
    async fn write(
        &self,
        target: Arc<dyn Target>,
        before: TargetContent,
        path: &Path,
    ) -> Result<RestoreReport, RestoreError> {
        let run = Run::new(&self.repository.shared, self.disk.clone(), target, self.progress);
        let report = run.write(before).await?;
        match self.request.read_back {
            ReadBack::No => Ok(report),
            ReadBack::Yes => {
                let written = path.to_owned();
                blocking(move || uncache(&written)).await?;
                check_read_back(run.read_back().await?, path).map(|()| report)
            }
        }
    }

    async fn write_served(
        &self,
        path: &Path,
        format: ImageFormat,
        references: ImageReferencePolicy,
        before: TargetContent,
    ) -> Result<RestoreReport, RestoreError> {
        let opened = qemu::open_for_writing(path, format, references).await;
        let (server, nbd) = opened.map_err(|source| served(path, source))?;
        // QEMU rounds up; a larger disk would keep something else at its end.
        let (has_bytes, needs_bytes) = (crate::DiskSource::size_bytes(&nbd), self.disk.size_bytes);
        if has_bytes < needs_bytes || has_bytes - needs_bytes >= QEMU_SECTOR_BYTES {
            return Err(ImageError::Size { path: path.to_owned(), has_bytes, needs_bytes }.into());
        }
        let (image, target) = ServedImage::begin(path, server, nbd);
        let run = Run::new(&self.repository.shared, self.disk.clone(), target, self.progress);
        match run.write(before).await {
            Ok(report) => {
                image.finish().await?;
                Ok(report)
            }
            Err(RestoreError::Image(error)) => Err(image.why(error).await.into()),
            Err(error) => Err(error),
        }
    }

    /// Reads an image through a server of its own, which knows only what the file holds.
    async fn read_back_served(
        &self,
        path: &Path,
        format: ImageFormat,
        references: ImageReferencePolicy,
    ) -> Result<(), RestoreError> {
        let written = path.to_owned();
        blocking(move || uncache(&written)).await?;
        let opened = qemu::open_for_reading(path, format, references, None).await;
        let (server, nbd) = opened.map_err(|source| served(path, source))?;
        let (image, target) = ServedImage::begin(path, server, nbd);
        let run = Run::new(&self.repository.shared, self.disk.clone(), target, self.progress);
        check_read_back(run.read_back().await?, path)?;
        Ok(image.finish().await?)
    }
}
