//! A connection to libvirtd that we can cut.
//!
//! libvirt's client connects to a socket of ours, and two threads carry the bytes on to the daemon's. A watchdog closes
//! both ends when an armed deadline passes: the C call that waited for an answer then returns with an error, even when
//! the daemon hangs.
//!
//! ```text
//!   client --> [our socket] --> pump --> daemon      armed(deadline) ... disarmed: nothing happens
//!   client <--                  pump <-- daemon      armed(deadline) ......|     : both ends closed
//! ```
//!
//! It does not interpret what passes, and it carries no file descriptors (no call of ours needs them).

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::error::Error;

/// libvirt's largest message is 32 MiB but ours are small documents; this is one read.
const PUMP_BYTES: usize = 64 * 1024;

/// One connection to the daemon. Dropping it closes the connection and ends its threads.
#[derive(Debug)]
pub struct LibvirtdRelay {
    path: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ends: Vec<UnixStream>,
    closed: bool,
    deadline: Option<Instant>,
    /// True when it was the watchdog that closed it.
    cut: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds the state")
    }

    fn close(&self) {
        let mut state = self.state();
        state.close();
        self.changed.notify_all();
    }
}

impl State {
    fn close(&mut self) {
        self.closed = true;
        for end in self.ends.drain(..) {
            // An end that is gone already needs no closing.
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

impl LibvirtdRelay {
    /// Connects to the daemon's socket, within `within`, and listens on a private socket in `runtime_dir`.
    ///
    /// # Errors
    /// [`Error::SocketMissing`], [`Error::SocketRefused`], [`Error::SocketDenied`] or [`Error::TimedOut`] (its queue of
    /// connections is full: it hangs) for the daemon's socket; [`Error::Io`] for ours.
    pub fn open(daemon_socket: &Path, runtime_dir: &Path, within: Duration) -> Result<LibvirtdRelay, Error> {
        let daemon = connect(daemon_socket, within)?;
        let path = fresh_socket_path(runtime_dir);
        let listener = UnixListener::bind(&path)
            .map_err(|source| Error::io(format!("listen on {}", path.display()), source))?;
        let shared = Arc::new(Shared::default());
        let keep = |stream: &UnixStream| {
            let end = stream.try_clone()?;
            shared.state().ends.push(end);
            Ok(())
        };
        keep(&daemon).map_err(|source| Error::io("duplicate libvirtd's socket", source))?;

        let relay = LibvirtdRelay { path: path.clone(), shared: Arc::clone(&shared) };
        let pump = Arc::clone(&shared);
        spawn("libvirt-relay", move || serve(&listener, &path, daemon, &pump))?;
        let watch = Arc::clone(&shared);
        spawn("libvirt-watch", move || watchdog(&watch))?;
        Ok(relay)
    }

    /// Where libvirt's client must connect, once.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// False once either side or the watchdog has closed it.
    pub fn is_open(&self) -> bool {
        !self.shared.state().closed
    }

    /// The connection is cut at `deadline` unless [`LibvirtdRelay::disarm`] comes first.
    pub fn arm(&self, deadline: Instant) {
        self.shared.state().deadline = Some(deadline);
        self.shared.changed.notify_all();
    }

    /// The answer came. True when the watchdog was faster: then the connection is gone.
    pub fn disarm(&self) -> bool {
        let mut state = self.shared.state();
        state.deadline = None;
        state.cut
    }

    /// Closes the connection now.
    pub fn close(&self) {
        self.shared.close();
    }
}

impl Drop for LibvirtdRelay {
    fn drop(&mut self) {
        self.close();
        // The first pump may still wait for libvirt's client; it finds the connection closed and ends. If the socket
        // is gone, so is the pump.
        let _ = UnixStream::connect(&self.path);
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map(drop)
        .map_err(|source| Error::io(format!("start thread {name}"), source))
}

fn fresh_socket_path(runtime_dir: &Path) -> PathBuf {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    runtime_dir.join(format!("libvirt-{}-{number}.sock", std::process::id()))
}

/// A hung daemon lets connections queue until its backlog is full; then `connect` blocks, but for the send timeout.
fn connect(path: &Path, within: Duration) -> Result<UnixStream, Error> {
    let attempt = || -> io::Result<UnixStream> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_write_timeout(Some(within))?;
        socket.connect(&SockAddr::unix(path)?)?;
        socket.set_write_timeout(None)?;
        Ok(UnixStream::from(OwnedFd::from(socket)))
    };
    attempt().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => Error::SocketMissing { path: path.to_owned() },
        io::ErrorKind::ConnectionRefused => Error::SocketRefused { path: path.to_owned() },
        io::ErrorKind::PermissionDenied => Error::SocketDenied { path: path.to_owned(), source },
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            Error::TimedOut { attempt: "accept a connection".to_owned(), after: within }
        }
        _ => Error::io(format!("connect to libvirtd's socket {}", path.display()), source),
    })
}

/// Waits for the one client, then carries bytes both ways until either side ends.
fn serve(listener: &UnixListener, path: &Path, daemon: UnixStream, shared: &Arc<Shared>) {
    let accepted = listener.accept();
    if let Err(error) = std::fs::remove_file(path) {
        tracing::debug!(%error, path = %path.display(), "the relay's socket was removed already");
    }
    let ends = accepted.and_then(|(client, _)| {
        let pair = (client.try_clone()?, daemon.try_clone()?);
        let mut state = shared.state();
        if state.closed {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        state.ends.push(client.try_clone()?);
        drop(state);
        Ok((client, pair))
    });
    match ends {
        Ok((client, (client_out, daemon_in))) => {
            let upward = Arc::clone(shared);
            let carried_up = spawn("libvirt-relay-up", move || {
                pump(client, daemon_in);
                upward.close();
            });
            if carried_up.is_ok() {
                pump(daemon, client_out);
            }
        }
        Err(error) => tracing::debug!(%error, "libvirt's client did not connect to the relay"),
    }
    shared.close();
}

fn pump(mut from: UnixStream, mut to: UnixStream) {
    let mut buffer = vec![0; PUMP_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) if to.write_all(&buffer[..count]).is_err() => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

fn watchdog(shared: &Shared) {
    let mut state = shared.state();
    while !state.closed {
        let now = Instant::now();
        state = match state.deadline {
            None => shared.changed.wait(state).expect("no thread panics while it holds the state"),
            Some(deadline) if deadline <= now => {
                state.cut = true;
                state.close();
                return;
            }
            Some(deadline) => {
                shared
                    .changed
                    .wait_timeout(state, deadline - now)
                    .expect("no thread panics while it holds the state")
                    .0
            }
        };
    }
}
