//! The thread on which a third-party crate reads a file system, and what becomes of that crate's panics.
//!
//! ```text
//!   list, extract ──work──> a blocking thread ──> ext4-view | fatfs
//!         ^                        │                   │ panic
//!         │<───────Ok, Err─────────┘                   v
//!         └<──────FilesError::Damaged────────── hook: reports to the caller, and parks the thread for good
//! ```
//!
//! `ext4-view` and `fatfs` check most of what they read, but not all of it: of some damaged images they read on until a
//! number makes no sense, and panic. Where panics unwind, that ends the thread and is an error. Where they abort, as in
//! the programs that are shipped, a damaged disk would end the program without a message that a person could use. A
//! hook runs before either, so a program that wants an error installs one with [`report_reader_panics`]: the thread
//! that panicked reports it to its caller and is parked, because it may neither go on nor unwind. What it holds stays
//! allocated until the process ends: acceptable in a command, not in a service.
//!
//! Only panics that arise in these two crates' files count as damage; any other is a bug of ours, and is left to the
//! program. In a release the two and this crate, which their generic code is compiled into, are built with overflow
//! checks: a number that wraps is damage, too, and not a place to read on from.

use std::cell::Cell;
use std::panic::{self, PanicHookInfo};
use std::sync::Once;

use tokio::sync::oneshot;
use tokio::task::{JoinError, spawn_blocking};

use super::error::FilesError;

/// Folders of the crates that read file systems, as they end in the path of a source file: their names and a version.
const READERS: [&str; 2] = ["ext4-view-", "fatfs-"];

thread_local! {
    /// The caller that waits for what this thread reads.
    static WAITING: Cell<Option<oneshot::Sender<FilesError>>> = const { Cell::new(None) };
}

/// From now on a panic of a file system's reader is [`FilesError::Damaged`] also where panics abort. For programs that
/// end soon after. Any other panic is treated as before.
pub fn report_reader_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let waiting = if is_readers(info) { WAITING.take() } else { None };
            let Some(waiting) = waiting else { return before(info) };
            let message = info.payload_as_str().unwrap_or("it gives no reason");
            // The caller may be gone.
            let _ = waiting.send(gave_up(message));
            loop {
                std::thread::park();
            }
        }));
    });
}

fn is_readers(info: &PanicHookInfo<'_>) -> bool {
    info.location().is_some_and(|location| {
        let mut folders = location.file().split('/');
        folders.any(|folder| READERS.iter().any(|reader| folder.starts_with(reader)))
    })
}

/// Does blocking work on a thread of the pool.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FilesError> + Send + 'static,
) -> Result<T, FilesError> {
    let (waiting, reported) = oneshot::channel();
    let reading = spawn_blocking(move || {
        WAITING.set(Some(waiting));
        let done = work();
        // The pool may give this thread to other work next.
        WAITING.take();
        done
    });
    tokio::select! {
        biased;
        done = reading => settled(done),
        // A thread that ends reports nothing, and then its result is awaited.
        Ok(damage) = reported => Err(damage),
    }
}

fn settled<T>(joined: Result<Result<T, FilesError>, JoinError>) -> Result<T, FilesError> {
    joined.unwrap_or_else(|error| Err(gave_up(&error.to_string())))
}

fn gave_up(message: &str) -> FilesError {
    FilesError::Damaged { what: "file system", why: format!("its reader gave up: {message}") }
}
