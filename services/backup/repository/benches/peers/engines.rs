//! Who is compared, and how each is called.
//!
//! Each works on a repository in a local folder, encrypted, with a passphrase, and compresses with zstd at its fastest
//! regular level: ours and rustic 1, borg `zstd,1`, restic its `auto`. All else is as it comes.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::meter::{Taken, measure};
use crate::ours;

pub(crate) const PASSPHRASE: &str = "bench";

/// An engine for disks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Ours,
    /// Ours with disks cut on the grid.
    Aligned,
    Restic,
    Rustic,
    Borg,
}

impl Engine {
    pub(crate) const ALL: [Engine; 5] =
        [Engine::Ours, Engine::Aligned, Engine::Restic, Engine::Rustic, Engine::Borg];

    /// Its name and version, or nothing when it is not installed.
    pub(crate) fn name(self) -> Option<String> {
        let said = |program: &str, argument: &str| {
            let done = Command::new(program).arg(argument).output().ok()?;
            let said = String::from_utf8_lossy(&done.stdout);
            let words: Vec<_> = said.split_whitespace().take(2).collect();
            Some(words.join(" "))
        };
        match self {
            Engine::Ours => Some("Loam".into()),
            Engine::Aligned => Some("Loam, aligned".into()),
            Engine::Restic => said("restic", "version"),
            Engine::Rustic => said("rustic", "--version"),
            Engine::Borg => said("borg", "--version"),
        }
    }
}

/// A repository of an engine in a folder of its own.
pub(crate) struct Place {
    engine: Engine,
    folder: PathBuf,
}

impl Place {
    pub(crate) fn new(engine: Engine, folder: PathBuf) -> Place {
        std::fs::create_dir(&folder).unwrap();
        let place = Place { engine, folder };
        measure(&match engine {
            Engine::Ours => place.ours("init", &["anywhere"]),
            Engine::Aligned => place.ours("init", &["aligned"]),
            Engine::Restic => place.restic(&["init", "--repository-version", "2"]),
            Engine::Rustic => place.rustic(&["init", "--set-compression", "1"]),
            Engine::Borg => {
                let mut borg = place.borg("init");
                borg.args(["--encryption", "repokey"]).arg(place.store());
                borg
            }
        });
        place
    }

    fn store(&self) -> PathBuf {
        self.folder.join("store")
    }

    /// Backs an image up as that of a machine; a machine's name comes once.
    pub(crate) fn back_up(&self, machine: &str, image: &Path) -> Taken {
        let (folder, name) = (image.parent().unwrap(), image.file_name().unwrap());
        measure(&match self.engine {
            Engine::Ours | Engine::Aligned => self.ours("backup", &[machine, image.to_str().unwrap()]),
            Engine::Restic => {
                let mut restic = self.restic(&["backup", "--host", machine]);
                restic.arg(name).current_dir(folder);
                restic
            }
            Engine::Rustic => {
                let mut rustic = self.rustic(&["backup", "--host", machine]);
                rustic.arg(name).current_dir(folder);
                rustic
            }
            Engine::Borg => {
                let mut borg = self.borg("create");
                borg.args(["--compression", "zstd,1"])
                    .arg(self.archive(machine))
                    .arg(name)
                    .current_dir(folder);
                borg
            }
        })
    }

    /// Restores a machine's image into an empty folder and says where it is then.
    pub(crate) fn restore(&self, machine: &str, name: &str, into: &Path) -> (Taken, PathBuf) {
        let image = into.join(name);
        let taken = measure(&match self.engine {
            Engine::Ours | Engine::Aligned => self.ours("restore", &[machine, image.to_str().unwrap()]),
            Engine::Restic => {
                let mut restic = self.restic(&["restore", "latest", "--host", machine, "--target"]);
                restic.arg(into);
                restic
            }
            Engine::Rustic => {
                let mut rustic = self.rustic(&["restore", "--filter-host", machine, "latest"]);
                rustic.arg(into);
                rustic
            }
            Engine::Borg => {
                let mut borg = self.borg("extract");
                borg.arg("--sparse").arg(self.archive(machine)).current_dir(into);
                borg
            }
        });
        (taken, image)
    }

    /// All that its repository takes.
    pub(crate) fn stored_mib(&self) -> f64 {
        bytes_in(&self.store()) as f64 / (1024.0 * 1024.0)
    }

    fn ours(&self, verb: &str, more: &[&str]) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(ours::ARGUMENT).arg(verb).arg(self.store()).args(more);
        command
    }

    fn restic(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("restic");
        command.env("RESTIC_PASSWORD", PASSPHRASE).env("RESTIC_REPOSITORY", self.store());
        command.env("RESTIC_CACHE_DIR", self.folder.join("cache")).arg("--quiet").args(arguments);
        command
    }

    fn rustic(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("rustic");
        command.env("RUSTIC_PASSWORD", PASSPHRASE).env("RUSTIC_REPOSITORY", self.store());
        command.env("RUSTIC_CACHE_DIR", self.folder.join("cache")).env("RUSTIC_NO_PROGRESS", "true");
        command.args(["--log-level", "warn"]).args(arguments);
        command
    }

    fn borg(&self, verb: &str) -> Command {
        let mut command = Command::new("borg");
        command.env("BORG_PASSPHRASE", PASSPHRASE).env("BORG_BASE_DIR", self.folder.join("base")).arg(verb);
        command
    }

    fn archive(&self, machine: &str) -> String {
        format!("{}::{machine}", self.store().display())
    }
}

fn bytes_in(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let about = entry.metadata().unwrap();
            if about.is_dir() { bytes_in(&entry.path()) } else { about.len() }
        })
        .sum()
}
