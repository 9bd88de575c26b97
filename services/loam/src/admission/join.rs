//! The side of the host that joins: it makes its keys, proves who it is by its token, and keeps what it is answered.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bus::nats::{CertificateDigest, ConnectError, Trust, connect_once, is_let_in};
use bus::{Bus, CallError, Destination};
use contract::permissions::User;
use contract::supervisor::{JoinHost, JoinHostRefused, JoinedHost, OfferedKey};
use contract::{HostName, Realm, Service};
use nkeys::KeyPair;
use serde::{Deserialize, Serialize};

use super::token::{InvalidToken, TokenContent};
use crate::state::{State, StateDirError, keys, write_private, write_public};

/// The bus reads its settings meanwhile.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// `{state}/join.toml`: the bus that this host joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinedBus {
    /// The name of this host.
    pub host: HostName,
    /// The first token of every subject.
    pub realm: Realm,
    /// The URLs of the bus, separated by commas.
    pub url: String,
    /// The file with the certificate of the authority of its servers.
    pub ca_file: PathBuf,
}

/// Why the host has not joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// A file cannot be read or written.
    #[error(transparent)]
    State(#[from] StateDirError),
    /// The token is none.
    #[error(transparent)]
    InvalidToken(#[from] InvalidToken),
    /// This state directory has a bus of its own.
    #[error(
        "{0} has a bus of its own; choose another directory with --state, or remove that installation first"
    )]
    HasBus(PathBuf),
    /// It joined under another name.
    #[error("this host has joined as {0}; its token must be for that name")]
    OtherName(HostName),
    /// The server does not know the token.
    #[error(
        "the bus does not know the token: it is older than an hour, or another was made since; make a new one with `loam \
         host add {0}`"
    )]
    UnknownToken(HostName),
    /// The server cannot be reached or trusted.
    #[error(transparent)]
    NotConnected(ConnectError),
    /// The supervisor refuses.
    #[error("{0}")]
    Refused(JoinHostRefused),
    /// The supervisor did not answer as it should.
    #[error("asking to join; the same command may be run again")]
    NoAnswer(#[source] CallError<JoinHostRefused>),
    /// The answer is of another bus.
    #[error("the answer has another certificate than the token; nothing was changed")]
    OtherAuthority,
}

/// How a host joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// What it joined.
    pub bus: JoinedBus,
    /// Whether the bus lets its keys in already.
    pub in_effect: bool,
}

impl JoinedBus {
    /// Reads the file, if there is one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(state: &State) -> Result<Option<JoinedBus>, StateDirError> {
        let path = state.join();
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                toml::from_str(&text).map(Some).map_err(|error| StateDirError::unreadable(&path, error))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StateDirError::disk("reading", &path)(error)),
        }
    }
}

/// Joins by a token. Run again after a failure or a crash, it offers the same keys; with `new_keys` a host that had joined
/// gets new ones.
///
/// # Errors
/// Why it has not joined; then the keys that it had are kept.
pub async fn join(state: &State, token: &TokenContent, new_keys: bool) -> Result<Joined, JoinError> {
    let digest = token.digest()?;
    if state.bus_servers().exists() {
        return Err(JoinError::HasBus(state.root().into()));
    }
    let before = JoinedBus::read(state)?;
    if let Some(before) = before.as_ref().filter(|before| before.host != token.host) {
        return Err(JoinError::OtherName(before.host.clone()));
    }
    state.prepare()?;
    let pairs = pairs_to_offer(state, new_keys)?;
    let answer = ask(token, digest, &pairs).await?;
    let authority = answer.ca.as_deref().filter(|ca| CertificateDigest::of_pem(ca) == Some(digest));
    let authority = authority.ok_or(JoinError::OtherAuthority)?;
    write_public(&state.authority(), authority.as_bytes())?;
    keys::write_people(state, &answer.people)?;
    for service in Service::ALL {
        keys::put_next_in_place(&state.keys(), &User::Service(service))?;
    }
    let bus = JoinedBus {
        host: token.host.clone(),
        realm: token.realm.clone(),
        url: answer.url.clone(),
        ca_file: state.authority(),
    };
    // The last: with it the host has joined.
    let text = toml::to_string(&bus).expect("names and paths are plain text");
    write_private(&state.join(), text.as_bytes())?;
    let seed = pairs[&Service::Supervisor].seed().expect("it was made from a seed");
    let is_in = is_let_in(&bus.url, &seed, &Trust::AuthorityIn(bus.ca_file.clone())).await;
    Ok(Joined { bus, in_effect: answer.in_effect && is_in.unwrap_or(false) })
}

/// Keys that an earlier attempt has not put in place, those that are in place, or new ones.
fn pairs_to_offer(state: &State, new_keys: bool) -> Result<BTreeMap<Service, KeyPair>, StateDirError> {
    let folder = state.keys();
    let pair = |service| {
        let user = User::Service(service);
        let (file, next) = (keys::file_of(&folder, &user), keys::next_file_of(&folder, &user));
        let file = if new_keys || next.exists() || !file.exists() { next } else { file };
        Ok((service, keys::read_or_make(&file)?))
    };
    Service::ALL.into_iter().map(pair).collect()
}

async fn ask(
    token: &TokenContent,
    digest: CertificateDigest,
    pairs: &BTreeMap<Service, KeyPair>,
) -> Result<JoinedHost, JoinError> {
    let public = KeyPair::from_seed(&token.seed).map_err(|_| JoinError::UnknownToken(token.host.clone()))?;
    let public = public.public_key();
    let offered = pairs.iter().map(|(service, pair)| {
        let text = JoinHost::signed_text(&public, &token.host, *service);
        let signature = pair.sign(text.as_bytes()).expect("a pair with its private half signs");
        OfferedKey { service: *service, public_key: pair.public_key(), signature: hex::encode(signature) }
    });
    let request = JoinHost { host: token.host.clone(), keys: offered.collect() };
    let user = User::JoiningHost(token.host.clone());
    let transport = connect_once(&token.url, &user, &token.seed, &Trust::AuthorityOf(digest)).await;
    let transport = transport.map_err(|error| match error {
        ConnectError::NotAdmitted { .. } => JoinError::UnknownToken(token.host.clone()),
        error => JoinError::NotConnected(error),
    })?;
    let bus = Bus::new(Arc::new(transport), token.realm.clone());
    let destination = Destination { service: Service::Supervisor, host: Some(token.answered_by.clone()) };
    bus.call_at(destination, &request, ANSWER_MAX).await.map_err(|error| match error {
        CallError::Refused(refusal) => JoinError::Refused(refusal),
        error => JoinError::NoAnswer(error),
    })
}
