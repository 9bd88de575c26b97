//! The local cache folder of a repository.
//!
//! ```text
//!   FOLDER/<repository id>/index/<shard>      sorted rows, see rows.rs
//!   FOLDER/<repository id>/pin                keys that this host has seen, see crate::pin
//!   FOLDER/<repository id>/snapshots, clock   snapshots that were read, and the latest time, see crate::snapshots
//!   FOLDER/<repository id>/needs              what recipes name, see crate::collect
//! ```
//!
//! All of it can be deleted. Without a folder rows are in nameless files of the system's temporary folder.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, DirEntry, File};
use std::io::{self, Seek};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::warn;

use super::IndexError;
use super::rows::{self, EncodedShard, ShardRows};
use crate::format::pack::Directory;
use crate::ids::RepositoryId;
use crate::keys::Keys;

/// Permission bits that let a group or anyone change a folder.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// A file of rows is written in less time than this.
const WRITTEN_WITHIN: Duration = Duration::from_hours(1);

/// The cache of one repository.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    folder: Option<PathBuf>,
}

impl Cache {
    /// The cache of a repository below `folder`; made where it is not.
    pub(crate) fn open(folder: Option<&Path>, repository: RepositoryId) -> Result<Cache, IndexError> {
        let Some(folder) = folder else {
            return Ok(Cache { folder: None });
        };
        let folder = folder.join(repository.to_string());
        let index = folder.join("index");
        let failed =
            |source| IndexError::Cache { attempt: "make the folder of", path: index.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&index).map_err(failed)?;
        // With forged files here an attacker could make a backup skip data that is not stored.
        if fs::metadata(&folder).map_err(failed)?.mode() & WRITABLE_BY_OTHERS != 0 {
            return Err(failed(io::Error::other("it can be written by others")));
        }
        Ok(Cache { folder: Some(folder) })
    }

    /// The folder of this repository, where there is one.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    fn rows_path(&self, name: &str) -> Option<PathBuf> {
        let file_name = name.rsplit('/').next()?;
        Some(self.folder.as_ref()?.join("index").join(file_name))
    }

    /// The rows of a shard, where they were kept.
    pub(super) fn kept(&self, keys: &Keys, name: &str) -> Option<ShardRows> {
        let path = self.rows_path(name)?;
        let file = File::open(&path).ok()?;
        // A damaged file is rebuilt from the store.
        ShardRows::open(keys, name, file, path).ok().flatten()
    }

    /// Keeps the rows of a shard. Where the folder has no room for them, they are kept for as long as this process lives.
    pub(super) fn keep(
        &self,
        keys: &Keys,
        name: &str,
        directories: &[Directory],
    ) -> Result<ShardRows, IndexError> {
        let encoded = rows::encode(keys, name, directories);
        if let Some(path) = self.rows_path(name) {
            match write_beside(&encoded, &path).map(|file| ShardRows::open(keys, name, file, path.clone())) {
                Ok(Ok(Some(rows))) => return Ok(rows),
                Ok(Ok(None)) => return Err(IndexError::CacheDamaged { path }),
                Ok(Err(error)) | Err(error) => {
                    warn!(%error, path = %path.display(), "an index file could not be kept");
                }
            }
        }
        let path = std::env::temp_dir();
        let failed = |source| {
            let attempt = "write a nameless file for";
            IndexError::Cache { attempt, path: path.clone(), source }
        };
        let mut file = tempfile::tempfile().map_err(failed)?;
        encoded.write(&mut file).and_then(|()| file.rewind()).map_err(failed)?;
        ShardRows::open(keys, name, file, path.clone())
            .map_err(failed)?
            .ok_or(IndexError::CacheDamaged { path })
    }

    /// Removes the rows of shards that are gone, and files that a process left half written.
    pub(super) fn keep_only(&self, shards: &HashSet<String>) {
        let Some(folder) = &self.folder else { return };
        // What cannot be listed or removed costs only its bytes.
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let is_half_written = entry.path().extension().is_some_and(|extension| extension == "new");
            if is_half_written && is_abandoned(&entry) {
                let _ = fs::remove_file(entry.path());
            }
        }
        let Ok(entries) = fs::read_dir(folder.join("index")) else { return };
        let names: HashSet<_> = shards.iter().filter_map(|name| name.rsplit('/').next()).collect();
        for entry in entries.flatten() {
            let path = entry.path();
            let is_wanted = match path.extension() {
                Some(_) => !is_abandoned(&entry),
                None => path.file_name().and_then(OsStr::to_str).is_some_and(|name| names.contains(name)),
            };
            if !is_wanted {
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// Writes a file under a temporary name and renames it when it is whole. One that is not is removed: the disk may be full.
fn write_beside(encoded: &EncodedShard, path: &Path) -> io::Result<File> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut prefix = name.to_owned();
    prefix.push(".");
    let mut beside = tempfile::Builder::new().prefix(&prefix).suffix(".new").tempfile_in(folder)?;
    encoded.write(beside.as_file_mut())?;
    beside.rewind()?;
    beside.persist(path).map_err(|error| error.error)
}

/// Whether a file that is being written has not been touched for long.
fn is_abandoned(entry: &DirEntry) -> bool {
    let written = entry.metadata().and_then(|metadata| metadata.modified());
    written.is_ok_and(|written| written.elapsed().is_ok_and(|age| age > WRITTEN_WITHIN))
}
