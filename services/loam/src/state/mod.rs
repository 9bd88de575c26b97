//! The state folder: everything that one host keeps, and who may look at it.
//!
//! ```text
//!   {state}/               0755   QEMU's own user must be able to walk through it to the disks
//!     client.toml                 where the bus is and with which key a person comes
//!     keys/                0700   one nkey seed a role, the store's key, keys/release/: whose releases are trusted
//!     nats/                0700   nats.conf (generated at each start) and the server's data
//!     run/                 0700   the lock, and each service's settings (generated at each start)
//!     log/                 0700   what the services say
//!     releases/            0755   executables put in place by the upgrade service, {service}/current.toml
//! ```
//!
//! Making it twice is the same as making it once: what is there is kept. It does not know what the services keep
//! here beside it. Next: `keys`, `lock`.

pub mod keys;
pub mod lock;
mod write;

use std::path::{Path, PathBuf};

use contract::Service;

pub use write::{StateError, write_private};

/// Where the state lies unless somebody says otherwise.
pub const STATE_DEFAULT: &str = "/var/lib/loam";

/// Who may pass through a folder.
const FOR_ALL: u32 = 0o755;
const FOR_US: u32 = 0o700;

/// The paths of one state folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    root: PathBuf,
}

impl State {
    /// Names the folder; nothing is touched.
    pub fn at(root: impl Into<PathBuf>) -> State {
        State { root: root.into() }
    }

    /// Makes the folders that are not there yet.
    pub fn prepare(&self) -> Result<(), StateError> {
        write::folder(&self.root, FOR_ALL)?;
        for private in [self.keys(), self.nats(), self.run(), self.log()] {
            write::folder(&private, FOR_US)?;
        }
        write::folder(&self.trusted_keys(), FOR_US)?;
        write::folder(&self.releases(), FOR_ALL)
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// Secrets.
    pub fn keys(&self) -> PathBuf {
        self.root.join("keys")
    }
    /// Public keys whose releases are trusted.
    pub fn trusted_keys(&self) -> PathBuf {
        self.keys().join("release")
    }
    /// The key that the embedded store is sealed with.
    pub fn backup_key(&self) -> PathBuf {
        self.keys().join("backup.key")
    }
    /// The NATS server's settings and data.
    pub fn nats(&self) -> PathBuf {
        self.root.join("nats")
    }
    /// What holds only while we run.
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }
    /// What the services say.
    pub fn log(&self) -> PathBuf {
        self.root.join("log")
    }
    /// The log of one process.
    pub fn log_of(&self, name: &str) -> PathBuf {
        self.log().join(format!("{name}.log"))
    }
    /// Executables put in place by upgrades.
    pub fn releases(&self) -> PathBuf {
        self.root.join("releases")
    }
    /// Which release of a service is in use.
    pub fn current_release(&self, service: Service) -> PathBuf {
        self.releases().join(service.name()).join("current.toml")
    }
    /// The settings that we write for a service.
    pub fn settings_of(&self, service: Service) -> PathBuf {
        self.run().join(format!("{service}.toml"))
    }
    /// How a person reaches the bus.
    pub fn client(&self) -> PathBuf {
        self.root.join("client.toml")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn secrets_lie_in_folders_of_our_own_and_disks_can_be_reached() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = State::at(folder.path().join("loam"));
        for _ in 0..2 {
            state.prepare().expect("made, and made again");
        }
        let mode = |path: PathBuf| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(state.root().into()), 0o755);
        for private in [state.keys(), state.nats(), state.run(), state.log()] {
            assert_eq!(mode(private), 0o700);
        }
    }
}
