//! The kernel's own file systems on top of a disk's file, through a loop device that goes with the mount.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use tokio::process::Command;
use tokio::time::timeout;

use super::error::MountError;
use super::nodes::Node;
use super::table::mounted_on;
use super::unmount::unmount;
use crate::files::FileSystem;

/// Mounting reads some metadata, from a distant store perhaps.
const MOUNT_TIMEOUT: Duration = Duration::from_secs(60);
/// The error message of `mount` is cut after this.
const MESSAGE_CHARS_MAX: usize = 500;
/// The programs of the system and no others.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A file system of a backup, mounted read-only.
#[derive(Debug)]
pub(super) struct LoopMount {
    target: PathBuf,
    mounted: bool,
}

/// The kernel's name of a file system, and the options that keep it from writing to a journal or log.
fn driver(holds: FileSystem) -> Option<(&'static str, &'static str)> {
    Some(match holds {
        // The driver for ext4 reads ext2 and ext3, too.
        FileSystem::Ext => ("ext4", "noload"),
        FileSystem::Xfs => ("xfs", "norecovery,nouuid"),
        FileSystem::Btrfs => ("btrfs", "rescue=nologreplay"),
        FileSystem::Ntfs => ("ntfs3", "noatime"),
        FileSystem::Fat => ("vfat", "noatime"),
        FileSystem::ExFat => ("exfat", "noatime"),
        FileSystem::Iso9660 => ("iso9660", "noatime"),
        FileSystem::SquashFs => ("squashfs", "noatime"),
        FileSystem::Lvm | FileSystem::Luks | FileSystem::Raid | FileSystem::Swap | FileSystem::Unknown => {
            return None;
        }
    })
}

impl LoopMount {
    /// Mounts what the file `image` of a node holds on an empty folder.
    pub(super) async fn mount(node: &Node, image: &Path, target: &Path) -> Result<LoopMount, MountError> {
        let Some((kind, options)) = driver(node.file_system) else {
            return Err(MountError::NotMountable { name: node.name.clone(), found: node.file_system });
        };
        let target = empty_folder(target)?;
        let options = format!("loop,ro,nosuid,nodev,noexec,{options}");
        let mut command = Command::new("mount");
        command.args(["-n", "-t", kind, "-o", &options, "--source"]).arg(image).arg("--target").arg(&target);
        command.env_clear().env("PATH", PATH).env("LC_ALL", "C");
        command.stdin(Stdio::null()).kill_on_drop(true);
        // From here on it is unmounted in every case.
        let mut attached = LoopMount { target, mounted: true };
        let failed = |source| MountError::Io { attempt: "run mount for", path: image.to_owned(), source };
        let outcome = match timeout(MOUNT_TIMEOUT, command.output()).await {
            Ok(Ok(output)) if output.status.success() => Ok(()),
            Ok(Ok(output)) => {
                let message = String::from_utf8_lossy(&output.stderr);
                let message = message.trim().chars().take(MESSAGE_CHARS_MAX).collect();
                Err(MountError::Refused { name: node.name.clone(), message })
            }
            Ok(Err(error)) => Err(failed(error)),
            Err(_) => Err(MountError::TimedOut { name: node.name.clone(), seconds: MOUNT_TIMEOUT.as_secs() }),
        };
        if let Err(error) = outcome {
            attached.mounted = mounted_on(&attached.target).map_err(failed)?.is_some();
            return Err(error);
        }
        Ok(attached)
    }

    pub(super) async fn unmount(mut self) -> Result<(), MountError> {
        self.mounted = false;
        unmount(&self.target).await
    }
}

impl Drop for LoopMount {
    fn drop(&mut self) {
        if self.mounted {
            // A drop cannot wait for users to finish.
            if let Err(error) = umount2(&self.target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
                tracing::warn!(target = %self.target.display(), %error, "a file system could not be unmounted");
            }
        }
    }
}

/// The folder's path without links, so that a link that is changed later has no effect.
pub(super) fn empty_folder(path: &Path) -> Result<PathBuf, MountError> {
    let failed = |source| MountError::Io { attempt: "look into", path: path.to_owned(), source };
    let path = path.canonicalize().map_err(failed)?;
    let mut entries = std::fs::read_dir(&path).map_err(failed)?;
    if entries.next().is_some() {
        return Err(MountError::Folder { path, why: "it is not empty" });
    }
    Ok(path)
}
