//! libvirt's life-cycle events: a domain was started, stopped, paused, resumed, defined or removed, by whomever.
//!
//! ```text
//!   thread 1, for the process:  libvirt's event loop; every connection made after its start belongs to it
//!   thread 2, for each watch:   a connection of its own: registers, checks every second that libvirtd answers,
//!                               registers anew when it was away
//! ```
//!
//! What an event says is not passed on: it may be late, and some are lost when libvirtd is away. A caller is told that
//! something may have changed, and asks for it. Both threads stay until the process ends, as all that used libvirt.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use virt::event::{event_register_default_impl, event_run_default_impl};

use crate::connection::{Connection, Settings};
use crate::error::Error;

/// Called when domains may have changed; it must not block.
pub type ChangeCallback = Arc<dyn Fn() + Send + Sync>;

/// Between two checks that libvirtd answers, and between two attempts to register.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// An event loop that fails is tried again after this long.
const LOOP_RETRY: Duration = Duration::from_secs(1);

/// Starts the event loop, once for the process. Before the first connection is opened: later connections only have events.
///
/// # Errors
/// [`Error::Libvirt`] when libvirt refuses, [`Error::Io`] when there is no thread.
pub fn start_event_loop() -> Result<(), Error> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    let started = STARTED.get_or_init(|| {
        event_register_default_impl().map_err(|error| error.to_string())?;
        let run = || {
            loop {
                if let Err(error) = event_run_default_impl() {
                    tracing::warn!(%error, "libvirt's event loop failed");
                    std::thread::sleep(LOOP_RETRY);
                }
            }
        };
        let thread = std::thread::Builder::new().name("libvirt-loop".into()).spawn(run);
        thread.map(drop).map_err(|error| error.to_string())
    });
    started.clone().map_err(|reason| Error::io("start libvirt's event loop", std::io::Error::other(reason)))
}

/// Watches all domains until the process ends: `changed` is called after each life-cycle event, whenever libvirtd goes
/// away, and when it is back.
///
/// # Errors
/// As [`start_event_loop`].
pub fn watch(settings: Settings, changed: ChangeCallback) -> Result<(), Error> {
    start_event_loop()?;
    let run = move || {
        let mut connection = Connection::new(settings);
        let mut answers = false;
        loop {
            let outcome = match connection.is_watching() {
                true => connection.version().map(drop),
                false => connection.register(Arc::clone(&changed)).inspect(|()| changed()),
            };
            if let (true, Err(error)) = (answers, &outcome) {
                tracing::warn!(%error, "libvirtd sends no events any more");
                changed();
            }
            answers = outcome.is_ok();
            std::thread::sleep(CHECK_INTERVAL);
        }
    };
    let thread = std::thread::Builder::new().name("libvirt-events".into()).spawn(run);
    thread.map(drop).map_err(|source| Error::io("start a thread for libvirt's events", source))
}
