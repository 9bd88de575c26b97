//! A bus that `loam up` does not run, as in containers or a cluster: its settings, its keys, its tables.
//!
//! ```text
//!   loam bus prepare   keys (kept once made), nats/nats.conf and client.toml in the state folder; contacts nobody
//!   loam bus buckets   makes the tables that are not there yet, by the bootstrap role; then everybody may come
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use bus::nats::{Connection, bootstrap, connect};
use clap::Subcommand;
use contract::{Realm, rights};

use super::client::ClientFile;
use super::exit::{Exit, Trouble};
use crate::nats::render::{Place, render};
use crate::state::keys::{self, OPERATOR};
use crate::state::{State, StateError, write_private};

/// A server that starts beside us needs a moment; one that is not there must be told of soon.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Subcommand)]
pub(super) enum BusCommand {
    /// Make keys, and write the server's settings for them into the state folder
    Prepare {
        /// Where the server shall listen
        #[arg(long, value_name = "ADDRESS:PORT")]
        listen: String,
        /// Where the server keeps its data, as it sees the folder
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// How people reach it
        #[arg(long)]
        url: String,
    },
    /// Make the tables that are not there yet
    Buckets {
        /// Where the bus is
        #[arg(long)]
        url: String,
        /// The bootstrap role's nkey seed
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// On how many servers each table is kept
        #[arg(long, default_value_t = 1)]
        replicas: usize,
    },
}

pub(super) fn run(state: &State, command: BusCommand) -> Result<(), Trouble> {
    match command {
        BusCommand::Prepare { listen, data, url } => {
            prepare(state, &listen, &data, url).map_err(|error| Trouble::of_start(error.into()))
        }
        BusCommand::Buckets { url, key, replicas } => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime of one thread needs nothing that can be missing");
            runtime.block_on(make_buckets(url, key, replicas))
        }
    }
}

fn prepare(state: &State, listen: &str, data: &Path, url: String) -> Result<(), StateError> {
    let realm = Realm::default();
    state.prepare()?;
    let public = keys::prepare(state)?;
    let place = Place { listen, store: data };
    write_private(&state.nats().join("nats.conf"), render(&realm, &public, place).as_bytes())?;
    let client =
        ClientFile { url, key: keys::of_person(&state.keys(), OPERATOR), person: OPERATOR.into(), realm };
    let text = toml::to_string(&client).expect("a few texts are plain data");
    write_private(&state.client(), text.as_bytes())
}

async fn make_buckets(url: String, key: PathBuf, replicas: usize) -> Result<(), Trouble> {
    let connection = Connection {
        url,
        nkey_file: Some(key),
        name: "loam-bootstrap".into(),
        inbox_prefix: rights::BOOTSTRAP_INBOX_PREFIX.into(),
    };
    let carrier = connect(&connection, PATIENCE)
        .await
        .map_err(|error| Trouble::new(Exit::Unreachable, format!("{:#}", anyhow::Error::from(error))))?;
    bootstrap(&carrier, replicas).await.map_err(|error| Trouble::of_start(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preparing_twice_keeps_the_keys_and_tells_the_server_public_halves_alone() {
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
