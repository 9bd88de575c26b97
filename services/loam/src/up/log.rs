//! The log files of the processes: one each, appended to, and renamed at a start when it is large.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A log larger than this is renamed when its process is started; one older log is kept.
const LOG_BYTES_MAX: u64 = 10 << 20;
/// How far from the end the last error is searched: a backtrace after it may be long.
const TAIL_BYTES: u64 = 64 << 10;
/// An error that is shown in one line is no longer than this.
const ERROR_CHARS_MAX: usize = 400;

/// Opens a log to append to.
pub fn open(path: &Path) -> std::io::Result<File> {
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > LOG_BYTES_MAX) {
        std::fs::rename(path, path.with_extension("log.1"))?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// What a process said last of why it died, from this place in its log on: its last error or panic, in one line; where
/// there is neither, the last line that is no record of our log.
pub fn last_error(path: &Path, from: u64) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
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
    fn a_large_log_is_renamed_at_a_start_and_the_last_line_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("backup.log");
        std::fs::write(&path, "first\nlast line\n\n").expect("written");
        assert_eq!(last_error(&path, 0).as_deref(), Some("last line"));
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
