//! The log files of the processes: one each, appended to, and renamed at a start when it is large.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A log larger than this is renamed when its process is started; one older log is kept.
const LOG_BYTES_MAX: u64 = 10 << 20;
/// How far from the end the last line is searched.
const TAIL_BYTES: u64 = 4096;

/// Opens a log to append to.
pub fn open(path: &Path) -> std::io::Result<File> {
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > LOG_BYTES_MAX) {
        std::fs::rename(path, path.with_extension("log.1"))?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// The last line that is not empty: usually why a process died.
pub fn last_line(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES))).ok()?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut tail).ok()?;
    let text = String::from_utf8_lossy(&tail);
    text.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_log_is_renamed_at_a_start_and_the_last_line_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("backup.log");
        std::fs::write(&path, "first\nlast line\n\n").expect("written");
        assert_eq!(last_line(&path).as_deref(), Some("last line"));
        File::options()
            .write(true)
            .open(&path)
            .expect("there")
            .set_len(LOG_BYTES_MAX + 1)
            .expect("made larger");
        open(&path).expect("opened");
        assert_eq!(std::fs::metadata(&path).expect("there").len(), 0);
        assert!(folder.path().join("backup.log.1").is_file());
    }
}
