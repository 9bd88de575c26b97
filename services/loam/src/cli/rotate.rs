//! `loam keys`: the keys of this host's services are replaced while all run.
//!
//! ```text
//!   new key beside the old one, in the settings of every server -> new key in place -> old key out of the settings
//!                                                                      the service connects again, with the new key
//! ```
//!
//! A crash in between leaves a service with a key that is admitted; the same command goes on from there.

use clap::Subcommand;
use contract::Service;
use contract::permissions::User;
use serde_json::json;

use super::bus::block_on;
use super::exit::CliError;
use super::host_join::{not_changed, refused, warn};
use super::output::show;
use crate::admission::Admission;
use crate::admission::join::JoinedBus;
use crate::state::{State, keys};

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Replace the key of a service of this host, where the bus is (elsewhere: `loam host add --again`)
    Rotate {
        /// Service: provisioner, backup, proxy, scheduler, upgrade or supervisor
        service: Service,
    },
}

/// Runs a command.
pub(super) fn run(state: &State, json: bool, command: KeysCommand) -> Result<(), CliError> {
    let KeysCommand::Rotate { service } = command;
    block_on(rotate(state, json, service))
}

async fn rotate(state: &State, json: bool, service: Service) -> Result<(), CliError> {
    if let Some(joined) = JoinedBus::read(state).map_err(|error| not_changed(error.into()))? {
        let host = joined.host;
        return Err(refused(format!(
            "this host joined the bus: run `loam host add {host} --again` where the bus is, then `loam host join TOKEN \
             --new-keys` here"
        )));
    }
    let mut admission = Admission::open(state).await.map_err(not_changed)?;
    let (folder, user) = (state.keys(), User::Service(service));
    let next = keys::read_or_make(&keys::next_file_of(&folder, &user));
    let next = next.map_err(|error| not_changed(error.into()))?;
    let effect = admission.apply().await.map_err(not_changed)?;
    if let Some(advice) = effect.advice() {
        return Err(refused(format!(
            "the new key is made and the old one stays: {advice}; then run this again"
        )));
    }
    keys::put_next_in_place(&folder, &user).map_err(|error| not_changed(error.into()))?;
    let effect = admission.apply().await.map_err(not_changed)?;
    let public_key = next.public_key();
    let answer = json!({ "service": service, "public_key": public_key, "in_effect": effect.is_in_effect() });
    show(json, &answer, |_, text| text.line(format_args!("{service} has the key {public_key}")))?;
    warn(&effect)
}
