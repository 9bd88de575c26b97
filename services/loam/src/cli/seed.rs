//! `loam seed`.

use std::path::Path;

use contract::Service;
use contract::provisioner::{AddSeed, ListSeeds, RemoveSeed, Seed};

use super::args;
use super::exit::{CliError, Exit};
use super::output::{Text, cut, number, show, time, whole};
use super::session::Session;
use super::watch::follow;

pub(super) async fn run(session: &Session, command: args::Seed) -> Result<(), CliError> {
    match command {
        args::Seed::Add { name, from, sha256, detach } => {
            let from = absolute(from)?;
            let begun = session.request(AddSeed { name, from, sha256, operation_id: None }).await?;
            follow(session, Service::Provisioner, begun, detach).await
        }
        args::Seed::List => {
            show(session.json, &session.request(ListSeeds {}).await?, |seeds, text| list(seeds, text))
        }
        args::Seed::Remove { name } => {
            let removed = session.request(RemoveSeed { name }).await?;
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
        .map_err(|error| CliError::new(Exit::Usage, format!("{from}: {error}")))?;
    let text = path.to_str().map(str::to_string);
    text.ok_or_else(|| CliError::new(Exit::Usage, format!("{}: the path is not UTF-8", path.display())))
}

fn list(seeds: &[Seed], text: &mut Text) {
    let rows = seeds.iter().map(|seed| {
        [
            seed.name.to_string(),
            seed.virtual_size.to_string(),
            seed.stored_size.to_string(),
            time(&seed.added),
            seed.sha256.clone(),
        ]
    });
    let head = [whole("NAME"), number("DISK SIZE"), number("STORED"), whole("ADDED"), cut("SHA-256")];
    text.table(head, rows.collect(), "no seeds; `loam seed add` adds one");
}
