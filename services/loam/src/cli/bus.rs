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
use clap::Subcommand;
use contract::permissions::User;
use contract::{Realm, Service, bucket};

use super::client::ClientConfig;
use super::exit::{CliError, CliExitCode};
use crate::nats::render::{ClusterMember, ServerPaths, render};
use crate::state::keys::{self, OPERATOR};
use crate::state::{State, StateDirError, write_private};

/// A server that starts at the same time needs a moment; a missing one must be reported soon.
const CONNECT_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, Subcommand)]
pub(super) enum BusCommand {
    /// Write keys and the configuration of a NATS server into the state directory
    GenerateConfig {
        /// Address and port that the server listens on
        #[arg(long, value_name = "ADDRESS:PORT")]
        listen: String,
        /// Data directory of the server, as the server sees it
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// URL of the server for clients, such as nats://bus.example:4222
        #[arg(long)]
        url: String,
        /// Name of the server, where it is a member of a cluster
        #[arg(long, value_name = "NAME", requires_all = ["cluster_listen", "route"])]
        server_name: Option<String>,
        /// Address and port that the server listens on for the other servers of its cluster
        #[arg(long, value_name = "ADDRESS:PORT", requires = "server_name")]
        cluster_listen: Option<String>,
        /// Another server of the cluster, such as nats-route://10.0.0.2:6222; once for each
        #[arg(long, value_name = "URL", requires = "server_name")]
        route: Vec<String>,
    },
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

pub(super) fn run(state: &State, command: BusCommand) -> Result<(), CliError> {
    match command {
        BusCommand::GenerateConfig { listen, data, url, server_name, cluster_listen, route } => {
            let cluster = server_name.zip(cluster_listen);
            let cluster = cluster.map(|(name, listen)| ClusterMember { name, listen, routes: route });
            let paths = ServerPaths { listen: &listen, store: &data, cluster: cluster.as_ref() };
            prepare(state, paths, url).map_err(|error| CliError::of_start(error.into()))
        }
        BusCommand::Tables { url, keys, replicas } => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime of one thread needs nothing that can be missing");
            runtime.block_on(create_tables(&url, &keys, replicas))
        }
    }
}

fn prepare(state: &State, paths: ServerPaths<'_>, url: String) -> Result<(), StateDirError> {
    let realm = Realm::default();
    state.prepare()?;
    let public = keys::prepare(state)?;
    keys::write_people(state, &public)?;
    write_private(&state.nats().join("nats.conf"), render(&realm, &public, paths).as_bytes())?;
    let operator = User::Person(OPERATOR.into());
    let key = keys::file_of(&state.keys(), &operator);
    let client = ClientConfig { url, key, person: OPERATOR.into(), realm };
    let text = toml::to_string(&client).expect("a few texts are plain data");
    write_private(&state.client(), text.as_bytes())
}

async fn create_tables(url: &str, keys: &Path, replicas: usize) -> Result<(), CliError> {
    for service in Service::ALL.into_iter().filter(|service| !bucket::of_service(*service).is_empty()) {
        let connection = Connection {
            url: url.into(),
            user: User::Bootstrap(service),
            nkey_file: Some(keys.join(format!("{service}.nk"))),
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

    #[test]
    fn preparing_twice_keeps_the_keys_and_gives_the_server_public_keys_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = State::at(folder.path());
        let once = || {
            let (data, url) = (Path::new("/data"), "nats://nats:4222".to_string());
            let paths = ServerPaths { listen: "0.0.0.0:4222", store: data, cluster: None };
            prepare(&state, paths, url).expect("prepared");
            std::fs::read_to_string(state.nats().join("nats.conf")).expect("written")
        };
        let text = once();
        assert_eq!(text, once());
        assert!(text.contains("0.0.0.0:4222") && text.contains("/data"), "{text}");
        let seed = std::fs::read_to_string(keys::file_of(&state.keys(), &User::Person(OPERATOR.into())))
            .expect("made");
        assert!(!text.contains(seed.trim()));
    }
}
