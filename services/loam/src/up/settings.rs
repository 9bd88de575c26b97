//! The settings file of `loam up`: what all services share, how the bus is run, and a part for each service that is
//! passed on to it as it is.
//!
//! ```toml
//! host = "localhost"
//! # services = ["provisioner", "backup"]     # which of the five run here; all of them where it is left out
//! realm = "loam"
//! # operations_kept = 10000  # ended operations that each service keeps on this host
//! # separate_users = true    # started by root: each service runs as a system user of its own
//! [nats]
//! listen = "127.0.0.1"      # beyond loopback with TLS
//! # names = ["bus.example"] # how hosts reach it; needed where it listens on all addresses
//! port = 4222               # 0: the system chooses
//! # server = "/opt/loam-nats/bin/nats-server"
//! # url = "nats://n1:4222,nats://n2:4222"   # a bus of your own: no server is started
//! # keys = "/etc/loam/keys"                 # the nkeys that it knows, one file a role
//! # ca_file = "/etc/loam/ca.pem"            # the authority of its servers: then TLS only
//! # replicas = 3                            # on how many of its servers each bucket is kept
//! [backup]
//! # ...
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use contract::{HostName, Realm, Service};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::admission::join::JoinedBus;

const PORT_DEFAULT: u16 = 4222;

/// The file, read.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The name of this host.
    #[serde(default = "localhost")]
    pub host: HostName,
    /// The services that run here, in the order in which they are started. Every host that runs VMs needs a provisioner and a
    /// backup service of its own; the others run where the settings say.
    #[serde(default = "all_services", deserialize_with = "services")]
    pub services: Vec<Service>,
    /// The first token of every subject.
    #[serde(default)]
    pub realm: Realm,
    /// How many ended operations each service keeps on this host, where the person says so.
    #[serde(default)]
    pub operations_kept: Option<u32>,
    /// Whether each service runs as a user of its own, where `loam up` is root.
    #[serde(default = "yes")]
    pub separate_users: bool,
    /// The bus.
    #[serde(default)]
    pub nats: NatsServerSettings,
    #[serde(default)]
    provisioner: toml::Table,
    #[serde(default)]
    backup: toml::Table,
    #[serde(default)]
    proxy: toml::Table,
    #[serde(default)]
    scheduler: toml::Table,
    #[serde(default)]
    upgrade: toml::Table,
}

/// What runs the VMs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Hypervisor {
    /// QEMU through libvirt
    Libvirt,
    /// None: VMs are simulated, no VM really exists
    Simulated,
}

impl Hypervisor {
    /// The name as it stands in the provisioner's settings.
    pub fn name(self) -> &'static str {
        match self {
            Hypervisor::Libvirt => "libvirt",
            Hypervisor::Simulated => "simulated",
        }
    }
}

/// The NATS server that is started, or where another one is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NatsServerSettings {
    /// The address of the server that is started. Beyond loopback it listens with TLS only.
    #[serde(default = "loopback")]
    pub listen: IpAddr,
    /// Names and addresses by which other hosts reach that server; `listen` where absent.
    #[serde(default)]
    pub names: Vec<String>,
    /// The port of the server that is started; 0 lets the system choose.
    #[serde(default = "port_default")]
    pub port: u16,
    /// The server's program, where it is neither beside `loam` nor in `PATH`.
    #[serde(default)]
    pub server: Option<PathBuf>,
    /// The URL of another server; then none is started.
    #[serde(default)]
    pub url: Option<String>,
    /// The authority's certificate of that server. With one, it is connected to by TLS only.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// The folder with one nkey seed for each role; the state directory's where absent.
    #[serde(default)]
    pub keys: Option<PathBuf>,
    /// The number of servers that keep each bucket.
    #[serde(default = "one")]
    pub replicas: usize,
}

fn localhost() -> HostName {
    HostName::new("localhost").expect("a fixed name that fits")
}
fn loopback() -> IpAddr {
    Ipv4Addr::LOCALHOST.into()
}
fn all_services() -> Vec<Service> {
    Service::FIVE.to_vec()
}
/// Each at most once, whatever the order.
fn services<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Service>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    let parse = |name: &String| match name.parse() {
        Ok(service) if Service::FIVE.contains(&service) => Ok(service),
        _ => Err(D::Error::custom(format!("{name:?} is not one of the five services"))),
    };
    let named = names.iter().map(parse).collect::<Result<Vec<Service>, _>>()?;
    match named.is_empty() {
        true => Err(D::Error::custom("name at least one service")),
        false => Ok(Service::FIVE.into_iter().filter(|service| named.contains(service)).collect()),
    }
}
fn yes() -> bool {
    true
}
fn port_default() -> u16 {
    PORT_DEFAULT
}
fn one() -> usize {
    1
}

impl Default for NatsServerSettings {
    fn default() -> Self {
        NatsServerSettings {
            listen: loopback(),
            names: Vec::new(),
            port: PORT_DEFAULT,
            server: None,
            url: None,
            ca_file: None,
            keys: None,
            replicas: 1,
        }
    }
}

impl NatsServerSettings {
    /// The names of the server that is started; none where they cannot be known.
    pub fn server_names(&self) -> Option<Vec<String>> {
        match self.names.is_empty() {
            false => Some(self.names.clone()),
            true if self.listen.is_unspecified() => None,
            true => Some(vec![self.listen.to_string()]),
        }
    }

    /// Where services of the same host connect to the server that is started.
    pub fn local_address(&self) -> IpAddr {
        match self.listen {
            IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            address => address,
        }
    }
}

/// The file cannot be used; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// It cannot be read.
    #[error("reading the settings {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: std::io::Error,
    },
    /// It cannot be trusted.
    #[error(transparent)]
    Untrusted(#[from] chassis::FileTrustError),
    /// It says otherwise than what the host joined.
    #[error(
        "{what} is {ours:?} in the settings, but this host joined with {theirs:?}; remove it from the settings"
    )]
    NotAsJoined {
        /// The key.
        what: String,
        /// In the settings.
        ours: String,
        /// In `join.toml`.
        theirs: String,
    },
    /// A key is unknown or a value is wrong.
    #[error("{path}:{line}: {reason}")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong; it names the key.
        reason: String,
    },
}

impl Settings {
    /// Reads the file, or the defaults where none is named.
    pub fn read(path: Option<&Path>) -> Result<Settings, SettingsError> {
        let Some(path) = path else {
            return Ok(toml::from_str("").expect("every key has a default"));
        };
        let unreadable = |source| SettingsError::Unreadable { path: path.into(), source };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        chassis::refuse_if_others_can_write(path)?;
        Settings::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Settings, SettingsError> {
        toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
            let content = text.lines().nth(line - 1).unwrap_or_default().trim();
            SettingsError::Wrong {
                path: path.into(),
                line,
                reason: format!("{} (`{content}`)", error.message()),
            }
        })
    }

    /// Takes the bus, the realm and the name of a host that joined; the file must not say otherwise.
    pub fn follow(&mut self, joined: &JoinedBus) -> Result<(), SettingsError> {
        let differs = |what: &str, ours: &str, theirs: &str| SettingsError::NotAsJoined {
            what: what.into(),
            ours: ours.into(),
            theirs: theirs.into(),
        };
        if self.host != localhost() && self.host != joined.host {
            return Err(differs("host", self.host.as_str(), joined.host.as_str()));
        }
        if self.realm != Realm::default() && self.realm != joined.realm {
            return Err(differs("realm", &self.realm.to_string(), &joined.realm.to_string()));
        }
        if let Some(url) = self.nats.url.as_ref().filter(|url| **url != joined.url) {
            return Err(differs("[nats] url", url, &joined.url));
        }
        (self.host, self.realm) = (joined.host.clone(), joined.realm.clone());
        self.nats.url = Some(joined.url.clone());
        Ok(())
    }

    /// Whether VMs are simulated: the command line replaces what the file says.
    pub fn is_simulated(&self, given: Option<Hypervisor>) -> bool {
        let simulated = Hypervisor::Simulated.name();
        match given {
            Some(given) => given == Hypervisor::Simulated,
            None => self.provisioner.get("hypervisor").and_then(toml::Value::as_str) == Some(simulated),
        }
    }

    /// The port that the proxy listens on, where the person names one.
    pub fn proxy_port(&self) -> Option<u16> {
        let listen = self.proxy.get("http_listen")?.as_str()?;
        Some(listen.parse::<std::net::SocketAddr>().ok()?.port())
    }

    /// The part of one service, as the person wrote it.
    pub fn part(&self, service: Service) -> toml::Table {
        match service {
            Service::Provisioner => self.provisioner.clone(),
            Service::Backup => self.backup.clone(),
            Service::Proxy => self.proxy.clone(),
            Service::Scheduler => self.scheduler.clone(),
            Service::Upgrade => self.upgrade.clone(),
            Service::Supervisor | Service::Unknown => toml::Table::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_key_or_value_names_file_line_and_key() {
        let parse = |text| Settings::parse(text, Path::new("loam.toml")).expect_err("wrong").to_string();
        let unknown = parse("host = \"h1\"\n[nats]\nprot = 4222\n");
        assert!(unknown.starts_with("loam.toml:3: ") && unknown.contains("prot"), "{unknown}");
        let wrong = parse("[nats]\nport = \"many\"\n");
        assert!(wrong.starts_with("loam.toml:2: ") && wrong.contains("port"), "{wrong}");
        let stranger = parse("[scheduler]\n[schedular]\n");
        assert!(stranger.starts_with("loam.toml:2: ") && stranger.contains("schedular"), "{stranger}");
    }

    #[test]
    fn a_host_runs_the_services_that_its_settings_name() {
        let services = |text: &str| Settings::parse(text, Path::new("loam.toml")).map(|read| read.services);
        assert_eq!(services("").expect("read"), Service::FIVE);
        let two = services("services = [\"backup\", \"provisioner\"]\n").expect("read");
        assert_eq!(two, [Service::Provisioner, Service::Backup]);
        for wrong in ["[]", "[\"supervisor\"]", "[\"proxi\"]"] {
            let refused = services(&format!("services = {wrong}\n")).expect_err(wrong).to_string();
            assert!(refused.starts_with("loam.toml:1: "), "{refused}");
        }
    }

    #[test]
    fn simulated_vms_are_known_as_such_whoever_chose_them() {
        let file = |text| Settings::parse(text, Path::new("loam.toml")).expect("read");
        let simulated = file("[provisioner]\nhypervisor = \"simulated\"\n");
        assert!(simulated.is_simulated(None) && !simulated.is_simulated(Some(Hypervisor::Libvirt)));
        assert!(!file("").is_simulated(None) && file("").is_simulated(Some(Hypervisor::Simulated)));
    }

    #[test]
    fn parts_of_services_are_passed_on_as_they_are() {
        let settings = Settings::parse("[backup]\nworkers = 2\n", Path::new("loam.toml")).expect("read");
        assert_eq!(settings.part(Service::Backup)["workers"].as_integer(), Some(2));
        assert!(settings.part(Service::Proxy).is_empty());
    }
}
