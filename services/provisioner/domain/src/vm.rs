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

use std::net::IpAddr;

use contract::provisioner::{DiskSize, OpenDisksRefused, Vm, VmDefinition, VmRefused, VmState};
use contract::{DiskName, HostName, OperationId, Timestamp, VmName};
use serde::{Deserialize, Serialize};

use crate::identity::Identity;

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
            DiskSource::Seed { .. } => vec![DiskSize {
                disk: first_disk(),
                size: self.definition.disk_size,
            }],
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
            Phase::Living {
                seen: Seen::Running { address, .. },
                ..
            } => address,
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

    fn with(&self, phase: Phase) -> VmRecord {
        VmRecord {
            phase,
            ..self.clone()
        }
    }

    fn locked(&self, by: &OperationId) -> VmRefused {
        VmRefused::Locked {
            vm: self.name().clone(),
            by: by.clone(),
        }
    }

    /// An operation begins to work on it. What is desired changes at once: starting wants it running, stopping off.
    ///
    /// # Errors
    /// [`VmRefused::Locked`] while another operation is at work; [`VmRefused::Already`] where there is nothing to do.
    pub fn begin(&self, by: &OperationId, kind: WorkKind) -> Result<VmRecord, VmRefused> {
        let (desired, seen, work) = match &self.phase {
            Phase::Reserved { by } | Phase::Creating { by, .. } => return Err(self.locked(by)),
            Phase::Living { desired, seen, work } => (*desired, *seen, work),
        };
        match work {
            Some(work) if work.by == *by && work.kind == kind => return Ok(self.clone()),
            Some(work) => return Err(self.locked(&work.by)),
            None => {}
        }
        let already = |state: &str| {
            Err(VmRefused::Already {
                vm: self.name().clone(),
                state: state.into(),
            })
        };
        let wanted = match (kind, desired, seen) {
            (WorkKind::Starting, Desired::Running, Seen::Running { ready: true, .. }) => {
                return already("running");
            }
            (WorkKind::Stopping, Desired::Off, Seen::Off) => return already("stopped"),
            (WorkKind::Starting, ..) => Desired::Running,
            (WorkKind::Stopping, ..) => Desired::Off,
            (WorkKind::Removing | WorkKind::Reading, ..) => desired,
        };
        let work = Some(Work {
            by: by.clone(),
            kind,
            before: desired,
        });
        Ok(self.with(Phase::Living {
            desired: wanted,
            seen,
            work,
        }))
    }

    /// Takes back what [`VmRecord::begin`] did. Calm where that operation is not at work.
    pub fn give_up(&self, by: &OperationId) -> VmRecord {
        match &self.phase {
            Phase::Living {
                seen,
                work: Some(work),
                ..
            } if work.by == *by => self.with(Phase::Living {
                desired: work.before,
                seen: *seen,
                work: None,
            }),
            _ => self.clone(),
        }
    }

    /// An operation's work on it is done, and this is how it is now. Calm when said again.
    ///
    /// # Errors
    /// [`VmRefused::Locked`] when another operation is at work; [`VmRefused::Unknown`] when this one never was.
    pub fn settle(&self, by: &OperationId, seen: Seen) -> Result<VmRecord, VmRefused> {
        let desired = match &self.phase {
            Phase::Creating { by: maker, .. } if maker == by => Desired::Running,
            Phase::Living {
                desired,
                work: Some(work),
                ..
            } if work.by == *by => *desired,
            Phase::Living { work: None, .. } if self.settled_by.as_ref() == Some(by) => {
                return Ok(self.clone());
            }
            _ => {
                return Err(match self.locked_by() {
                    Some(other) => self.locked(other),
                    None => VmRefused::Unknown(self.name().clone()),
                });
            }
        };
        let mut next = self.with(Phase::Living {
            desired,
            seen,
            work: None,
        });
        next.settled_by = Some(by.clone());
        Ok(next)
    }

    /// Takes back the [`VmRecord::settle`] of an operation that made it: it is being made again. Calm otherwise.
    pub fn unmake(&self, by: &OperationId, reserved_by: Option<OperationId>) -> VmRecord {
        match &self.phase {
            Phase::Living { work: None, .. } if self.settled_by.as_ref() == Some(by) => {
                let mut next = self.with(Phase::Creating {
                    by: by.clone(),
                    reserved_by,
                });
                next.settled_by = None;
                next
            }
            _ => self.clone(),
        }
    }

    /// Takes back the [`VmRecord::settle`] of an operation that worked on it: back to the phase in which that had
    /// locked it. Calm otherwise.
    pub fn unsettle(&self, by: &OperationId, locked: Phase) -> VmRecord {
        match &self.phase {
            Phase::Living { work: None, .. } if self.settled_by.as_ref() == Some(by) => {
                let mut next = self.with(locked);
                next.settled_by = None;
                next
            }
            _ => self.clone(),
        }
    }

    /// Begins to make a machine of a reserved name.
    ///
    /// # Errors
    /// The operation at work, when the name is not reserved for `reserved_by`; none where nobody is.
    pub fn adopt(
        &self,
        by: &OperationId,
        reserved_by: &OperationId,
    ) -> Result<VmRecord, Option<OperationId>> {
        match &self.phase {
            Phase::Reserved { by: owner } if owner == reserved_by => Ok(self.with(Phase::Creating {
                by: by.clone(),
                reserved_by: Some(reserved_by.clone()),
            })),
            Phase::Creating { by: maker, .. } if maker == by => Ok(self.clone()),
            _ => Err(self.locked_by().cloned()),
        }
    }

    /// Takes back what [`VmRecord::adopt`] did. Calm otherwise.
    pub fn unadopt(&self, by: &OperationId) -> VmRecord {
        match &self.phase {
            Phase::Creating {
                by: maker,
                reserved_by: Some(owner),
            } if maker == by => {
                let mut next = self.with(Phase::Reserved { by: owner.clone() });
                next.host_key = None;
                next
            }
            _ => self.clone(),
        }
    }

    /// Whether its disks mean something now.
    ///
    /// # Errors
    /// The refusal to give to whoever wants to read them.
    pub fn may_be_read(&self, by: &OperationId) -> Result<(), OpenDisksRefused> {
        let vm = self.name().clone();
        if let Some(other) = self.locked_by().filter(|other| *other != by) {
            return Err(OpenDisksRefused::Busy {
                vm,
                by: other.clone(),
            });
        }
        match &self.phase {
            Phase::Living {
                seen: Seen::Running { .. } | Seen::Off,
                ..
            } => Ok(()),
            _ => Err(OpenDisksRefused::NotReadable {
                vm,
                state: format!("{:?}", self.state()).to_lowercase(),
            }),
        }
    }

    /// Takes over what the hypervisor says, if the record still says what it said when the hypervisor was looked at.
    /// Calm while an operation changes the machine: it knows better.
    pub fn saw(&self, before: Seen, now: Seen) -> VmRecord {
        match &self.phase {
            Phase::Living { desired, seen, work }
                if *seen == before && work.as_ref().is_none_or(|work| work.kind == WorkKind::Reading) =>
            {
                self.with(Phase::Living {
                    desired: *desired,
                    seen: now,
                    work: work.clone(),
                })
            }
            _ => self.clone(),
        }
    }

    /// Frees it from an operation that ended and left it behind: what was half made can then be removed.
    pub fn release(&self, by: &OperationId, seen: Seen) -> VmRecord {
        match &self.phase {
            Phase::Creating { by: maker, .. } if maker == by => self.with(Phase::Living {
                desired: Desired::Off,
                seen,
                work: None,
            }),
            Phase::Living {
                seen: before,
                work: Some(work),
                ..
            } if work.by == *by => self.give_up(by).saw(*before, seen),
            _ => self.clone(),
        }
    }
}

/// A move as a value, so that it can be sent to whoever owns the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmMove {
    /// [`VmRecord::begin`].
    Begin(OperationId, WorkKind),
    /// [`VmRecord::give_up`].
    GiveUp(OperationId),
    /// [`VmRecord::settle`].
    Settle(OperationId, Seen),
    /// [`VmRecord::unmake`].
    Unmake(OperationId, Option<OperationId>),
    /// [`VmRecord::unsettle`].
    Unsettle(OperationId, Phase),
    /// [`VmRecord::adopt`]: by the first, of what was reserved for the second.
    Adopt(OperationId, OperationId),
    /// [`VmRecord::unadopt`].
    Unadopt(OperationId),
    /// [`VmRecord::saw`]: the first before, the second now.
    Saw(Seen, Seen),
    /// [`VmRecord::release`].
    Release(OperationId, Seen),
    /// The guest's SSH host key was seen for the first time.
    KnowHostKey(String),
}

impl VmRecord {
    /// Makes a move.
    ///
    /// # Errors
    /// As the move itself.
    pub fn make(&self, this: VmMove) -> Result<VmRecord, VmRefused> {
        match this {
            VmMove::Begin(by, kind) => self.begin(&by, kind),
            VmMove::GiveUp(by) => Ok(self.give_up(&by)),
            VmMove::Settle(by, seen) => self.settle(&by, seen),
            VmMove::Unmake(by, reserved_by) => Ok(self.unmake(&by, reserved_by)),
            VmMove::Unsettle(by, locked) => Ok(self.unsettle(&by, locked)),
            VmMove::Adopt(by, reserved_by) => self.adopt(&by, &reserved_by).map_err(|other| match other {
                Some(other) => self.locked(&other),
                None => VmRefused::Unknown(self.name().clone()),
            }),
            VmMove::Unadopt(by) => Ok(self.unadopt(&by)),
            VmMove::Saw(before, now) => Ok(self.saw(before, now)),
            VmMove::Release(by, seen) => Ok(self.release(&by, seen)),
            VmMove::KnowHostKey(key) => Ok(VmRecord {
                host_key: Some(key),
                ..self.clone()
            }),
        }
    }
}

/// The name of the only disk of a machine that grew from a seed.
pub fn first_disk() -> DiskName {
    DiskName::new("vda").expect("a good name")
}

#[cfg(test)]
#[path = "vm_tests.rs"]
pub(crate) mod tests;
