//! The mount itself: the folder of disks, what is attached on top of it, and the orderly end of both.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backup_repository::DiskSource;
use fuser::{BackgroundSession, Config, MountOption};
use nix::errno::Errno;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::error::MountError;
use super::fuse::Folder;
use super::kernel::{LoopMount, empty_folder};
use super::nodes::{Node, nodes};
use super::table::{SOURCE, mounted_on};
use super::unmount::{detach, unmount};

/// A mount that does not answer for so long is not taken for dead: its process may be stopped.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The kernel's errors for a mount whose process is dead.
const DEAD: [i32; 2] = [Errno::ENOTCONN as i32, Errno::ECONNABORTED as i32];

/// Disks shown as files. Dropped without [`unmount`](DisksMount::unmount), it detaches what it can, in no order.
pub struct DisksMount {
    folder: PathBuf,
    nodes: Arc<[Node]>,
    /// Before the session, so that it goes first.
    attached: Vec<LoopMount>,
    session: BackgroundSession,
}

impl DisksMount {
    /// Shows disks as `FOLDER/NAME`, and their partitions as `FOLDER/NAME1` and so on (`NAMEp1` where the name ends
    /// with a digit). What a dead process left mounted there is unmounted first.
    ///
    /// # Errors
    /// When the folder is not empty or mounted on already, names collide, disks cannot be read, or FUSE is not
    /// available.
    pub async fn start(
        folder: &Path,
        disks: Vec<(String, Arc<dyn DiskSource>)>,
    ) -> Result<DisksMount, MountError> {
        clear_dead(folder).await?;
        let folder = empty_folder(folder)?;
        let nodes: Arc<[Node]> = nodes(disks).await?.into();
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::RO,
            MountOption::NoDev,
            MountOption::NoSuid,
            MountOption::NoExec,
            MountOption::DefaultPermissions,
            MountOption::FSName(SOURCE.to_owned()),
        ];
        let files = Folder::new(Arc::clone(&nodes));
        let on = folder.clone();
        let mounted = spawn_blocking(move || fuser::spawn_mount(files, &on, &config)).await;
        let failed = |source| MountError::Io { attempt: "mount disks on", path: folder.clone(), source };
        let session = mounted.expect("mounting does not panic").map_err(failed)?;
        Ok(DisksMount { folder, nodes, attached: Vec::new(), session })
    }

    /// The names of the files: disks, each followed by its partitions.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().map(|node| node.name.as_str())
    }

    /// Mounts the file system that a disk or partition holds, read-only, on an empty folder. Needs root.
    ///
    /// # Errors
    /// When there is no such disk, it holds nothing that can be mounted, or the kernel refuses.
    pub async fn attach(&mut self, name: &str, target: &Path) -> Result<(), MountError> {
        let Some(node) = self.nodes.iter().find(|node| node.name == name) else {
            let there = self.names().collect::<Vec<_>>().join(", ");
            return Err(MountError::NoSuchDisk { name: name.to_owned(), there });
        };
        let attached = LoopMount::mount(node, &self.folder.join(name), target).await?;
        self.attached.push(attached);
        Ok(())
    }

    /// Waits for `end` (a signal, for example), and unmounts everything.
    ///
    /// # Errors
    /// As [`unmount`](DisksMount::unmount).
    pub async fn until(self, end: impl Future<Output = ()>) -> Result<(), MountError> {
        end.await;
        self.unmount().await
    }

    /// Unmounts everything, and tries each even where another failed.
    ///
    /// # Errors
    /// The first thing that went wrong.
    pub async fn unmount(self) -> Result<(), MountError> {
        let DisksMount { folder, attached, session, .. } = self;
        let mut outcome = Ok(());
        for attached in attached.into_iter().rev() {
            outcome = outcome.and(attached.unmount().await);
        }
        let taken = match unmount(&folder).await {
            // Without root it was mounted by `fusermount3`, which also unmounts.
            Err(MountError::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            taken => taken,
        };
        outcome = outcome.and(taken);
        let path = folder.clone();
        let ended =
            spawn_blocking(move || session.umount_and_join()).await.expect("ending a session does not panic");
        match ended {
            // It is unmounted, as it should be by now. The thread that answered ends by itself.
            Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => outcome,
            ended => outcome.and(ended.map_err(|source| MountError::Io {
                attempt: "end the mount on",
                path,
                source,
            })),
        }
    }
}

/// Unmounts what a dead process left mounted there; an error when disks are mounted there by one that lives.
async fn clear_dead(folder: &Path) -> Result<(), MountError> {
    let failed = |source| MountError::Io { attempt: "look for mounts on", path: folder.to_owned(), source };
    // The folder itself is not touched: a hung process would have to answer.
    let folder = std::path::absolute(folder).map_err(failed)?;
    let folder = match (folder.parent(), folder.file_name()) {
        (Some(parent), Some(name)) => parent.canonicalize().map_err(failed)?.join(name),
        _ => folder,
    };
    if !mounted_on(&folder).map_err(failed)?.is_some_and(|mounted| mounted.is_ours()) {
        return Ok(());
    }
    let asked = folder.clone();
    // The kernel still knows the attributes of a dead mount's folder; to list it, the process has to answer.
    let answer = timeout(ANSWER_TIMEOUT, spawn_blocking(move || std::fs::read_dir(asked).map(drop))).await;
    match answer {
        Ok(Ok(Err(error))) if matches!(error.raw_os_error(), Some(errno) if DEAD.contains(&errno)) => {
            tracing::warn!(folder = %folder.display(), "unmounting what a dead process left mounted");
            detach(&folder).await
        }
        _ => Err(MountError::Folder { path: folder, why: "disks are mounted there already" }),
    }
}
