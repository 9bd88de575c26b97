//! What is asked of whatever keeps disks.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use contract::ByteCount;
use provisioner_domain::nocloud::Documents;
use serde::{Deserialize, Serialize};

use super::machine::{Disk, Image};

/// Why something was not done to disks.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// What was given is not what was promised, or not fit to be a disk here: trying again does not help.
    #[error("{0}")]
    Unfit(String),
    /// A file or folder of ours.
    #[error("{attempting}")]
    Io {
        /// What was being attempted.
        attempting: String,
        /// What happened.
        #[source]
        source: std::io::Error,
    },
    /// A program of QEMU's did not do its work.
    #[error("{attempting}: {reason}")]
    Tool {
        /// What was being attempted.
        attempting: String,
        /// In the program's words.
        reason: String,
    },
    /// A source elsewhere did not give what it was asked for.
    #[error("fetching {url}: {reason}")]
    Fetch {
        /// The source.
        url: String,
        /// What happened.
        reason: String,
    },
}

/// Where a seed comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeedSource {
    /// A file on this host.
    File(PathBuf),
    /// An http or https URL.
    Url(String),
}

/// A seed that has been brought here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportedSeed {
    /// The size of the disk in it.
    pub virtual_size: ByteCount,
    /// What it takes on the host.
    pub stored_size: ByteCount,
}

/// Tells how many bytes of how many are done.
pub type ReportProgress<'a> = &'a (dyn Fn(u64, u64) + Send + Sync);

/// Keeps disk images.
#[async_trait]
pub trait Disks: Send + Sync + 'static {
    /// Brings an image here, checks that it hashes to `sha256` and keeps it, read-only. Calm when it is here.
    async fn import_seed(
        &self,
        source: &SeedSource,
        sha256: &str,
        told: ReportProgress<'_>,
    ) -> Result<ImportedSeed, DiskError>;
    /// The kept image of a seed.
    fn seed_image(&self, sha256: &str) -> Image;
    /// Removes a seed's image. Calm when it is gone.
    async fn remove_seed(&self, sha256: &str) -> Result<(), DiskError>;
    /// The folder in which the files of a machine lie.
    fn folder(&self, vm: &str) -> PathBuf;
    /// Makes a machine's folder. Calm when it is there.
    async fn create_folder(&self, vm: &str) -> Result<(), DiskError>;
    /// Makes an overlay of a seed. An overlay that is there already is made anew.
    async fn clone_seed(&self, sha256: &str, to: &Path, size: ByteCount) -> Result<(), DiskError>;
    /// Writes a NoCloud volume.
    async fn write_nocloud(&self, to: &Path, documents: &Documents) -> Result<(), DiskError>;
    /// Whether a file is there.
    async fn exists(&self, path: &Path) -> Result<bool, DiskError>;
    /// Removes a machine's folder with all that is in it. Calm when it is gone.
    async fn erase(&self, vm: &str) -> Result<(), DiskError>;
    /// Moves a machine's folder out of the way, to be found again by an operation's id. Calm when repeated.
    async fn set_aside(&self, vm: &str, operation: &str) -> Result<(), DiskError>;
    /// Moves a folder back that was set aside. Calm when it was not.
    async fn bring_back(&self, vm: &str, operation: &str) -> Result<(), DiskError>;
    /// The operations that have set something aside.
    async fn set_aside_by(&self) -> Result<Vec<String>, DiskError>;
    /// Removes for good what an operation set aside. Calm when it is gone.
    async fn discard(&self, operation: &str) -> Result<(), DiskError>;
    /// Makes a folder for the sockets and scratch files of a export, and tells it.
    async fn make_export_folder(&self, operation: &str) -> Result<PathBuf, DiskError>;
    /// Removes it. Calm when it is gone.
    async fn remove_export_folder(&self, operation: &str) -> Result<(), DiskError>;
    /// Serves the image of a machine that is off, read-only, at a unix socket. Calm when it is served there.
    async fn serve(&self, disk: &Disk, socket: &Path) -> Result<(), DiskError>;
    /// Ends that. Calm when nothing is served there.
    async fn stop_serving(&self, socket: &Path) -> Result<(), DiskError>;
    /// How much room there is.
    async fn free(&self) -> Result<ByteCount, DiskError>;
}
