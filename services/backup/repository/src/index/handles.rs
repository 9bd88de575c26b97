//! The files that rows are read from, of which few are open at a time: a repository has a shard for each backup since
//! its last collection, and a process has descriptors for other things, too.
//!
//! ```text
//!   cache folder     a file for each shard, opened when it is read; the handles used last stay open
//!   without one      one nameless file for all shards
//! ```
//!
//! A file in the cache folder may be gone when it is opened again. One whose shard was merged into another, here or by
//! another process, has only been renamed, and stays for as long as a reader may know the shard. If a person has removed
//! it, the lookup fails, and the next refresh of the index reads the shard from the store.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use nix::fcntl::{FallocateFlags, fallocate};

use super::rows::EncodedShard;

/// Open handles of files in the cache folder, at most.
pub(super) const HANDLES_MAX: usize = 64;
const HELD: &str = "no thread panics while holding the handles";
/// What a file of the cache folder is renamed to when its shard is gone.
pub(super) const GONE: &str = "gone";

/// What is open for one repository. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub(super) struct Handles(Arc<Mutex<Opened>>);

#[derive(Debug, Default)]
struct Opened {
    /// Files of the cache folder; the one used last is the last.
    named: VecDeque<(u64, Arc<File>)>,
    next_id: u64,
    nameless: Option<Arc<File>>,
}

/// The file of one shard's rows.
pub(super) struct RowsFile {
    pub(super) path: PathBuf,
    bytes: u64,
    source: Source,
}

enum Source {
    Named { handles: Handles, id: u64 },
    Nameless { file: Arc<File>, at: u64 },
}

impl Handles {
    /// A file that can be opened again by its name.
    pub(super) fn named(&self, file: File, path: PathBuf) -> io::Result<RowsFile> {
        let bytes = file.metadata()?.len();
        let id = {
            let mut opened = self.0.lock().expect(HELD);
            opened.next_id += 1;
            opened.next_id
        };
        self.put(id, Arc::new(file));
        Ok(RowsFile { path, bytes, source: Source::Named { handles: self.clone(), id } })
    }

    /// Writes rows to the end of the nameless file, in the folder for temporary files.
    pub(super) fn nameless(&self, rows: &EncodedShard) -> io::Result<RowsFile> {
        let mut opened = self.0.lock().expect(HELD);
        let file = match &opened.nameless {
            Some(file) => Arc::clone(file),
            None => Arc::clone(opened.nameless.insert(Arc::new(tempfile::tempfile()?))),
        };
        let mut writer = &*file;
        let at = writer.seek(SeekFrom::End(0))?;
        rows.write(&mut writer)?;
        let bytes = writer.stream_position()? - at;
        Ok(RowsFile { path: std::env::temp_dir(), bytes, source: Source::Nameless { file, at } })
    }

    fn find(&self, id: u64) -> Option<Arc<File>> {
        let mut opened = self.0.lock().expect(HELD);
        let at = opened.named.iter().rposition(|(known, _)| *known == id)?;
        let handle = opened.named.remove(at)?;
        let file = Arc::clone(&handle.1);
        opened.named.push_back(handle);
        Some(file)
    }

    fn put(&self, id: u64, file: Arc<File>) {
        let mut opened = self.0.lock().expect(HELD);
        // Two readers may have opened it at the same time.
        opened.named.retain(|(known, _)| *known != id);
        opened.named.push_back((id, file));
        if opened.named.len() > HANDLES_MAX {
            opened.named.pop_front();
        }
    }

    fn forget(&self, id: u64) {
        self.0.lock().expect(HELD).named.retain(|(known, _)| *known != id);
    }

    #[cfg(test)]
    pub(super) fn open(&self) -> usize {
        let opened = self.0.lock().expect(HELD);
        opened.named.len() + usize::from(opened.nameless.is_some())
    }
}

impl RowsFile {
    /// How long it is.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether it can still be read, as far as that is known without reading it.
    pub(super) fn is_there(&self) -> bool {
        match &self.source {
            Source::Named { .. } => self.path.exists() || self.path.with_extension(GONE).exists(),
            Source::Nameless { .. } => true,
        }
    }

    pub(super) fn read_exact_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        match &self.source {
            Source::Nameless { file, at: start } => file.read_exact_at(bytes, start + at),
            Source::Named { handles, id } => {
                let file = match handles.find(*id) {
                    Some(file) => file,
                    None => {
                        let file = Arc::new(open_again(&self.path)?);
                        handles.put(*id, Arc::clone(&file));
                        file
                    }
                };
                file.read_exact_at(bytes, at)
            }
        }
    }
}

fn open_again(path: &Path) -> io::Result<File> {
    match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => File::open(path.with_extension(GONE)),
        opened => opened,
    }
}

impl Drop for RowsFile {
    fn drop(&mut self) {
        match &self.source {
            Source::Named { handles, id } => handles.forget(*id),
            // A file system that cannot give the room back does so when the process ends.
            Source::Nameless { file, at } => {
                let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
                let (at, bytes) = (i64::try_from(*at), i64::try_from(self.bytes));
                if let (Ok(at), Ok(bytes)) = (at, bytes) {
                    let _ = fallocate(&**file, hole, at, bytes);
                }
            }
        }
    }
}
