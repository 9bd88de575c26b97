//! Receiving a release: copied once into a folder of our own, and verified there.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use contract::OperationId;
use contract::upgrade::ApplyReleaseRefused;
use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use sha2::{Digest, Sha256};
use upgrade_domain::Release;

use super::{ReleaseDir, ReleaseDirError, disk, remove_folder, sync_folder};

const MANIFEST: &str = "release.toml";
const SIGNATURE: &str = "release.toml.minisig";
/// The copy of the executable, whatever it was called where it came from.
const EXECUTABLE: &str = "executable";
/// A manifest has a few lines.
const MANIFEST_BYTES_MAX: u64 = 64 * 1024;
/// A minisign signature has four lines.
const SIGNATURE_BYTES_MAX: u64 = 4 * 1024;
/// Our executables have some tens of megabytes.
const EXECUTABLE_BYTES_MAX: u64 = 512 * 1024 * 1024;
const PIECE_BYTES: usize = 256 * 1024;

impl ReleaseDir {
    /// Copies a release into the folder of an operation and verifies the copy: the signature before anything is read,
    /// then the manifest, then the executable's digest.
    ///
    /// # Errors
    /// When the release is refused or our disk fails; nothing is left behind.
    pub fn receive(&self, id: &OperationId, folder: &Path) -> Result<Release, ReleaseDirError> {
        let received = self.receive_into(&self.incoming(id), folder);
        if received.is_err() {
            self.discard(id)?;
        }
        received
    }

    /// Makes the folder of an operation that receives nothing, so that it is known to be of this host.
    ///
    /// # Errors
    /// When our disk fails.
    pub fn reserve(&self, id: &OperationId) -> Result<(), ReleaseDirError> {
        let ours = self.incoming(id);
        DirBuilder::new().recursive(true).mode(0o700).create(&ours).map_err(disk("making", &ours))
    }

    /// Reads what was received before, verifying manifest and signature once more.
    ///
    /// # Errors
    /// When nothing was received for the operation, or its signer is not trusted any more.
    pub fn received(&self, id: &OperationId) -> Result<Release, ReleaseDirError> {
        let ours = self.incoming(id);
        let text = |name: &str, bytes_max| read_plain(&ours.join(name), bytes_max);
        let manifest =
            text(MANIFEST, MANIFEST_BYTES_MAX).map_err(|error| unreadable(&ours.join(MANIFEST), &error))?;
        let signature = text(SIGNATURE, SIGNATURE_BYTES_MAX)
            .map_err(|error| unreadable(&ours.join(SIGNATURE), &error))?;
        self.trusted_keys()?.verify(&manifest, &String::from_utf8_lossy(&signature))?;
        Ok(Release::read(&manifest)?)
    }

    /// The verified copy of an executable, until it is installed.
    pub(super) fn received_executable(&self, id: &OperationId) -> PathBuf {
        self.incoming(id).join(EXECUTABLE)
    }

    /// Copies manifest and signature of what was received beside the executable: a supervisor that is another user than we
    /// checks them again.
    pub(super) fn copy_manifest(&self, id: &OperationId, to: &Path) -> Result<(), ReleaseDirError> {
        for name in [MANIFEST, SIGNATURE] {
            let copy = to.join(name);
            std::fs::copy(self.incoming(id).join(name), &copy).map_err(disk("writing", &copy))?;
            File::open(&copy).and_then(|file| file.sync_all()).map_err(disk("writing", &copy))?;
        }
        Ok(())
    }

    /// The operations that have a folder here: those of this host.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn received_ids(&self) -> Result<Vec<OperationId>, ReleaseDirError> {
        let folder = self.all_incoming();
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(disk("reading", &folder)(error)),
        };
        let mut ids = Vec::new();
        for entry in entries {
            let name = entry.map_err(disk("reading", &folder))?.file_name();
            ids.extend(name.to_str().and_then(|name| OperationId::new(name).ok()));
        }
        Ok(ids)
    }

    /// Removes what was received for an operation; a no-op where nothing was.
    ///
    /// # Errors
    /// When our disk fails.
    pub fn discard(&self, id: &OperationId) -> Result<(), ReleaseDirError> {
        remove_folder(&self.incoming(id))
    }

    fn all_incoming(&self) -> PathBuf {
        self.releases.join(".incoming")
    }

    fn incoming(&self, id: &OperationId) -> PathBuf {
        self.all_incoming().join(id.as_str())
    }

    fn receive_into(&self, ours: &Path, folder: &Path) -> Result<Release, ReleaseDirError> {
        if !folder.is_absolute() {
            let reason = format!("{}: write the folder as an absolute path", folder.display());
            return Err(ApplyReleaseRefused::UnreadableRelease(reason).into());
        }
        let keys = self.trusted_keys()?;
        let from = |name: &str| folder.join(name);
        let manifest = read_plain(&from(MANIFEST), MANIFEST_BYTES_MAX)
            .map_err(|error| unreadable(&from(MANIFEST), &error))?;
        let signature =
            read_plain(&from(SIGNATURE), SIGNATURE_BYTES_MAX).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => {
                    ApplyReleaseRefused::Unsigned(from(SIGNATURE).display().to_string()).into()
                }
                _ => unreadable(&from(SIGNATURE), &error),
            })?;
        keys.verify(&manifest, &String::from_utf8_lossy(&signature))?;
        let release = Release::read(&manifest)?;

        remove_folder(ours)?;
        DirBuilder::new().recursive(true).mode(0o700).create(ours).map_err(disk("making", ours))?;
        for (name, bytes) in [(MANIFEST, &manifest), (SIGNATURE, &signature)] {
            let path = ours.join(name);
            let written = File::create(&path).and_then(|mut file| {
                file.write_all(bytes)?;
                file.sync_all()
            });
            written.map_err(disk("writing", &path))?;
        }
        let source = open_plain(&from(release.file()), EXECUTABLE_BYTES_MAX)
            .map_err(|error| unreadable(&from(release.file()), &error))?;
        let digest = copy_executable(source, &from(release.file()), &ours.join(EXECUTABLE))?;
        release.check(&digest)?;
        sync_folder(ours)?;
        Ok(release)
    }
}

fn unreadable(path: &Path, error: &io::Error) -> ReleaseDirError {
    ApplyReleaseRefused::UnreadableRelease(format!("{}: {error}", path.display())).into()
}

/// Opens a plain file of bounded size: no symbolic link, no pipe on which we would wait for ever.
fn open_plain(path: &Path, bytes_max: u64) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a plain file"));
    }
    if metadata.len() > bytes_max {
        return Err(io::Error::other(format!("it has more than {bytes_max} bytes")));
    }
    Ok(file)
}

fn read_plain(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_plain(path, bytes_max)?.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Copies, and returns the SHA-256 of what was written.
fn copy_executable(source: File, from: &Path, to: &Path) -> Result<String, ReleaseDirError> {
    let mut copy =
        OpenOptions::new().write(true).create_new(true).mode(0o700).open(to).map_err(disk("making", to))?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut source = source.take(EXECUTABLE_BYTES_MAX);
    loop {
        let count = source.read(&mut piece).map_err(|error| unreadable(from, &error))?;
        if count == 0 {
            break;
        }
        hasher.update(&piece[..count]);
        copy.write_all(&piece[..count]).map_err(disk("writing", to))?;
    }
    copy.sync_all().map_err(disk("writing", to))?;
    Ok(hex::encode(hasher.finalize()))
}
