//! The state directory: everything that one host keeps, and who may read it.
//!
//! ```text
//!   {state}/               0755   QEMU's own user must be able to enter it to reach the disks
//!     client.toml                 where the bus is, and the key that people use
//!     people.toml                 names and public keys of people, for the bus and the services
//!     ca.pem                      the authority of the bus's servers, where the bus listens beyond loopback
//!     join.toml                   where the bus is, on a host that joined it
//!     keys/                0711   an nkey seed for each role, the store's key, those of rows, keys/release/: trusted signing keys
//!     nats/                0700   the servers' settings (generated), certificates and data, the hosts that joined (nats-server)
//!     run/                 0711   the lock, each service's settings (generated at each start), the socket for descriptors
//!     log/                 0700   the logs of the services
//!     store/, backup/             the built-in store, and what the backup service notes (backup)
//!     releases/            0755   releases that the upgrade service has verified (upgrade)
//!     programs/            0755   what each service runs from: {service}/current.toml, and copies of releases
//! ```
//!
//! Where `loam up` is root, each service runs as a user of its own (`up/users`): folders belong to the user named in
//! brackets, a key may be read by the group of its service, and everything else is root's.
//!
//! Preparing it is idempotent: what exists is kept. It does not know what the services keep here. Next: `keys`, `lock`.

pub mod access;
pub mod keys;
pub mod lock;
mod write;

use std::path::{Path, PathBuf};

use contract::Service;

pub use write::{StateDirError, write_private, write_public};

/// The default state directory.
pub const STATE_DEFAULT: &str = "/var/lib/loam";

/// Modes of folders.
const FOR_ALL: u32 = 0o755;
/// Nobody else sees what is in it; who knows a name gets there.
const SEARCHABLE: u32 = 0o711;

/// The paths of one state directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    root: PathBuf,
}

impl State {
    /// Names the directory; changes nothing.
    pub fn at(root: impl Into<PathBuf>) -> State {
        State { root: root.into() }
    }

    /// Makes the folders that do not exist yet.
    pub fn prepare(&self) -> Result<(), StateDirError> {
        write::folder(&self.root, FOR_ALL)?;
        for private in [self.nats(), self.log()] {
            write::private_folder(&private)?;
        }
        for searchable in [self.keys(), self.run()] {
            write::folder(&searchable, SEARCHABLE)?;
        }
        write::folder(&self.trusted_keys(), FOR_ALL)?;
        write::private_folder(&self.nats_run())?;
        write::private_folder(&self.keys().join("bootstrap"))?;
        write::folder(&self.programs(), FOR_ALL)?;
        write::folder(&self.releases(), FOR_ALL)
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// Secrets.
    pub fn keys(&self) -> PathBuf {
        self.root.join("keys")
    }
    /// Names and public keys of people.
    pub fn people(&self) -> PathBuf {
        self.root.join("people.toml")
    }
    /// The certificate of the authority of the bus's servers.
    pub fn authority(&self) -> PathBuf {
        self.root.join("ca.pem")
    }
    /// The private key of that authority.
    pub fn authority_key(&self) -> PathBuf {
        self.keys().join("ca.key")
    }
    /// Where the bus is that this host joined.
    pub fn join(&self) -> PathBuf {
        self.root.join("join.toml")
    }
    /// The servers of the bus whose settings are written here.
    pub fn bus_servers(&self) -> PathBuf {
        self.nats().join("servers.toml")
    }
    /// The hosts that joined the bus, and those that may.
    pub fn admitted(&self) -> PathBuf {
        self.nats().join("hosts.toml")
    }
    /// Public keys whose releases are trusted.
    pub fn trusted_keys(&self) -> PathBuf {
        self.keys().join("release")
    }
    /// The key that encrypts the built-in backup store.
    pub fn backup_key(&self) -> PathBuf {
        self.keys().join("backup.key")
    }
    /// The keys with which the provisioner encrypts what of its rows may be secret.
    pub fn rows_key(&self) -> PathBuf {
        self.keys().join("rows.key")
    }
    /// The key with which the provisioner logs in to its VMs.
    pub fn ssh_key(&self) -> PathBuf {
        self.keys().join("ssh_ed25519")
    }
    /// The host keys of VMs that were reached with `loam vm ssh`.
    pub fn known_hosts(&self) -> PathBuf {
        self.root.join("known_hosts")
    }
    /// The NATS server's settings and data.
    pub fn nats(&self) -> PathBuf {
        self.root.join("nats")
    }
    /// Files that are valid only while `loam up` runs.
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }
    /// Where the NATS server says on which port it listens.
    pub fn nats_run(&self) -> PathBuf {
        self.run().join("nats")
    }
    /// The built-in backup store.
    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }
    /// What the backup service notes of its repository.
    pub fn backup_notes(&self) -> PathBuf {
        self.root.join("backup")
    }
    /// Logs.
    pub fn log(&self) -> PathBuf {
        self.root.join("log")
    }
    /// The log of one process.
    pub fn log_of(&self, name: &str) -> PathBuf {
        self.log().join(format!("{name}.log"))
    }
    /// What each service runs from; written by `loam up` alone.
    pub fn programs(&self) -> PathBuf {
        self.root.join("programs")
    }
    /// Releases that the upgrade service has verified.
    pub fn releases(&self) -> PathBuf {
        self.root.join("releases")
    }
    /// What a service runs from.
    pub fn programs_of(&self, service: Service) -> PathBuf {
        self.programs().join(service.name())
    }
    /// The record of the release that a service runs from.
    pub fn current_release(&self, service: Service) -> PathBuf {
        self.programs_of(service).join("current.toml")
    }
    /// The settings file written for a service.
    pub fn settings_of(&self, service: Service) -> PathBuf {
        self.run().join(format!("{service}.toml"))
    }
    /// How clients of this host reach the bus.
    pub fn client(&self) -> PathBuf {
        self.root.join("client.toml")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn secrets_are_in_private_folders_and_disks_can_be_reached() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = State::at(folder.path().join("loam"));
        for _ in 0..2 {
            state.prepare().expect("made, and made again");
        }
        let mode = |path: PathBuf| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(state.root().into()), 0o755);
        for private in [state.nats(), state.log(), state.keys().join("bootstrap")] {
            assert_eq!(mode(private), 0o700);
        }
        // Who knows the name of a key gets there; the key itself says who may read it.
        assert_eq!(mode(state.keys()), 0o711);
    }
}
