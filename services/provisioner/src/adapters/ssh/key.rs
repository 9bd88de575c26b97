//! Our own SSH key.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey};

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum SshKeyFileError {
    /// The file cannot be read or written.
    #[error("cannot keep our SSH key in {path}")]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// What happened.
        #[source]
        source: std::io::Error,
    },
    /// The file can be changed by others.
    #[error(transparent)]
    UntrustedFile(#[from] chassis::FileTrustError),
    /// The file holds no key.
    #[error("our SSH key cannot be read or created")]
    Key(#[from] russh::keys::ssh_key::Error),
}

/// Reads the key, or creates one that only our user can read.
pub(super) fn read_or_create(path: &Path) -> Result<PrivateKey, SshKeyFileError> {
    let file = |source| SshKeyFileError::File { path: path.into(), source };
    if path.exists() {
        chassis::refuse_if_others_can_write(path)?;
        let text = std::fs::read_to_string(path).map_err(file)?;
        return Ok(PrivateKey::from_openssh(text)?);
    }
    let mut key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519)?;
    key.set_comment("loam-provisioner");
    let text = key.to_openssh(LineEnding::LF)?;
    let part = path.with_extension("part");
    let written = (|| {
        if let Some(folder) = path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let mut options = std::fs::OpenOptions::new();
        let mut open = options.write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        open.write_all(text.as_bytes())?;
        open.sync_all()?;
        std::fs::rename(&part, path)
    })();
    written.map_err(file)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_created_once_and_only_our_user_can_read_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys/ssh_ed25519");
        let made = read_or_create(&path).expect("created");
        let read = read_or_create(&path).expect("read");
        assert_eq!(made.public_key(), read.public_key());
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
