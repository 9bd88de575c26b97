//! A folder with a repository in it, and `loam` run on that.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

pub(crate) const MIB: usize = 1024 * 1024;
const PASSPHRASE: &str = "correct horse battery staple\n";

/// Everything of one test.
pub(crate) struct Place {
    folder: tempfile::TempDir,
}

/// How a command ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ended {
    /// Its only object on stdout.
    pub(crate) fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.stdout);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}\n{}", self.stderr))
    }

    /// The same, of a command that ended like this.
    pub(crate) fn json_of(&self, code: i32) -> Value {
        assert_eq!(self.code, Some(code), "{}{}", String::from_utf8_lossy(&self.stdout), self.stderr);
        self.json()
    }

    /// What was said on stdout by a command that is done.
    pub(crate) fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.stdout).into_owned();
        assert_eq!(self.code, Some(0), "{text}{}", self.stderr);
        text
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Ended {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Ended { code: output.status.code(), stdout: output.stdout, stderr }
    }
}

impl Place {
    /// An empty folder with a passphrase.
    pub(crate) fn empty() -> Place {
        let place = Place { folder: tempfile::tempdir().expect("a folder") };
        place.write_secret("passphrase", PASSPHRASE.as_bytes());
        place
    }

    /// A folder with a new repository.
    pub(crate) fn with_repository() -> Place {
        let place = Place::empty();
        place.run("init", &[]).text();
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A path as an argument.
    pub(crate) fn arg(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub(crate) fn store(&self) -> String {
        format!("file://{}", self.arg("store"))
    }

    pub(crate) fn write_secret(&self, name: &str, content: &[u8]) {
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(self.path(name));
        file.and_then(|mut file| file.write_all(content)).expect("written");
    }

    /// A sparse disk with some data in it that no other seed gives.
    pub(crate) fn write_disk(&self, name: &str, size: usize, seed: u64) -> Vec<u8> {
        let mut content = vec![0; size];
        StdRng::seed_from_u64(seed).fill_bytes(&mut content[MIB..MIB + size / 4]);
        let file = fs::File::create(self.path(name)).expect("made");
        file.set_len(size as u64).expect("made longer");
        file.write_all_at(&content[MIB..MIB + size / 4], MIB as u64).expect("written");
        content
    }

    /// A command on this place's repository, opened with its passphrase.
    pub(crate) fn command(&self, command: &str, arguments: &[&str]) -> Command {
        let passphrase = self.arg("passphrase");
        let mut all = vec!["--store", "", "--passphrase-file", &passphrase];
        let store = self.store();
        all[1] = &store;
        all.extend(arguments);
        self.bare(command, &all)
    }

    /// A command with nothing but these arguments.
    pub(crate) fn bare(&self, command: &str, arguments: &[&str]) -> Command {
        let mut loam = Command::new(env!("CARGO_BIN_EXE_loam"));
        loam.arg("repository").args(command.split(' ')).args(arguments);
        loam.current_dir(self.folder.path()).env("XDG_CACHE_HOME", self.path("cache"));
        loam.stdin(Stdio::null());
        loam
    }

    pub(crate) fn run(&self, command: &str, arguments: &[&str]) -> Ended {
        ended(self.command(command, arguments))
    }

    /// Runs a command that answers in JSON.
    pub(crate) fn ask(&self, command: &str, arguments: &[&str]) -> Value {
        self.run(command, &[arguments, &["--json"]].concat()).json_of(0)
    }

    /// Backs a disk up and gives the snapshot's id.
    pub(crate) fn back_up(&self, machine: &str, disk: &str) -> String {
        let answer = self.ask("backup", &["--machine", machine, "--disk", &format!("vda={disk}")]);
        assert_eq!(answer["outcome"], "ok", "{answer}");
        text(&answer["snapshot"]["id"])
    }
}

pub(crate) fn ended(mut command: Command) -> Ended {
    command.output().expect("loam runs").into()
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

/// Whether the tools are there. Missing ones are an error where tests must be complete (`CI=true`).
pub(crate) fn have(tools: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = std::env::split_paths(&path).collect();
    folders.push("/usr/sbin".into());
    let missing: Vec<_> =
        tools.iter().filter(|tool| !folders.iter().any(|folder| folder.join(tool).is_file())).collect();
    assert!(missing.is_empty() || std::env::var("CI").as_deref() != Ok("true"), "missing: {missing:?}");
    if !missing.is_empty() {
        println!("skipped: {missing:?} are not in PATH");
    }
    missing.is_empty()
}

/// Runs a tool to its good end.
pub(crate) fn tool<S: AsRef<OsStr>>(folder: &Path, program: &str, arguments: &[S]) {
    let search = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new(program);
    let output = command.env("PATH", search).args(arguments).current_dir(folder).output().expect("it runs");
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}
