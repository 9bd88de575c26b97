//! `loam host`: hosts come to the bus and go. `add` and `remove` run where the settings of the bus are written, `join` on
//! the host that joins.

use std::time::Duration;

use bus::nats::CertificateDigest;
use clap::Subcommand;
use contract::HostName;
use contract::message::with_causes;
use nkeys::KeyPair;
use serde_json::json;

use super::bus::block_on;
use super::exit::{CliError, CliExitCode};
use super::output::show;
use crate::admission::hosts::JoinToken;
use crate::admission::join::{JoinError, join};
use crate::admission::token::TokenContent;
use crate::admission::{Admission, AdmissionError, Effect};
use crate::state::State;

/// Long enough to carry a token to a host and set it up, short enough that one which is left lying about is of no use.
const TOKEN_VALID: Duration = Duration::from_secs(3600);

#[derive(Debug, Subcommand)]
pub(super) enum AdmissionCommand {
    /// Print a token with which a host may join once, within an hour (run it where the bus is)
    Add {
        /// Name that the host gets
        name: HostName,
        /// For a host that has joined already: it gets new keys, which replace its own
        #[arg(long)]
        again: bool,
    },
    /// Join a bus by a token of `loam host add` (run it on the host that joins)
    Join {
        /// The token; `-` reads it from standard input
        token: String,
        /// Make new keys where this host has joined already
        #[arg(long)]
        new_keys: bool,
    },
    /// Remove a host from the bus: its connections end, its keys are of no use any more
    Remove {
        /// Name of the host
        name: HostName,
    },
}

/// Runs a command.
pub(super) fn run(state: &State, json: bool, command: AdmissionCommand) -> Result<(), CliError> {
    match command {
        AdmissionCommand::Add { name, again } => block_on(add(state, json, name, again)),
        AdmissionCommand::Join { token, new_keys } => block_on(join_here(state, json, &token, new_keys)),
        AdmissionCommand::Remove { name } => block_on(remove(state, json, name)),
    }
}

async fn add(state: &State, json: bool, name: HostName, again: bool) -> Result<(), CliError> {
    let mut admission = Admission::open(state).await.map_err(not_changed)?;
    let Some(answered_by) = admission.servers.host.clone() else {
        return Err(refused("`loam up` has not run here yet; it answers hosts that join"));
    };
    if !admission.servers.has_tls() {
        return Err(refused(
            "the bus listens on loopback only; set `listen` under [nats] in the settings to an address that other hosts \
             reach, and start `loam up` again",
        ));
    }
    if name == answered_by {
        return Err(refused(format!("{name} is this host")));
    }
    if admission.hosts.hosts.contains_key(&name) && !again {
        return Err(refused(format!("{name} has joined already; --again replaces its keys")));
    }
    let authority = std::fs::read_to_string(state.authority()).ok();
    let digest = authority.as_deref().and_then(CertificateDigest::of_pem);
    let digest = digest.ok_or_else(|| {
        CliError::new(CliExitCode::Failed, format!("{} holds no certificate", state.authority().display()))
    })?;
    let pair = KeyPair::new_user();
    let expires = chrono::Utc::now() + TOKEN_VALID;
    admission.hosts.tokens.insert(name.clone(), JoinToken { public_key: pair.public_key(), expires });
    let effect = admission.apply().await.map_err(not_changed)?;
    let token = TokenContent {
        host: name.clone(),
        url: admission.servers.url.clone(),
        authority: digest.to_string(),
        answered_by,
        realm: admission.servers.realm.clone(),
        seed: pair.seed().expect("a pair that was just made has a seed"),
    };
    let token = token.to_string();
    let answer =
        json!({ "host": name, "token": token, "expires": expires, "in_effect": effect.is_in_effect() });
    show(json, &answer, |_, text| {
        text.line(format_args!("on {name}, once and within an hour, as root:\n"));
        text.line(format_args!("  loam host join {token}"));
    })?;
    warn(&effect)
}

async fn join_here(state: &State, json: bool, token: &str, new_keys: bool) -> Result<(), CliError> {
    let token = match token {
        "-" => std::io::read_to_string(std::io::stdin())
            .map_err(|error| CliError::new(CliExitCode::Usage, format!("reading the token: {error}")))?,
        token => token.to_string(),
    };
    let token: TokenContent =
        token.parse().map_err(|error| CliError::new(CliExitCode::Usage, format!("{error}")))?;
    let joined = join(state, &token, new_keys).await.map_err(not_joined)?;
    let (host, url) = (&joined.bus.host, &joined.bus.url);
    let answer = json!({ "host": host, "url": url, "in_effect": joined.in_effect });
    show(json, &answer, |_, text| {
        text.line(format_args!(
            "joined {url} as {host}; start this host with `loam up`, or: systemctl restart loam"
        ));
    })?;
    if joined.in_effect {
        return Ok(());
    }
    let message =
        "the servers of the bus have not read their settings yet; until then they do not let this host in";
    Err(CliError::new(CliExitCode::Warnings, message).after_answer())
}

async fn remove(state: &State, json: bool, name: HostName) -> Result<(), CliError> {
    let mut admission = Admission::open(state).await.map_err(not_changed)?;
    let had_token = admission.hosts.tokens.remove(&name).is_some();
    let had_joined = admission.hosts.hosts.remove(&name).is_some();
    if !had_token && !had_joined {
        return Err(refused(format!("{name} has neither joined nor a token")));
    }
    let effect = admission.apply().await.map_err(not_changed)?;
    show(json, &json!({ "host": name, "in_effect": effect.is_in_effect() }), |_, text| {
        text.line(format_args!("removed {name}"));
    })?;
    warn(&effect)
}

/// Nothing was done, for a reason that the person can change.
pub(super) fn refused(message: impl Into<String>) -> CliError {
    CliError::new(CliExitCode::Refused, message)
}

/// Nothing, or not everything, was done.
pub(super) fn not_changed(error: AdmissionError) -> CliError {
    let exit = match error {
        AdmissionError::NotHere(_) | AdmissionError::Locked => CliExitCode::Refused,
        AdmissionError::State(_) | AdmissionError::Authority(_) => CliExitCode::Failed,
    };
    CliError::new(exit, with_causes(&error))
}

/// Ends with a warning where the servers have not read their settings.
pub(super) fn warn(effect: &Effect) -> Result<(), CliError> {
    match effect.advice() {
        None => Ok(()),
        Some(advice) => Err(CliError::new(CliExitCode::Warnings, advice).after_answer()),
    }
}

fn not_joined(error: JoinError) -> CliError {
    let exit = match error {
        JoinError::InvalidToken(_) => CliExitCode::Usage,
        JoinError::HasBus(_)
        | JoinError::OtherName(_)
        | JoinError::UnknownToken(_)
        | JoinError::Refused(_)
        | JoinError::OtherAuthority => CliExitCode::Refused,
        JoinError::NotConnected(_) | JoinError::NoAnswer(_) => CliExitCode::Unreachable,
        JoinError::State(_) => CliExitCode::Failed,
    };
    CliError::new(exit, with_causes(&error))
}
