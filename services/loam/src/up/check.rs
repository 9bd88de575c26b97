//! Lets each service check its part of the settings, before anything is changed.
//!
//! Only a service knows its keys. Its executable, called with `--check-settings`, reads them and ends; its error is looked
//! up in the person's file, so that the message names file, line and key like every other.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use contract::Service;

use super::release::Executables;
use super::service::{CommonSettings, settings_to_check};
use super::settings::{Hypervisor, Settings, SettingsError};
use super::users::Users;
use crate::state::State;

/// Reading a file takes milliseconds, starting a large program on a busy machine a second.
const CHECK_MAX: Duration = Duration::from_secs(20);
const POLL_EVERY: Duration = Duration::from_millis(5);

/// Checks the settings of all services; the first error ends it.
pub(super) fn check_services(
    file: &Path,
    settings: &Settings,
    state: &State,
    executables: &Executables,
    hypervisor: Option<Hypervisor>,
) -> anyhow::Result<()> {
    let keys = state.keys();
    let users = Users::default();
    let common =
        CommonSettings { state, settings, url: "", ca_file: None, keys: &keys, hypervisor, users: &users };
    for &service in &settings.services {
        let Some(problem) = check(&executables.choose(service), &settings_to_check(&common, service))? else {
            continue;
        };
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = line_of(&text, service, &problem);
        return Err(SettingsError::Wrong { path: file.into(), line, reason: problem }.into());
    }
    Ok(())
}

/// What is wrong with the settings of a service, if anything is.
fn check(executable: &Path, settings: &str) -> anyhow::Result<Option<String>> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(settings.as_bytes())?;
    let mut child = Command::new(executable)
        .arg(chassis::CHECK_SETTINGS)
        .env("LOAM_CONFIG", file.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let ended = wait(&mut child)?;
    let output = child.wait_with_output()?;
    anyhow::ensure!(
        ended,
        "{} did not check its settings within {} s",
        executable.display(),
        CHECK_MAX.as_secs()
    );
    if output.status.success() {
        return Ok(None);
    }
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok(Some(plain(&stderr, &file.path().display().to_string())))
}

/// Whether it ended by itself in time; if not, it is killed.
fn wait(child: &mut Child) -> std::io::Result<bool> {
    let until = Instant::now() + CHECK_MAX;
    while child.try_wait()?.is_none() {
        if Instant::now() >= until {
            child.kill()?;
            return Ok(false);
        }
        std::thread::sleep(POLL_EVERY);
    }
    Ok(true)
}

/// The error without the parts that belong to this check.
fn plain(stderr: &str, temporary: &str) -> String {
    let first = stderr.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it gives no reason");
    let first = first.strip_prefix("Error: ").unwrap_or(first);
    let first = first.strip_prefix("settings: ").unwrap_or(first);
    first.replace(&format!(" in {temporary}"), "")
}

/// The line of the person's file that an error is about: the key that it names, in the service's part; else the first
/// line of that part.
fn line_of(text: &str, service: Service, problem: &str) -> usize {
    // "... for key `proxy.a`" names it; otherwise the first name is the wrong one, the others are what is expected.
    let at = problem.find("for key `").unwrap_or(0);
    let named = problem[at..].split('`').nth(1).and_then(|name| name.rsplit('.').next());
    let (mut inside, mut head) = (false, 1);
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(part) = line.strip_prefix('[') {
            let name = part.split([']', '.']).next().unwrap_or_default().trim();
            inside = name == service.name();
            if inside && head == 1 {
                head = index + 1;
            }
        }
        let key = line.split('=').next().unwrap_or_default().trim();
        let titled = line.trim_matches(['[', ']']).rsplit('.').next().unwrap_or_default().trim();
        if inside && named.is_some_and(|named| named == key || (line.starts_with('[') && named == titled)) {
            return index + 1;
        }
    }
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str =
        "host = \"h1\"\n[backup]\nworkers = 1\n[proxy]\n# where\nhttp_lisen = \"x\"\n[proxy.more]\n";

    #[test]
    fn a_problem_is_found_in_the_persons_file() {
        let line = |problem| line_of(FILE, Service::Proxy, problem);
        assert_eq!(line("unknown field `http_lisen`, expected `http_listen` or `trusted_networks`"), 6);
        assert_eq!(line("unknown field `more`, expected `http_listen`"), 7);
        assert_eq!(line("invalid value for key `proxy.http_lisen`"), 6);
        assert_eq!(line("something else"), 4);
        assert_eq!(line_of(FILE, Service::Backup, "invalid type for `backup.workers`"), 3);
    }

    #[test]
    fn an_error_has_no_parts_of_the_check() {
        let said = "Error: settings: invalid type: string \"x\" for key `proxy.a` in /tmp/x\n\nCaused by:\n    more\n";
        assert_eq!(plain(said, "/tmp/x"), "invalid type: string \"x\" for key `proxy.a`");
        assert_eq!(plain("", "/tmp/x"), "it gives no reason");
    }
}
