//! `loam repository keys`: who may open the repository.

use std::path::{Path, PathBuf};

use backup_repository::{Identity, KdfCost, KeySlot, NewKey, Recipient, Role};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::access::{Access, DryRun, secret_of};
use super::answer::Answer;
use super::errors;
use super::file::NewFile;
use super::snapshots::at;
use super::work::CommandContext;
use crate::cli::exit::CliError;
use crate::cli::output::{cut, whole};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum KeysCommand {
    /// List keys
    List(Box<KeysListArgs>),
    /// Add a key
    Add(Box<KeysAddArgs>),
    /// Change the label of a key
    Label(Box<KeysLabelArgs>),
    /// Remove a key; a copy of it still opens what was stored before
    ///
    /// It does not open what is stored from then on. `collect --reencrypt-old-epochs` encrypts again what was stored
    /// before, so that it does not open that either.
    Remove(Box<KeysRemoveArgs>),
    /// Encrypt what is stored from now on with a new data key (a new epoch)
    Rotate(Box<KeysRotateArgs>),
    /// Make a key pair: write the private key to a file and print the public one, the recipient
    GenerateIdentity {
        /// New file for the private key, readable by its owner only
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct KeysListArgs {
    #[command(flatten)]
    access: Access,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct KeysAddArgs {
    /// Label of the key (default: the date)
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,
    /// Only allow storing backups, not reading them, for hosts that might be broken into
    #[arg(long)]
    write_only: bool,
    #[command(flatten)]
    dry: DryRun,
    #[command(flatten)]
    key: NewKeyArgs,
    #[command(flatten)]
    access: Access,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "New key")]
#[group(required = true, multiple = false)]
struct NewKeyArgs {
    /// File with the new passphrase
    #[arg(long, value_name = "FILE")]
    new_passphrase_file: Option<PathBuf>,
    /// File with the new key, at least 32 random bytes
    #[arg(long, value_name = "FILE")]
    new_key_file: Option<PathBuf>,
    /// Public key of another person or host, as `keys generate-identity` printed it
    #[arg(long, value_name = "RECIPIENT")]
    recipient: Option<Recipient>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct KeysLabelArgs {
    /// Id of the key or its first characters
    id: String,
    /// New label
    label: String,
    #[command(flatten)]
    dry: DryRun,
    #[command(flatten)]
    access: Access,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct KeysRemoveArgs {
    /// Id of the key or its first characters
    id: String,
    #[command(flatten)]
    dry: DryRun,
    #[command(flatten)]
    proof: OtherKeyArgs,
    #[command(flatten)]
    access: Access,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Proof of another key, to remove the one in use")]
#[group(multiple = false)]
struct OtherKeyArgs {
    /// File with the passphrase of another key
    #[arg(long, value_name = "FILE")]
    other_passphrase_file: Option<PathBuf>,
    /// File with the random bytes of another key
    #[arg(long, value_name = "FILE")]
    other_key_file: Option<PathBuf>,
    /// File with the private key of another key
    #[arg(long, value_name = "FILE")]
    other_identity_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct KeysRotateArgs {
    #[command(flatten)]
    dry: DryRun,
    #[command(flatten)]
    access: Access,
}

pub(super) async fn run(command: KeysCommand, work: &CommandContext) -> Result<(), CliError> {
    match command {
        KeysCommand::List(args) => list(*args, work).await,
        KeysCommand::Add(args) => add(*args, work).await,
        KeysCommand::Label(args) => label(*args, work).await,
        KeysCommand::Remove(args) => Box::pin(remove(*args, work)).await,
        KeysCommand::Rotate(args) => rotate(*args, work).await,
        KeysCommand::GenerateIdentity { file } => identity(&file, work).await,
    }
}

#[derive(Serialize)]
struct Keys {
    keys: Vec<KeyView>,
}

#[derive(Serialize)]
struct KeyView {
    id: String,
    label: String,
    role: Role,
    kind: &'static str,
    recipient: Option<String>,
    created_unix_ms: u64,
    in_use: bool,
}

impl From<KeySlot> for KeyView {
    fn from(slot: KeySlot) -> KeyView {
        let KeySlot { id, label, role, kind, recipient, created_unix_ms, in_use } = slot;
        let recipient = recipient.map(|recipient| recipient.to_string());
        KeyView { id, label, role, kind, recipient, created_unix_ms, in_use }
    }
}

async fn list(args: KeysListArgs, work: &CommandContext) -> Result<(), CliError> {
    let repository = args.access.open(work).await?;
    let keys = work.wait(repository.keys()).await?.into_iter().map(KeyView::from).collect();
    Answer::new(Keys { keys }).give(work.json, |answer, text| {
        let rows = answer.keys.iter().map(|key| {
            let role = match key.role {
                Role::Full => "full",
                Role::WriteOnly => "write-only",
            };
            let in_use = if key.in_use { "in use" } else { "" };
            [
                key.id.clone(),
                key.label.clone(),
                role.into(),
                key.kind.into(),
                at(key.created_unix_ms),
                in_use.into(),
            ]
        });
        let head = [whole("KEY"), cut("LABEL"), whole("ROLE"), whole("KIND"), whole("ADDED"), whole("")];
        text.table(head, rows.collect(), "no keys");
    })
}

#[derive(Serialize)]
struct Added {
    id: String,
    label: String,
}

async fn add(args: KeysAddArgs, work: &CommandContext) -> Result<(), CliError> {
    let NewKeyArgs { new_passphrase_file, new_key_file, recipient } = &args.key;
    let key = match (recipient, secret_of(new_passphrase_file.as_ref(), new_key_file.as_ref(), None)) {
        (Some(recipient), _) => NewKey::Recipient(*recipient),
        (None, secret) => {
            let secret = secret.expect("the group is required").map_err(errors::of)?;
            NewKey::Secret(secret, KdfCost::default())
        }
    };
    let role = if args.write_only { Role::WriteOnly } else { Role::Full };
    let label = args.label.unwrap_or_else(|| format!("added {}", chrono::Utc::now().format("%Y-%m-%d")));
    let repository = args.access.open_to_change(args.dry.dry_run, work).await?;
    let id = work.wait(repository.add_key(&label, role, key)).await?;
    Answer::new(Added { id, label })
        .dry(args.dry.dry_run)
        .give(work.json, |added, text| text.line(format_args!("added key {} ({})", added.id, added.label)))
}

#[derive(Serialize)]
struct Labelled {
    id: String,
    label: String,
}

async fn label(args: KeysLabelArgs, work: &CommandContext) -> Result<(), CliError> {
    let KeysLabelArgs { id, label, dry, access } = args;
    let repository = access.open_to_change(dry.dry_run, work).await?;
    work.wait(repository.label_key(&id, &label)).await?;
    Answer::new(Labelled { id, label })
        .dry(dry.dry_run)
        .give(work.json, |done, text| text.line(format_args!("key {} has the label {}", done.id, done.label)))
}

#[derive(Serialize)]
struct Removed {
    id: String,
}

async fn remove(args: KeysRemoveArgs, work: &CommandContext) -> Result<(), CliError> {
    let OtherKeyArgs { other_passphrase_file, other_key_file, other_identity_file } = &args.proof;
    let proof =
        secret_of(other_passphrase_file.as_ref(), other_key_file.as_ref(), other_identity_file.as_ref());
    let proof = proof.transpose().map_err(errors::of)?;
    let repository = args.access.open_to_change(args.dry.dry_run, work).await?;
    Box::pin(work.wait(repository.remove_key(&args.id, proof))).await?;
    Answer::new(Removed { id: args.id }).dry(args.dry.dry_run).give(work.json, |removed, text| {
        text.line(format_args!("removed key {}", removed.id));
        text.line("who kept a copy of it and can reach the store can still read what was stored before:");
        text.line("`loam repository collect --reencrypt-old-epochs` encrypts that with new keys");
    })
}

#[derive(Serialize)]
struct Rotated {
    epoch: u32,
}

async fn rotate(args: KeysRotateArgs, work: &CommandContext) -> Result<(), CliError> {
    let repository = args.access.open_to_change(args.dry.dry_run, work).await?;
    let epoch = work.wait(repository.rotate_keys()).await?;
    Answer::new(Rotated { epoch })
        .dry(args.dry.dry_run)
        .give(work.json, |done, text| text.line(format_args!("epoch {} has begun", done.epoch)))
}

#[derive(Serialize)]
struct Made {
    file: PathBuf,
    recipient: String,
}

async fn identity(file: &Path, work: &CommandContext) -> Result<(), CliError> {
    let identity = Identity::generate();
    NewFile::begin(file)?.whole(identity.file().as_bytes()).await?;
    let made = Made { file: file.to_owned(), recipient: identity.recipient().to_string() };
    Answer::new(made).give(work.json, |made, text| text.line(format_args!("{}", made.recipient)))
}
