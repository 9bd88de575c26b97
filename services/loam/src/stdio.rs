//! Standard output and standard error: nothing else in this crate writes to either.
//!
//! A reader that closes standard output (`loam vm list | head -1`) is no error: what it does not read is dropped, the
//! command does its work, and its own exit code stays. Any other failed write (`> /dev/full`) is kept until the command
//! ends: `cli::main` then reports it and ends with a code that is not 0. Failed writes to standard error are dropped:
//! there is no place left to report them.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::sync::{Mutex, PoisonError};

/// The first write to standard output that failed, unless its reader had closed it.
static FAILED: Mutex<Option<io::Error>> = Mutex::new(None);

/// Writes text to standard output as it is.
pub fn write(text: &str) {
    let mut stdout = io::stdout().lock();
    keep(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()));
}

/// Writes a line to standard output.
pub fn line(text: impl Display) {
    write(&format!("{text}\n"));
}

/// Writes a line to standard error.
pub fn note(text: impl Display) {
    let text = format!("{text}\n");
    drop(io::stderr().lock().write_all(text.as_bytes()));
}

/// Standard output for the data of a disk, stream or file; who writes to it handles its errors.
pub fn data() -> tokio::io::Stdout {
    tokio::io::stdout()
}

/// Keeps the outcome of a write to standard output that another library has done.
pub fn keep(written: io::Result<()>) {
    let Err(error) = written else { return };
    if error.kind() != ErrorKind::BrokenPipe {
        FAILED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// Why standard output did not take everything; nothing where it did, or where its reader closed it.
pub fn failure() -> Option<String> {
    let failed = FAILED.lock().unwrap_or_else(PoisonError::into_inner);
    failed.as_ref().map(|error| format!("writing to standard output: {error}"))
}
