//! The release directory: releases on this host's disk. Everything here blocks; async code calls it by `in_background`.
//!
//! ```text
//!   {state}/keys/release/*.pub                    whose releases are trusted
//!   {state}/releases/.incoming/{operation}/       0700: our copy of a release, verified there
//!   {state}/releases/{service}/{build}/loam-{service}      what was verified, for the supervisor to start,
//!                                     /release.toml, .minisig   and by what it can verify it again
//!   {state}/releases/{service}/committed.toml     the highest version that was ever committed
//! ```
//!
//! A release is read once, into a folder that only we can enter. Whatever happens to the folder it came from, what is
//! verified is what is installed. Names under `releases` are made of checked parts only: a service's name, a build's
//! digits, an operation's id.

mod committed;
mod incoming;
mod installed;
mod keys;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use contract::upgrade::ApplyReleaseRefused;

pub use installed::build_of;

/// Why a release could not be received or installed.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseDirError {
    /// The release is refused.
    #[error("{0}")]
    Refused(ApplyReleaseRefused),
    /// Reading or writing our own folders failed.
    #[error("{doing} {path}")]
    Disk {
        /// What was attempted.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl From<ApplyReleaseRefused> for ReleaseDirError {
    fn from(refused: ApplyReleaseRefused) -> Self {
        ReleaseDirError::Refused(refused)
    }
}

/// The releases of this host.
#[derive(Clone, Debug)]
pub struct ReleaseDir {
    releases: PathBuf,
    keys: PathBuf,
}

impl ReleaseDir {
    /// The release directory inside a state folder.
    pub fn in_state(state: &Path) -> ReleaseDir {
        ReleaseDir { releases: state.join("releases"), keys: state.join("keys").join("release") }
    }

    /// Runs blocking work on a thread where it may block.
    pub(crate) async fn in_background<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ReleaseDir) -> Result<T, ReleaseDirError> + Send + 'static,
    ) -> Result<T, ReleaseDirError> {
        let releases = self.clone();
        tokio::task::spawn_blocking(move || work(&releases)).await.expect("this work does not panic")
    }
}

fn disk<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> ReleaseDirError + 'a {
    move |source| ReleaseDirError::Disk { doing, path: path.into(), source }
}

/// Makes the names in a folder survive a power cut.
fn sync_folder(folder: &Path) -> Result<(), ReleaseDirError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(disk("writing", folder))
}

/// Removes a folder with all that is in it; a no-op where there is none.
fn remove_folder(folder: &Path) -> Result<(), ReleaseDirError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(disk("removing", folder)(error)),
        _ => Ok(()),
    }
}
