//! `loam row-keys`: the keys with which the provisioner encrypts the variables and scripts of VMs in its tables.
//!
//! ```text
//!   keys/rows.key    add: a new key becomes the first     remove: an older one is dropped
//!        |
//!        '--- read at each start of the provisioner, which encrypts with the first and decrypts with all
//! ```
//!
//! These commands work on the file and contact nobody.

use std::path::Path;

use clap::Subcommand;
use encryption::{RowKeys, new_key};
use serde::Serialize;
use zeroize::Zeroizing;

use super::examples;
use super::exit::{CliError, CliExitCode};
use super::output::{Text, show, whole};
use crate::state::{State, write_private};

#[derive(Debug, Subcommand)]
pub(super) enum RowKeysCommand {
    /// List the ids of the keys, newest first
    List,
    /// Add a new key, which encrypts from the next start of the provisioner on
    #[command(after_help = examples::ROW_KEYS_ADD)]
    Add,
    /// Remove an older key for good; what is encrypted with it cannot be decrypted any more
    Remove {
        /// Id of the key; `loam status` names those that nothing is encrypted with any more
        id: String,
    },
}

#[derive(Serialize)]
struct RowKey {
    id: String,
    encrypts: bool,
}

pub(super) fn run(state: &State, json: bool, command: RowKeysCommand) -> Result<(), CliError> {
    let path = state.rows_key();
    let text = read(&path)?;
    let keys = parse(&path, &text)?;
    match command {
        RowKeysCommand::List => {
            let row_key =
                |(at, id): (usize, &encryption::KeyId)| RowKey { id: id.to_string(), encrypts: at == 0 };
            let list: Vec<RowKey> = keys.ids().enumerate().map(row_key).collect();
            show(json, &list, |list, text| table(list, text))
        }
        RowKeysCommand::Add => {
            let new = Zeroizing::new(format!("{}{}", *new_key(rand::random()), *text));
            write(&path, &new)?;
            let id = parse(&path, &new)?.ids().next().map(ToString::to_string).unwrap_or_default();
            show(json, &RowKey { id, encrypts: true }, |key, text| {
                text.line(format_args!("key {} was added; restart the provisioner, on every host", key.id));
            })
        }
        RowKeysCommand::Remove { id } => {
            let refused = |message: String| CliError::new(CliExitCode::Refused, message);
            let position = keys.ids().position(|known| known.to_string() == id);
            match position {
                None => return Err(refused(format!("{} holds no key {id}", path.display()))),
                Some(0) => {
                    return Err(refused(format!(
                        "key {id} is the newest, with which rows are encrypted; add another one first"
                    )));
                }
                Some(_) => {}
            }
            let is_other = |line: &&str| {
                RowKeys::parse(line).map_or(true, |key| key.ids().all(|of| of.to_string() != id))
            };
            let kept: Vec<&str> = text.lines().filter(is_other).collect();
            write(&path, &Zeroizing::new(kept.join("\n") + "\n"))?;
            show(json, &RowKey { id, encrypts: false }, |key, text| {
                text.line(format_args!("key {} was removed", key.id));
            })
        }
    }
}

fn failed(path: &Path, error: &dyn std::error::Error) -> CliError {
    CliError::new(
        CliExitCode::Failed,
        format!("{}: {}", path.display(), contract::message::with_causes(error)),
    )
}

fn read(path: &Path) -> Result<Zeroizing<String>, CliError> {
    chassis::refuse_if_others_have_access(path).map_err(|error| failed(path, &error))?;
    std::fs::read_to_string(path).map(Zeroizing::new).map_err(|error| failed(path, &error))
}

fn parse(path: &Path, text: &str) -> Result<RowKeys, CliError> {
    RowKeys::parse(text).map_err(|error| failed(path, &error))
}

fn write(path: &Path, text: &str) -> Result<(), CliError> {
    write_private(path, text.as_bytes()).map_err(|error| failed(path, &error))
}

fn table(keys: &[RowKey], text: &mut Text) {
    let rows = keys.iter().map(|key| {
        let role = if key.encrypts { "encrypts and decrypts" } else { "decrypts" };
        [key.id.clone(), role.to_string()]
    });
    text.table([whole("ID"), whole("USE")], rows.collect(), "no keys");
}
