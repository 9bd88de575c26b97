//! What may go wrong between us and libvirt, sorted by what a person would do about it.

use std::path::PathBuf;
use std::time::Duration;

use virt::error::{ErrorDomain, ErrorNumber};

/// What libvirt or QEMU says of an error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} (libvirt error {})", .0.message(), .0.code().to_raw())]
pub struct LibvirtErrorReport(virt::error::Error);

/// A call to libvirt failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No socket where the daemon should listen: not installed, or not started.
    #[error("no libvirtd socket at {path}: is libvirt installed and its daemon started?")]
    SocketMissing {
        /// Where it was expected.
        path: PathBuf,
    },
    /// A socket on which nobody listens: the daemon has died, or is just starting.
    #[error("nobody listens on libvirtd's socket {path}: the daemon has ended or is starting")]
    SocketRefused {
        /// The socket.
        path: PathBuf,
    },
    /// This process may not connect to the socket.
    #[error("no permission to connect to libvirtd's socket {path}")]
    SocketDenied {
        /// The socket.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// QEMU may not enter a folder above one that it has to use.
    #[error(
        "QEMU cannot use {path}: it runs as user {uid}, who may not enter {closed}: choose another folder, or `chmod \
         o+x {closed}`"
    )]
    FolderClosed {
        /// What QEMU has to use.
        path: PathBuf,
        /// The folder that it may not enter.
        closed: PathBuf,
        /// The user QEMU runs as.
        uid: u32,
    },
    /// libvirt does not allow this process the call.
    #[error("no permission to {attempt}")]
    AccessDenied {
        /// What was attempted.
        attempt: String,
        /// The cause.
        #[source]
        source: LibvirtErrorReport,
    },
    /// The daemon did not answer in time and the connection was cut. Whether the call was carried out must be looked
    /// up.
    #[error("libvirtd did not answer within {after:?} when asked to {attempt}")]
    TimedOut {
        /// What was attempted.
        attempt: String,
        /// The call's deadline.
        after: Duration,
    },
    /// The connection broke in the middle of the call. Whether the call was carried out must be looked up.
    #[error("the connection to libvirtd broke while trying to {attempt}")]
    ConnectionLost {
        /// What was attempted.
        attempt: String,
        /// The cause.
        #[source]
        source: LibvirtErrorReport,
    },
    /// No such domain, network or checkpoint.
    #[error("cannot {attempt}: libvirt does not know it")]
    NotFound {
        /// What was attempted.
        attempt: String,
        /// The cause.
        #[source]
        source: LibvirtErrorReport,
    },
    /// The guest's agent is absent, not yet started, or hangs.
    #[error("the guest agent did not answer when asked to {attempt}")]
    AgentSilent {
        /// What was attempted.
        attempt: String,
        /// The cause.
        #[source]
        source: LibvirtErrorReport,
    },
    /// The domain is not in a state in which this can be done.
    #[error("cannot {attempt} in the domain's present state")]
    WrongState {
        /// What was attempted.
        attempt: String,
        /// The cause: which state.
        #[source]
        source: LibvirtErrorReport,
    },
    /// A domain has one backup at a time.
    #[error("cannot {attempt}: another backup of it is running")]
    BackupRunning {
        /// What was attempted.
        attempt: String,
    },
    /// Another job holds the domain; libvirt itself has waited half a minute for it.
    #[error("cannot {attempt}: another job holds the domain")]
    DomainBusy {
        /// What was attempted.
        attempt: String,
        /// The cause: which job.
        #[source]
        source: LibvirtErrorReport,
    },
    /// Any other error of libvirt.
    #[error("libvirt failed to {attempt}")]
    Libvirt {
        /// What was attempted.
        attempt: String,
        /// The cause.
        #[source]
        source: LibvirtErrorReport,
    },
    /// A network of our name exists and is not what was asked for.
    #[error("network {name} exists and differs: it has {found}, wanted is {wanted}")]
    NetworkDiffers {
        /// The network's name.
        name: String,
        /// What libvirt has.
        found: String,
        /// What was asked for.
        wanted: String,
    },
    /// A bridge or an address of a network is in use on this host.
    #[error("network {name} cannot be started: {reason}")]
    NetworkInUse {
        /// The network's name.
        name: String,
        /// By what, and what to do.
        reason: String,
    },
    /// libvirt answered with a document that we cannot read.
    #[error("cannot {attempt}: libvirt's answer is unreadable: {reason}")]
    MalformedReply {
        /// What was attempted.
        attempt: String,
        /// What is wrong with the document.
        reason: String,
    },
    /// A file, a socket or a process of our own side.
    #[error("cannot {attempt}")]
    Io {
        /// What was attempted.
        attempt: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// Whether the same call may well succeed later without anybody changing anything but the daemon's health.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Error::SocketMissing { .. }
                | Error::SocketRefused { .. }
                | Error::TimedOut { .. }
                | Error::ConnectionLost { .. }
                | Error::AgentSilent { .. }
                | Error::DomainBusy { .. }
        )
    }

    /// Whether nobody can say if the call was carried out: look it up before repeating it.
    pub fn outcome_is_open(&self) -> bool {
        matches!(self, Error::TimedOut { .. } | Error::ConnectionLost { .. })
    }

    pub(crate) fn io(attempt: impl Into<String>, source: std::io::Error) -> Error {
        Error::Io { attempt: attempt.into(), source }
    }

    /// Sorts libvirt's error by what a person would do about it.
    pub(crate) fn from_libvirt(attempt: &str, error: virt::error::Error) -> Error {
        let attempt = attempt.to_owned();
        let (code, domain) = (error.code(), error.domain());
        let source = LibvirtErrorReport(error);
        match code.known() {
            Some(
                ErrorNumber::AccessDenied
                | ErrorNumber::AuthFailed
                | ErrorNumber::AuthCancelled
                | ErrorNumber::AuthUnavailable
                | ErrorNumber::OperationDenied,
            ) => Error::AccessDenied { attempt, source },
            Some(
                ErrorNumber::NoDomain
                | ErrorNumber::NoNetwork
                | ErrorNumber::NoDomainCheckpoint
                | ErrorNumber::NoDomainBackup
                | ErrorNumber::NoDomainMetadata,
            ) => Error::NotFound { attempt, source },
            Some(
                ErrorNumber::AgentUnresponsive
                | ErrorNumber::AgentUnsynced
                | ErrorNumber::AgentCommandTimeout,
            ) => Error::AgentSilent { attempt, source },
            Some(ErrorNumber::OperationTimeout) => Error::DomainBusy { attempt, source },
            Some(ErrorNumber::OperationInvalid) => Error::WrongState { attempt, source },
            // A broken socket comes as a system or internal error of the RPC layer.
            Some(
                ErrorNumber::Rpc
                | ErrorNumber::SystemError
                | ErrorNumber::InternalError
                | ErrorNumber::NoConnect,
            ) if domain.is_known_and(|domain| {
                matches!(domain, ErrorDomain::Rpc | ErrorDomain::Remote | ErrorDomain::Streams)
            }) =>
            {
                Error::ConnectionLost { attempt, source }
            }
            _ => Error::Libvirt { attempt, source },
        }
    }
}

/// A domain or network that libvirt does not know is an answer of a lookup, not a failure.
pub(crate) fn known<T>(looked_up: Result<T, virt::error::Error>) -> Result<Option<T>, virt::error::Error> {
    match looked_up {
        Err(error)
            if matches!(error.code().known(), Some(ErrorNumber::NoDomain | ErrorNumber::NoNetwork)) =>
        {
            Ok(None)
        }
        other => other.map(Some),
    }
}
