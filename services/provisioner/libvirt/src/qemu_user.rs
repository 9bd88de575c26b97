//! The user that libvirt runs QEMU as, and the folders that this user must be able to use.
//!
//! QEMU does not run as root: an NBD socket or a scratch file in a folder of ours fails with "permission denied" unless
//! QEMU may write that folder and enter every folder above it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User, chown};

use crate::error::Error;

/// libvirt's configuration, where a host may name another user.
const QEMU_CONF: &str = "/etc/libvirt/qemu.conf";
/// What distributions build libvirt with, most particular first: Debian, Fedora and their children.
const USUAL_NAMES: [&str; 2] = ["libvirt-qemu", "qemu"];

/// Who QEMU runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QemuUser {
    uid: Uid,
    gid: Gid,
}

impl QemuUser {
    /// From libvirt's configuration, else from the names that distributions use, else root.
    ///
    /// # Errors
    /// [`Error::Io`] when the user database cannot be read.
    pub fn find() -> Result<QemuUser, Error> {
        let conf = fs::read_to_string(QEMU_CONF).unwrap_or_default();
        let named = setting(&conf, "user");
        let candidates = named.iter().map(String::as_str).chain(USUAL_NAMES);
        let lookup_failed = |error: nix::Error| Error::io("look up the user QEMU runs as", error.into());
        for name in candidates {
            if let Some(user) = User::from_name(name.trim_start_matches('+')).map_err(lookup_failed)? {
                let group = match setting(&conf, "group") {
                    Some(group) => Group::from_name(group.trim_start_matches('+')).map_err(lookup_failed)?,
                    None => None,
                };
                return Ok(QemuUser { uid: user.uid, gid: group.map_or(user.gid, |group| group.gid) });
            }
        }
        Ok(QemuUser { uid: Uid::from_raw(0), gid: Gid::from_raw(0) })
    }

    /// Creates a folder that QEMU may write and others may not read, and checks that QEMU can get there.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be created or its owner not be changed; [`Error::FolderClosed`] names the folder
    /// above it that is closed to QEMU.
    pub fn prepare_folder(&self, folder: &Path) -> Result<(), Error> {
        let made = fs::create_dir_all(folder)
            .and_then(|()| fs::set_permissions(folder, fs::Permissions::from_mode(0o770)))
            .and_then(|()| chown(folder, Some(self.uid), Some(self.gid)).map_err(Into::into));
        made.map_err(|source| Error::io(format!("prepare {} for QEMU's user", folder.display()), source))?;
        self.check_way_to(folder)
    }

    /// Checks that QEMU may enter every folder above this path.
    ///
    /// # Errors
    /// [`Error::FolderClosed`] names the first that is closed, and what to do.
    pub fn check_way_to(&self, path: &Path) -> Result<(), Error> {
        let path =
            path.canonicalize().map_err(|source| Error::io(format!("find {}", path.display()), source))?;
        for folder in path.ancestors().skip(1) {
            let about = fs::metadata(folder).map_err(|source| {
                Error::io(format!("read the permissions of {}", folder.display()), source)
            })?;
            if !self.may_enter(about.mode(), about.uid(), about.gid()) {
                let closed = folder.to_owned();
                return Err(Error::FolderClosed { path, closed, uid: self.uid.as_raw() });
            }
        }
        Ok(())
    }

    fn may_enter(&self, mode: u32, owner: u32, group: u32) -> bool {
        let bit = if self.uid.is_root() {
            return true;
        } else if owner == self.uid.as_raw() {
            0o100
        } else if group == self.gid.as_raw() {
            0o010
        } else {
            0o001
        };
        mode & bit != 0
    }
}

/// The value of `key = "value"` in libvirt's configuration, unless it is a comment.
fn setting(conf: &str, key: &str) -> Option<String> {
    conf.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == key).then(|| value.trim().trim_matches('"').to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_comments_are_not() {
        let conf = "#user = \"root\"\nuser = \"someone\"\n  group=\"+64055\"\n";
        assert_eq!(setting(conf, "user").as_deref(), Some("someone"));
        assert_eq!(setting(conf, "group").as_deref(), Some("+64055"));
        assert_eq!(setting("#user = \"root\"", "user"), None);
    }

    #[test]
    fn of_owner_group_and_others_one_permission_bit_decides() {
        let qemu = QemuUser { uid: Uid::from_raw(64055), gid: Gid::from_raw(108) };
        assert!(qemu.may_enter(0o711, 0, 0));
        assert!(!qemu.may_enter(0o700, 0, 0));
        assert!(qemu.may_enter(0o710, 0, 108));
        assert!(!qemu.may_enter(0o701, 0, 108), "the group's bit counts, not that of others");
        assert!(qemu.may_enter(0o700, 64055, 0));
    }
}
