//! Who may read and write files of the state directory, where its processes run as users of their own.
//!
//! Links are never followed, and what belongs to its owner already is left alone: a service that writes its folder cannot
//! make root change anything outside of it.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use super::StateDirError;
use super::write::folder;

/// Read by the group of one service, written by root.
const FILE_SHARED: u32 = 0o640;
/// The same of a folder, and of the private files that are written in it later.
const FOLDER_SHARED: u32 = 0o750;
const FOLDER_OWN: u32 = 0o700;
const FOLDER_FOR_ALL: u32 = 0o755;
const FILE_FOR_ALL: u32 = 0o644;

/// A user with a group of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// Lets the group of a service read a file of ours; a no-op where there is none. One that others can write is refused.
pub fn share(path: &Path, reader: Owner) -> Result<(), StateDirError> {
    if ok_if_missing(fs::symlink_metadata(path).map(Some)).is_ok_and(|found| found.is_some()) {
        // What others could write meanwhile is not made trusted by another mode.
        chassis::refuse_if_others_can_write(path)?;
    }
    let share = || {
        lchown(path, None, Some(reader.gid))?;
        fs::set_permissions(path, Permissions::from_mode(FILE_SHARED))
    };
    ok_if_missing(share()).map_err(StateDirError::disk("letting a service read", path))
}

/// Lets a group read a folder of ours, and what is and will be in it.
pub fn share_folder(path: &Path, reader: Owner) -> Result<(), StateDirError> {
    let failed = |error| StateDirError::disk("letting a service read", path)(error);
    lchown(path, None, Some(reader.gid)).map_err(failed)?;
    fs::set_permissions(path, Permissions::from_mode(FOLDER_SHARED)).map_err(failed)?;
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_file() {
            share(&entry.path(), reader)?;
        }
    }
    Ok(())
}

/// Makes a folder, where there is none, and gives it to a service with all that is in it.
pub fn give_folder(path: &Path, owner: Owner) -> Result<(), StateDirError> {
    match fs::symlink_metadata(path) {
        // What is in it its owner has made.
        Ok(found) if found.uid() == owner.uid => return Ok(()),
        Ok(_) => {}
        Err(_) => folder(path, FOLDER_OWN)?,
    }
    give_all(path, owner).map_err(StateDirError::disk("giving to its service", path))
}

/// The folder itself last: an interrupted call is repeated from the beginning.
fn give_all(path: &Path, owner: Owner) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            give_all(&entry?.path(), owner)?;
        }
    }
    lchown(path, Some(owner.uid), Some(owner.gid))
}

/// Lets everybody read a folder and the files in it: they are public.
pub fn open_to_all(path: &Path) -> Result<(), StateDirError> {
    let failed = |error| StateDirError::disk("letting all read", path)(error);
    fs::set_permissions(path, Permissions::from_mode(FOLDER_FOR_ALL)).map_err(failed)?;
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_file() {
            fs::set_permissions(entry.path(), Permissions::from_mode(FILE_FOR_ALL)).map_err(failed)?;
        }
    }
    Ok(())
}

/// Gives a file the group and the mode of another, in whose place it is about to be put; a no-op where there is none.
pub fn like(other: &Path, path: &Path) -> io::Result<()> {
    match ok_if_missing(fs::symlink_metadata(other).map(Some))? {
        Some(other) => {
            lchown(path, None, Some(other.gid()))?;
            fs::set_permissions(path, Permissions::from_mode(other.mode() & 0o777))
        }
        None => Ok(()),
    }
}

fn ok_if_missing<T: Default>(outcome: io::Result<T>) -> io::Result<T> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(T::default()),
        other => other,
    }
}
