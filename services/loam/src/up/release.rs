//! Which executable a service runs from: the one installed beside `loam`, or the one that an upgrade put in place.
//!
//! `{state}/programs/{service}/current.toml` records an upgrade together with the digest of the executable that was
//! installed then. When another one is installed afterwards, the installed one is used. The record holds what ran before,
//! too: going back to that restores its own record, so that going back twice does not lead forward again.

use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use contract::message::with_causes;
use contract::supervisor::{BuildPutBack, ReplaceServiceRefused};
use contract::{HostName, Service, Timestamp};
use serde::{Deserialize, Serialize};

use super::verified;
use crate::state::{State, StateDirError, write_private};

/// Digits of an executable's SHA-256 that name a build, as services report it.
pub(super) const BUILD_DIGITS: usize = 16;
/// Builds before the present one that are on record: an upgrade that is undone restores what was before it.
const HISTORY_MAX: usize = 2;

/// The record of the last replacement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Current {
    installed_sha256: String,
    /// That its build was put back because the one after it kept dying.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    put_back: Option<BuildPutBack>,
    build: Build,
}

/// A build that runs or ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Build {
    executable: PathBuf,
    sha256: String,
    /// When an upgrade put it in place; absent where it was installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    /// What ran before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<Box<Build>>,
}

impl Build {
    fn name(&self) -> String {
        self.sha256.chars().take(BUILD_DIGITS).collect()
    }

    /// Its executable and those before it.
    fn executables(&self) -> Vec<PathBuf> {
        std::iter::successors(Some(self), |build| build.before.as_deref())
            .map(|build| build.executable.clone())
            .collect()
    }

    fn forget_more_than(&mut self, builds: usize) {
        match (&mut self.before, builds) {
            (before, 0) => *before = None,
            (Some(before), _) => before.forget_more_than(builds - 1),
            (None, _) => {}
        }
    }
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
        match self.in_force(service) {
            Ok(Some(current)) => current.build.executable,
            Ok(None) => installed,
            Err(reason) => {
                tracing::warn!(%service, reason, "the release is not used; running the installed executable");
                installed
            }
        }
    }

    /// The record, where what it says may be run; why it may not be, where it is there.
    fn in_force(&self, service: Service) -> Result<Option<Current>, String> {
        let Some(current) = self.current(service) else { return Ok(None) };
        let installed = self.installed(service);
        if sha256_of(&installed).map_err(|error| with_causes(&error))? != current.installed_sha256 {
            return Err("another executable was installed since".into());
        }
        self.check_build(service, &current.build)?;
        Ok(Some(current))
    }

    /// Whether a build may be run: it is what it was, and nobody else can write it.
    fn check_build(&self, service: Service, build: &Build) -> Result<(), String> {
        let Build { executable, sha256, .. } = build;
        if sha256_of(executable).map_err(|error| with_causes(&error))? != *sha256 {
            return Err(format!("{}: its content has changed", executable.display()));
        }
        if *executable == self.installed(service) {
            return Ok(());
        }
        self.usable(executable).map_err(|error| error.to_string())
    }

    /// What a service ran from before the last upgrade, where that can be run again.
    pub fn before(&self, service: Service) -> Option<PathBuf> {
        let before = self.in_force(service).ok()??.build.before?;
        self.check_build(service, &before).is_ok().then_some(before.executable)
    }

    /// The executable that an upgrade put in place, and when; nothing where the installed one runs.
    pub fn upgraded(&self, service: Service) -> Option<(PathBuf, Timestamp)> {
        let build = self.in_force(service).ok()??.build;
        Some((build.executable, build.since?))
    }

    /// That the build which is to run was put back.
    pub fn put_back_note(&self, service: Service) -> Option<BuildPutBack> {
        self.in_force(service).ok()??.put_back
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

    /// What is run where a service is to run from this executable: itself where nobody else can write it, else a copy
    /// that was verified. It may copy and hash, which takes a moment.
    pub fn admit(&self, service: Service, executable: &Path) -> Result<PathBuf, ReplaceServiceRefused> {
        if executable == self.installed(service) {
            return Ok(executable.into());
        }
        match self.usable(executable) {
            Err(_) if self.is_others(executable) => verified::take_over(&self.state, service, executable)
                .map_err(|reason| {
                    let path = executable.display().to_string();
                    ReplaceServiceRefused::ExecutableNotUsable { path, reason }
                }),
            outcome => outcome.map(|()| executable.into()),
        }
    }

    /// Whether it is in the releases folder, and that is another user's.
    fn is_others(&self, executable: &Path) -> bool {
        let releases = self.state.releases();
        let is_plain = |part| matches!(part, Component::Normal(_));
        let is_inside = executable.strip_prefix(&releases).is_ok_and(|rest| rest.components().all(is_plain));
        let owner = std::fs::metadata(releases).map(|found| found.uid());
        is_inside && owner.is_ok_and(|owner| owner != nix::unistd::geteuid().as_raw())
    }

    /// Whether an executable may be run as a release: inside a folder of releases or of copies of them, and nobody else can
    /// write or replace it.
    fn usable(&self, executable: &Path) -> Result<(), ReplaceServiceRefused> {
        let refused = |reason: String| ReplaceServiceRefused::ExecutableNotUsable {
            path: executable.display().to_string(),
            reason,
        };
        let real = |path: &Path| path.canonicalize().map_err(|error| refused(error.to_string()));
        let file = real(executable)?;
        let folders = [real(&self.state.releases())?, real(&self.state.programs())?];
        let Some(folder) = folders.iter().find(|folder| file.starts_with(folder) && file.is_file()) else {
            return Err(refused(format!("it is not a file inside {}", folders[0].display())));
        };
        for step in file.ancestors().take_while(|step| step.starts_with(folder)) {
            chassis::refuse_if_others_can_write(step).map_err(|error| refused(error.to_string()))?;
        }
        Ok(())
    }

    /// Records what a service is to run from; returns what it ran from before.
    pub fn record(
        &self,
        service: Service,
        executable: &Path,
        now: Timestamp,
    ) -> Result<PathBuf, ExecutableError> {
        let running = self.choose(service);
        if running == executable {
            let before = self.current(service).and_then(|current| current.build.before);
            return Ok(before.map_or(running, |before| before.executable));
        }
        let build = self.build_after(service, &running, executable, now)?;
        self.write(service, build, None)?;
        Ok(running)
    }

    /// Records that a service is to run from what it ran from before, because it kept dying for this reason; nothing
    /// where there is nothing before.
    pub fn put_back(
        &self,
        service: Service,
        host: &HostName,
        reason: &str,
        now: Timestamp,
    ) -> Result<Option<BuildPutBack>, ExecutableError> {
        let (Ok(Some(current)), Some(before)) = (self.in_force(service), self.before(service)) else {
            return Ok(None);
        };
        let build = self.build_after(service, &current.build.executable, &before, now)?;
        let put_back = BuildPutBack {
            service,
            host: host.clone(),
            build: current.build.name(),
            build_now: build.name(),
            reason: reason.into(),
            at: now,
        };
        self.write(service, build, Some(put_back.clone()))?;
        Ok(Some(put_back))
    }

    /// The record of a build that is to run after another: its own where it ran before.
    fn build_after(
        &self,
        service: Service,
        running: &Path,
        executable: &Path,
        now: Timestamp,
    ) -> Result<Build, ExecutableError> {
        let running = match self.current(service).map(|current| current.build) {
            Some(build) if build.executable == running => build,
            _ => Build { executable: running.into(), sha256: sha256_of(running)?, since: None, before: None },
        };
        let sha256 = sha256_of(executable)?;
        match running.before {
            Some(before) if before.executable == executable && before.sha256 == sha256 => Ok(*before),
            _ => {
                let since = (executable != self.installed(service)).then_some(now);
                let before = since.map(|_| Box::new(running));
                Ok(Build { executable: executable.into(), sha256, since, before })
            }
        }
    }

    fn write(
        &self,
        service: Service,
        mut build: Build,
        put_back: Option<BuildPutBack>,
    ) -> Result<(), ExecutableError> {
        build.forget_more_than(HISTORY_MAX);
        let installed_sha256 = sha256_of(&self.installed(service))?;
        let (kept, place) = (build.executables(), self.state.programs_of(service));
        std::fs::create_dir_all(&place).map_err(StateDirError::disk("making", &place))?;
        let text = toml::to_string(&Current { installed_sha256, put_back, build });
        let text = text.expect("paths, digests and times are plain data");
        write_private(&self.state.current_release(service), text.as_bytes())?;
        if let Err(error) = verified::keep_only(&self.state, service, &kept) {
            tracing::warn!(%service, %error, "older builds stay on the disk");
        }
        Ok(())
    }
}

fn sha256_of(path: &Path) -> Result<String, ExecutableError> {
    chassis::sha256_of(path).map_err(|source| ExecutableError::Disk { path: path.into(), source })
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

    const PROXY: Service = Service::Proxy;

    impl Host {
        fn record(&self, executable: &Path) -> PathBuf {
            self.executables.record(PROXY, executable, Timestamp::default()).expect("recorded")
        }

        /// Another release.
        fn another(&self, name: &str) -> PathBuf {
            let path = self.release.with_file_name(name);
            std::fs::write(&path, name).expect("written");
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("set");
            path
        }

        fn put_back(&self) -> Option<BuildPutBack> {
            let (host, now) = (HostName::new("h1").expect("valid"), Timestamp::default());
            self.executables.put_back(PROXY, &host, "exit status: 1", now).expect("written")
        }
    }

    #[test]
    fn an_upgrade_is_recorded_and_can_be_rolled_back() {
        let host = host();
        assert_eq!(host.executables.choose(PROXY), host.installed);
        assert_eq!(host.executables.before(PROXY), None);
        for _ in 0..2 {
            assert_eq!(host.record(&host.release), host.installed);
            assert_eq!(host.executables.choose(PROXY), host.release);
            assert_eq!(host.executables.before(PROXY).as_ref(), Some(&host.installed));
        }
        for _ in 0..2 {
            host.record(&host.installed);
            assert_eq!(host.executables.choose(PROXY), host.installed);
            assert_eq!(host.executables.before(PROXY), None);
        }
    }

    #[test]
    fn going_back_restores_the_record_of_that_build_and_never_leads_forward_again() {
        let host = host();
        let [two, three] = ["two", "three"].map(|name| host.another(name));
        host.record(&host.release);
        host.record(&two);
        assert_eq!(host.record(&three), two);
        let put_back = host.put_back().expect("there is one before");
        assert_eq!(host.executables.choose(PROXY), two);
        assert_eq!(host.executables.put_back_note(PROXY), Some(put_back));
        assert_eq!(host.executables.before(PROXY).as_ref(), Some(&host.release));
        host.put_back().expect("there is one before");
        // Two builds before the last upgrade are not kept on the disk either.
        assert_eq!(
            (host.executables.choose(PROXY), host.executables.before(PROXY)),
            (host.release.clone(), None)
        );
        assert_eq!(host.put_back(), None);
        assert_eq!(host.executables.choose(PROXY), host.release);
        host.record(&three);
        assert_eq!(host.executables.put_back_note(PROXY), None, "another build runs");
    }

    #[test]
    fn a_build_before_that_was_altered_or_removed_is_not_put_back() {
        let host = host();
        let two = host.another("two");
        host.record(&host.release);
        host.record(&two);
        std::fs::write(&host.release, "altered").expect("written");
        assert_eq!((host.executables.before(PROXY), host.put_back()), (None, None));
        std::fs::remove_file(&host.release).expect("removed");
        assert_eq!((host.executables.before(PROXY), host.put_back()), (None, None));
        assert_eq!(host.executables.choose(PROXY), two);
    }

    #[test]
    fn an_executable_that_is_installed_later_is_used() {
        let host = host();
        host.record(&host.release);
        std::fs::write(&host.installed, "installed again").expect("written");
        assert_eq!(host.executables.choose(Service::Proxy), host.installed);
    }

    #[test]
    fn an_altered_release_is_not_run() {
        let host = host();
        host.record(&host.release);
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
