//! Executables that the supervisor may start.

use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use chassis::sha256_of;
use contract::{OperationId, Service};
use upgrade_domain::{BUILD_DIGITS, Release};

use super::{Shelf, ShelfError, disk, remove_folder, sync_folder};

impl Shelf {
    /// Where a release's executable is, or will be.
    pub fn place(&self, release: &Release) -> PathBuf {
        self.folder(release.service(), release.build()).join(format!("loam-{}", release.service()))
    }

    /// Puts the executable received for an operation in its place and checks it there. Doing so twice is calm.
    pub fn install(&self, id: &OperationId, release: &Release) -> Result<PathBuf, ShelfError> {
        let place = self.place(release);
        let folder = self.folder(release.service(), release.build());
        if place.is_file() && release.check(&digest(&place)?).is_ok() {
            return Ok(place);
        }
        let waiting = self.waiting_executable(id);
        release.check(&digest(&waiting)?)?;
        DirBuilder::new().recursive(true).mode(0o755).create(&folder).map_err(disk("making", &folder))?;
        std::fs::set_permissions(&waiting, Permissions::from_mode(0o755))
            .map_err(disk("opening", &waiting))?;
        std::fs::rename(&waiting, &place).map_err(disk("placing", &place))?;
        for step in folder.ancestors().take(3) {
            sync_folder(step)?;
        }
        Ok(place)
    }

    /// Removes a release's executable; calm where there is none.
    pub fn uninstall(&self, release: &Release) -> Result<(), ShelfError> {
        remove_folder(&self.folder(release.service(), release.build()))
    }

    /// Removes every build of a service but those that hold one of these executables.
    pub fn keep_only(&self, service: Service, executables: &[&Path]) -> Result<(), ShelfError> {
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

/// Which build an executable is.
pub fn build_of(executable: &Path) -> Result<String, ShelfError> {
    let mut digest = digest(executable)?;
    digest.truncate(BUILD_DIGITS);
    Ok(digest)
}

fn digest(path: &Path) -> Result<String, ShelfError> {
    sha256_of(path).map_err(disk("reading", path))
}
