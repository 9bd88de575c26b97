//! A machine's record, and the moves it can make.
//!
//! ```text
//!                   reserve (restore)              adopt
//!     (nothing) --------------------> Reserved ----------------+
//!         |                                ^-- adopt undone ---|
//!         | create                                             v
//!         +------------------------------------------------> Creating
//!                                                              | made      ^ made undone
//!                                                              v           |
//!     (nothing) <---- forgotten ---- Living { desired, seen, work: none | Starting | Stopping | Removing | Reading }
//! ```
//!
//! `desired` is what a person asked for, `seen` what the hypervisor last said; neither erases the other. A machine
//! has at most one operation at work on it; that is what `locked_by` tells.

mod moves;
#[cfg(test)]
pub(crate) mod tests;

use std::net::IpAddr;

use contract::provisioner::{DiskSize, Vm, VmDefinition, VmState};
use contract::{DiskName, HostName, OperationId, Timestamp, VmName};
use serde::{Deserialize, Serialize};

use crate::identity::Identity;

pub use moves::VmMove;

/// A row of the table `vms`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmRecord {
    /// What it shall be.
    pub definition: VmDefinition,
    /// Who it is.
    pub identity: Identity,
    /// Where it lives.
    pub host: HostName,
    /// How often it was made anew under this name; a new generation is somebody else to the guest's cloud-init.
    pub generation: u64,
    /// What its disk is made of.
    pub source: DiskSource,
    /// When it was made.
    pub created: Timestamp,
    /// How far it has come.
    pub phase: Phase,
    /// The guest's SSH host key, as it showed itself at the first contact; another one is not let in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
    /// The operation that last came to its end on it, so that repeating its last step is known for what it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_by: Option<OperationId>,
}

/// What a machine's disk is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskSource {
    /// One disk, an overlay of the seed with this digest.
    Seed {
        /// The seed's SHA-256.
        sha256: String,
    },
    /// Raw images that a restore wrote.
    Restored {
        /// Them, the one to boot from first.
        disks: Vec<DiskSize>,
    },
}

/// How far a machine has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// A name, and places for disks that somebody else writes.
    Reserved {
        /// The operation that reserved it.
        by: OperationId,
    },
    /// An operation makes it; some of disk and domain may exist.
    Creating {
        /// The operation.
        by: OperationId,
        /// For which operation the name was reserved, if it was: an undone adoption goes back to that.
        reserved_by: Option<OperationId>,
    },
    /// It exists.
    Living {
        /// What was asked for.
        desired: Desired,
        /// What the hypervisor last said.
        seen: Seen,
        /// Who is at work on it, if anybody is.
        work: Option<Work>,
    },
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    /// It shall run.
    Running,
    /// It shall be off.
    Off,
}

/// What the hypervisor last said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// It runs.
    Running {
        /// Whether it answered when it was asked to.
        ready: bool,
        /// Its address, once known.
        address: Option<IpAddr>,
    },
    /// It is off.
    Off,
    /// The hypervisor does not know it.
    Missing,
}

/// An operation at work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Which.
    pub by: OperationId,
    /// At what.
    pub kind: WorkKind,
    /// What was desired before it began, to go back to.
    pub before: Desired,
}

/// What an operation does to a living machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkKind {
    /// Starts it.
    Starting,
    /// Shuts it down.
    Stopping,
    /// Removes it.
    Removing,
    /// Reads its disks.
    Reading,
}

impl VmRecord {
    /// Its name.
    pub fn name(&self) -> &VmName {
        &self.definition.name
    }

    /// Its disks, the one to boot from first.
    pub fn disks(&self) -> Vec<DiskSize> {
        match &self.source {
            DiskSource::Seed { .. } => vec![DiskSize { disk: first_disk(), size: self.definition.disk_size }],
            DiskSource::Restored { disks } => disks.clone(),
        }
    }

    /// The operation at work on it.
    pub fn locked_by(&self) -> Option<&OperationId> {
        match &self.phase {
            Phase::Reserved { by } | Phase::Creating { by, .. } => Some(by),
            Phase::Living { work, .. } => work.as_ref().map(|work| &work.by),
        }
    }

    /// How it is, in one word.
    pub fn state(&self) -> VmState {
        let Phase::Living { seen, work, .. } = &self.phase else {
            return VmState::Creating;
        };
        match work.as_ref().map(|work| work.kind) {
            Some(WorkKind::Starting) => return VmState::Starting,
            Some(WorkKind::Stopping) => return VmState::Stopping,
            Some(WorkKind::Removing) => return VmState::Removing,
            Some(WorkKind::Reading) | None => {}
        }
        match seen {
            Seen::Running { ready: true, .. } => VmState::Ready,
            Seen::Running { ready: false, .. } => VmState::Starting,
            Seen::Off => VmState::Stopped,
            Seen::Missing => VmState::Missing,
        }
    }

    /// Its address, while it runs and has one.
    pub fn address(&self) -> Option<IpAddr> {
        match self.phase {
            Phase::Living { seen: Seen::Running { address, .. }, .. } => address,
            _ => None,
        }
    }

    /// As it is told to who asks for this one; `hypervisor` is the name of what runs it.
    pub fn view(&self, hypervisor: &str) -> Vm {
        Vm {
            definition: self.definition.clone(),
            uuid: self.identity.uuid.clone(),
            mac: self.identity.mac.clone(),
            host: self.host.clone(),
            state: self.state(),
            address: self.address().map(|address| address.to_string()),
            locked_by: self.locked_by().cloned(),
            created: self.created,
            hypervisor: hypervisor.into(),
        }
    }

    /// As it is told to everybody: without what its scripts and variables hold, which may be secret and is long.
    pub fn outline(&self, hypervisor: &str) -> Vm {
        let mut vm = self.view(hypervisor);
        vm.definition.env.clear();
        vm.definition.install.clear();
        vm
    }
}

/// The name of the only disk of a machine that grew from a seed.
pub fn first_disk() -> DiskName {
    DiskName::new("vda").expect("a good name")
}
