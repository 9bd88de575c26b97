//! The keys that may sign releases.

use std::io;
use std::path::Path;

use chassis::refuse_if_others_can_write;
use contract::upgrade::ApplyReleaseRefused;
use upgrade_domain::TrustedKeys;

use super::{ReleaseDir, ReleaseDirError, disk};

impl ReleaseDir {
    /// Reads every `*.pub` in the folder of trusted keys. A folder or key that others can write, or a file that is
    /// no key, is an error: then it is not known whom to trust.
    pub(super) fn trusted_keys(&self) -> Result<TrustedKeys, ReleaseDirError> {
        let mut keys = TrustedKeys::default();
        let files = match std::fs::read_dir(&self.keys) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(keys),
            Err(error) => return Err(disk("reading", &self.keys)(error)),
        };
        refuse_if_shared(&self.keys)?;
        for file in files {
            let path = file.map_err(disk("reading", &self.keys))?.path();
            if path.extension().is_some_and(|extension| extension == "pub") {
                refuse_if_shared(&path)?;
                let text = std::fs::read_to_string(&path).map_err(disk("reading", &path))?;
                keys.trust(&text).map_err(|reason| {
                    ApplyReleaseRefused::Untrusted(format!(
                        "{} is not a minisign key: {reason}",
                        path.display()
                    ))
                })?;
            }
        }
        Ok(keys)
    }
}

fn refuse_if_shared(path: &Path) -> Result<(), ReleaseDirError> {
    refuse_if_others_can_write(path).map_err(|error| ApplyReleaseRefused::Untrusted(error.to_string()).into())
}
