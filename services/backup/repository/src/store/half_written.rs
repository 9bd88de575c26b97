//! Removing what killed processes left half written in a folder.
//!
//! ```text
//!   data/ab/abcd…#1     an object that was being written; numbered, as two may write one name
//! ```
//!
//! Object stores on a network have an object whole or not at all, and leave nothing behind.

use std::fs::{self, DirEntry};
use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

use tokio::task::spawn_blocking;
use tracing::warn;

use super::{Store, StoreError, names};

/// Objects lie no deeper below the repository's folders.
const DEPTH_MAX: usize = 2;

impl Store {
    /// Removes half written objects that were last written before a time, by the store's clock. A process that is still
    /// writing one gets an error.
    pub(crate) async fn remove_half_written(&self, before_unix_ms: i64) -> Result<(), StoreError> {
        let Some(folder) = self.folder().map(ToOwned::to_owned) else {
            return Ok(());
        };
        let removed = spawn_blocking(move || {
            let config = remove_in(&folder, before_unix_ms, 0, &|name| staged(name) == Some("config"));
            names::FOLDERS.iter().try_fold(config?, |removed, below| {
                let is_ours = |name: &str| staged(name).is_some();
                Ok(removed + remove_in(&folder.join(below), before_unix_ms, DEPTH_MAX, &is_ours)?)
            })
        });
        let removed =
            removed.await.expect("removing files does not panic").map_err(|source: io::Error| {
                let source = object_store::Error::Generic { store: "folder", source: source.into() };
                StoreError::Failed { attempt: "remove half written objects of", name: "/".into(), source }
            })?;
        if removed > 0 {
            warn!(removed, "objects that killed processes left half written were removed");
        }
        Ok(())
    }
}

/// The object's name in that of a half written one.
fn staged(name: &str) -> Option<&str> {
    let (object, number) = name.split_once('#')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some(object)
}

fn remove_in(
    folder: &Path,
    before_unix_ms: i64,
    depth: usize,
    is_ours: &dyn Fn(&str) -> bool,
) -> io::Result<usize> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        // Empty folders come and go.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut removed = 0;
    for entry in entries {
        let entry = entry?;
        let is_file = entry.file_type()?.is_file();
        if entry.file_type()?.is_dir() && depth > 0 {
            removed += remove_in(&entry.path(), before_unix_ms, depth - 1, is_ours)?;
        } else if is_file
            && entry.file_name().to_str().is_some_and(is_ours)
            && is_older(&entry, before_unix_ms)
        {
            match fs::remove_file(entry.path()) {
                Ok(()) => removed += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(removed)
}

/// False for one that vanished meanwhile.
fn is_older(entry: &DirEntry, before_unix_ms: i64) -> bool {
    let written = entry.metadata().and_then(|metadata| metadata.modified());
    let since = written.ok().and_then(|written| written.duration_since(UNIX_EPOCH).ok());
    since.is_some_and(|since| i64::try_from(since.as_millis()).is_ok_and(|at| at <= before_unix_ms))
}
