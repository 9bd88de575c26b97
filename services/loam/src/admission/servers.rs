//! The servers whose settings are written here: `nats/servers.toml`. `loam up` writes it for the one that it runs,
//! `loam bus generate-config` for those of the user's own.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use contract::{HostName, Realm};
use serde::{Deserialize, Serialize};

use super::AdmissionError;
use crate::nats::authority::Authority;
use crate::nats::render::{ClusterMember, ServerPaths, TlsFiles, render};
use crate::state::keys::NatsPublicKeys;
use crate::state::{State, StateDirError, write_private};

/// The name of a server that is alone.
pub const ALONE: &str = "nats";

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BusServers {
    /// The first token of every subject.
    pub realm: Realm,
    /// The name of the host with these files: its supervisor answers hosts that join. Absent until `loam up` ran here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostName>,
    /// The URLs of all servers for clients, separated by commas.
    pub url: String,
    /// The URL of the server that `loam up` runs, on its own host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_url: Option<String>,
    /// A program that brings changed settings to the servers and has them read: it gets the folder of settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reload_program: Option<PathBuf>,
    /// The servers.
    pub server: Vec<BusServer>,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BusServer {
    /// Its name: its settings are `nats/{name}.conf`.
    pub name: String,
    /// Where it listens: `10.0.0.1:4222`.
    pub listen: String,
    /// The folder of its data, as it sees it.
    pub data: PathBuf,
    /// Names and addresses by which it is reached, for its certificate.
    pub names: Vec<String>,
    /// The folder of its certificate and key, as it sees it.
    pub tls_dir: PathBuf,
    /// Whether `loam up` runs it.
    #[serde(default)]
    pub is_ours: bool,
    /// The cluster that it is a member of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterMember>,
}

impl BusServers {
    /// Reads the file, if there is one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(state: &State) -> Result<Option<BusServers>, StateDirError> {
        let path = state.bus_servers();
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                toml::from_str(&text).map(Some).map_err(|error| StateDirError::unreadable(&path, error))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StateDirError::disk("reading", &path)(error)),
        }
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, state: &State) -> Result<(), StateDirError> {
        let text = toml::to_string(self).expect("names, addresses and paths are plain text");
        write_private(&state.bus_servers(), text.as_bytes())
    }

    /// Whether clients connect by TLS: any server listens beyond loopback.
    pub fn has_tls(&self) -> bool {
        self.server.iter().any(BusServer::is_open)
    }

    /// The file with the certificate of the authority, where clients need it.
    pub fn ca_file(&self, state: &State) -> Option<PathBuf> {
        self.has_tls().then(|| state.authority())
    }

    /// Writes the settings and certificates of all servers.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write_settings(&self, state: &State, keys: &NatsPublicKeys) -> Result<(), AdmissionError> {
        let authority = self.has_tls().then(|| Authority::open(state)).transpose()?;
        for server in &self.server {
            if let Some(authority) = &authority {
                authority.certify(state, &server.name, &server.names)?;
            }
            let tls = authority.is_some().then(|| TlsFiles::of(&server.tls_dir, &server.name));
            let paths = ServerPaths {
                listen: &server.listen,
                store: &server.data,
                cluster: server.cluster.as_ref(),
                tls: tls.as_ref(),
            };
            let text = render(&self.realm, keys, paths);
            write_private(&server.settings(state), text.as_bytes())?;
        }
        Ok(())
    }
}

impl BusServer {
    /// The file with its settings.
    pub fn settings(&self, state: &State) -> PathBuf {
        state.nats().join(format!("{}.conf", self.name))
    }

    /// Whether it listens beyond loopback, for clients or for other servers.
    pub fn is_open(&self) -> bool {
        let for_servers = self.cluster.as_ref().map(|member| member.listen.as_str());
        [Some(self.listen.as_str()), for_servers].into_iter().flatten().any(|listen| !is_loopback(listen))
    }
}

/// Whether an address with its port is on loopback.
pub fn is_loopback(listen: &str) -> bool {
    let host = listen.rsplit_once(':').map_or(listen, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The names that clients use in these URLs: hosts without scheme and port.
pub fn names_in(url: &str) -> Vec<String> {
    let host = |url: &str| {
        let address = url.rsplit("://").next().unwrap_or(url);
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']').to_string()
    };
    url.split(',').map(|url| host(url.trim())).collect()
}

/// The pid file of the server that `loam up` runs.
pub fn pid_file(state: &State) -> PathBuf {
    state.nats_run().join("nats-server.pid")
}

/// The id of the process that runs with these settings, where one does.
pub(super) fn running(state: &State, settings: &Path) -> Option<i32> {
    let pid: i32 = std::fs::read_to_string(pid_file(state)).ok()?.trim().parse().ok()?;
    // An id is used again: it must be a process that was started with these settings.
    let arguments = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    arguments.split('\0').any(|argument| Path::new(argument) == settings).then_some(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_beyond_loopback_are_found() {
        for loopback in ["127.0.0.1:4222", "[::1]:4222", "localhost:-1", "127.0.0.2:-1"] {
            assert!(is_loopback(loopback), "{loopback}");
        }
        for open in ["0.0.0.0:4222", "[::]:4222", "10.0.0.1:4222", "bus.example:4222", ":4222"] {
            assert!(!is_loopback(open), "{open}");
        }
        assert_eq!(names_in("tls://a.example:1, nats://[::1]:2"), ["a.example", "::1"]);
    }
}
