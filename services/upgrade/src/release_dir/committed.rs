//! The highest version of each service that was ever committed: `committed.toml`, beside the builds.

use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use contract::Service;
use serde::{Deserialize, Serialize};
use upgrade_domain::highest_version;

use super::{ReleaseDir, ReleaseDirError, disk, sync_folder};

#[derive(Serialize, Deserialize)]
struct Committed {
    highest_version: String,
}

impl ReleaseDir {
    /// The highest version that was recorded; absent where none was.
    ///
    /// # Errors
    /// When the record is there and cannot be read: then it is not known what is older.
    pub fn highest_committed(&self, service: Service) -> Result<Option<String>, ReleaseDirError> {
        let path = self.committed(service);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(disk("reading", &path)(error)),
        };
        let Committed { highest_version } =
            toml::from_str(&text).map_err(|error| disk("reading", &path)(io::Error::other(error)))?;
        Ok(Some(highest_version))
    }

    /// Records a version that was committed; a no-op where a higher one was.
    ///
    /// # Errors
    /// When our disk fails; the record is as before then.
    pub fn record_committed(&self, service: Service, version: &str) -> Result<(), ReleaseDirError> {
        let known = self.highest_committed(service)?;
        if highest_version(known.as_deref().into_iter().chain([version])) == known.as_deref() {
            return Ok(());
        }
        self.write_committed(service, version)
    }

    /// Makes the record what it was.
    ///
    /// # Errors
    /// When our disk fails.
    pub fn restore_committed(&self, service: Service, before: Option<&str>) -> Result<(), ReleaseDirError> {
        let Some(before) = before else {
            let path = self.committed(service);
            return match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(disk("removing", &path)(error)),
                _ => Ok(()),
            };
        };
        self.write_committed(service, before)
    }

    fn write_committed(&self, service: Service, version: &str) -> Result<(), ReleaseDirError> {
        let path = self.committed(service);
        let text = toml::to_string(&Committed { highest_version: version.into() });
        write_whole(&path, text.expect("a text is plain data").as_bytes())
    }

    fn committed(&self, service: Service) -> PathBuf {
        self.releases.join(service.name()).join("committed.toml")
    }
}

/// Writes a file beside its place and renames it: after a crash it is there as a whole, or as before.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), ReleaseDirError> {
    let (beside, folder) = (path.with_extension("new"), path.parent().expect("it lies in a folder"));
    DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(disk("making", folder))?;
    let written = File::create(&beside).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(disk("writing", &beside))?;
    std::fs::rename(&beside, path).map_err(disk("renaming to", path))?;
    sync_folder(folder)
}
