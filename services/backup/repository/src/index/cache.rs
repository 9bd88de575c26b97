//! The local cache folder of a repository.
//!
//! ```text
//!   FOLDER/<repository id>/index/<shard>      sorted rows, see rows.rs
//!   FOLDER/<repository id>/pin                keys that this host has seen, see crate::pin
//!   FOLDER/<repository id>/snapshots, clock   snapshots that were read, and the latest time, see crate::snapshots
//!   FOLDER/<repository id>/needs              what recipes name, see crate::collect
//! ```
//!
//! All of it can be deleted; what reads an index file at that moment may fail, and succeeds when it is repeated. Without a
//! folder rows are in a nameless file of the system's temporary folder.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, DirEntry, File};
use std::io::{self, Seek};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tracing::warn;

use super::IndexError;
use super::handles::{GONE, Handles};
use super::rows::{self, EncodedShard, ShardRows};
use crate::format::pack::Directory;
use crate::ids::RepositoryId;
use crate::keys::Keys;

/// Permission bits that let a group or anyone change a folder.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// A file of rows is written in less time than this.
const WRITTEN_WITHIN: Duration = Duration::from_hours(1);

/// How long a file stays whose shard is gone: longer than any operation that may still know the shard.
const GONE_KEPT_FOR: Duration = Duration::from_hours(48);

/// The cache of one repository.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    folder: Option<PathBuf>,
    handles: Handles,
}

impl Cache {
    /// The cache of a repository below `folder`; made where it is not.
    pub(crate) fn open(folder: Option<&Path>, repository: RepositoryId) -> Result<Cache, IndexError> {
        let Some(folder) = folder else {
            return Ok(Cache { folder: None, handles: Handles::default() });
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
        Ok(Cache { folder: Some(folder), handles: Handles::default() })
    }

    /// How many files are open.
    #[cfg(test)]
    pub(super) fn open_handles(&self) -> usize {
        self.handles.open()
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
        let file = self.handles.named(File::open(&path).ok()?, path).ok()?;
        // A damaged file is rebuilt from the store.
        ShardRows::open(keys, name, file).ok().flatten()
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
            let kept = write_beside(&encoded, &path)
                .and_then(|file| ShardRows::open(keys, name, self.handles.named(file, path.clone())?));
            match kept {
                Ok(Some(rows)) => return Ok(rows),
                Ok(None) => return Err(IndexError::CacheDamaged { path }),
                Err(error) => {
                    warn!(%error, path = %path.display(), "an index file could not be kept");
                }
            }
        }
        let path = std::env::temp_dir();
        let failed = |source| {
            let attempt = "write a nameless file for";
            IndexError::Cache { attempt, path: path.clone(), source }
        };
        let file = self.handles.nameless(&encoded).map_err(failed)?;
        ShardRows::open(keys, name, file).map_err(failed)?.ok_or(IndexError::CacheDamaged { path })
    }

    /// Removes the rows of shards that are gone, a while after they are, and files that a process left half written.
    pub(super) fn keep_only(&self, shards: &HashSet<String>) {
        self.keep_only_at(SystemTime::now(), shards);
    }

    /// The same, at some time.
    pub(super) fn keep_only_at(&self, now: SystemTime, shards: &HashSet<String>) {
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
            let is_wanted = path.file_name().and_then(OsStr::to_str).is_some_and(|name| names.contains(name));
            match path.extension() {
                None if is_wanted => {}
                // Whoever knows the shard opens its file by this name from now on.
                None => drop(fs::rename(&path, path.with_extension(GONE))),
                Some(extension) if extension == GONE && !is_gone_for_long(&entry, now) => {}
                Some(extension) if extension != GONE && !is_abandoned(&entry) => {}
                Some(_) => drop(fs::remove_file(path)),
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

/// Whether a file was renamed long ago, which changes nothing of it but the time of its last change of status.
fn is_gone_for_long(entry: &DirEntry, now: SystemTime) -> bool {
    let changed = entry.metadata().ok().and_then(|metadata| u64::try_from(metadata.ctime()).ok());
    let changed = changed.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    changed.is_some_and(|changed| now.duration_since(changed).is_ok_and(|age| age > GONE_KEPT_FOR))
}
