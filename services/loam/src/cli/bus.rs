//! A NATS server that `loam up` does not run, as in containers or a cluster: its configuration, keys and tables.
//!
//! ```text
//!   loam bus generate-config   keys (kept once made), nats/nats.conf and client.toml in the state directory; contacts nobody
//!   loam bus tables            creates the tables that do not exist yet, each as the bootstrap user of its service's account
//! ```
//!
//! `loam up` runs `bus tables` as a process of its own, too: no process that lasts holds a key that may create tables.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bus::nats::{Connection, bootstrap, connect};
use clap::{Args, Subcommand};
use contract::permissions::User;
use contract::{Realm, Service, bucket};

use super::client::ClientConfig;
use super::exit::{CliError, CliExitCode};
use crate::admission::hosts::Hosts;
use crate::admission::servers::{ALONE, BusServer, BusServers, names_in};
use crate::admission::{self, AdmissionError};
use crate::nats::render::ClusterMember;
use crate::state::keys::{self, OPERATOR};
use crate::state::{State, write_private};

/// A server that starts at the same time needs a moment; a missing one must be reported soon.
const CONNECT_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, Subcommand)]
pub(super) enum BusCommand {
    /// Write keys and the configuration of a NATS server into the state directory
    GenerateConfig(ServerOptions),
    /// Create the tables (JetStream buckets) that do not exist yet
    Tables {
        /// URL of the server
        #[arg(long)]
        url: String,
        /// Directory with the private NATS keys of the bootstrap users (SERVICE.nk)
        #[arg(long, value_name = "DIR")]
        keys: PathBuf,
        /// Number of servers that keep each table
        #[arg(long, default_value_t = 1)]
        replicas: usize,
    },
}

/// One server.
#[derive(Debug, Args)]
pub(super) struct ServerOptions {
    /// Address and port that the server listens on; beyond loopback with TLS only
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: String,
    /// Data directory of the server, as the server sees it
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// URL of the server for clients, such as tls://bus.example:4222; of a cluster all, separated by commas
    #[arg(long)]
    url: String,
    /// Name or address by which the server is reached, for its certificate; once for each (default: those in the URL)
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,
    /// Directory of the server's certificate, key and ca.pem, as the server sees it (default: where they are written)
    #[arg(long, value_name = "DIR")]
    tls_dir: Option<PathBuf>,
    /// Name of the server, where it is a member of a cluster
    #[arg(long, value_name = "NAME", requires_all = ["cluster_listen", "route"])]
    server_name: Option<String>,
    /// Address and port that the server listens on for the other servers of its cluster; beyond loopback with TLS only
    #[arg(long, value_name = "ADDRESS:PORT", requires = "server_name")]
    cluster_listen: Option<String>,
    /// Another server of the cluster, such as nats-route://10.0.0.2:6222; once for each
    #[arg(long, value_name = "URL", requires = "server_name")]
    route: Vec<String>,
    /// Program that brings changed settings to the servers and has them read; it gets the directory of settings
    #[arg(long, value_name = "FILE")]
    reload_program: Option<PathBuf>,
}

pub(super) fn run(state: &State, ca_file: Option<PathBuf>, command: BusCommand) -> Result<(), CliError> {
    block_on(async {
        match command {
            BusCommand::GenerateConfig(options) => {
                generate(state, options).await.map_err(|error| CliError::of_start(error.into()))
            }
            BusCommand::Tables { url, keys, replicas } => create_tables(&url, ca_file, &keys, replicas).await,
        }
    })
}

/// Runs a command that needs no more than one thread.
pub(super) fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime of one thread needs nothing that can be missing").block_on(work)
}

async fn generate(state: &State, options: ServerOptions) -> Result<(), AdmissionError> {
    state.prepare()?;
    let _lock = admission::lock(state).await?;
    let ServerOptions {
        listen,
        data,
        url,
        name,
        tls_dir,
        server_name,
        cluster_listen,
        route,
        reload_program,
    } = options;
    let cluster = server_name.zip(cluster_listen);
    let cluster = cluster.map(|(name, listen)| ClusterMember { name, listen, routes: route });
    let server = BusServer {
        name: cluster.as_ref().map_or(ALONE.into(), |member| member.name.clone()),
        names: if name.is_empty() { names_in(&url) } else { name },
        tls_dir: match tls_dir {
            Some(folder) => folder,
            None => std::path::absolute(state.nats()).unwrap_or_else(|_| state.nats()),
        },
        listen,
        data,
        is_ours: false,
        cluster,
    };
    let before = BusServers::read(state)?;
    let others = before.iter().flat_map(|before| &before.server);
    // A server that is alone is no member of a cluster, and the reverse.
    let is_other = |other: &&BusServer| other.name != server.name && other.cluster.is_some();
    let mut all: Vec<BusServer> =
        others.filter(is_other).filter(|_| server.cluster.is_some()).cloned().collect();
    all.push(server);
    let servers = BusServers {
        realm: Realm::default(),
        host: before.as_ref().and_then(|before| before.host.clone()),
        url,
        local_url: None,
        reload_program: reload_program.or(before.and_then(|before| before.reload_program)),
        server: all,
    };
    servers.write(state)?;
    let public = admission::public_keys(state, &Hosts::read(state)?, chrono::Utc::now())?;
    servers.write_settings(state, &public)?;
    let client = ClientConfig {
        ca_file: servers.ca_file(state),
        url: servers.url,
        key: keys::file_of(&state.keys(), &User::Person(OPERATOR.into())),
        person: OPERATOR.into(),
        realm: servers.realm,
    };
    let text = toml::to_string(&client).expect("a few texts are plain data");
    Ok(write_private(&state.client(), text.as_bytes())?)
}

async fn create_tables(
    url: &str,
    ca_file: Option<PathBuf>,
    keys: &Path,
    replicas: usize,
) -> Result<(), CliError> {
    for service in Service::ALL.into_iter().filter(|service| !bucket::of_service(*service).is_empty()) {
        let connection = Connection {
            url: url.into(),
            user: User::Bootstrap(service),
            nkey_file: Some(keys.join(format!("{service}.nk"))),
            ca_file: ca_file.clone(),
            name: format!("loam-tables-{service}"),
        };
        let transport = connect(&connection, CONNECT_MAX).await.map_err(|error| {
            CliError::new(CliExitCode::Unreachable, format!("{:#}", anyhow::Error::from(error)))
        })?;
        bootstrap(&transport, service, replicas).await.map_err(|error| {
            CliError::of_start(anyhow::Error::from(error).context(format!("tables of {service}")))
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(listen: &str, server_name: Option<&str>) -> ServerOptions {
        ServerOptions {
            listen: listen.into(),
            data: "/data".into(),
            url: "tls://n1.example:4222,tls://n2.example:4222".into(),
            name: Vec::new(),
            tls_dir: None,
            server_name: server_name.map(Into::into),
            cluster_listen: server_name.map(|_| "0.0.0.0:6222".into()),
            route: vec!["nats-route://n9.example:6222".into()],
            reload_program: None,
        }
    }

    #[test]
    fn preparing_twice_keeps_the_keys_and_gives_the_server_public_keys_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = State::at(folder.path());
        let once = || {
            block_on(generate(&state, options("0.0.0.0:4222", None))).expect("prepared");
            let certificate = std::fs::read_to_string(state.nats().join("nats.pem")).expect("written");
            (std::fs::read_to_string(state.nats().join("nats.conf")).expect("written"), certificate)
        };
        let (text, certificate) = once();
        assert_eq!((text.clone(), certificate), once());
        assert!(text.contains("0.0.0.0:4222") && text.contains("/data"), "{text}");
        assert!(text.contains("\ntls { cert_file: "), "beyond loopback with TLS: {text}");
        let seed = std::fs::read_to_string(keys::file_of(&state.keys(), &User::Person(OPERATOR.into())))
            .expect("made");
        assert!(!text.contains(seed.trim()));
        block_on(generate(&state, options("127.0.0.1:4222", None))).expect("prepared");
        let text = std::fs::read_to_string(state.nats().join("nats.conf")).expect("written");
        assert!(!text.contains("tls {"), "{text}");
    }

    #[test]
    fn the_servers_of_a_cluster_are_written_each_for_itself_with_the_same_keys() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = State::at(folder.path());
        for name in ["n1", "n2", "n1"] {
            block_on(generate(&state, options("0.0.0.0:4222", Some(name)))).expect("prepared");
        }
        let servers = BusServers::read(&state).expect("readable").expect("there");
        let names: Vec<&str> = servers.server.iter().map(|server| server.name.as_str()).collect();
        assert_eq!(names, ["n2", "n1"]);
        let accounts = |name: &str| {
            let text = std::fs::read_to_string(state.nats().join(format!("{name}.conf"))).expect("written");
            assert!(text.contains("verify: true"), "routes with TLS on both sides: {text}");
            text.split_once("\naccounts {").expect("accounts").1.to_string()
        };
        assert_eq!(accounts("n1"), accounts("n2"));
    }
}
