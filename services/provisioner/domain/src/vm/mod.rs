//! A VM's record, and the transitions it can make.
//!
//! ```text
//!                   reserve (restore)           begin_reserved
//!     (nothing) --------------------> Reserved ----------------+
//!         |                                ^---- revert -------|
//!         | create                                             v
//!         +------------------------------------------------> Creating
//!                                                              | complete   ^ revert
//!                                                              v            |
//!     (nothing) <---- forgotten ---- Exists { desired, observed, lock: none | an operation }
//! ```
//!
//! `desired` is what a person asked for, `observed` what the hypervisor last reported; neither erases the other. At
//! most one operation is at work on a VM; `locked_by` names it.
//! `transitions` has the arrows, `lock` what operations do to a VM that exists.

mod lock;
#[cfg(test)]
pub(crate) mod tests;
mod transitions;

use std::net::IpAddr;

use contract::provisioner::{DiskSize, PauseReason, Vm, VmDefinition, VmState};
use contract::{DiskName, HostName, NoPrevious, OperationId, Stored, Timestamp, VmName, VmUuid};
use serde::{Deserialize, Serialize};

use crate::hypervisor::HypervisorInfo;
use crate::identity::Identity;
use crate::power::{ObservedVmState, PowerState};
use crate::secrets::StoredSecrets;

pub use lock::{VmLock, VmLockKind};
pub use transitions::VmTransition;

/// A row of the table `vms`, of which the provisioner on the VM's host is the only writer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmRecord {
    /// What a person defined, without variables and scripts.
    pub definition: VmDefinition,
    /// Its variables and scripts; none where it has neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<StoredSecrets>,
    /// Its UUID and its MAC address.
    pub identity: Identity,
    /// The host that it is on.
    pub host: HostName,
    /// Part of its instance id for cloud-init, which treats another generation as a new VM; from 1.
    pub cloud_init_generation: u64,
    /// What its disks are created from.
    pub source: DiskSource,
    /// When its creation began.
    pub created: Timestamp,
    /// How far its creation has come, and its state after that.
    pub phase: VmPhase,
    /// The guest's SSH host key from the first connection; no other is accepted later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
    /// The operation that completed last: its last step may be repeated or undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_completed_operation: Option<OperationId>,
}

impl Stored for VmRecord {
    const VERSION: u16 = 1;
    type Previous = NoPrevious;

    fn migrate(previous: NoPrevious) -> Self {
        match previous {}
    }
}

/// What a VM's disks are created from.
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
        /// Their names and sizes, the one to boot from first.
        disks: Vec<DiskSize>,
    },
}

/// How far the creation of a VM has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VmPhase {
    /// A name, and paths of disks that a restore writes.
    Reserved {
        /// The operation that reserved it.
        by: OperationId,
    },
    /// An operation creates it; some of its disks and its domain may exist.
    Creating {
        /// The operation.
        by: OperationId,
        /// The operation that the name was reserved for, if it was: a creation that is undone goes back to that.
        reserved_by: Option<OperationId>,
    },
    /// It exists.
    Exists {
        /// What was asked for.
        desired: DesiredPowerState,
        /// What the hypervisor last reported.
        observed: ObservedVmState,
        /// The operation at work on it.
        lock: Option<VmLock>,
    },
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DesiredPowerState {
    /// It should run.
    Running,
    /// It should be off.
    Off,
}

impl VmRecord {
    /// Its name.
    pub fn name(&self) -> &VmName {
        &self.definition.name
    }

    /// The key of its row: `{host}.{uuid}`.
    pub fn key(&self) -> String {
        row_key(&self.host, &self.identity.uuid)
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
            VmPhase::Reserved { by } | VmPhase::Creating { by, .. } => Some(by),
            VmPhase::Exists { lock, .. } => lock.as_ref().map(|lock| &lock.by),
        }
    }

    /// What was last observed of it; nothing before it exists.
    pub fn observed(&self) -> Option<ObservedVmState> {
        match self.phase {
            VmPhase::Exists { observed, .. } => Some(observed),
            VmPhase::Reserved { .. } | VmPhase::Creating { .. } => None,
        }
    }

    /// Its state in one word.
    pub fn state(&self) -> VmState {
        let VmPhase::Exists { observed, lock, .. } = &self.phase else {
            return VmState::Creating;
        };
        if let Some(shown) = lock.as_ref().and_then(|lock| lock.kind.shows()) {
            return shown;
        }
        if observed.stale {
            return VmState::Unknown;
        }
        match observed.power {
            PowerState::Running if observed.ready => VmState::Ready,
            PowerState::Running => VmState::Starting,
            PowerState::Paused(_) => VmState::Paused,
            PowerState::Off => VmState::Stopped,
            PowerState::Missing => VmState::Missing,
        }
    }

    /// Why it is paused; only in the state `paused`.
    pub fn pause_reason(&self) -> Option<PauseReason> {
        self.observed().filter(|_| self.state() == VmState::Paused)?.pause_reason()
    }

    /// What keeps Loam from managing it as defined, and what to do about it.
    pub fn problem(&self) -> Option<String> {
        let disks_changed = self.observed().is_some_and(|observed| observed.disks_changed);
        disks_changed.then(|| {
            let advice = disks_changed_advice(&self.identity.uuid);
            format!("a disk of it was changed outside of Loam, which leaves it as it is; {advice}")
        })
    }

    /// Its address, while it is on and has one, and that is known.
    pub fn address(&self) -> Option<IpAddr> {
        self.observed().filter(|observed| !observed.stale)?.address
    }

    /// The VM as `get_vm` returns it; `hypervisor` is what runs it.
    pub fn view(&self, hypervisor: &HypervisorInfo) -> Vm {
        let names = |of: fn(&StoredSecrets) -> &Vec<String>| {
            self.secrets.as_ref().map(of).cloned().unwrap_or_default()
        };
        Vm {
            definition: self.definition.clone(),
            variables: names(|secrets| &secrets.variables),
            scripts: names(|secrets| &secrets.scripts),
            uuid: self.identity.uuid.clone(),
            mac: self.identity.mac.clone(),
            host: self.host.clone(),
            state: self.state(),
            pause_reason: self.pause_reason(),
            problem: self.problem(),
            address: self.address(),
            locked_by: self.locked_by().cloned(),
            created: self.created,
            hypervisor: hypervisor.name.into(),
            emulation_reason: hypervisor.emulation_reason.clone(),
        }
    }

    /// The VM as lists and events show it: without the names of its variables and scripts, which may be many.
    pub fn outline(&self, hypervisor: &HypervisorInfo) -> Vm {
        Vm { variables: Vec::new(), scripts: Vec::new(), ..self.view(hypervisor) }
    }
}

/// The key of a VM's row in the table `vms`.
pub fn row_key(host: &HostName, uuid: &VmUuid) -> String {
    format!("{host}.{uuid}")
}

/// What a person does about a VM whose disks others have changed, so that nothing is lost that its guest wrote.
pub fn disks_changed_advice(uuid: &VmUuid) -> String {
    format!(
        "if that is a snapshot: start it with `virsh start {uuid}` where it is off, then put it back with \
         `virsh blockcommit {uuid} DISK --shallow --active --pivot`, once for each snapshot"
    )
}

/// The name of the only disk of a VM that was created from a seed.
pub fn first_disk() -> DiskName {
    DiskName::new("vda").expect("a good name")
}
