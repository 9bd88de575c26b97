//! `loam person`: people come to the bus and go. It runs where the settings of the bus are written.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use nkeys::KeyPair;
use serde_json::json;

use super::bus::block_on;
use super::exit::{CliError, CliExitCode};
use super::host_join::{not_changed, refused, warn};
use super::output::{show, whole};
use crate::admission::Admission;
use crate::state::{State, StateDirError, keys, write_private};

/// Names are tokens of subjects.
const NAME_LENGTH_MAX: usize = 32;

#[derive(Debug, Subcommand)]
pub(super) enum PersonCommand {
    /// Admit a person or another system, with a key that they made, or with a new one
    #[command(group = clap::ArgGroup::new("which_key").required(true))]
    Add {
        /// Name: lowercase letters, digits, - and _
        name: String,
        /// Their public key (an nkey of a user)
        #[arg(long, value_name = "KEY", group = "which_key")]
        public_key: Option<String>,
        /// Make a new key and write its private half to this file, for them
        #[arg(long, value_name = "FILE", group = "which_key")]
        new_key: Option<PathBuf>,
        /// Replace the key of a person who is admitted already
        #[arg(long)]
        replace: bool,
    },
    /// Remove a person: their connections end, their schedules are refused from then on
    Remove {
        /// Name
        name: String,
    },
    /// List people and their public keys
    List,
}

/// Runs a command.
pub(super) fn run(state: &State, json: bool, command: PersonCommand) -> Result<(), CliError> {
    match command {
        PersonCommand::Add { name, public_key, new_key, replace } => {
            block_on(add(state, json, name, public_key, new_key, replace))
        }
        PersonCommand::Remove { name } => block_on(remove(state, json, name)),
        PersonCommand::List => list(state, json),
    }
}

async fn add(
    state: &State,
    json: bool,
    name: String,
    public_key: Option<String>,
    new_key: Option<PathBuf>,
    replace: bool,
) -> Result<(), CliError> {
    if !is_name(&name) {
        let message =
            format!("{name:?}: a name has 1 to {NAME_LENGTH_MAX} lowercase letters, digits, - and _");
        return Err(CliError::new(CliExitCode::Usage, message));
    }
    let mut admission = Admission::open(state).await.map_err(not_changed)?;
    let mut people = keys::read_people(state).map_err(|error| not_changed(error.into()))?;
    if people.contains_key(&name) && !replace {
        return Err(refused(format!("{name} is admitted already; --replace gives them another key")));
    }
    let public_key = match (public_key, new_key) {
        (Some(key), _) if key.starts_with('U') && KeyPair::from_public_key(&key).is_ok() => key,
        (Some(key), _) => {
            return Err(CliError::new(
                CliExitCode::Usage,
                format!("{key:?} is no public nkey of a user (U...)"),
            ));
        }
        (None, file) => make_key(&file.expect("one of the two is required"))?,
    };
    people.retain(|_, key| *key != public_key);
    people.insert(name.clone(), public_key.clone());
    keys::write_people(state, &people).map_err(|error| not_changed(error.into()))?;
    let effect = admission.apply().await.map_err(not_changed)?;
    let answer = json!({ "name": name, "public_key": public_key, "in_effect": effect.is_in_effect() });
    show(json, &answer, |_, text| {
        text.line(format_args!(
            "{name} is admitted with {public_key}; client.toml in their state directory:\n"
        ));
        text.line(format_args!("  url = \"{}\"", admission.servers.url));
        if admission.servers.has_tls() {
            text.line("  ca_file = \"PATH OF A COPY OF ca.pem\"");
        }
        text.line("  key = \"PATH OF THEIR KEY\"");
        text.line(format_args!("  person = \"{name}\"\n  realm = \"{}\"", admission.servers.realm));
    })?;
    warn(&effect)
}

/// Makes a key in a file that is not there yet.
fn make_key(file: &Path) -> Result<String, CliError> {
    if file.exists() {
        return Err(refused(format!("{} is there already", file.display())));
    }
    let file =
        std::path::absolute(file).map_err(|error| CliError::new(CliExitCode::Usage, error.to_string()))?;
    let pair = KeyPair::new_user();
    let seed = pair.seed().expect("a pair that was just made has a seed");
    let written: Result<(), StateDirError> = write_private(&file, format!("{seed}\n").as_bytes());
    written.map_err(|error| not_changed(error.into()))?;
    Ok(pair.public_key())
}

async fn remove(state: &State, json: bool, name: String) -> Result<(), CliError> {
    let mut admission = Admission::open(state).await.map_err(not_changed)?;
    let mut people = keys::read_people(state).map_err(|error| not_changed(error.into()))?;
    if people.remove(&name).is_none() {
        return Err(refused(format!("there is no person {name}")));
    }
    keys::write_people(state, &people).map_err(|error| not_changed(error.into()))?;
    let effect = admission.apply().await.map_err(not_changed)?;
    show(json, &json!({ "name": name, "in_effect": effect.is_in_effect() }), |_, text| {
        text.line(format_args!("removed {name}"));
    })?;
    warn(&effect)
}

fn list(state: &State, json: bool) -> Result<(), CliError> {
    let people = keys::read_people(state).map_err(|error| not_changed(error.into()))?;
    show(json, &people, |people, text| {
        let rows = people.iter().map(|(name, key)| [name.clone(), key.clone()]).collect();
        text.table([whole("name"), whole("public key")], rows, "nobody is admitted");
    })
}

fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    (1..=NAME_LENGTH_MAX).contains(&name.len()) && name.chars().all(fits)
}
