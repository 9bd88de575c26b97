//! Files that decide what we do must not be writable by others: a writer could change what we do. Whoever can write a
//! folder on the way to a file can put another in its place, so each one is checked, as `StrictModes` of OpenSSH does:
//!
//! ```text
//!   /  etc  loam  loam.toml        each belongs to us or root, and neither group nor others can write it;
//!                                  a link on the way, too, and every folder on the way to where it leads
//!   /  tmp (sticky)  x  loam.toml  a folder above may be writable by others where it is sticky: they can add entries to
//!                                  it, but neither remove nor rename ours
//! ```

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::Metadata;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use contract::Service;
use nix::unistd::{Gid, Group};
use sha2::{Digest, Sha256};

/// Links on the way to a file, at most: as many as the kernel follows.
const LINKS_MAX: usize = 40;
const STICKY: u32 = 0o1000;
const WRITABLE_BY_OTHERS: u32 = 0o022;
const ACCESSIBLE_TO_OTHERS: u32 = 0o077;
const READABLE_BY_GROUP: u32 = 0o040;

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
    /// Group or others can write it, or a folder on the way to it.
    #[error("{path} can be written by others (mode {mode:o}); run `chmod go-w {path}`")]
    WritableByOthers {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It holds a secret, and group or others have access to it.
    #[error("{path} can be read by others (mode {mode:o}); run `chmod go= {path}`")]
    ReadableByOthers {
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

/// Refuses a file or folder that another user can write, owns, or can put another in the place of. Links are followed:
/// what counts is what is read, and every folder and link on the way.
///
/// # Errors
/// When others can write it or a folder on the way, another user owns one of them, or its metadata cannot be read.
pub fn refuse_if_others_can_write(path: &Path) -> Result<(), FileTrustError> {
    let unreadable = |path: &Path| {
        let path = path.to_path_buf();
        move |source| FileTrustError::Unreadable { path, source }
    };
    let path = std::path::absolute(path).map_err(unreadable(path))?;
    let (mut reached, mut rest, mut links) = (PathBuf::from("/"), names(&path), 0);
    loop {
        // What `reached` names is no link.
        let metadata = reached.symlink_metadata().map_err(unreadable(&reached))?;
        refuse_owner(&reached, &metadata)?;
        let Some(name) = rest.pop_front() else { return refuse_mode(&reached, &metadata, 0) };
        refuse_mode(&reached, &metadata, STICKY)?;
        if name == ".." {
            reached.pop();
            continue;
        }
        let entry = reached.join(name);
        let metadata = entry.symlink_metadata().map_err(unreadable(&entry))?;
        if !metadata.is_symlink() {
            reached = entry;
            continue;
        }
        refuse_owner(&entry, &metadata)?;
        links += 1;
        if links > LINKS_MAX {
            return Err(unreadable(&entry)(io::Error::other("too many links")));
        }
        let leads_to = entry.read_link().map_err(unreadable(&entry))?;
        if leads_to.is_absolute() {
            reached = PathBuf::from("/");
        }
        let mut names = names(&leads_to);
        names.append(&mut rest);
        rest = names;
    }
}

/// Refuses a file with a secret that another user can read, unless root has given it to the group of one of our services;
/// or of which [`refuse_if_others_can_write`] says so.
///
/// # Errors
/// When others have access to it, or its metadata cannot be read.
pub fn refuse_if_others_have_access(path: &Path) -> Result<(), FileTrustError> {
    refuse_if_others_can_write(path)?;
    let metadata =
        std::fs::metadata(path).map_err(|source| FileTrustError::Unreadable { path: path.into(), source })?;
    let mode = metadata.permissions().mode() & 0o7777;
    let allowed = if is_for_a_service(&metadata) { READABLE_BY_GROUP } else { 0 };
    if mode & ACCESSIBLE_TO_OTHERS & !allowed != 0 {
        return Err(FileTrustError::ReadableByOthers { path: path.into(), mode });
    }
    Ok(())
}

/// Whether root owns it and its group is that of the system user of a service, who has no other group.
fn is_for_a_service(metadata: &Metadata) -> bool {
    let group = Group::from_gid(Gid::from_raw(metadata.gid())).ok().flatten();
    let is_service = |group: Group| {
        let service = group.name.strip_prefix("loam-").and_then(|name| name.parse::<Service>().ok());
        service.is_some_and(|service| Service::FIVE.contains(&service))
    };
    metadata.uid() == 0 && group.is_some_and(is_service)
}

/// The parts of a path below `/` or below where it is read from.
fn names(path: &Path) -> VecDeque<OsString> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_os_string()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    names.collect()
}

/// Refuses what others can write, unless it has the mode bits that allow it.
fn refuse_mode(path: &Path, metadata: &Metadata, allowed_with: u32) -> Result<(), FileTrustError> {
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & WRITABLE_BY_OTHERS != 0 && mode & allowed_with == 0 {
        return Err(FileTrustError::WritableByOthers { path: path.into(), mode });
    }
    Ok(())
}

fn refuse_owner(path: &Path, metadata: &Metadata) -> Result<(), FileTrustError> {
    let owner = metadata.uid();
    if owner != nix::unistd::geteuid().as_raw() && owner != 0 {
        return Err(FileTrustError::OwnedByOther { path: path.into(), owner });
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

    #[test]
    fn a_file_with_a_secret_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("rows.key");
        std::fs::write(&path, "").expect("written");
        for (bits, fine) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o620, false)] {
            mode(&path, bits);
            assert_eq!(refuse_if_others_have_access(&path).is_ok(), fine, "{bits:o}");
        }
        assert!(refuse_if_others_have_access(&folder.path().join("none")).is_err());
    }

    fn mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("set");
    }

    /// The path that is refused.
    fn refused(path: &Path) -> PathBuf {
        match refuse_if_others_can_write(path) {
            Err(
                FileTrustError::WritableByOthers { path, .. } | FileTrustError::OwnedByOther { path, .. },
            ) => path,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_below_a_folder_that_others_can_write_is_refused_however_far_above() {
        let folder = tempfile::tempdir().expect("a folder");
        let below = folder.path().join("a/b");
        std::fs::create_dir_all(&below).expect("made");
        let path = below.join("loam.toml");
        std::fs::write(&path, "").expect("written");
        refuse_if_others_can_write(&path).expect("the folder for temporary files is sticky");
        for shared in [&below, &folder.path().join("a"), &folder.path().to_path_buf()] {
            for open in [0o777, 0o775, 0o757] {
                mode(shared, open);
                assert_eq!(refused(&path), *shared, "{open:o}");
            }
            mode(shared, 0o1777);
            refuse_if_others_can_write(&path).expect("nobody else can replace what is in a sticky folder");
            mode(shared, 0o755);
        }
        // What is in a folder that is itself to be trusted, others must not be able to add to.
        mode(&below, 0o1777);
        assert_eq!(refused(&below), below);
    }

    #[test]
    fn every_link_on_the_way_and_where_it_leads_is_checked() {
        let folder = tempfile::tempdir().expect("a folder");
        let [open, closed] = ["open", "closed"].map(|name| folder.path().join(name));
        for made in [&open, &closed] {
            std::fs::create_dir(made).expect("made");
        }
        std::fs::write(closed.join("real"), "").expect("written");
        // first -> open/second -> closed/real: neither end lies in the open folder.
        std::os::unix::fs::symlink("../closed/real", open.join("second")).expect("linked");
        std::os::unix::fs::symlink("open/second", folder.path().join("first")).expect("linked");
        let first = folder.path().join("first");
        refuse_if_others_can_write(&first).expect("trusted");
        mode(&open, 0o777);
        assert_eq!(refused(&first), open);
        refuse_if_others_can_write(&closed.join("real")).expect("trusted");
        std::os::unix::fs::symlink("loop", folder.path().join("loop")).expect("linked");
        assert!(refuse_if_others_can_write(&folder.path().join("loop")).is_err());
    }

    #[test]
    fn what_another_user_owns_on_the_way_is_refused() {
        // Only root can give folders away.
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let theirs = folder.path().join("theirs");
        std::fs::create_dir(&theirs).expect("made");
        std::fs::write(theirs.join("loam.toml"), "").expect("written");
        std::os::unix::fs::chown(&theirs, Some(65_534), None).expect("given");
        assert_eq!(refused(&theirs.join("loam.toml")), theirs);
        let link = folder.path().join("link");
        std::fs::write(folder.path().join("ours"), "").expect("written");
        std::os::unix::fs::symlink("ours", &link).expect("linked");
        std::os::unix::fs::lchown(&link, Some(65_534), None).expect("given");
        assert_eq!(refused(&link), link);
    }
}
