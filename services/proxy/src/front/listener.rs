//! Accepts connections and gives each a task.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{interval, sleep};

use super::connection;
use super::shared::Shared;

/// Connections that wait in the system while we are busy; the usual bound of the system itself is 4096.
const BACKLOG: u32 = 1024;
/// Accepting fails when descriptors run out; some come back only as connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often unused connections to machines are looked over.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// The whole answer to a client that has too many connections; it is not worth a parser.
const TOO_MANY: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 10\r\nConnection: close\r\n\
    Content-Type: text/plain\r\nContent-Length: 47\r\n\r\nThere are too many connections from this place\n";

pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart must not wait for old connections to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts until the front stops.
pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let stop = shared.stop.clone();
    let mut sweep = interval(SWEEP_EVERY);
    loop {
        let accepted = async {
            let room = shared.admission.room().await;
            listener.accept().await.map(|(stream, peer)| (stream, peer, room))
        };
        tokio::select! {
            () = stop.cancelled() => return,
            _ = sweep.tick() => shared.pool.sweep(),
            accepted = accepted => match accepted {
                Ok((stream, peer, room)) => {
                    let exempt = shared.settings.trusted.contains(peer.ip().to_canonical());
                    match shared.admission.admit(room, peer.ip(), exempt) {
                        Some(place) => {
                            shared.tasks.spawn(connection::serve(shared.clone(), stream, peer, place));
                        }
                        None => refuse(&stream, peer),
                    }
                }
                // The client was gone before we came.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "accepting a connection failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

fn refuse(stream: &TcpStream, peer: SocketAddr) {
    tracing::debug!(%peer, "too many connections of one client");
    // The buffer of a fresh connection is empty; a client that cannot be told is closed without a word.
    if let Err(error) = stream.try_write(TOO_MANY) {
        tracing::debug!(%peer, %error, "the refusal could not be sent");
    }
}
