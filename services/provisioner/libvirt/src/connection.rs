//! One connection to libvirtd for one thread: opened when first needed, under a deadline during every call, reopened
//! after a loss.
//!
//! ```text
//!   call --> is it open? --no--> connect (relay, then libvirt's handshake)
//!              | yes                  |
//!              v                      v
//!          arm the deadline --> C call --> disarm --> answer, or an Error; a lost or cut connection is dropped
//! ```
//!
//! No call is repeated by itself: whether a lost call was carried out is looked up by whoever made it
//! ([`Error::outcome_is_open`]). A daemon that was restarted between two calls goes unnoticed.
//!
//! It is not shared: libvirt keeps a call's error in its thread, so each thread has a connection of its own.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::{Duration, Instant};

use virt::connect::Connect;

use crate::deadline::{CallClass, Deadlines};
use crate::error::Error;
use crate::events::ChangeCallback;
use crate::raw;
use crate::relay::LibvirtdRelay;

/// Where libvirtd listens on every distribution that has one daemon, and where its proxy does where there are many.
pub const DAEMON_SOCKET: &str = "/run/libvirt/libvirt-sock";

/// Which daemon to connect to, and the deadlines of calls.
#[derive(Clone, Debug)]
pub struct Settings {
    /// libvirt's name for the driver, without any parameter: `qemu:///system`.
    pub uri: String,
    /// The daemon's socket.
    pub socket: PathBuf,
    /// A folder of our own for the relay's sockets; created when missing, with mode 0700. Its path must be short
    /// (a socket's path has at most 107 bytes).
    pub runtime_dir: PathBuf,
    /// How long calls may take.
    pub deadlines: Deadlines,
}

impl Settings {
    /// The machine's own libvirtd.
    pub fn system(runtime_dir: impl Into<PathBuf>) -> Settings {
        Settings {
            uri: "qemu:///system".to_owned(),
            socket: DAEMON_SOCKET.into(),
            runtime_dir: runtime_dir.into(),
            deadlines: Deadlines::default(),
        }
    }
}

/// What an idempotent call did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnsureOutcome {
    /// The call made it so.
    Changed,
    /// It was so before: the call was a no-op.
    AlreadyInPlace,
}

/// The versions on the other side, as libvirt writes them: major × 1,000,000 + minor × 1,000 + release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HypervisorVersions {
    /// libvirtd.
    pub libvirt: u32,
    /// QEMU.
    pub hypervisor: u32,
}

/// A blocking connection to libvirtd that always comes back from a call. One per thread.
#[derive(Debug)]
pub struct Connection {
    settings: Settings,
    live: Option<Live>,
}

/// An open connection. The relay is closed first: libvirt's own way to close would hang with a hung daemon.
#[derive(Debug)]
struct Live {
    connect: Connect,
    relay: LibvirtdRelay,
    /// Whether it is registered for events.
    watching: bool,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.relay.close();
    }
}

impl Connection {
    /// A connection that is opened by its first call.
    pub fn new(settings: Settings) -> Connection {
        Connection { settings, live: None }
    }

    /// Closes the connection; the next call opens another.
    pub fn disconnect(&mut self) {
        self.live = None;
    }

    /// The versions of libvirtd and QEMU; also the cheapest call to find out whether the daemon answers.
    ///
    /// # Errors
    /// What any call may meet: see [`Error`].
    pub fn version(&mut self) -> Result<HypervisorVersions, Error> {
        self.call(CallClass::Query, "get its version", |connect| {
            Ok(HypervisorVersions { libvirt: connect.lib_version()?, hypervisor: connect.hyp_version()? })
        })
    }

    /// What this host has: its processors, and its memory in KiB.
    ///
    /// # Errors
    /// What any call may meet.
    pub fn host_capacity(&mut self) -> Result<(u32, u64), Error> {
        let info = self.call(CallClass::Query, "get what the host has", |connect| connect.node_info())?;
        Ok((info.cpus, info.memory))
    }

    /// Registers for the life-cycle events of all domains, as long as this connection is open.
    pub(crate) fn register(&mut self, changed: ChangeCallback) -> Result<(), Error> {
        self.call(CallClass::Query, "register for events", |connect| raw::on_lifecycle(connect, changed))?;
        if let Some(live) = &mut self.live {
            live.watching = true;
        }
        Ok(())
    }

    /// Whether it is open and registered.
    pub(crate) fn is_watching(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.watching && live.relay.is_open())
    }

    /// Makes one or more calls of libvirt under one deadline.
    pub(crate) fn call<T>(
        &mut self,
        class: CallClass,
        attempt: &str,
        ask: impl FnOnce(&Connect) -> Result<T, virt::error::Error>,
    ) -> Result<T, Error> {
        let _in = tracing::info_span!("libvirt", attempting = attempt, class = ?class).entered();
        let limit = self.settings.deadlines.of(class);
        let live = self.opened()?;
        let begun = Instant::now();
        live.relay.arm(begun + limit.cut_after);
        let answer = ask(&live.connect);
        let cut = live.relay.disarm();
        let took = begun.elapsed();
        if took > limit.warn_after {
            tracing::warn!(?took, attempt, "libvirtd was slow");
        }
        let outcome = match answer {
            Ok(value) => Ok(value),
            Err(_) if cut => Err(Error::TimedOut { attempt: attempt.to_owned(), after: limit.cut_after }),
            Err(error) => Err(Error::from_libvirt(attempt, error)),
        };
        if cut || matches!(outcome, Err(Error::ConnectionLost { .. })) {
            self.live = None;
        }
        outcome
    }

    fn opened(&mut self) -> Result<&Live, Error> {
        if self.live.as_ref().is_some_and(|live| !live.relay.is_open()) {
            tracing::info!("libvirtd closed the connection; reconnecting");
            self.live = None;
        }
        let live = match self.live.take() {
            Some(live) => live,
            None => self.open()?,
        };
        Ok(self.live.insert(live))
    }

    fn open(&self) -> Result<Live, Error> {
        silence_libvirt();
        let attempt = "open a connection";
        let within = self.settings.deadlines.of(CallClass::Connect).cut_after;
        private_folder(&self.settings.runtime_dir)?;
        let relay = LibvirtdRelay::open(&self.settings.socket, &self.settings.runtime_dir, within)?;
        let uri = format!("{}?socket={}", self.settings.uri, percent_encoded(relay.path()));
        relay.arm(Instant::now() + within);
        let opened = Connect::open(Some(&uri));
        let cut = relay.disarm();
        match opened {
            Ok(connect) if !cut => Ok(Live { connect, relay, watching: false }),
            Ok(connect) => {
                drop(Live { connect, relay, watching: false });
                Err(Error::TimedOut { attempt: attempt.to_owned(), after: within })
            }
            Err(_) if cut => Err(Error::TimedOut { attempt: attempt.to_owned(), after: within }),
            Err(error) => Err(Error::from_libvirt(attempt, error)),
        }
    }

    /// How long a call of this class may take at most.
    pub fn deadline(&self, class: CallClass) -> Duration {
        self.settings.deadlines.of(class).cut_after
    }
}

/// libvirt's client prints every error to stderr by default; ours are returned and logged once.
fn silence_libvirt() {
    static ONCE: Once = Once::new();
    ONCE.call_once(virt::error::clear_error_callback);
}

fn private_folder(dir: &Path) -> Result<(), Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| Error::io(format!("make the folder {}", dir.display()), source))
}

/// A path as the value of a URI's parameter.
fn percent_encoded(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str()
        .as_bytes()
        .iter()
        .map(|&byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_survives_its_way_through_a_uri() {
        assert_eq!(percent_encoded(Path::new("/run/a b&c/ü")), "/run/a%20b%26c/%C3%BC");
    }
}
