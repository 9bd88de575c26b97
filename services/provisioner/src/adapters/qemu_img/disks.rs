//! The port `Disks` on a folder.

use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use contract::provisioner::DESCRIPTOR_SOCKET;
use contract::{ByteCount, OperationId, VmName};
use provisioner_domain::nocloud::NoCloudDocuments;
use provisioner_libvirt::qemu_user::QemuUser;
use tokio::fs::OpenOptions;
use tokio::io::AsyncWriteExt;

use super::{import, nbd_server, nocloud, restored, run};
use crate::ports::{
    BoxError, Disk, DiskError, DiskReader, Disks, Image, ImageFormat, ImportedSeedImage, ProgressCallback,
    SeedImageSource,
};

/// Creating an overlay writes a header.
const CLONE_MAX: Duration = Duration::from_secs(20);
/// Searchable, not readable: QEMU's user reaches its files, nobody lists them.
const SEARCHABLE: u32 = 0o711;
/// What is on a disk is for nobody else on the host. libvirt makes QEMU's user the owner when a VM starts.
pub(super) const PRIVATE: u32 = 0o600;
/// A socket's path has at most 107 bytes; `/exports/{26 characters}/{disk}.sock` takes 48 of them with short disk names.
const STATE_PATH_BYTES_MAX: usize = 107 - 48;

/// Disks under one folder.
#[derive(Clone, Debug)]
pub struct QemuImgDisks {
    state: PathBuf,
    qemu: Option<QemuUser>,
    /// The user of the backup service, where it is not ours.
    reader: Option<u32>,
}

impl QemuImgDisks {
    /// Keeps disks under `state`, for a QEMU that runs as `qemu`, if any real one does.
    ///
    /// # Errors
    /// When the folders cannot be made, QEMU cannot get there, or the path is too long for sockets.
    pub fn open(state: &Path, qemu: Option<QemuUser>) -> Result<QemuImgDisks, DiskError> {
        if state.as_os_str().len() > STATE_PATH_BYTES_MAX {
            return Err(DiskError::UnusableImage(format!(
                "the path of state_dir has more than {STATE_PATH_BYTES_MAX} bytes, too many for the sockets below it: {}",
                state.display()
            )));
        }
        let disks = QemuImgDisks { state: state.into(), qemu, reader: None };
        for folder in ["seeds", "vms", "aside", "exports", "run"] {
            create_searchable(&disks.state.join(folder))?;
        }
        if let Some(qemu) = &disks.qemu {
            qemu.check_way_to(&disks.state.join("vms"))
                .map_err(|error| not_usable("open the folder for disks", error))?;
        }
        Ok(disks)
    }

    /// The same for a backup service that runs as another user.
    #[must_use]
    pub fn read_by(self, reader: Option<u32>) -> QemuImgDisks {
        QemuImgDisks { reader, ..self }
    }

    fn path(&self, kind: &str, name: &str) -> PathBuf {
        self.state.join(kind).join(name)
    }
}

pub(super) fn failed(attempt: impl Into<String>) -> impl FnOnce(io::Error) -> DiskError {
    let attempt = attempt.into();
    move |source| DiskError::Io { attempt, source }
}

fn not_usable(attempt: &str, cause: impl Into<BoxError>) -> DiskError {
    DiskError::StateDirUnusable { attempt: attempt.into(), source: cause.into() }
}

pub(super) fn create_searchable(folder: &Path) -> Result<(), DiskError> {
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::set_permissions(folder, PermissionsExt::from_mode(SEARCHABLE)))
        .map_err(failed(format!("create the folder {}", folder.display())))
}

/// Removing or moving what does not exist is a no-op.
fn ok_if_missing(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

async fn move_folder(from: PathBuf, to: PathBuf) -> Result<(), DiskError> {
    let attempt = format!("move {} to {}", from.display(), to.display());
    ok_if_missing(tokio::fs::rename(&from, &to).await).map_err(failed(attempt))
}

async fn remove_folder(folder: PathBuf) -> Result<(), DiskError> {
    ok_if_missing(tokio::fs::remove_dir_all(&folder).await)
        .map_err(failed(format!("remove {}", folder.display())))
}

async fn names_in(folder: PathBuf) -> Result<Vec<String>, DiskError> {
    let attempt = format!("list {}", folder.display());
    let list = async {
        let mut entries = tokio::fs::read_dir(&folder).await?;
        let mut names = Vec::new();
        while let Some(entry) = entries.next_entry().await? {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    };
    list.await.map_err(failed(attempt))
}

#[async_trait]
impl Disks for QemuImgDisks {
    async fn import_seed(
        &self,
        source: &SeedImageSource,
        sha256: &str,
        report: ProgressCallback<'_>,
    ) -> Result<ImportedSeedImage, DiskError> {
        import::import(source, sha256, &self.seed_image(sha256).path, report).await
    }

    fn seed_image(&self, sha256: &str) -> Image {
        Image { path: self.path("seeds", &format!("{sha256}.qcow2")), format: ImageFormat::Qcow2 }
    }

    async fn remove_seed(&self, sha256: &str) -> Result<(), DiskError> {
        let path = self.seed_image(sha256).path;
        ok_if_missing(tokio::fs::remove_file(&path).await)
            .map_err(failed(format!("remove {}", path.display())))
    }

    fn folder(&self, vm: &VmName) -> PathBuf {
        self.path("vms", vm.as_str())
    }

    async fn create_folder(&self, vm: &VmName) -> Result<(), DiskError> {
        create_searchable(&self.folder(vm))
    }

    async fn create_restore_folder(&self, vm: &VmName) -> Result<PathBuf, DiskError> {
        restored::create_folder(&self.folder(vm), self.reader)
    }

    async fn take_restored(&self, vm: &VmName, disk: &Path) -> Result<bool, DiskError> {
        restored::take(&self.folder(vm), disk, self.reader)
    }

    async fn end_restore_folder(&self, vm: &VmName) -> Result<(), DiskError> {
        restored::end_folder(&self.folder(vm))
    }

    async fn clone_seed(&self, sha256: &str, to: &Path, size: ByteCount) -> Result<(), DiskError> {
        let seed = self.seed_image(sha256);
        let attempt = format!("create {} as an overlay of its seed", to.display());
        let size = size.0.to_string();
        let arguments = [
            "create".as_ref(),
            "-q".as_ref(),
            "-f".as_ref(),
            "qcow2".as_ref(),
            "-F".as_ref(),
            seed.format.name().as_ref(),
            "-b".as_ref(),
            seed.path.as_os_str(),
            to.as_os_str(),
            size.as_ref(),
        ];
        run(&attempt, "qemu-img", arguments, CLONE_MAX).await?;
        tokio::fs::set_permissions(to, PermissionsExt::from_mode(PRIVATE)).await.map_err(failed(attempt))
    }

    async fn write_nocloud(&self, to: &Path, documents: &NoCloudDocuments) -> Result<(), DiskError> {
        let attempt = format!("write the NoCloud volume {}", to.display());
        let documents = documents.clone();
        let part = to.with_extension("part");
        let write = async {
            // One that an earlier attempt left may be readable to others.
            ok_if_missing(tokio::fs::remove_file(&part).await)?;
            let mut file = OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(&part).await?;
            // A mebibyte in memory, formatted in a millisecond.
            file.write_all(&nocloud::volume(&documents)?).await?;
            file.flush().await?;
            tokio::fs::rename(&part, to).await
        };
        write.await.map_err(failed(attempt))
    }

    async fn exists(&self, path: &Path) -> Result<bool, DiskError> {
        tokio::fs::try_exists(path).await.map_err(failed(format!("find {}", path.display())))
    }

    async fn erase(&self, vm: &VmName) -> Result<(), DiskError> {
        remove_folder(self.folder(vm)).await
    }

    async fn set_aside(&self, vm: &VmName, operation: &OperationId) -> Result<(), DiskError> {
        move_folder(self.folder(vm), self.path("aside", operation.as_str())).await
    }

    async fn bring_back(&self, vm: &VmName, operation: &OperationId) -> Result<(), DiskError> {
        move_folder(self.path("aside", operation.as_str()), self.folder(vm)).await
    }

    async fn set_aside_by(&self) -> Result<Vec<OperationId>, DiskError> {
        let names = names_in(self.state.join("aside")).await?;
        // Anything else in that folder is not ours.
        Ok(names.into_iter().filter_map(|name| OperationId::new(name).ok()).collect())
    }

    async fn discard(&self, operation: &OperationId) -> Result<(), DiskError> {
        remove_folder(self.path("aside", operation.as_str())).await
    }

    async fn create_export_folder(&self, operation: &OperationId) -> Result<PathBuf, DiskError> {
        let folder = self.path("exports", operation.as_str());
        match &self.qemu {
            Some(qemu) => qemu
                .prepare_folder(&folder)
                .map_err(|error| not_usable("create the folder for exports", error))?,
            None => create_searchable(&folder)?,
        }
        Ok(folder)
    }

    async fn remove_export_folder(&self, operation: &OperationId) -> Result<(), DiskError> {
        remove_folder(self.path("exports", operation.as_str())).await
    }

    async fn serve(&self, disk: &Disk, socket: &Path) -> Result<(), DiskError> {
        nbd_server::serve(disk, socket).await
    }

    async fn stop_serving(&self, socket: &Path) -> Result<(), DiskError> {
        nbd_server::stop(socket).await
    }

    fn reader(&self) -> DiskReader {
        DiskReader { socket: self.state.join(DESCRIPTOR_SOCKET), uid: self.reader }
    }

    async fn free(&self) -> Result<ByteCount, DiskError> {
        // Where the disks are: it may be a volume of its own.
        let vms = self.state.join("vms");
        let about = nix::sys::statvfs::statvfs(&vms)
            .map_err(|error| failed(format!("measure {}", vms.display()))(error.into()))?;
        Ok(ByteCount(about.blocks_available() as u64 * about.fragment_size() as u64))
    }
}
