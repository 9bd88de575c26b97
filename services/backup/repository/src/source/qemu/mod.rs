//! Image files of any format that QEMU supports, read and written through our own `qemu-nbd`.
//!
//! Promises: an image that refers to other files is refused unless that is allowed; the child ends with us, however we end;
//! its stderr is in the error when it fails. QEMU's own locks keep two processes from using an image at the same time.
//!
//! ```text
//!   probe ──> inspect (qemu-img info) ──> qemu-nbd -r ──our only connection──> NbdSource
//!                    '── refers to others: refused
//! ```
//!
//! It needs `qemu-img` and `qemu-nbd` of QEMU 6 or newer in `PATH`, and knows only the magic numbers of the formats.

mod child;
mod format;
mod inspect;

use std::ffi::OsString;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub(crate) use self::child::Server;
pub use self::format::{ImageFormat, NotAnImageFormat};
pub use self::inspect::ImageReferencePolicy;
use super::{DiskSource, Extent, NbdSource, SourceError};

/// Making an empty image writes a header; on a full or dying disk even that may last.
const CREATE_TIMEOUT: Duration = Duration::from_secs(120);
/// Reads and writes of guests' disks are large and never repeated soon: QEMU's own defaults fit.
const COMMON: &[&str] = &["--shared=1"];

/// A disk in an image file that QEMU reads for us.
pub struct QemuImage {
    /// Dropped before the server, which then ends by itself.
    source: NbdSource,
    _server: Server,
}

impl std::fmt::Debug for QemuImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "QemuImage({:?})", self.source)
    }
}

impl QemuImage {
    /// Opens an image read-only. `dirty_bitmap` names a persistent bitmap in it that says what changed.
    ///
    /// # Errors
    /// When the image refers to other files and `references` does not allow it, when another process is writing it, when it
    /// has no such bitmap, or QEMU's tools are missing or fail.
    pub async fn open(
        path: &Path,
        format: ImageFormat,
        references: ImageReferencePolicy,
        dirty_bitmap: Option<&str>,
    ) -> Result<QemuImage, SourceError> {
        let (server, source) = open_for_reading(path, format, references, dirty_bitmap).await?;
        Ok(QemuImage { source, _server: server })
    }
}

/// Opens an image read-only, for a caller that ends the server itself.
pub(crate) async fn open_for_reading(
    path: &Path,
    format: ImageFormat,
    references: ImageReferencePolicy,
    dirty_bitmap: Option<&str>,
) -> Result<(Server, NbdSource), SourceError> {
    let mut arguments: Vec<OsString> = vec!["--read-only".into()];
    if let Some(name) = dirty_bitmap {
        arguments.push(format!("--bitmap={name}").into());
    }
    arguments.extend(image_arguments(path, format, references).await?);
    Server::start(path, arguments, dirty_bitmap).await
}

async fn image_arguments(
    path: &Path,
    format: ImageFormat,
    references: ImageReferencePolicy,
) -> Result<Vec<OsString>, SourceError> {
    let mut arguments: Vec<OsString> = COMMON.iter().map(Into::into).collect();
    match references {
        ImageReferencePolicy::Refuse => {
            inspect::refuse_references(path, format).await?;
            arguments.push(inspect::options(path, format)?.into());
        }
        ImageReferencePolicy::Follow => {
            let failed =
                |source| SourceError::Io { attempt: "inspect", what: path.display().to_string(), source };
            arguments.push(format!("--format={format}").into());
            // An absolute path is never taken for a protocol.
            arguments.push(std::path::absolute(path).map_err(failed)?.into());
        }
    }
    Ok(arguments)
}

/// Opens an image for writing. The caller flushes, drops the connection and waits for the server's end.
pub(crate) async fn open_for_writing(
    path: &Path,
    format: ImageFormat,
    references: ImageReferencePolicy,
) -> Result<(Server, NbdSource), SourceError> {
    // What is zeroed is given back to the file system.
    let mut arguments: Vec<OsString> = vec!["--discard=unmap".into()];
    arguments.extend(image_arguments(path, format, references).await?);
    let (mut server, source) = Server::start(path, arguments, None).await?;
    if !source.is_writable() {
        let why = "qemu-nbd does not let us write it byte by byte".to_owned();
        let refused = SourceError::Refused { what: path.display().to_string(), attempt: "be written", why };
        return Err(server.why("serve", refused).await);
    }
    Ok((server, source))
}

/// Makes an empty qcow2 image of that virtual size in a file that exists; what it held is lost. QEMU rounds sizes up
/// to 512 bytes.
pub(crate) async fn create_qcow2(path: &Path, size_bytes: u64) -> Result<(), SourceError> {
    let failed = |source| SourceError::Io { attempt: "create", what: path.display().to_string(), source };
    let mut command = inspect::tool("qemu-img");
    command.args(["create", "-q", "-f", "qcow2"]).arg(std::path::absolute(path).map_err(failed)?);
    command.arg(size_bytes.to_string());
    inspect::run(command, "create the qcow2 image", path, CREATE_TIMEOUT).await.map(drop)
}

#[async_trait]
impl DiskSource for QemuImage {
    fn size_bytes(&self) -> u64 {
        self.source.size_bytes()
    }

    async fn extents(&self, range: Range<u64>) -> Result<Vec<Extent>, SourceError> {
        self.source.extents(range).await
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, SourceError> {
        self.source.read_at(offset, length).await
    }
}
