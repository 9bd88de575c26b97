//! Unmounting: normally, and by detaching where the mount stays in use.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use tokio::task::spawn_blocking;

use super::error::MountError;

/// How long users of a mount may take to close their files. A loop device, too, is released only some time after.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Unmounts what is mounted on a path. A no-op where nothing is mounted.
///
/// # Errors
/// When it had to be detached from under its users, or could not even be.
pub(super) async fn unmount(path: &Path) -> Result<(), MountError> {
    let give_up = Instant::now() + RELEASE_TIMEOUT;
    loop {
        match try_to(path, MntFlags::UMOUNT_NOFOLLOW).await {
            Ok(()) | Err(Errno::EINVAL) => return Ok(()),
            Err(Errno::EBUSY) if Instant::now() < give_up => tokio::time::sleep(RETRY_INTERVAL).await,
            Err(Errno::EBUSY) => break,
            Err(errno) => return Err(failed(path, errno)),
        }
    }
    detach(path).await?;
    Err(MountError::StillInUse { path: path.to_owned() })
}

/// Takes a mount out of the tree. Processes that use it may go on.
pub(super) async fn detach(path: &Path) -> Result<(), MountError> {
    match try_to(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).await {
        Ok(()) | Err(Errno::EINVAL) => Ok(()),
        Err(errno) => Err(failed(path, errno)),
    }
}

/// Unmounting a disk may have to wait for it.
async fn try_to(path: &Path, flags: MntFlags) -> Result<(), Errno> {
    let path: PathBuf = path.to_owned();
    spawn_blocking(move || umount2(&path, flags)).await.expect("unmounting does not panic")
}

fn failed(path: &Path, errno: Errno) -> MountError {
    MountError::Io { attempt: "unmount", path: path.to_owned(), source: errno.into() }
}
