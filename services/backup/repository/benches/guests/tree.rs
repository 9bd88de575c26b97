//! The files that guests are made of.

use std::path::{Path, PathBuf};

/// Where Debian's packages put programs, libraries and texts.
const FOLDERS: [&str; 3] = ["/usr/bin", "/usr/lib/x86_64-linux-gnu", "/usr/share"];
/// Without the many tiny ones, whose changes would be nothing, and the few that would fill a guest alone.
const FILE_BYTES: std::ops::RangeInclusive<u64> = 4 * 1024..=32 * 1024 * 1024;
const FILES_PER_FOLDER: usize = 200;

/// Files of this machine in a fixed order that mixes programs, libraries and texts.
pub(super) struct Tree {
    /// What every guest holds.
    pub(super) files: Vec<PathBuf>,
    /// What one guest holds besides.
    pub(super) other: Vec<PathBuf>,
    pub(super) fingerprint: String,
}

impl Tree {
    pub(super) fn gather(bytes: u64, other_bytes: u64) -> Tree {
        let mut found = Vec::new();
        for folder in FOLDERS {
            walk(Path::new(folder), &mut found);
        }
        found.sort_by_cached_key(|(path, _)| *blake3::hash(path.as_os_str().as_encoded_bytes()).as_bytes());
        let mut fingerprint = blake3::Hasher::new();
        let mut found = found.into_iter();
        let mut take = |most: u64| {
            let mut files = Vec::new();
            let mut sum = 0;
            while sum < most {
                let (path, length) = found.next().expect("this machine has too few files to make guests of");
                fingerprint.update(path.as_os_str().as_encoded_bytes()).update(&length.to_le_bytes());
                sum += length;
                files.push(path);
            }
            files
        };
        let (files, other) = (take(bytes), take(other_bytes));
        let fingerprint = fingerprint.finalize().to_hex()[..16].to_owned();
        Tree { files, other, fingerprint }
    }
}

fn walk(folder: &Path, found: &mut Vec<(PathBuf, u64)>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (kind, path) = (entry.file_type().unwrap(), entry.path());
        // debugfs splits its commands at blanks.
        let is_plain = |c: u8| c.is_ascii_alphanumeric() || b"/._+-".contains(&c);
        if kind.is_dir() {
            walk(&path, found);
        } else if kind.is_file() && path.as_os_str().as_encoded_bytes().iter().all(|&c| is_plain(c)) {
            let length = entry.metadata().unwrap().len();
            if FILE_BYTES.contains(&length) {
                found.push((path, length));
            }
        }
    }
}

/// The folder in the guest in which a file lies.
pub(super) fn folder(index: usize) -> String {
    format!("/d{:03}", index / FILES_PER_FOLDER)
}

/// What a file is called in the guest.
pub(super) fn name(index: usize) -> String {
    format!("{}/f{index:05}", folder(index))
}
