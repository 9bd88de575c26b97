//! An ext4 file system in an image, without mounting it.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::tree::{self, Tree};

pub(super) const BLOCK_BYTES: usize = 4096;
const IMAGE_BYTES: u64 = 1 << 30;
/// All times and ids in a file system, so that two are equal.
const TIME: (&str, &str) = ("E2FSPROGS_FAKE_TIME", "1700000000");
const UUID: &str = "6c6f616d-0000-4000-8000-000000000001";

pub(super) struct FileSystem {
    /// As debugfs wants it.
    name: String,
}

impl FileSystem {
    pub(super) fn at(image: &Path, start: u64) -> FileSystem {
        FileSystem { name: format!("{}?offset={start}", image.display()) }
    }

    pub(super) fn make(image: &Path, start: u64) -> FileSystem {
        File::create(image).unwrap().set_len(IMAGE_BYTES).unwrap();
        let done = Command::new("/sbin/mke2fs")
            .env(TIME.0, TIME.1)
            .args(["-q", "-F", "-t", "ext4", "-b", &BLOCK_BYTES.to_string(), "-U", UUID, "-E"])
            .arg(format!("offset={start},hash_seed={UUID},lazy_itable_init=0,lazy_journal_init=0,nodiscard"))
            .arg(image)
            .arg(format!("{}k", (IMAGE_BYTES - start) / 1024))
            .stderr(Stdio::null())
            .status();
        assert!(done.expect("mke2fs is missing: deploy/packages bench").success(), "mke2fs failed");
        FileSystem::at(image, start)
    }

    /// Copies the files in, in that order, and the database at the end.
    pub(super) fn copy_in(&self, tree: &Tree, order: &[usize], database: &Path) {
        let mut script = String::new();
        for index in (0..tree.files.len())
            .filter(|&index| index == 0 || tree::folder(index) != tree::folder(index - 1))
        {
            script += &format!("mkdir {}\n", tree::folder(index));
        }
        let files = order.iter().map(|&index| (tree.files[index].clone(), tree::name(index)));
        let files: Vec<_> = files.chain([(database.to_owned(), "/database".to_owned())]).collect();
        self.run(&(script + &writes(&files)));
    }

    /// Copies the other files in.
    pub(super) fn copy_other(&self, tree: &Tree) {
        let named = |(index, file): (usize, &PathBuf)| (file.clone(), format!("/other/o{index:05}"));
        let files: Vec<_> = tree.other.iter().enumerate().map(named).collect();
        self.run(&("mkdir /other\n".to_owned() + &writes(&files)));
    }

    /// Writes new files.
    pub(super) fn write(&self, files: &[(PathBuf, String)]) {
        self.run(&writes(files));
    }

    pub(super) fn remove(&self, names: &[String]) {
        self.run(&names.iter().map(|name| format!("rm {name}\n")).collect::<String>());
    }

    /// Where blocks of a file lie in the file system.
    pub(super) fn blocks_of(&self, file: &str, blocks: &[usize]) -> Vec<u64> {
        let script: String = blocks.iter().map(|block| format!("bmap {file} {block}\n")).collect();
        let said = self.run(&script);
        let found: Vec<u64> = said.lines().filter_map(|line| line.trim().parse().ok()).collect();
        assert_eq!(found.len(), blocks.len(), "debugfs did not say where the blocks lie: {said}");
        found
    }

    /// Has debugfs run commands, and returns what it said.
    fn run(&self, script: &str) -> String {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(script.as_bytes()).unwrap();
        let done = Command::new("/sbin/debugfs")
            .env(TIME.0, TIME.1)
            .args(["-w", "-f"])
            .args([file.path().as_os_str(), self.name.as_ref()])
            .output()
            .expect("debugfs is missing: deploy/packages bench");
        // It exits well whatever happened; all that it may say on this side is its name.
        let complaints = String::from_utf8_lossy(&done.stderr);
        let complaints: Vec<_> = complaints.lines().filter(|line| !line.starts_with("debugfs 1.")).collect();
        assert!(done.status.success() && complaints.is_empty(), "debugfs failed: {complaints:?}");
        String::from_utf8(done.stdout).unwrap()
    }
}

/// Commands that write files. debugfs takes the name within the folder where it stands.
fn writes(files: &[(PathBuf, String)]) -> String {
    let write = |(source, name): &(PathBuf, String)| {
        let (folder, name) = name.rsplit_once('/').expect("names begin with a slash");
        format!("cd {}\nwrite {} {name}\n", if folder.is_empty() { "/" } else { folder }, source.display())
    };
    files.iter().map(write).collect()
}
