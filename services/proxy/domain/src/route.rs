//! One entry of the route table, and the claims that tables are built from.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use contract::{DomainName, VmName};

/// Where the requests for one domain go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The requested domain.
    pub domain: DomainName,
    /// The VM that the domain belongs to.
    pub vm: VmName,
    /// The VM's address, or why it has none.
    pub target: UpstreamState,
}

/// The upstream of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamState {
    /// It accepts HTTP at this address and port.
    Up(SocketAddr),
    /// It is down: clients get 503 with Retry-After.
    Down {
        /// Shown on the error page.
        reason: VmDownReason,
        /// Sent as Retry-After, in whole seconds, rounded up.
        retry_after: Duration,
    },
}

/// Why a VM is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmDownReason {
    /// It was stopped by a command, or is being stopped or removed.
    Stopped,
    /// It is starting and not ready yet.
    Starting,
    /// Its processors are stopped: by a person, or because its host had no room for a write.
    Paused,
    /// It should run and does not exist on its host.
    Failed,
    /// It is on a host whose network the proxy does not reach.
    OnAnotherHost,
}

impl fmt::Display for VmDownReason {
    /// Completes the sentence "this site is …".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Paused => "paused",
            Self::Failed => "down",
            Self::OnAnotherHost => "on another host",
        })
    }
}

impl fmt::Display for UpstreamState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up(address) => address.fmt(f),
            Self::Down { reason, .. } => reason.fmt(f),
        }
    }
}

/// The domains that a VM's definition claims for one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainClaim {
    /// The VM.
    pub vm: VmName,
    /// The domains.
    pub domains: Vec<DomainName>,
    /// Where their requests go.
    pub target: UpstreamState,
}

/// A domain that a second VM claims; it stays with the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainConflict {
    /// The domain.
    pub domain: DomainName,
    /// The VM that has it.
    pub owner_vm: VmName,
    /// The VM that claims it in vain.
    pub refused_vm: VmName,
}

impl fmt::Display for DomainConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} stays with {}; {} claims it too", self.domain, self.owner_vm, self.refused_vm)
    }
}
