//! Files that decide what we do must not be writable by others: a writer could change what we do.

use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Why a file is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum FileTrustError {
    /// Its metadata cannot be read.
    #[error("looking at {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: std::io::Error,
    },
    /// Group or others can write it.
    #[error("{path} can be written by others (mode {mode:o}); run `chmod go-w {path}`")]
    WritableByOthers {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It belongs to another user, who can write it at any time.
    #[error("{path} belongs to user {owner}, not to us or root")]
    OwnedByOther {
        /// The file.
        path: PathBuf,
        /// The owner's user id.
        owner: u32,
    },
}

/// Refuses a file or folder that another user can write or owns. Links are followed: what counts is what is read.
///
/// # Errors
/// When others can write it, another user owns it, or its metadata cannot be read.
pub fn refuse_if_others_can_write(path: &Path) -> Result<(), FileTrustError> {
    let metadata =
        std::fs::metadata(path).map_err(|source| FileTrustError::Unreadable { path: path.into(), source })?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(FileTrustError::WritableByOthers { path: path.into(), mode });
    }
    let we = nix::unistd::geteuid().as_raw();
    if metadata.uid() != we && metadata.uid() != 0 {
        return Err(FileTrustError::OwnedByOther { path: path.into(), owner: metadata.uid() });
    }
    Ok(())
}

/// The SHA-256 of a file, 64 hexadecimal digits, read in pieces. It blocks: call it where that may be.
///
/// # Errors
/// When the file cannot be read.
pub fn sha256_of(path: &Path) -> std::io::Result<String> {
    const PIECE_BYTES: usize = 256 * 1024;
    let mut file = std::fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hex::encode(hasher.finalize())),
            count => hasher.update(&piece[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_others_can_write_is_refused_with_the_way_to_mend_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("loam.toml");
        std::fs::write(&path, "").expect("written");
        for (mode, fine) in [(0o644, true), (0o600, true), (0o664, false), (0o646, false)] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("set");
            let outcome = refuse_if_others_can_write(&path);
            assert_eq!(outcome.is_ok(), fine, "{mode:o}");
            if let Err(error) = outcome {
                assert!(error.to_string().contains("chmod go-w"));
            }
        }
    }
}
