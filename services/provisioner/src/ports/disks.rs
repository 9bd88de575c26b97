//! Disk images and the folders they are in.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use contract::{ByteCount, OperationId, VmName};
use provisioner_domain::nocloud::NoCloudDocuments;
use serde::{Deserialize, Serialize};

use super::BoxError;
use super::vm_spec::{Disk, Image};

/// Why something was not done to disks.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// An image is not what it was said to be, or cannot be a disk here. Trying again does not help.
    #[error("{0}")]
    UnusableImage(String),
    /// The state folder is not usable as it is set up. Trying again does not help.
    #[error("cannot {attempt}")]
    StateDirUnusable {
        /// What was attempted.
        attempt: String,
        /// The cause.
        #[source]
        source: BoxError,
    },
    /// A file or folder of ours.
    #[error("cannot {attempt}")]
    Io {
        /// What was attempted.
        attempt: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A program of QEMU's failed.
    #[error("cannot {attempt}")]
    QemuImgFailed {
        /// What was attempted.
        attempt: String,
        /// The cause, with the program's own message.
        #[source]
        source: BoxError,
    },
    /// An image could not be downloaded.
    #[error("cannot download {url}")]
    Download {
        /// The source.
        url: String,
        /// The cause.
        #[source]
        source: BoxError,
    },
}

impl DiskError {
    /// Whether the same call may succeed a little later.
    pub fn is_transient(&self) -> bool {
        !matches!(self, DiskError::UnusableImage(_) | DiskError::StateDirUnusable { .. })
    }
}

/// Where a seed comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeedImageSource {
    /// A file on this host.
    File(PathBuf),
    /// An http or https URL.
    Url(String),
}

/// A seed that was imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportedSeedImage {
    /// The size of the disk in it, in bytes.
    pub virtual_size: ByteCount,
    /// The bytes that its file takes on the host.
    pub stored_size: ByteCount,
}

/// Who reads the disks of VMs and writes restored ones: the backup service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskReader {
    /// The socket at which it asks for connections to disk exports.
    pub socket: PathBuf,
    /// Its user, where that is another than ours.
    pub uid: Option<u32>,
}

/// Reports how many bytes of how many are done.
pub type ProgressCallback<'a> = &'a (dyn Fn(u64, u64) + Send + Sync);

/// Keeps disk images.
#[async_trait]
pub trait Disks: Send + Sync + 'static {
    /// Imports an image that has the digest `sha256`, read-only. Idempotent.
    async fn import_seed(
        &self,
        source: &SeedImageSource,
        sha256: &str,
        report: ProgressCallback<'_>,
    ) -> Result<ImportedSeedImage, DiskError>;
    /// The image of an imported seed.
    fn seed_image(&self, sha256: &str) -> Image;
    /// Removes a seed's image. Idempotent.
    async fn remove_seed(&self, sha256: &str) -> Result<(), DiskError>;
    /// The folder with the files of a VM.
    fn folder(&self, vm: &VmName) -> PathBuf;
    /// Creates a VM's folder. Idempotent.
    async fn create_folder(&self, vm: &VmName) -> Result<(), DiskError>;
    /// Creates a folder below the VM's that the reader of disks may write restored ones to, and returns its path.
    /// Idempotent.
    async fn create_restore_folder(&self, vm: &VmName) -> Result<PathBuf, DiskError>;
    /// Takes a disk over from that folder, under the name that its VM uses, so that its writer cannot reach it any more by
    /// a path; whether it was there. Idempotent.
    async fn take_restored(&self, vm: &VmName, disk: &Path) -> Result<bool, DiskError>;
    /// Ends the folder for restored disks: what is still in it is removed. Idempotent.
    async fn end_restore_folder(&self, vm: &VmName) -> Result<(), DiskError>;
    /// Creates an overlay of a seed, in place of one that exists.
    async fn clone_seed(&self, sha256: &str, to: &Path, size: ByteCount) -> Result<(), DiskError>;
    /// Writes a NoCloud volume.
    async fn write_nocloud(&self, to: &Path, documents: &NoCloudDocuments) -> Result<(), DiskError>;
    /// Whether a file exists.
    async fn exists(&self, path: &Path) -> Result<bool, DiskError>;
    /// Removes a VM's folder with its files. Idempotent.
    async fn erase(&self, vm: &VmName) -> Result<(), DiskError>;
    /// Moves a VM's folder out of the way, under an operation's id. Idempotent.
    async fn set_aside(&self, vm: &VmName, operation: &OperationId) -> Result<(), DiskError>;
    /// Moves a folder back that was set aside; a no-op where it was not.
    async fn bring_back(&self, vm: &VmName, operation: &OperationId) -> Result<(), DiskError>;
    /// The operations that have set something aside.
    async fn set_aside_by(&self) -> Result<Vec<OperationId>, DiskError>;
    /// Removes for good what an operation set aside. Idempotent.
    async fn discard(&self, operation: &OperationId) -> Result<(), DiskError>;
    /// Creates the folder for the sockets and scratch files of an operation's exports, and returns its path. Idempotent.
    async fn create_export_folder(&self, operation: &OperationId) -> Result<PathBuf, DiskError>;
    /// Removes it. Idempotent.
    async fn remove_export_folder(&self, operation: &OperationId) -> Result<(), DiskError>;
    /// Serves the image of a VM that is off, read-only, over NBD at a unix socket. Idempotent.
    async fn serve(&self, disk: &Disk, socket: &Path) -> Result<(), DiskError>;
    /// Ends that. Idempotent.
    async fn stop_serving(&self, socket: &Path) -> Result<(), DiskError>;
    /// Who reads the disks, and where it asks for them.
    fn reader(&self) -> DiskReader;
    /// The free bytes of the file system that disks are on.
    async fn free(&self) -> Result<ByteCount, DiskError>;
}
