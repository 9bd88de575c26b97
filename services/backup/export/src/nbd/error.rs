//! Why a client lost its connection.

use std::io;

use backup_repository::nbd_wire::Malformed;

/// The server ends a connection with this.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error("could not exchange bytes with the client")]
    Io(#[source] io::Error),
    #[error("the client broke the protocol: {0}")]
    Protocol(&'static str),
    #[error("the client chose an export that does not exist")]
    NoSuchExport,
    #[error("the client took too long to {0}")]
    TooSlow(&'static str),
    #[error("a request ended by a bug of ours")]
    RequestPanicked(#[source] tokio::task::JoinError),
}

impl From<io::Error> for ConnectionError {
    fn from(error: io::Error) -> ConnectionError {
        match error.downcast::<Malformed>() {
            Ok(Malformed(why)) => ConnectionError::Protocol(why),
            Err(error) => ConnectionError::Io(error),
        }
    }
}
