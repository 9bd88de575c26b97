//! The server: accepts clients and ends in order.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::connection;
use super::error::ConnectionError;
use super::export::Export;
use super::listener::{ListenAddress, ListenError, Listener};
use super::settings::ServerSettings;

/// After a failed `accept` (no file descriptors left, for one) the server waits this long before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A running server. It ends, with its connections and its socket file, when it is stopped or dropped.
#[derive(Debug)]
pub struct NbdServer {
    place: ListenAddress,
    stop: CancellationToken,
    slots: Arc<Semaphore>,
    connections_max: usize,
    accepting: JoinSet<()>,
}

impl NbdServer {
    /// Serves `exports` at a place. Clients can connect as soon as this returns.
    ///
    /// # Errors
    /// When another server listens there, or listening fails.
    pub async fn start(
        listen: &ListenAddress,
        exports: Vec<Export>,
        settings: ServerSettings,
    ) -> Result<NbdServer, ListenError> {
        let listener = Listener::bind(listen).await?;
        let place = listener.place();
        let stop = CancellationToken::new();
        let connections_max = settings.connections_max.clamp(1, Semaphore::MAX_PERMITS);
        let slots = Arc::new(Semaphore::new(connections_max));
        let mut accepting = JoinSet::new();
        let served = Served { exports: exports.into(), settings: Arc::new(settings), stop: stop.clone() };
        accepting.spawn(accept(listener, served, Arc::clone(&slots)));
        Ok(NbdServer { place, stop, slots, connections_max, accepting })
    }

    /// Where it listens, with the port that the system chose.
    pub fn place(&self) -> &ListenAddress {
        &self.place
    }

    /// The URI of an export, as QEMU and libnbd take it (`doc/uri.md` of NetworkBlockDevice/nbd).
    pub fn uri(&self, export: &str) -> String {
        let name = percent_encoded(export.as_bytes());
        match &self.place {
            ListenAddress::Unix(path) => {
                let path = percent_encoded(path.as_os_str().as_encoded_bytes());
                format!("nbd+unix:///{name}?socket={path}")
            }
            ListenAddress::Tcp(address) => format!("nbd://{address}/{name}"),
        }
    }

    /// How many clients are connected.
    pub fn connections(&self) -> usize {
        self.connections_max - self.slots.available_permits()
    }

    /// Takes no more clients and requests, answers earlier requests for some seconds, and ends.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.accepting.join_next().await.is_some() {}
    }
}

/// What every connection gets.
#[derive(Clone)]
struct Served {
    exports: Arc<[Export]>,
    settings: Arc<ServerSettings>,
    stop: CancellationToken,
}

async fn accept(listener: Listener, served: Served, slots: Arc<Semaphore>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = served.stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (reader, writer) = match accepted {
            Ok(ends) => ends,
            Err(error) => {
                tracing::warn!(%error, "could not accept an NBD client");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            tracing::warn!(
                connections = served.settings.connections_max,
                "an NBD client was refused: too many connections"
            );
            continue;
        };
        let served = served.clone();
        connections.spawn(async move {
            let Served { exports, settings, stop } = &served;
            if let Err(error) = connection::serve(reader, writer, exports, settings, stop).await {
                log(&error);
            }
            drop(slot);
        });
    }
    // No new clients; each connection ends within its own timeouts.
    drop(listener);
    while connections.join_next().await.is_some() {}
}

fn log(error: &ConnectionError) {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    tracing::warn!(%error, cause, "an NBD client was disconnected");
}

/// All but the unreserved characters of RFC 3986, and the slash.
fn percent_encoded(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, &byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            text.push(byte.into());
        } else {
            write!(text, "%{byte:02X}").expect("writing to a String cannot fail");
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::percent_encoded;

    #[test]
    fn names_are_encoded_as_uris_want_them() {
        assert_eq!(percent_encoded("/run/a b?ü".as_bytes()), "/run/a%20b%3F%C3%BC");
    }
}
