//! What may go wrong between us and libvirt, told apart by what a person would do about it.

use std::path::PathBuf;
use std::time::Duration;

use virt::error::{ErrorDomain, ErrorNumber};

/// Why a call to libvirt did not give what it was made for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No socket where the daemon should listen: not installed, or not started.
    #[error("there is no libvirtd socket at {path}: is libvirt installed and its daemon started?")]
    SocketMissing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A socket without anybody behind it: the daemon has died, or is just starting.
    #[error("nobody answers behind libvirtd's socket {path}: the daemon has ended or is starting")]
    SocketRefused {
        /// The socket.
        path: PathBuf,
    },
    /// The socket, or the call, is not for us.
    #[error("libvirt does not let us {attempting}: {reason}")]
    AccessDenied {
        /// What was being attempted.
        attempting: String,
        /// In the words of libvirt or the system.
        reason: String,
    },
    /// The daemon did not answer in time and the line was cut. Whether the deed was done must be looked up.
    #[error("libvirtd did not answer within {after:?} when asked to {attempting}")]
    TimedOut {
        /// What was being attempted.
        attempting: String,
        /// How long we waited.
        after: Duration,
    },
    /// The line broke in the middle of the call. Whether the deed was done must be looked up.
    #[error("the connection to libvirtd broke while trying to {attempting}: {reason}")]
    Lost {
        /// What was being attempted.
        attempting: String,
        /// In libvirt's words.
        reason: String,
    },
    /// No such domain, network or checkpoint.
    #[error("libvirt knows no such thing when asked to {attempting}: {reason}")]
    Unknown {
        /// What was being attempted.
        attempting: String,
        /// In libvirt's words.
        reason: String,
    },
    /// The guest's agent is absent, not yet started, or hangs.
    #[error("the guest's agent does not answer when asked to {attempting}: {reason}")]
    AgentSilent {
        /// What was being attempted.
        attempting: String,
        /// In libvirt's words.
        reason: String,
    },
    /// The domain is not in a state in which this can be done.
    #[error("cannot {attempting} now: {reason}")]
    WrongState {
        /// What was being attempted.
        attempting: String,
        /// In libvirt's words.
        reason: String,
    },
    /// Another job holds the domain; libvirt itself has waited half a minute for it.
    #[error("another job holds the domain: cannot {attempting}: {reason}")]
    Busy {
        /// What was being attempted.
        attempting: String,
        /// In libvirt's words: which job.
        reason: String,
    },
    /// Any other answer of libvirt.
    #[error("libvirt failed to {attempting}: {reason} (code {code})")]
    Libvirt {
        /// What was being attempted.
        attempting: String,
        /// libvirt's `virErrorNumber`.
        code: u32,
        /// In libvirt's words.
        reason: String,
    },
    /// Something exists under our name and is not what we were told to make.
    #[error("network {name} exists and differs: it has {found}, wanted is {wanted}")]
    NetworkDiffers {
        /// The network's name.
        name: String,
        /// What libvirt has.
        found: String,
        /// What was asked for.
        wanted: String,
    },
    /// libvirt answered with a document that we cannot read.
    #[error("cannot read libvirt's answer when asked to {attempting}: {reason}")]
    Unreadable {
        /// What was being attempted.
        attempting: String,
        /// What was wrong with it.
        reason: String,
    },
    /// A file, a socket or a process of our own side.
    #[error("cannot {attempting}")]
    Io {
        /// What was being attempted.
        attempting: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// True when the same call may well succeed later without anybody changing anything but the daemon's health.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Error::SocketMissing { .. }
                | Error::SocketRefused { .. }
                | Error::TimedOut { .. }
                | Error::Lost { .. }
                | Error::AgentSilent { .. }
                | Error::Busy { .. }
        )
    }

    /// True when nobody can say whether the deed was done: look before doing it again.
    pub fn outcome_is_open(&self) -> bool {
        matches!(self, Error::TimedOut { .. } | Error::Lost { .. })
    }

    pub(crate) fn io(attempting: impl Into<String>, source: std::io::Error) -> Error {
        Error::Io { attempting: attempting.into(), source }
    }

    /// Sorts libvirt's error by what a person would do about it.
    pub(crate) fn from_libvirt(attempting: &str, error: &virt::error::Error) -> Error {
        let attempting = attempting.to_owned();
        let reason = error.message().to_owned();
        match error.code().known() {
            Some(
                ErrorNumber::AccessDenied
                | ErrorNumber::AuthFailed
                | ErrorNumber::AuthCancelled
                | ErrorNumber::AuthUnavailable
                | ErrorNumber::OperationDenied,
            ) => Error::AccessDenied { attempting, reason },
            Some(
                ErrorNumber::NoDomain
                | ErrorNumber::NoNetwork
                | ErrorNumber::NoDomainCheckpoint
                | ErrorNumber::NoDomainBackup
                | ErrorNumber::NoDomainMetadata,
            ) => Error::Unknown { attempting, reason },
            Some(
                ErrorNumber::AgentUnresponsive
                | ErrorNumber::AgentUnsynced
                | ErrorNumber::AgentCommandTimeout,
            ) => Error::AgentSilent { attempting, reason },
            Some(ErrorNumber::OperationTimeout) => Error::Busy { attempting, reason },
            Some(ErrorNumber::OperationInvalid) => Error::WrongState { attempting, reason },
            // A broken socket comes as a system or internal error of the RPC layer.
            Some(
                ErrorNumber::Rpc
                | ErrorNumber::SystemError
                | ErrorNumber::InternalError
                | ErrorNumber::NoConnect,
            ) if error.domain().is_known_and(|domain| {
                matches!(domain, ErrorDomain::Rpc | ErrorDomain::Remote | ErrorDomain::Streams)
            }) =>
            {
                Error::Lost { attempting, reason }
            }
            _ => Error::Libvirt { attempting, code: error.code().to_raw(), reason },
        }
    }
}
