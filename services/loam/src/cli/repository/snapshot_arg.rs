//! The snapshot that a command works on.

use std::collections::BTreeSet;
use std::sync::Arc;

use backup_repository::{DiskSource, Repository, Selector, Snapshot, SnapshotError};
use clap::Args;

use super::errors;
use super::work::CommandContext;
use crate::cli::exit::CliError;

const LATEST: &str = "latest";

/// A snapshot as a person names it.
#[derive(Clone, Debug, Args)]
pub(super) struct SnapshotArg {
    /// Snapshot: `latest`, an id or its first characters
    #[arg(value_name = "SNAPSHOT")]
    snapshot: String,
    /// Machine whose latest snapshot is meant; needed where there are several
    #[arg(long, value_name = "NAME")]
    machine: Option<String>,
}

impl SnapshotArg {
    pub(super) async fn find(
        &self,
        repository: &Repository,
        work: &CommandContext,
    ) -> Result<Snapshot, CliError> {
        let found = find(repository, &self.snapshot, self.machine.as_deref(), work).await?;
        match &self.machine {
            Some(machine) if *machine != found.contents.machine => {
                let of = &found.contents.machine;
                Err(errors::usage(format!("snapshot {} is of machine {of}, not of {machine}", found.id)))
            }
            _ => Ok(found),
        }
    }

    /// Opens one of its disks for reading at random.
    pub(super) async fn open_disk(
        &self,
        repository: &Repository,
        disk: &str,
        work: &CommandContext,
    ) -> Result<(Snapshot, Arc<dyn DiskSource>), CliError> {
        let snapshot = self.find(repository, work).await?;
        let opened = work.wait(repository.open_disk(&snapshot, disk)).await?;
        Ok((snapshot, Arc::new(opened)))
    }
}

/// The snapshot with this name: `latest`, an id or its first characters.
pub(super) async fn find(
    repository: &Repository,
    name: &str,
    machine: Option<&str>,
    work: &CommandContext,
) -> Result<Snapshot, CliError> {
    let selector = match (name, machine) {
        (LATEST, Some(machine)) => Selector::Latest { machine: machine.to_owned() },
        (LATEST, None) => return latest_of_all(repository, work).await,
        (id, _) => id.parse().map(Selector::Id).unwrap_or_else(|_| Selector::Prefix(id.to_owned())),
    };
    work.wait(repository.find(&selector)).await
}

/// The latest, where there is one machine only.
async fn latest_of_all(repository: &Repository, work: &CommandContext) -> Result<Snapshot, CliError> {
    let mut all = work.wait(repository.snapshots()).await?;
    let machines: BTreeSet<_> = all.iter().map(|snapshot| snapshot.contents.machine.clone()).collect();
    if machines.len() > 1 {
        let machines = machines.into_iter().collect::<Vec<_>>().join(", ");
        return Err(errors::usage(format!(
            "there are several machines, choose one with --machine: {machines}"
        )));
    }
    let none = || errors::of(SnapshotError::Unknown { asked: "at all".into() });
    all.pop().ok_or_else(none)
}
