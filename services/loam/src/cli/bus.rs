//! A NATS server that `loam up` does not run, as in containers or a cluster: its configuration, keys and buckets.
//!
//! ```text
//!   loam bus generate-config   keys (kept once made), nats/nats.conf and client.toml in the state directory; contacts nobody
//!   loam bus create-buckets    creates the buckets that do not exist yet, as the bootstrap role; then services may connect
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use bus::nats::{Connection, bootstrap, connect};
use clap::Subcommand;
use contract::{Realm, permissions};

use super::client::ClientConfig;
use super::exit::{CliError, CliExitCode};
use crate::nats::render::{ServerPaths, render};
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
    },
    /// Create the JetStream buckets that do not exist yet
    CreateBuckets {
        /// URL of the server
        #[arg(long)]
        url: String,
        /// File with the private NATS key of the bootstrap role (an nkey seed)
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// Number of servers that keep each bucket
        #[arg(long, default_value_t = 1)]
        replicas: usize,
    },
}

pub(super) fn run(state: &State, command: BusCommand) -> Result<(), CliError> {
    match command {
        BusCommand::GenerateConfig { listen, data, url } => {
            prepare(state, &listen, &data, url).map_err(|error| CliError::of_start(error.into()))
        }
        BusCommand::CreateBuckets { url, key, replicas } => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime of one thread needs nothing that can be missing");
            runtime.block_on(make_buckets(url, key, replicas))
        }
    }
}

fn prepare(state: &State, listen: &str, data: &Path, url: String) -> Result<(), StateDirError> {
    let realm = Realm::default();
    state.prepare()?;
    let public = keys::prepare(state)?;
    let paths = ServerPaths { listen, store: data };
    write_private(&state.nats().join("nats.conf"), render(&realm, &public, paths).as_bytes())?;
    let client =
        ClientConfig { url, key: keys::of_person(&state.keys(), OPERATOR), person: OPERATOR.into(), realm };
    let text = toml::to_string(&client).expect("a few texts are plain data");
    write_private(&state.client(), text.as_bytes())
}

async fn make_buckets(url: String, key: PathBuf, replicas: usize) -> Result<(), CliError> {
    let connection = Connection {
        url,
        nkey_file: Some(key),
        name: "loam-bootstrap".into(),
        inbox_prefix: permissions::BOOTSTRAP_INBOX_PREFIX.into(),
    };
    let carrier = connect(&connection, CONNECT_MAX).await.map_err(|error| {
        CliError::new(CliExitCode::Unreachable, format!("{:#}", anyhow::Error::from(error)))
    })?;
    bootstrap(&carrier, replicas).await.map_err(|error| CliError::of_start(error.into()))
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
            prepare(&state, "0.0.0.0:4222", data, url).expect("prepared");
            std::fs::read_to_string(state.nats().join("nats.conf")).expect("written")
        };
        let text = once();
        assert_eq!(text, once());
        assert!(text.contains("0.0.0.0:4222") && text.contains("/data"), "{text}");
        let seed = std::fs::read_to_string(keys::of_person(&state.keys(), OPERATOR)).expect("made");
        assert!(!text.contains(seed.trim()));
    }
}
