//! The shelf: releases on this host's disk. Everything here blocks; call it where that may be.
//!
//! ```text
//!   {state}/keys/release/*.pub                    whose releases are trusted
//!   {state}/releases/.incoming/{operation}/       0700: our copy of a release, verified there
//!   {state}/releases/{service}/{build}/loam-{service}      what was verified, for the supervisor to start
//! ```
//!
//! A release is read once, into a folder that only we can enter. Whatever happens to the folder it came from, what is
//! verified is what is installed. Names under `releases` are made of checked words only: a service's name, a build's
//! digits, an operation's id.

mod incoming;
mod installed;
mod keys;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use contract::upgrade::ApplyReleaseRefused;

pub use installed::build_of;

/// Why a release could not be taken in or put in place.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// It is refused.
    #[error("{0}")]
    Refused(ApplyReleaseRefused),
    /// Our own disk does not do what it must.
    #[error("{doing} {path}: {source}")]
    Disk {
        /// What was attempted.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
}

impl From<ApplyReleaseRefused> for ShelfError {
    fn from(refused: ApplyReleaseRefused) -> Self {
        ShelfError::Refused(refused)
    }
}

/// The releases of this host.
#[derive(Clone, Debug)]
pub struct Shelf {
    releases: PathBuf,
    keys: PathBuf,
}

impl Shelf {
    /// The shelf inside a state folder.
    pub fn in_state(state: &Path) -> Shelf {
        Shelf { releases: state.join("releases"), keys: state.join("keys").join("release") }
    }
}

fn disk<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> ShelfError + 'a {
    move |source| ShelfError::Disk { doing, path: path.into(), source }
}

/// Makes the names in a folder outlive a power cut.
fn sync_folder(folder: &Path) -> Result<(), ShelfError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(disk("writing", folder))
}

/// Removes a folder with all that is in it; calm where there is none.
fn remove_folder(folder: &Path) -> Result<(), ShelfError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(disk("removing", folder)(error)),
        _ => Ok(()),
    }
}
