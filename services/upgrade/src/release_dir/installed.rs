//! Executables that the supervisor may start.

use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use chassis::sha256_of;
use contract::{OperationId, Service};
use upgrade_domain::{BUILD_DIGITS, Release};

use super::{ReleaseDir, ReleaseDirError, disk, remove_folder, sync_folder};

impl ReleaseDir {
    /// Where a release's executable is, or will be.
    pub fn executable_of(&self, release: &Release) -> PathBuf {
        self.folder(release.service(), release.build()).join(format!("loam-{}", release.service()))
    }

    /// Puts the executable received for an operation in its place, after a check; a no-op where the right one is there.
    ///
    /// # Errors
    /// When the executable is not the signed one, or our disk fails.
    pub fn install(&self, id: &OperationId, release: &Release) -> Result<PathBuf, ReleaseDirError> {
        let executable = self.executable_of(release);
        let folder = self.folder(release.service(), release.build());
        if executable.is_file() && release.check(&digest(&executable)?).is_ok() {
            return Ok(executable);
        }
        let received = self.received_executable(id);
        release.check(&digest(&received)?)?;
        DirBuilder::new().recursive(true).mode(0o755).create(&folder).map_err(disk("making", &folder))?;
        self.copy_manifest(id, &folder)?;
        std::fs::set_permissions(&received, Permissions::from_mode(0o755))
            .map_err(disk("making executable", &received))?;
        std::fs::rename(&received, &executable).map_err(disk("renaming to", &executable))?;
        for parent in folder.ancestors().take(3) {
            sync_folder(parent)?;
        }
        Ok(executable)
    }

    /// Removes a release's executable; a no-op where there is none.
    ///
    /// # Errors
    /// When our disk fails.
    pub fn uninstall(&self, release: &Release) -> Result<(), ReleaseDirError> {
        remove_folder(&self.folder(release.service(), release.build()))
    }

    /// Removes every build of a service but those that hold one of these executables.
    ///
    /// # Errors
    /// When our disk fails; some builds may be removed then.
    pub fn keep_only(&self, service: Service, executables: &[PathBuf]) -> Result<(), ReleaseDirError> {
        let folder = self.releases.join(service.name());
        for entry in std::fs::read_dir(&folder).map_err(disk("reading", &folder))? {
            let build = entry.map_err(disk("reading", &folder))?;
            let name = build.file_name();
            let ours = name.len() == BUILD_DIGITS && build.path().is_dir();
            if ours && !executables.iter().any(|path| path.starts_with(build.path())) {
                remove_folder(&build.path())?;
            }
        }
        Ok(())
    }

    fn folder(&self, service: Service, build: &str) -> PathBuf {
        self.releases.join(service.name()).join(build)
    }
}

/// The build of an executable: the first 16 hexadecimal digits of its SHA-256.
///
/// # Errors
/// When it cannot be read.
pub fn build_of(executable: &Path) -> Result<String, ReleaseDirError> {
    let mut digest = digest(executable)?;
    digest.truncate(BUILD_DIGITS);
    Ok(digest)
}

fn digest(path: &Path) -> Result<String, ReleaseDirError> {
    sha256_of(path).map_err(disk("reading", path))
}
