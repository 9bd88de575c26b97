//! Which executable a service runs from: the one installed beside `loam`, or the one that an upgrade put in place.
//!
//! `{state}/releases/{service}/current.toml` records an upgrade together with the digest of the executable that was
//! installed then. When another one is installed afterwards, the installed one is used.

use std::path::{Path, PathBuf};

use contract::Service;
use contract::supervisor::ReplaceServiceRefused;
use serde::{Deserialize, Serialize};

use crate::state::{State, StateDirError, write_private};

/// The record of an upgrade.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Current {
    executable: PathBuf,
    sha256: String,
    /// What it ran from before, so that a repeated request gets the same answer.
    before: PathBuf,
    installed_sha256: String,
}

/// Where executables are.
#[derive(Clone, Debug)]
pub struct Executables {
    state: State,
    installed: PathBuf,
}

/// Why an executable cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ExecutableError {
    /// An executable is not where it was installed.
    #[error("{0} is missing; build all services and put them beside `loam`")]
    NotInstalled(PathBuf),
    /// A file cannot be read or written.
    #[error(transparent)]
    State(#[from] StateDirError),
    /// An executable cannot be read.
    #[error("reading {path}")]
    Disk {
        /// The file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: std::io::Error,
    },
}

impl Executables {
    /// The executables installed in a folder, and the releases in the state directory.
    pub fn of(state: State, installed: PathBuf) -> Executables {
        Executables { state, installed }
    }

    /// Where a service's executable is installed.
    pub fn installed(&self, service: Service) -> PathBuf {
        self.installed.join(format!("loam-{service}"))
    }

    /// Checks that every service is installed, before anything is started.
    pub fn check(&self) -> Result<(), ExecutableError> {
        let missing =
            Service::FIVE.into_iter().map(|service| self.installed(service)).find(|path| !path.is_file());
        missing.map_or(Ok(()), |path| Err(ExecutableError::NotInstalled(path)))
    }

    /// What a service is to run from. It may hash executables, which takes a moment.
    pub fn choose(&self, service: Service) -> PathBuf {
        let installed = self.installed(service);
        let Some(current) = self.current(service) else {
            return installed;
        };
        let verdict = || -> Result<(), String> {
            let digest = |path: &Path| chassis::sha256_of(path).map_err(|error| error.to_string());
            if digest(&installed)? != current.installed_sha256 {
                return Err("another executable was installed since".into());
            }
            if digest(&current.executable)? != current.sha256 {
                return Err("its content has changed".into());
            }
            self.usable(&current.executable).map_err(|error| error.to_string())
        };
        match verdict() {
            Ok(()) => current.executable,
            Err(reason) => {
                let release = current.executable.display();
                tracing::warn!(%service, %release, reason, "the release is not used; running the installed executable");
                installed
            }
        }
    }

    fn current(&self, service: Service) -> Option<Current> {
        let path = self.state.current_release(service);
        let text = std::fs::read_to_string(&path).ok()?;
        match toml::from_str(&text) {
            Ok(current) => Some(current),
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "the record cannot be read; running the installed executable");
                None
            }
        }
    }

    /// Whether an executable may be run as a release: inside the releases folder, and nobody else can write or replace it.
    pub fn usable(&self, executable: &Path) -> Result<(), ReplaceServiceRefused> {
        let refused = |reason: String| ReplaceServiceRefused::ExecutableNotUsable {
            path: executable.display().to_string(),
            reason,
        };
        let real = |path: &Path| path.canonicalize().map_err(|error| refused(error.to_string()));
        let (folder, file) = (real(&self.state.releases())?, real(executable)?);
        if !file.starts_with(&folder) || !file.is_file() {
            return Err(refused(format!("it is not a file inside {}", folder.display())));
        }
        for step in file.ancestors().take_while(|step| step.starts_with(&folder)) {
            chassis::refuse_if_others_can_write(step).map_err(|error| refused(error.to_string()))?;
        }
        Ok(())
    }

    /// Records what a service is to run from; returns what it ran from before.
    pub fn record(&self, service: Service, executable: &Path) -> Result<PathBuf, ExecutableError> {
        let running = self.choose(service);
        if running == executable {
            return Ok(self.current(service).map_or(running, |current| current.before));
        }
        let path = self.state.current_release(service);
        if executable == self.installed(service) {
            std::fs::remove_file(&path).map_err(|source| ExecutableError::Disk { path, source })?;
            return Ok(running);
        }
        let digest = |path: &Path| {
            chassis::sha256_of(path).map_err(|source| ExecutableError::Disk { path: path.into(), source })
        };
        let current = Current {
            executable: executable.into(),
            sha256: digest(executable)?,
            before: running.clone(),
            installed_sha256: digest(&self.installed(service))?,
        };
        let text = toml::to_string(&current).expect("paths and digests are plain data");
        write_private(&path, text.as_bytes())?;
        Ok(running)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Host {
        _folder: tempfile::TempDir,
        executables: Executables,
        installed: PathBuf,
        release: PathBuf,
    }

    fn host() -> Host {
        let folder = tempfile::tempdir().expect("a folder");
        let state = State::at(folder.path().join("state"));
        state.prepare().expect("made");
        let place = state.releases().join("proxy").join("0.2.0");
        std::fs::create_dir_all(&place).expect("made");
        let (installed, release) = (folder.path().join("loam-proxy"), place.join("loam-proxy"));
        for (path, text) in [(&installed, "installed"), (&release, "release")] {
            std::fs::write(path, text).expect("written");
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("set");
        }
        let executables = Executables::of(state, folder.path().into());
        Host { _folder: folder, executables, installed, release }
    }

    #[test]
    fn an_upgrade_is_recorded_and_can_be_rolled_back() {
        let host = host();
        let proxy = Service::Proxy;
        assert_eq!(host.executables.choose(proxy), host.installed);
        for _ in 0..2 {
            assert_eq!(host.executables.record(proxy, &host.release).expect("kept"), host.installed);
            assert_eq!(host.executables.choose(proxy), host.release);
        }
        assert_eq!(host.executables.record(proxy, &host.installed).expect("rolled back"), host.release);
        assert_eq!(host.executables.choose(proxy), host.installed);
    }

    #[test]
    fn an_executable_that_is_installed_later_is_used() {
        let host = host();
        host.executables.record(Service::Proxy, &host.release).expect("kept");
        std::fs::write(&host.installed, "installed again").expect("written");
        assert_eq!(host.executables.choose(Service::Proxy), host.installed);
    }

    #[test]
    fn an_altered_release_is_not_run() {
        let host = host();
        host.executables.record(Service::Proxy, &host.release).expect("kept");
        std::fs::write(&host.release, "altered").expect("written");
        assert_eq!(host.executables.choose(Service::Proxy), host.installed);
    }

    #[test]
    fn only_executables_inside_the_releases_folder_that_others_cannot_write_are_run() {
        let host = host();
        host.executables.usable(&host.release).expect("usable");
        let refused = |path: &Path| host.executables.usable(path).expect_err("refused").to_string();
        assert!(refused(&host.installed).contains("not a file inside"));
        assert!(refused(&host.release.join("../../../../loam-proxy")).contains("loam-proxy"));
        std::fs::set_permissions(&host.release, PermissionsExt::from_mode(0o777)).expect("set");
        assert!(refused(&host.release).contains("can be written by others"));
    }
}
