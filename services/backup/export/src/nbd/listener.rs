//! Where clients connect: a Unix socket that only its owner may use, or a TCP port on loopback.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

/// Clients that wait for being accepted; more are refused by the kernel.
const BACKLOG: i32 = 64;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// A socket file of mode 0600.
    Unix(PathBuf),
    /// A loopback address; port 0 lets the system choose.
    Tcp(SocketAddr),
}

/// The server cannot listen there.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The operating system refused.
    #[error("could not {attempt} {place}")]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// The socket file or address.
        place: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// There is no TLS here: disks are not exported to a network.
    #[error("{0} is not a loopback address: reach it through a tunnel, or use a unix socket")]
    NotLoopback(SocketAddr),
    /// Another server listens there.
    #[error("{0} is in use: another server listens there")]
    InUse(PathBuf),
    /// Another kind of file is there, which is not removed.
    #[error("{0} exists and is no socket")]
    NotASocket(PathBuf),
}

pub(super) type Reader = Box<dyn AsyncRead + Send + Unpin>;
pub(super) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// A listening socket. The socket file is removed with it.
#[derive(Debug)]
pub(super) enum Listener {
    Unix(UnixListener, SocketFile),
    Tcp(TcpListener, SocketAddr),
}

impl Listener {
    pub(super) async fn bind(listen: &ListenAddress) -> Result<Listener, ListenError> {
        match listen {
            ListenAddress::Unix(path) => {
                let (socket, file) = bind_unix(path).await?;
                let failed = failed("listen on", path.display());
                socket.set_nonblocking(true).map_err(&failed)?;
                let listener = UnixListener::from_std(socket.into()).map_err(&failed)?;
                Ok(Listener::Unix(listener, file))
            }
            ListenAddress::Tcp(address) if !address.ip().is_loopback() => {
                Err(ListenError::NotLoopback(*address))
            }
            ListenAddress::Tcp(address) => {
                let failed = failed("listen on", address);
                let listener = TcpListener::bind(address).await.map_err(&failed)?;
                let address = listener.local_addr().map_err(&failed)?;
                Ok(Listener::Tcp(listener, address))
            }
        }
    }

    pub(super) async fn accept(&self) -> io::Result<(Reader, Writer)> {
        match self {
            Listener::Unix(listener, _) => {
                let (reader, writer) = listener.accept().await?.0.into_split();
                Ok((Box::new(reader), Box::new(writer)))
            }
            Listener::Tcp(listener, _) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let (reader, writer) = stream.into_split();
                Ok((Box::new(reader), Box::new(writer)))
            }
        }
    }

    /// Where clients find it.
    pub(super) fn place(&self) -> ListenAddress {
        match self {
            Listener::Unix(_, file) => ListenAddress::Unix(file.path.clone()),
            Listener::Tcp(_, address) => ListenAddress::Tcp(*address),
        }
    }
}

fn failed(attempt: &'static str, place: impl ToString) -> impl Fn(io::Error) -> ListenError {
    let place = place.to_string();
    move |source| ListenError::Io { attempt, place: place.clone(), source }
}

/// A socket file that is removed at the end, if it is still ours.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode));
        if ours {
            // A socket file left behind is replaced by the next server.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

async fn bind_unix(path: &Path) -> Result<(Socket, SocketFile), ListenError> {
    let failed_to = |attempt| failed(attempt, path.display());
    let address = SockAddr::unix(path).map_err(failed_to("name a socket"))?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed_to("make"))?;
    if let Err(error) = socket.bind(&address) {
        if error.kind() != io::ErrorKind::AddrInUse {
            return Err(failed_to("bind")(error));
        }
        remove_stale(path).await?;
        socket.bind(&address).map_err(failed_to("bind"))?;
    }
    // No client can connect before `listen`, so none can before the mode is set.
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, private).map_err(failed_to("make private"))?;
    let found = std::fs::symlink_metadata(path).map_err(failed_to("inspect"))?;
    let file = SocketFile { path: path.to_owned(), device: found.dev(), inode: found.ino() };
    socket.listen(BACKLOG).map_err(failed_to("listen on"))?;
    Ok((socket, file))
}

/// Removes a socket file on which no server listens any more.
async fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let found = std::fs::symlink_metadata(path).map_err(failed("inspect", path.display()))?;
    if !found.file_type().is_socket() {
        return Err(ListenError::NotASocket(path.to_owned()));
    }
    match tokio::net::UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed("remove the stale", path.display()))
        }
        // A server that listens keeps the socket, even where it is too busy to accept.
        _ => Err(ListenError::InUse(path.to_owned())),
    }
}
