//! Completion in a shell: of commands and options from the command line itself, of names and ids from the bus.
//!
//! `loam completion bash` prints a script that calls `loam` again at each Tab with `LOAM_COMPLETE` set. Names are asked
//! of the services within [`ASK_MAX`]; where nobody answers there are none, and nothing is printed.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use clap_complete::CompletionCandidate;
use clap_complete::env::{Bash, CompleteEnv, EnvCompleter, Fish, Shells, Zsh};
use contract::backup::{Backup, ListBackups};
use contract::operation::{ListOperations, OperationReport};
use contract::provisioner::{ListHosts, ListSeeds, ListVms};
use contract::scheduler::ListSchedules;

use super::client::BusAddress;
use super::exit::{CliError, CliExitCode};
use super::op::WORKERS;
use super::output::{short, short_length, time};
use super::session::Session;
use super::watch::title;
use crate::state::STATE_DEFAULT;
use crate::stdio;

/// The variable by which a shell asks for completions.
const VARIABLE: &str = "LOAM_COMPLETE";
const NAME: &str = "loam";
/// The bus is near and answers in milliseconds; nobody waits longer for a Tab.
const ASK_MAX: Duration = Duration::from_millis(700);
/// bash takes `@` for the end of a word, and `VM@ID` for three words.
const BASH_WORDS: &str = "COMP_WORDBREAKS=${COMP_WORDBREAKS//@/}\n";

/// A shell that completion is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Shell {
    Bash,
    Fish,
    Zsh,
}

/// Prints the script of a shell.
pub(super) fn print(shell: Shell) -> Result<(), CliError> {
    let completer: &dyn EnvCompleter = match shell {
        Shell::Bash => &Bash,
        Shell::Fish => &Fish,
        Shell::Zsh => &Zsh,
    };
    let mut script = Vec::new();
    completer
        .write_registration(VARIABLE, NAME, NAME, NAME, &mut script)
        .map_err(|error| CliError::new(CliExitCode::Failed, format!("writing the script: {error}")))?;
    if shell == Shell::Bash {
        stdio::write(BASH_WORDS);
    }
    stdio::write(&String::from_utf8_lossy(&script));
    Ok(())
}

/// Answers a shell that asks for completions; returns whether one did.
pub(super) fn answer(words: &[OsString]) -> bool {
    let shells = Shells(&[&Bash, &Fish, &Zsh]);
    let environment = CompleteEnv::with_factory(super::help::command).var(VARIABLE).shells(shells);
    // Without an answer the shell completes nothing: a message would land in the middle of a line.
    environment.try_complete(words.to_vec(), std::env::current_dir().ok().as_deref()).unwrap_or(true)
}

/// A name with what a shell shows beside it.
type Named = (String, String);

pub(super) fn vms(current: &OsStr) -> Vec<CompletionCandidate> {
    candidates(current, async |session| {
        let vms = session.request(ListVms {}).await?.into_iter();
        Ok(vms
            .map(|vm| {
                (
                    vm.definition.name.to_string(),
                    vm.address.map(|address| address.to_string()).unwrap_or_default(),
                )
            })
            .collect())
    })
}

pub(super) fn hosts(current: &OsStr) -> Vec<CompletionCandidate> {
    candidates(current, async |session| {
        let hosts = session.request(ListHosts {}).await?.into_iter();
        Ok(hosts.map(|host| (host.name.to_string(), host.state.to_string())).collect())
    })
}

pub(super) fn seeds(current: &OsStr) -> Vec<CompletionCandidate> {
    candidates(current, async |session| {
        let seeds = session.request(ListSeeds {}).await?.into_iter();
        Ok(seeds.map(|seed| (seed.name.to_string(), seed.virtual_size.to_string())).collect())
    })
}

pub(super) fn backups(current: &OsStr) -> Vec<CompletionCandidate> {
    candidates(current, async |session| {
        let backups = session.request(ListBackups { vm: None }).await?;
        let length = short_length(backups.iter().map(|backup| backup.id.as_str()));
        let named = |backup: &Backup| {
            (format!("{}@{}", backup.vm, short(backup.id.as_str(), length)), time(&backup.taken))
        };
        let mut named: Vec<Named> = backups.iter().map(named).collect();
        let mut latest: Vec<_> = backups.iter().map(|backup| format!("{}@latest", backup.vm)).collect();
        latest.sort_unstable();
        latest.dedup();
        named.extend(latest.into_iter().map(|latest| (latest, String::new())));
        Ok(named)
    })
}

pub(super) fn schedules(current: &OsStr) -> Vec<CompletionCandidate> {
    candidates(current, async |session| {
        let schedules = session.request(ListSchedules {}).await?.into_iter();
        Ok(schedules.map(|status| (status.schedule.id.to_string(), status.schedule.cron)).collect())
    })
}

pub(super) fn operations(current: &OsStr) -> Vec<CompletionCandidate> {
    candidates(&current.to_ascii_uppercase(), async |session| {
        let mut reports = Vec::new();
        for worker in WORKERS {
            reports.extend(session.request_at(worker, ListOperations::default()).await?);
        }
        let length = short_length(reports.iter().map(|report| report.id.as_str()));
        let named = |report: &OperationReport| (short(report.id.as_str(), length), title(report));
        Ok(reports.iter().map(named).collect())
    })
}

pub(super) fn workers() -> Vec<CompletionCandidate> {
    WORKERS.into_iter().map(|service| CompletionCandidate::new(service.name())).collect()
}

/// The names that begin as `current` does; none where the bus does not answer in time.
fn candidates(
    current: &OsStr,
    ask: impl AsyncFnOnce(&Session) -> Result<Vec<Named>, CliError>,
) -> Vec<CompletionCandidate> {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    let (state, url, key) = given(std::env::args_os());
    let answered = runtime.block_on(async {
        let asking = async {
            let address = BusAddress { state: &state, url, key, ca_file: None };
            let session = Session::open(address, false).await?;
            ask(&session).await
        };
        tokio::time::timeout(ASK_MAX, asking).await
    });
    let Ok(Ok(named)) = answered else { return Vec::new() };
    let prefix = current.to_string_lossy().into_owned();
    let fitting = named.into_iter().filter(|(name, _)| name.starts_with(&prefix));
    let candidate =
        |(name, help): Named| CompletionCandidate::new(name).help((!help.is_empty()).then(|| help.into()));
    fitting.map(candidate).collect()
}

/// The global options of the line that is being completed, as far as they say where the bus is.
fn given(words: impl Iterator<Item = OsString>) -> (PathBuf, Option<String>, Option<PathBuf>) {
    let state = std::env::var_os("LOAM_STATE").map_or_else(|| STATE_DEFAULT.into(), PathBuf::from);
    let (mut state, mut url, mut key) = (state, None, None);
    let mut words = words;
    while let Some(word) = words.next() {
        let word = word.to_string_lossy().into_owned();
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name.to_string(), Some(OsString::from(value))),
            None => (word, None),
        };
        let mut value = || value.clone().or_else(|| words.next());
        match name.as_str() {
            "--state" => state = value().map_or(state, PathBuf::from),
            "--url" => url = value().map(|url| url.to_string_lossy().into_owned()),
            "--key" => key = value().map(PathBuf::from),
            _ => {}
        }
    }
    (state, url, key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_being_completed_says_where_the_bus_is() {
        let words =
            ["loam", "--", "loam", "--state=/x", "--url", "nats://a", "vm", "show", "--key", "/k", ""];
        let (state, url, key) = given(words.into_iter().map(OsString::from));
        assert_eq!((state, url.as_deref()), (PathBuf::from("/x"), Some("nats://a")));
        assert_eq!(key, Some(PathBuf::from("/k")));
    }
}
