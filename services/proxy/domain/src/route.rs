//! One entry of the route table, the claims it is made from, and what happens when two claim the same.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use contract::{DomainName, VmName};

/// Where the requests of one domain go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The domain that is asked for.
    pub host: DomainName,
    /// The virtual machine that it belongs to.
    pub owner: VmName,
    /// Where that machine answers, or why it does not.
    pub target: Target,
}

/// Where a machine answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// It answers HTTP at this address.
    Up(SocketAddr),
    /// It does not answer now; clients are told why and when to come again.
    Down {
        /// Why, in a word.
        why: DownReason,
        /// When it is sensible to try again; sent in whole seconds, rounded up.
        retry_after: Duration,
    },
}

/// Why a machine does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DownReason {
    /// Somebody stopped it.
    Stopped,
    /// It is starting and not ready yet.
    Starting,
    /// It is being renewed, restored or moved.
    Maintenance,
    /// It should run and does not.
    Failed,
}

impl fmt::Display for DownReason {
    /// Completes the sentence "this site is …".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Maintenance => "under maintenance",
            Self::Failed => "out of order",
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up(address) => address.fmt(f),
            Self::Down { why, .. } => why.fmt(f),
        }
    }
}

/// One machine's wish: these domains, to this target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The machine.
    pub owner: VmName,
    /// Its domains.
    pub domains: Vec<DomainName>,
    /// Where it answers.
    pub target: Target,
}

/// A domain that was claimed by a second machine, and stayed with the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The domain.
    pub host: DomainName,
    /// Who has it.
    pub kept_by: VmName,
    /// Who asked for it as well, and did not get it.
    pub refused_to: VmName,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} stays with {}; {} claims it too", self.host, self.kept_by, self.refused_to)
    }
}
