//! The system users that the processes run as when `loam up` is root: one each, so that who breaks one of them reads no
//! key and no file of another.
//!
//! | process | user | capabilities |
//! | --- | --- | --- |
//! | nats-server, backup, scheduler, upgrade | `loam-nats`, `loam-backup`, ... | none |
//! | proxy | `loam-proxy` | `CAP_NET_BIND_SERVICE`, where it listens below port 1024 |
//! | provisioner | root | `CAP_CHOWN`, `CAP_DAC_OVERRIDE`, `CAP_FOWNER`: it gives folders to QEMU's user and reads disks that are QEMU's |
//!
//! The provisioner stays root: whoever may open libvirt's socket may give a VM any file of the host, so a user in
//! libvirt's group would be root by another name, and could not give files to QEMU's user. What root does not need there
//! is taken away.
//!
//! A key belongs to root, and the group of the one service that needs it may read it. Folders that a service writes are
//! its own. All this is put right at each start; where `loam up` is not root nothing of it happens.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use contract::Service;
use contract::permissions::User as BusUser;
use nix::unistd::{User, geteuid};
use rustix::thread::CapabilitySet;

use super::child::ProcessUser;
use super::settings::{Hypervisor, Settings};
use crate::nats::server;
use crate::state::access::{self, Owner};
use crate::state::{State, StateDirError, keys};

/// Other programs that change the user database hold its lock for a moment.
const MAKE_MAX: Duration = Duration::from_secs(30);
const MAKE_AGAIN: Duration = Duration::from_millis(200);
/// Ports below this one are for processes with a capability.
const UNPRIVILEGED_PORT: u16 = 1024;

/// Who runs which process; all as ourselves where there are none.
#[derive(Clone, Debug, Default)]
pub(super) struct Users(BTreeMap<String, ProcessUser>);

impl Users {
    /// The users of this host, made where they are missing; none where we are not root, or the settings want none.
    pub(super) fn prepare(settings: &Settings, hypervisor: Option<Hypervisor>) -> anyhow::Result<Users> {
        if !geteuid().is_root() || !settings.separate_users {
            return Ok(Users::default());
        }
        let mut users = BTreeMap::new();
        for name in [server::NAME, "backup", "proxy", "scheduler", "upgrade"] {
            let user = named(&user_name(name))?;
            let capabilities = match name {
                "proxy" if settings.proxy_port().is_some_and(is_privileged) => {
                    CapabilitySet::NET_BIND_SERVICE
                }
                server::NAME if is_privileged(settings.nats.port) => CapabilitySet::NET_BIND_SERVICE,
                _ => CapabilitySet::empty(),
            };
            let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
            users.insert(name.to_string(), ProcessUser { uid, gid, capabilities });
        }
        let files = CapabilitySet::CHOWN | CapabilitySet::DAC_OVERRIDE | CapabilitySet::FOWNER;
        // Simulated guests listen on ports of the host, such as 80.
        let simulated = settings.is_simulated(hypervisor);
        let ports = if simulated { CapabilitySet::NET_BIND_SERVICE } else { CapabilitySet::empty() };
        let root = ProcessUser { uid: 0, gid: 0, capabilities: files | ports };
        users.insert(Service::Provisioner.name().into(), root);
        Ok(Users(users))
    }

    /// Makes sure that users of their own get to the state directory, which is made open to all.
    pub(super) fn check_way_to(&self, state: &Path) -> anyhow::Result<()> {
        match closed_folder_above(state).filter(|_| self.are_separate()) {
            None => Ok(()),
            Some(folder) => anyhow::bail!(
                "services run as users of their own, and those cannot enter {}, which holds the state directory; choose \
                 another with --state, open the folder (chmod o+x), or set separate_users = false, with which all \
                 services run as root",
                folder.display()
            ),
        }
    }

    /// Whether processes run as users of their own.
    pub(super) fn are_separate(&self) -> bool {
        !self.0.is_empty()
    }

    /// Who runs a process.
    pub(super) fn of(&self, process: &str) -> Option<ProcessUser> {
        self.0.get(process).copied()
    }

    /// The same as an owner of files.
    pub(super) fn owner(&self, process: &str) -> Option<Owner> {
        self.of(process).map(|user| Owner { uid: user.uid, gid: user.gid })
    }

    /// Gives every file and folder to whom it is for.
    pub(super) fn share_state(&self, state: &State) -> Result<(), StateDirError> {
        for service in Service::FIVE {
            let Some(owner) = self.owner(service.name()).filter(|owner| owner.uid != 0) else { continue };
            access::share(&keys::file_of(&state.keys(), &BusUser::Service(service)), owner)?;
            match service {
                Service::Backup => {
                    access::share(&state.backup_key(), owner)?;
                    access::give_folder(&state.store(), owner)?;
                    access::give_folder(&state.backup_notes(), owner)?;
                }
                Service::Upgrade => access::give_folder(&state.releases(), owner)?,
                _ => {}
            }
        }
        if let Some(nats) = self.owner(server::NAME) {
            access::share_folder(&state.nats(), nats)?;
            access::give_folder(&state.nats().join("data"), nats)?;
            access::give_folder(&state.nats_run(), nats)?;
        }
        if self.are_separate() {
            access::open_to_all(&state.trusted_keys())?;
        }
        Ok(())
    }
}

fn is_privileged(port: u16) -> bool {
    (1..UNPRIVILEGED_PORT).contains(&port)
}

/// The first folder above a path that not everybody may enter.
fn closed_folder_above(path: &Path) -> Option<&Path> {
    let is_closed = |folder: &&Path| {
        std::fs::metadata(folder).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 == 0)
    };
    path.ancestors().skip(1).find(is_closed)
}

/// The name of the system user of a process.
pub(super) fn user_name(process: &str) -> String {
    format!("loam-{}", process.strip_suffix("-server").unwrap_or(process))
}

/// A system user, made where there is none.
fn named(name: &str) -> anyhow::Result<User> {
    let find = || User::from_name(name).with_context(|| format!("looking up the user {name}"));
    let until = Instant::now() + MAKE_MAX;
    loop {
        if let Some(user) = find()? {
            return Ok(user);
        }
        let made = Command::new("useradd")
            .args(["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"])
            .args(["--shell", "/usr/sbin/nologin", "--comment", "Loam", name])
            .stdin(Stdio::null())
            .output();
        let why = match made {
            Ok(output) if output.status.success() => continue,
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_string(),
            Err(error) => error.to_string(),
        };
        // Another `loam up` may make it at the same moment.
        if Instant::now() >= until {
            anyhow::bail!(
                "the system user {name} cannot be made: useradd: {why}; make it, or set separate_users = false, with \
                 which all services run as root"
            );
        }
        std::thread::sleep(MAKE_AGAIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_process_has_a_user_name_of_its_own() {
        assert_eq!(user_name(server::NAME), "loam-nats");
        assert_eq!(user_name(Service::Backup.name()), "loam-backup");
    }

    #[test]
    fn a_folder_that_users_cannot_pass_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o700)).expect("ours");
        assert_eq!(closed_folder_above(&folder.path().join("a/b")), Some(folder.path()));
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o711)).expect("ours");
        assert_eq!(closed_folder_above(&folder.path().join("a/b")), None);
    }

    #[test]
    fn low_ports_need_a_capability_and_a_chosen_one_does_not() {
        assert_eq!([0, 1, 80, 1023, 1024, 8080].map(is_privileged), [false, true, true, true, false, false]);
    }
}
