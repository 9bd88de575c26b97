//! The log files of the processes: one each, appended to. What is in a large one is moved to a second file while its
//! process goes on; the one before that is removed.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A log larger than this is rotated; one older log is kept.
const LOG_BYTES_MAX: u64 = 10 << 20;
/// How often the size of the logs is looked at.
const ROTATE_INTERVAL: Duration = Duration::from_secs(5);
/// How far from the end the last error is searched: a backtrace after it may be long.
const TAIL_BYTES: u64 = 64 << 10;
/// An error that is shown in one line is no longer than this.
const ERROR_CHARS_MAX: usize = 400;

/// Opens a log to append to.
pub fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Rotates the logs in a folder, again and again.
pub async fn rotate_in_background(folder: PathBuf) -> std::convert::Infallible {
    let mut ticks = tokio::time::interval(ROTATE_INTERVAL);
    loop {
        ticks.tick().await;
        let folder = folder.clone();
        let rotated = tokio::task::spawn_blocking(move || rotate_all(&folder)).await;
        if let Ok(Err(error)) = rotated {
            tracing::warn!(%error, "the logs cannot be rotated");
        }
    }
}

fn rotate_all(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension() == Some(OsStr::new("log")) {
            rotate(&path)?;
        }
    }
    Ok(())
}

/// Moves what a large log holds to a second file. The process that writes it has the file open and appends, so it is
/// copied and cut. Lost are lines that are written between the last copy and the cut, some microseconds, and what a process
/// writes beyond twice the size of a log before this is done.
fn rotate(path: &Path) -> std::io::Result<()> {
    let log = OpenOptions::new().read(true).write(true).open(path)?;
    if log.metadata()?.len() <= LOG_BYTES_MAX {
        return Ok(());
    }
    let partial = path.with_extension("log.partial");
    let mut copy = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
    let mut copied = 0;
    // A process that writes faster than this copies does not keep it here.
    let copied_max = 2 * LOG_BYTES_MAX;
    while copied < log.metadata()?.len().min(copied_max) {
        copied += std::io::copy(&mut (&log).take(copied_max - copied), &mut copy)?;
    }
    std::fs::rename(&partial, path.with_extension("log.1"))?;
    log.set_len(0)
}

/// What a process said last of why it died, from this place in its log on: its last error or panic, in one line; where
/// there is neither, the last line that is no record of our log.
pub fn last_error(path: &Path, from: u64) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    // It was cut since.
    let from = if from > length { 0 } else { from };
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES).max(from))).ok()?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut tail).ok()?;
    let text = String::from_utf8_lossy(&tail);
    let lines: Vec<&str> = text.lines().collect();
    let error = (0..lines.len()).rev().find_map(|index| error_at(&lines, index));
    // Other programs have other words for it; a record of ours that is no error is not why.
    let is_reason = |line: &&str| !line.is_empty() && !is_of_backtrace(line) && record(line).is_none();
    let error =
        error.or_else(|| lines.iter().map(|line| line.trim()).rfind(is_reason).map(str::to_string))?;
    Some(error.chars().take(ERROR_CHARS_MAX).collect())
}

/// The error that is reported from this line on, if one is.
fn error_at(lines: &[&str], index: usize) -> Option<String> {
    let line = lines[index].trim();
    // What `main` returned: the error, and its causes in lines of their own.
    if let Some(error) = line.strip_prefix("Error: ") {
        let rest = lines[index + 1..].iter().map(|line| line.trim());
        let causes = rest.skip_while(|line| *line != "Caused by:").skip(1);
        let causes = causes.take_while(|line| !line.is_empty());
        return Some(
            causes.fold(error.to_string(), |text, cause| format!("{text}: {}", without_number(cause))),
        );
    }
    if line.starts_with("thread '") && line.contains(" panicked at ") {
        let place = line.split_once(" panicked at ").map_or("", |(_, place)| place.trim_end_matches(':'));
        let message = lines.get(index + 1).map_or("", |line| line.trim());
        return Some(format!("panicked at {place}: {message}"));
    }
    record(line)?.strip_prefix("ERROR ").map(|text| text.trim().to_string())
}

/// A log record without its time: its level, and what it says.
fn record(line: &str) -> Option<&str> {
    let (time, record) = line.split_once(char::is_whitespace)?;
    let record = record.trim_start();
    let levels = ["ERROR ", "WARN ", "INFO ", "DEBUG ", "TRACE "];
    let is_record = time.starts_with(|c: char| c.is_ascii_digit()) && time.ends_with('Z');
    (is_record && levels.iter().any(|level| record.starts_with(level))).then_some(record)
}

/// A cause without its number in the list.
fn without_number(cause: &str) -> &str {
    match cause.split_once(": ") {
        Some((number, cause)) if number.bytes().all(|b| b.is_ascii_digit()) => cause,
        _ => cause,
    }
}

/// Whether a line belongs to a backtrace, or tells how to get one.
fn is_of_backtrace(line: &str) -> bool {
    let frame = line.split_once(": ").is_some_and(|(number, _)| number.bytes().all(|b| b.is_ascii_digit()));
    let marks = ["at ", "note: ", "stack backtrace:", "Stack backtrace:"];
    frame || marks.iter().any(|mark| line.starts_with(mark))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const BACKTRACE: &str =
        "stack backtrace:\n   0: std::backtrace::create\n             at /rustc/library/std/src/b.rs:1\n";

    /// What an earlier run of the process wrote.
    const BEFORE: &str = "2026-01-01T00:00:00Z ERROR loam: of the run before\n";

    fn last(log: &str) -> Option<String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("backup.log");
        std::fs::write(&path, format!("{BEFORE}{log}")).expect("written");
        last_error(&path, BEFORE.len() as u64)
    }

    #[test]
    fn why_a_process_died_is_its_last_error_and_no_line_of_a_backtrace() {
        let ended =
            "2026-11-22T06:30:00.1Z ERROR loam_backup: backup ends: opening the store: no such host\n";
        let main =
            "Error: opening the store\n\nCaused by:\n    0: asking s3.example\n    1: no such host\n\n";
        let panicked = "\nthread 'tokio-rt-worker' (7) panicked at src/a.rs:3:5:\nit holds\n";
        let note = "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n";
        let of_main = "opening the store: asking s3.example: no such host";
        for (log, wanted) in [
            (ended.to_string(), "loam_backup: backup ends: opening the store: no such host"),
            (format!("{ended}{BACKTRACE}"), "loam_backup: backup ends: opening the store: no such host"),
            (format!("{ended}{main}S{}", &BACKTRACE[1..]), of_main),
            (
                "Error: opening the store\n\nCaused by:\n    no such host\n".into(),
                "opening the store: no such host",
            ),
            (format!("{panicked}{note}"), "panicked at src/a.rs:3:5: it holds"),
            (format!("{ended}{panicked}{BACKTRACE}{note}"), "panicked at src/a.rs:3:5: it holds"),
            (format!("last words\n\n{BACKTRACE}"), "last words"),
        ] {
            assert_eq!(last(&log).as_deref(), Some(wanted), "{log}");
        }
        assert_eq!(last("2026-11-22T06:30:00Z  INFO loam: ERROR is a level\n"), None, "that is not why");
        assert_eq!(last(""), None, "what the run before said is not why this one died");
        let long = last(&format!("Error: {}", "x".repeat(1000))).expect("an error");
        assert_eq!(long.len(), ERROR_CHARS_MAX);
    }

    #[test]
    fn a_large_log_is_rotated_while_it_is_written_and_the_last_line_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("backup.log");
        std::fs::write(&path, "first\nlast line\n\n").expect("written");
        assert_eq!(last_error(&path, 0).as_deref(), Some("last line"));
        let mut writer = open(&path).expect("opened");
        rotate_all(folder.path()).expect("nothing to do");
        assert!(!folder.path().join("backup.log.1").exists());
        for round in 1..=2 {
            let lines = format!("{round} of many lines\n").repeat(LOG_BYTES_MAX as usize / 16 + 1);
            writer.write_all(lines.as_bytes()).expect("written");
            let from = std::fs::metadata(&path).expect("there").len();
            rotate_all(folder.path()).expect("rotated");
            let older = std::fs::read_to_string(folder.path().join("backup.log.1")).expect("there");
            assert_eq!(older.len() as u64, from);
            assert!(older.ends_with(&format!("{round} of many lines\n")));
            writer.write_all(b"goes on\n").expect("written");
            assert_eq!(std::fs::read_to_string(&path).expect("there"), "goes on\n");
            assert_eq!(last_error(&path, from).as_deref(), Some("goes on"));
            writer.set_len(0).expect("cut");
        }
        let mode = std::fs::metadata(folder.path().join("backup.log.1")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
