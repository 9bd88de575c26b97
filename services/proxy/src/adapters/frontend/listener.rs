//! Accepts connections and spawns a task for each.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{interval, sleep};

use super::connection;
use super::shared::FrontendShared;

/// Connections that the system queues until they are accepted; its own bound is usually 4096.
const LISTEN_BACKLOG: u32 = 1024;
/// Accepting fails when file descriptors run out; they come back as connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often idle upstream connections are checked.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// The whole response to a client with too many connections, sent without parsing its request.
const TOO_MANY_CONNECTIONS: &[u8] =
    b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 10\r\nConnection: close\r\n\
    Content-Type: text/plain\r\nContent-Length: 38\r\n\r\ntoo many connections from this client\n";

pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart must not wait for old connections in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(LISTEN_BACKLOG)
}

/// Accepts until the frontend stops.
pub(super) async fn accept(listener: TcpListener, shared: Arc<FrontendShared>) {
    let stop = shared.stop.clone();
    let mut sweep = interval(SWEEP_INTERVAL);
    loop {
        let accepted = async {
            let slot = shared.limiter.slot().await;
            listener.accept().await.map(|(stream, peer)| (stream, peer, slot))
        };
        tokio::select! {
            () = stop.cancelled() => return,
            _ = sweep.tick() => shared.pool.sweep(),
            accepted = accepted => match accepted {
                Ok((stream, peer, slot)) => {
                    let exempt = shared.settings.trusted_proxies.contains(peer.ip().to_canonical());
                    match shared.limiter.permit(slot, peer.ip(), exempt) {
                        Some(permit) => {
                            shared.tasks.spawn(connection::serve(shared.clone(), stream, peer, permit));
                        }
                        None => refuse(&stream, peer),
                    }
                }
                // The client closed the connection before it was accepted.
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
    tracing::debug!(%peer, "too many connections from one client");
    // The send buffer of a new connection is empty, so this is sent whole or not at all.
    if let Err(error) = stream.try_write(TOO_MANY_CONNECTIONS) {
        tracing::debug!(%peer, %error, "the 429 response could not be sent");
    }
}
