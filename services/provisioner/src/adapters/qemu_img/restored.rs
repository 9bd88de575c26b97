//! Disks that a restore has written: from a folder of the writer's user into the VM's own.
//!
//! ```text
//!   vms/web2/             ours: nobody else can change what is in it
//!     restored/   0700    the writer's: it makes and links what it likes there
//!       vda.raw
//!     vda.raw.taken       moved out of its reach first, then checked and made ours
//!     vda.raw             what the VM runs on
//! ```
//!
//! A crash in between leaves a file that the next call goes on with. What is moved could be a link to a file of ours, or
//! another name of one: such a thing is removed and never used.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use nix::unistd::{getegid, geteuid};

use super::disks::{PRIVATE, create_searchable, failed};
use crate::ports::DiskError;

/// The folder below a VM's.
const FOLDER: &str = "restored";
/// Its writer alone may enter it.
const FOR_WRITER: u32 = 0o700;

/// Makes the folder, for the user that writes restored disks.
pub(super) fn create_folder(vm: &Path, writer: Option<u32>) -> Result<PathBuf, DiskError> {
    create_searchable(vm)?;
    let folder = vm.join(FOLDER);
    let make = || {
        match fs::create_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        fs::set_permissions(&folder, Permissions::from_mode(FOR_WRITER))?;
        lchown(&folder, writer, None)
    };
    make().map_err(failed(format!("create the folder {}", folder.display())))?;
    Ok(folder)
}

/// Takes one disk over; whether there is one.
pub(super) fn take(vm: &Path, disk: &Path, writer: Option<u32>) -> Result<bool, DiskError> {
    let Some(name) = disk.file_name() else { return Ok(false) };
    let (written, taken) = (vm.join(FOLDER).join(name), disk.with_added_extension("taken"));
    let attempt = || format!("take over the restored disk {}", disk.display());
    if exists(disk).map_err(failed(attempt()))? {
        return Ok(true);
    }
    match fs::rename(&written, &taken) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if !exists(&taken).map_err(failed(attempt()))? {
                return Ok(false);
            }
        }
        moved => moved.map_err(failed(attempt()))?,
    }
    let found = fs::symlink_metadata(&taken).map_err(failed(attempt()))?;
    let (ours, writer) = (geteuid().as_raw(), writer.unwrap_or_else(|| geteuid().as_raw()));
    if !found.is_file() || found.nlink() != 1 || ![ours, writer].contains(&found.uid()) {
        fs::remove_file(&taken).map_err(failed(attempt()))?;
        return Err(DiskError::UnusableImage(format!(
            "{} is not a file that a restore has written: it was removed",
            written.display()
        )));
    }
    let make_ours = || {
        lchown(&taken, Some(ours), Some(getegid().as_raw()))?;
        fs::set_permissions(&taken, Permissions::from_mode(PRIVATE))?;
        fs::rename(&taken, disk)?;
        File::open(vm)?.sync_all()
    };
    make_ours().map_err(failed(attempt()))?;
    Ok(true)
}

/// Removes the folder. It is ours first, so that nothing is added meanwhile.
pub(super) fn end_folder(vm: &Path) -> Result<(), DiskError> {
    let folder = vm.join(FOLDER);
    let end = || {
        lchown(&folder, Some(geteuid().as_raw()), None)?;
        fs::remove_dir_all(&folder)
    };
    match end() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        ended => ended.map_err(failed(format!("remove {}", folder.display()))),
    }
}

/// Also a link that leads nowhere.
fn exists(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
