//! `loam seed`.

use std::path::Path;

use clap::Subcommand;
use clap_complete::ArgValueCompleter;
use contract::provisioner::{AddSeed, ListSeeds, RemoveSeed, Seed};
use contract::{HostName, SeedName};

use super::args::{DETACH, HOST};
use super::completion;
use super::exit::{CliError, CliExitCode};
use super::output::{Text, cut, extra, number, show, time, whole};
use super::session::Session;
use super::watch::begin;

#[derive(Debug, Subcommand)]
pub(super) enum SeedCommand {
    /// Add a seed, a base image of VMs, from a cloud image (qcow2 or raw)
    Add {
        /// Name of the seed
        name: SeedName,
        /// Image to add: a file on the host, or an http(s) URL
        #[arg(long, value_name = "FILE|URL")]
        from: String,
        /// SHA-256 of the image, 64 hexadecimal digits
        #[arg(long, value_name = "DIGEST")]
        sha256: String,
        #[arg(long, value_name = "NAME", help = HOST, add = ArgValueCompleter::new(completion::hosts))]
        host: Option<HostName>,
        #[arg(long, help = DETACH)]
        detach: bool,
    },
    /// List seeds, the base images of VMs
    List,
    /// Remove a seed, a base image that no VM uses
    Remove {
        /// Name of the seed
        #[arg(add = ArgValueCompleter::new(completion::seeds))]
        name: SeedName,
        /// Host that has it (default: the only one that has)
        #[arg(long, value_name = "NAME", add = ArgValueCompleter::new(completion::hosts))]
        host: Option<HostName>,
    },
}

pub(super) async fn run(session: &Session, command: SeedCommand) -> Result<(), CliError> {
    match command {
        SeedCommand::Add { name, from, sha256, host, detach } => {
            let from = absolute(from)?;
            begin(session, AddSeed { name, from, sha256, host, operation_id: None }, detach).await
        }
        SeedCommand::List => {
            show(session.json, &session.request(ListSeeds {}).await?, |seeds, text| list(seeds, text))
        }
        SeedCommand::Remove { name, host } => {
            let removed = session.request(RemoveSeed { name, host }).await?;
            show(session.json, &removed, |seed, text| {
                text.line(format_args!("seed {} is removed", seed.name))
            })
        }
    }
}

/// A path is made absolute here, where the working directory is known; a URL stays what it is.
fn absolute(from: String) -> Result<String, CliError> {
    if from.contains("://") {
        return Ok(from);
    }
    let path = std::path::absolute(Path::new(&from))
        .map_err(|error| CliError::new(CliExitCode::Usage, format!("{from}: {error}")))?;
    let text = path.to_str().map(str::to_string);
    text.ok_or_else(|| {
        CliError::new(CliExitCode::Usage, format!("{}: the path is not UTF-8", path.display()))
    })
}

fn list(seeds: &[Seed], text: &mut Text) {
    let rows = seeds.iter().map(|seed| {
        [
            seed.name.to_string(),
            seed.host.to_string(),
            seed.virtual_size.to_string(),
            seed.stored_size.to_string(),
            time(&seed.added),
            seed.sha256.clone(),
        ]
    });
    let head = [
        whole("NAME"),
        extra(whole("HOST")),
        number("DISK SIZE"),
        number("STORED"),
        whole("ADDED"),
        cut("SHA-256"),
    ];
    text.table(head, rows.collect(), "no seeds; `loam seed add` adds one");
}
