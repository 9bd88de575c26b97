//! The services by name.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A part of Loam that answers on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// Creates, starts, stops and removes virtual machines; exports their disks.
    Provisioner,
    /// Backs disks up into the store and restores them.
    Backup,
    /// Routes HTTP traffic to virtual machines.
    Proxy,
    /// Sends commands on schedule.
    Scheduler,
    /// Upgrades the services themselves.
    Upgrade,
    /// Runs the services of one host (`loam up`).
    Supervisor,
    /// A service of a later version; nothing is sent to it.
    #[serde(other)]
    Unknown,
}

impl Service {
    /// The five services, in the order in which they are started; the supervisor starts them and is not among them.
    pub const FIVE: [Service; 5] =
        [Service::Provisioner, Service::Backup, Service::Proxy, Service::Scheduler, Service::Upgrade];

    /// Every service that answers on the bus.
    pub const ALL: [Service; 6] = [
        Service::Provisioner,
        Service::Backup,
        Service::Proxy,
        Service::Scheduler,
        Service::Upgrade,
        Service::Supervisor,
    ];

    /// The services that own durable commands: they have an operations table, and answer requests about operations.
    pub const WITH_OPERATIONS: [Service; 3] = [Service::Provisioner, Service::Backup, Service::Upgrade];

    /// The name as it stands in subjects, settings and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Service::Provisioner => "provisioner",
            Service::Backup => "backup",
            Service::Proxy => "proxy",
            Service::Scheduler => "scheduler",
            Service::Upgrade => "upgrade",
            Service::Supervisor => "supervisor",
            Service::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text names no service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a service; there are provisioner, backup, proxy, scheduler, upgrade and supervisor")]
pub struct UnknownService(pub String);

impl FromStr for Service {
    type Err = UnknownService;
    fn from_str(text: &str) -> Result<Self, UnknownService> {
        Service::ALL
            .into_iter()
            .find(|s| s.name() == text)
            .ok_or_else(|| UnknownService(text.chars().take(40).collect()))
    }
}
