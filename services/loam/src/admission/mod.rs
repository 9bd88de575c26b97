//! Who is admitted to the bus, and how that changes while it runs.
//!
//! ```text
//!   nats/servers.toml   the servers whose settings are written here (servers)
//!   nats/hosts.toml     hosts that joined, and join tokens          (hosts)
//!   people.toml         people                                      (state::keys)
//!   keys/               the services of this host
//!      |
//!      +--> apply: the settings of every server, SIGHUP to the one that `loam up` runs, and: are they in effect?
//!
//!   loam host add h2  -- token, out of band -->  loam host join TOKEN
//!        |                                          makes a key for each service, with the token's key asks `join_host`
//!        v                                               |
//!   a user who may only do that                     supervisor of the host with these files (answer): admits the keys
//! ```
//!
//! One process at a time changes anything: `Admission` holds a lock. A crash leaves files of before or after a change; the
//! next one writes the settings again. Connections of whoever is removed end when the server reads its settings; requests
//! of all others go on.

pub mod answer;
mod apply;
pub mod hosts;
pub mod join;
pub mod servers;
pub mod token;

use std::fs::File;
use std::time::Duration;

use contract::Timestamp;
use contract::permissions::User;
use nix::fcntl::{Flock, FlockArg};
use tokio::time::Instant;

use crate::nats::authority::AuthorityError;
use crate::state::keys::{self, NatsPublicKeys};
use crate::state::{State, StateDirError};
pub use apply::Effect;
use hosts::Hosts;
use servers::BusServers;

/// A change takes less than a second where servers answer, and ten where they do not.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(60);
const LOCK_POLL: Duration = Duration::from_millis(20);

/// Why nobody can be admitted or removed here.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// A file cannot be read or written.
    #[error(transparent)]
    State(#[from] StateDirError),
    /// No certificate can be made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The settings of the bus are not written here.
    #[error(
        "the settings of the bus are not written in {0}: run this where `loam up` runs the bus, or where \
         `loam bus generate-config` was run"
    )]
    NotHere(String),
    /// Another process changes them.
    #[error("another command has been changing who is admitted for a minute; try again")]
    Locked,
}

/// The right to change who is admitted, until it is dropped.
pub struct Admission {
    state: State,
    /// The servers.
    pub servers: BusServers,
    /// Hosts and tokens: change them, then `apply`.
    pub hosts: Hosts,
    _lock: Flock<File>,
}

impl Admission {
    /// Waits for the lock and reads what is there.
    ///
    /// # Errors
    /// When the bus's settings are not written here, or files cannot be read.
    pub async fn open(state: &State) -> Result<Admission, AdmissionError> {
        let servers = BusServers::read(state)?
            .ok_or_else(|| AdmissionError::NotHere(state.root().display().to_string()))?;
        let lock = lock(state).await?;
        Ok(Admission { state: state.clone(), servers, hosts: Hosts::read(state)?, _lock: lock })
    }

    /// The keys that the servers accept: of the services here, of people, of hosts, of tokens that are valid now.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn public_keys(&self, now: Timestamp) -> Result<NatsPublicKeys, StateDirError> {
        public_keys(&self.state, &self.hosts, now)
    }
}

/// The keys that the servers accept.
///
/// # Errors
/// When a file cannot be read or written.
pub fn public_keys(state: &State, hosts: &Hosts, now: Timestamp) -> Result<NatsPublicKeys, StateDirError> {
    let mut public = keys::prepare(state)?;
    for host in hosts.hosts.values() {
        let users = host.keys.iter().map(|(service, key)| (User::Service(*service), key.clone()));
        public.users.extend(users);
    }
    for (host, token) in hosts.tokens.iter().filter(|(_, token)| token.expires > now) {
        public.users.push((User::JoiningHost(host.clone()), token.public_key.clone()));
    }
    Ok(public)
}

/// Waits for the right to change who is admitted, or how the servers are set up.
///
/// # Errors
/// When another process keeps it.
pub async fn lock(state: &State) -> Result<Flock<File>, AdmissionError> {
    let path = state.nats().join("lock");
    let until = Instant::now() + LOCK_WAIT_MAX;
    let mut file = File::create(&path).map_err(StateDirError::disk("opening", &path))?;
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => return Ok(held),
            Err((file, _)) => file,
        };
        if Instant::now() >= until {
            return Err(AdmissionError::Locked);
        }
        tokio::time::sleep(LOCK_POLL).await;
    }
}
