//! `loam repository keys`: who may open the repository.

use std::path::{Path, PathBuf};

use backup_repository::{Identity, KdfCost, KeySlot, NewKey, Recipient, Role};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::access::{Access, DryRun, secret_of};
use super::answer::Answer;
use super::file::NewFile;
use super::snapshots::at;
use super::work::Work;
use super::{EXIT_CODES, trouble};
use crate::cli::exit::Trouble;
use crate::cli::output::table;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum KeysCommand {
    /// List the keys that open the repository
    #[command(after_help = EXIT_CODES)]
    List(Box<ListArgs>),
    /// Add a key
    #[command(after_help = EXIT_CODES)]
    Add(Box<AddArgs>),
    /// Call a key something else
    #[command(after_help = EXIT_CODES)]
    Label(Box<LabelArgs>),
    /// Remove a key; what is stored from then on its owner cannot read
    #[command(after_help = EXIT_CODES)]
    Remove(Box<RemoveArgs>),
    /// Begin a new epoch: what is stored from then on is sealed with new keys
    #[command(after_help = EXIT_CODES)]
    Rotate(Box<RotateArgs>),
    /// Make a key pair: the private key goes into a new file, the recipient to whoever adds it to a repository
    #[command(after_help = EXIT_CODES)]
    Identity {
        /// The new file, readable by you only
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ListArgs {
    #[command(flatten)]
    access: Access,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct AddArgs {
    /// What to call it
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,
    /// It may store backups and read nothing back, for hosts that might be broken into
    #[arg(long)]
    write_only: bool,
    #[command(flatten)]
    key: NewKeyArgs,
    #[command(flatten)]
    dry: DryRun,
    #[command(flatten)]
    access: Access,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "The new key")]
#[group(required = true, multiple = false)]
struct NewKeyArgs {
    /// A file with the new passphrase
    #[arg(long, value_name = "FILE")]
    new_passphrase_file: Option<PathBuf>,
    /// A file of at least 32 random bytes
    #[arg(long, value_name = "FILE")]
    new_key_file: Option<PathBuf>,
    /// The public key of somebody, as `keys identity` printed it for him
    #[arg(long, value_name = "RECIPIENT")]
    recipient: Option<Recipient>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct LabelArgs {
    /// Its id, or the first characters of it
    id: String,
    /// What to call it from now on
    label: String,
    #[command(flatten)]
    dry: DryRun,
    #[command(flatten)]
    access: Access,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RemoveArgs {
    /// Its id, or the first characters of it
    id: String,
    #[command(flatten)]
    proof: ProofArgs,
    #[command(flatten)]
    dry: DryRun,
    #[command(flatten)]
    access: Access,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Proof of another key, to remove the one in use")]
#[group(multiple = false)]
struct ProofArgs {
    /// A file with its passphrase
    #[arg(long, value_name = "FILE")]
    proof_passphrase_file: Option<PathBuf>,
    /// The key file
    #[arg(long, value_name = "FILE")]
    proof_key_file: Option<PathBuf>,
    /// A file with the private key
    #[arg(long, value_name = "FILE")]
    proof_identity_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RotateArgs {
    #[command(flatten)]
    dry: DryRun,
    #[command(flatten)]
    access: Access,
}

pub(super) async fn run(command: KeysCommand, work: &Work) -> Result<(), Trouble> {
    match command {
        KeysCommand::List(args) => list(*args, work).await,
        KeysCommand::Add(args) => add(*args, work).await,
        KeysCommand::Label(args) => label(*args, work).await,
        KeysCommand::Remove(args) => Box::pin(remove(*args, work)).await,
        KeysCommand::Rotate(args) => rotate(*args, work).await,
        KeysCommand::Identity { file } => identity(&file, work).await,
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

async fn list(args: ListArgs, work: &Work) -> Result<(), Trouble> {
    let repository = args.access.open(work).await?;
    let keys = work.wait(repository.keys()).await?.into_iter().map(KeyView::from).collect();
    Answer::new(Keys { keys }).give(work.json, |answer| {
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
        table(["KEY", "LABEL", "MAY", "KIND", "ADDED", ""], rows.collect(), "no keys");
    })
}

#[derive(Serialize)]
struct Added {
    id: String,
    label: String,
}

async fn add(args: AddArgs, work: &Work) -> Result<(), Trouble> {
    let NewKeyArgs { new_passphrase_file, new_key_file, recipient } = &args.key;
    let key = match (recipient, secret_of(new_passphrase_file.as_ref(), new_key_file.as_ref(), None)) {
        (Some(recipient), _) => NewKey::Recipient(*recipient),
        (None, secret) => {
            let secret = secret.expect("the group is required").map_err(trouble::of)?;
            NewKey::Secret(secret, KdfCost::default())
        }
    };
    let role = if args.write_only { Role::WriteOnly } else { Role::Full };
    let label = args.label.unwrap_or_else(|| format!("added {}", chrono::Utc::now().format("%Y-%m-%d")));
    let repository = args.access.open_to_change(args.dry.dry_run, work).await?;
    let id = work.wait(repository.add_key(&label, role, key)).await?;
    Answer::new(Added { id, label })
        .dry(args.dry.dry_run)
        .give(work.json, |added| println!("added key {} ({})", added.id, added.label))
}

#[derive(Serialize)]
struct Labelled {
    id: String,
    label: String,
}

async fn label(args: LabelArgs, work: &Work) -> Result<(), Trouble> {
    let LabelArgs { id, label, dry, access } = args;
    let repository = access.open_to_change(dry.dry_run, work).await?;
    work.wait(repository.label_key(&id, &label)).await?;
    Answer::new(Labelled { id, label })
        .dry(dry.dry_run)
        .give(work.json, |done| println!("key {} is called {}", done.id, done.label))
}

#[derive(Serialize)]
struct Removed {
    id: String,
}

async fn remove(args: RemoveArgs, work: &Work) -> Result<(), Trouble> {
    let ProofArgs { proof_passphrase_file, proof_key_file, proof_identity_file } = &args.proof;
    let proof =
        secret_of(proof_passphrase_file.as_ref(), proof_key_file.as_ref(), proof_identity_file.as_ref());
    let proof = proof.transpose().map_err(trouble::of)?;
    let repository = args.access.open_to_change(args.dry.dry_run, work).await?;
    work.wait(repository.remove_key(&args.id, proof)).await?;
    Answer::new(Removed { id: args.id }).dry(args.dry.dry_run).give(work.json, |removed| {
        println!("removed key {}", removed.id);
        println!("what was stored before, its owner can read if he kept it and reaches the store;");
        println!("`loam repository collect --reseal-old-epochs` seals that anew");
    })
}

#[derive(Serialize)]
struct Rotated {
    epoch: u32,
}

async fn rotate(args: RotateArgs, work: &Work) -> Result<(), Trouble> {
    let repository = args.access.open_to_change(args.dry.dry_run, work).await?;
    let epoch = work.wait(repository.rotate_keys()).await?;
    Answer::new(Rotated { epoch })
        .dry(args.dry.dry_run)
        .give(work.json, |done| println!("epoch {} has begun", done.epoch))
}

#[derive(Serialize)]
struct Made {
    file: PathBuf,
    recipient: String,
}

async fn identity(file: &Path, work: &Work) -> Result<(), Trouble> {
    let identity = Identity::generate();
    NewFile::begin(file)?.whole(identity.file().as_bytes()).await?;
    let made = Made { file: file.to_owned(), recipient: identity.recipient().to_string() };
    Answer::new(made).give(work.json, |made| println!("{}", made.recipient))
}
