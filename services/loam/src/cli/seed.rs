//! `loam seed`.

use std::path::Path;

use contract::Service;
use contract::provisioner::{AddSeed, ListSeeds, RemoveSeed, Seed};

use super::args;
use super::exit::{Exit, Trouble};
use super::output::{show, table, time};
use super::session::Session;
use super::work::follow;

pub(super) async fn run(session: &Session, command: args::Seed) -> Result<(), Trouble> {
    match command {
        args::Seed::Add { name, from, sha256, lasting } => {
            let from = absolute(from)?;
            let begun = session.ask(AddSeed { name, from, sha256, operation_id: None }).await?;
            follow(session, Service::Provisioner, begun, lasting).await
        }
        args::Seed::List => show(session.json, &session.ask(ListSeeds {}).await?, |seeds| list(seeds)),
        args::Seed::Remove { name } => {
            let removed = session.ask(RemoveSeed { name }).await?;
            show(session.json, &removed, |seed| println!("removed {}", seed.name))
        }
    }
}

/// A path is made absolute here, where the person's folder is known; a URL stays what it is.
fn absolute(from: String) -> Result<String, Trouble> {
    if from.contains("://") {
        return Ok(from);
    }
    let path = std::path::absolute(Path::new(&from))
        .map_err(|error| Trouble::new(Exit::Usage, format!("{from}: {error}")))?;
    let text = path.to_str().map(str::to_string);
    text.ok_or_else(|| Trouble::new(Exit::Usage, format!("{}: the path is not UTF-8", path.display())))
}

fn list(seeds: &[Seed]) {
    let rows = seeds.iter().map(|seed| {
        let digest = seed.sha256.chars().take(16).collect();
        [
            seed.name.to_string(),
            seed.virtual_size.to_string(),
            seed.stored_size.to_string(),
            digest,
            time(&seed.added),
        ]
    });
    table(
        ["NAME", "DISK", "STORED", "SHA-256", "ADDED"],
        rows.collect(),
        "no seeds; `loam seed add` adds one",
    );
}
