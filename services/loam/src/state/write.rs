//! Writes to the state directory: a crash leaves the old file or the new one, never half of either.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::unistd::getegid;

/// Only its owner may read and write it.
const FILE_FOR_US: u32 = 0o600;
/// The group of its folder may read it, too.
const FILE_FOR_GROUP: u32 = 0o640;
const FOLDER_FOR_US: u32 = 0o700;
/// The mode bit with which a group may read.
const READ_BY_GROUP: u32 = 0o040;
/// The mode bits of users who are neither the owner nor in the group.
const FOR_OTHERS: u32 = 0o007;
/// Everybody may read it.
const FILE_FOR_ALL: u32 = 0o644;

/// The state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// A file or folder cannot be made or read.
    #[error("{doing} {path}")]
    Disk {
        /// What was attempted.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What happened.
        #[source]
        source: std::io::Error,
    },
    /// A key file holds something else.
    #[error("{path} holds no nkey seed of a user; remove it, and the next start makes a new one")]
    NotAKey {
        /// The file.
        path: PathBuf,
    },
    /// A file holds something else.
    #[error("{path} cannot be read: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody else can write a key file.
    #[error(transparent)]
    UntrustedFile(#[from] chassis::FileTrustError),
    /// Another process has locked the directory.
    #[error("another `loam up` runs on {path}; end it first, or choose another directory with --state")]
    Locked {
        /// The folder.
        path: PathBuf,
    },
}

impl StateDirError {
    pub(crate) fn unreadable(path: &Path, reason: impl std::fmt::Display) -> StateDirError {
        StateDirError::Unreadable { path: path.into(), reason: reason.to_string() }
    }

    pub(crate) fn disk(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StateDirError {
        let path = path.to_path_buf();
        move |source| StateDirError::Disk { doing, path, source }
    }
}

/// Makes a folder with its parents, and gives it the mode whatever the umask says.
pub(super) fn folder(path: &Path, mode: u32) -> Result<(), StateDirError> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(StateDirError::disk("making the folder", path))?;
    std::fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(StateDirError::disk("setting the mode of", path))
}

/// Makes a folder that only its owner may enter. One that was shared with a group stays so.
pub(super) fn private_folder(path: &Path) -> Result<(), StateDirError> {
    if shared_with(path).is_some() { Ok(()) } else { folder(path, FOLDER_FOR_US) }
}

/// The group of another user that may read the file or folder, which is closed to all others.
fn shared_with(path: &Path) -> Option<u32> {
    let found = std::fs::symlink_metadata(path).ok()?;
    let is_shared = found.permissions().mode() & (READ_BY_GROUP | FOR_OTHERS) == READ_BY_GROUP;
    (is_shared && found.gid() != getegid().as_raw()).then_some(found.gid())
}

/// Writes a file that only its owner may read, atomically. Where it, or its folder, was shared with the group of a service,
/// that may read it, too.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), StateDirError> {
    match [Some(path), path.parent()].into_iter().flatten().find_map(shared_with) {
        Some(group) => write(path, content, FILE_FOR_GROUP, Some(group)),
        None => write(path, content, FILE_FOR_US, None),
    }
}

/// Writes a file that everybody may read, atomically.
pub fn write_public(path: &Path, content: &[u8]) -> Result<(), StateDirError> {
    write(path, content, FILE_FOR_ALL, None)
}

fn write(path: &Path, content: &[u8], mode: u32, group: Option<u32>) -> Result<(), StateDirError> {
    let failed = |error| StateDirError::disk("writing", path)(error);
    let folder = path.parent().expect("files of the state directory are in a folder");
    let name = path.file_name().expect("files have names").to_string_lossy();
    let draft = folder.join(format!(".{name}.new"));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&draft).map_err(failed)?;
    fchown(&file, None, group).map_err(failed)?;
    // Whatever the umask says.
    file.set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&draft, path).map_err(failed)?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}
