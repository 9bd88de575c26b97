//! The transitions: each takes a record and returns the next one, or a refusal. Every one is idempotent for the
//! operation that makes it, and none takes a VM from another operation.

use contract::OperationId;
use contract::provisioner::{OpenDisksRefused, VmRefused};

use super::{Desired, Phase, VmRecord, Work, WorkKind};
use crate::power::{Observed, Power};

/// A transition as a value, so that it can be sent to the owner of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmTransition {
    /// An operation begins to work on a VM that exists. What is desired changes at once, where that kind of work changes
    /// it.
    Begin {
        /// The operation.
        by: OperationId,
        /// What it does.
        kind: WorkKind,
    },
    /// Reverts `Begin`; a no-op where that operation is not at work.
    GiveUp {
        /// The operation.
        by: OperationId,
    },
    /// The work of an operation is done.
    Complete {
        /// The operation.
        by: OperationId,
        /// How the VM is now.
        observed: Observed,
        /// The guest's SSH host key, where the operation has seen it.
        host_key: Option<String>,
    },
    /// Reverts `Complete`: back to the phase in which the operation had locked the VM. A no-op otherwise.
    Reopen {
        /// The operation.
        by: OperationId,
        /// The phase that its first step left.
        locked: Phase,
    },
    /// Begins to create a VM from a reserved name.
    Adopt {
        /// The operation.
        by: OperationId,
        /// The operation that the name was reserved for.
        reserved_by: OperationId,
    },
    /// Reverts `Adopt`; a no-op otherwise.
    Unadopt {
        /// The operation.
        by: OperationId,
    },
    /// The hypervisor reports something new. A no-op where the record says something else than `before`, or while an
    /// operation changes the VM.
    Observe {
        /// What the record said when the hypervisor was asked.
        before: Observed,
        /// What the hypervisor reported.
        now: Observed,
    },
    /// Frees a VM from an operation that ended and left it locked: what is half created can then be removed.
    Release {
        /// The operation.
        by: OperationId,
        /// How the VM is now.
        observed: Observed,
    },
}

impl VmRecord {
    /// Makes a transition.
    ///
    /// # Errors
    /// [`VmRefused::Locked`] while another operation is at work; [`VmRefused::Unknown`] where the operation is not at
    /// work on this VM; for `Begin` also the precondition of that kind of work.
    pub fn apply(&self, transition: VmTransition) -> Result<VmRecord, VmRefused> {
        match transition {
            VmTransition::Begin { by, kind } => self.begin(&by, kind),
            VmTransition::GiveUp { by } => Ok(self.give_up(&by)),
            VmTransition::Complete { by, observed, host_key } => self.complete(&by, observed, host_key),
            VmTransition::Reopen { by, locked } => Ok(self.reopen(&by, locked)),
            VmTransition::Adopt { by, reserved_by } => self.adopt(&by, &reserved_by),
            VmTransition::Unadopt { by } => Ok(self.unadopt(&by)),
            VmTransition::Observe { before, now } => Ok(self.observe(before, now)),
            VmTransition::Release { by, observed } => Ok(self.release(&by, observed)),
        }
    }

    fn with(&self, phase: Phase) -> VmRecord {
        VmRecord { phase, ..self.clone() }
    }

    /// Why an operation that is not at work on it may not change it.
    fn refusal(&self) -> VmRefused {
        match self.locked_by() {
            Some(by) => VmRefused::Locked { vm: self.name().clone(), by: by.clone() },
            None => VmRefused::Unknown(self.name().clone()),
        }
    }

    fn begin(&self, by: &OperationId, kind: WorkKind) -> Result<VmRecord, VmRefused> {
        let Phase::Exists { desired, observed, work } = &self.phase else {
            return Err(self.refusal());
        };
        match work {
            Some(work) if work.by == *by && work.kind == kind => return Ok(self.clone()),
            Some(_) => return Err(self.refusal()),
            None => {}
        }
        kind.check(self, *desired, *observed)?;
        let wanted = kind.desires().unwrap_or(*desired);
        let work = Some(Work { by: by.clone(), kind, before: *desired });
        Ok(self.with(Phase::Exists { desired: wanted, observed: *observed, work }))
    }

    fn give_up(&self, by: &OperationId) -> VmRecord {
        match &self.phase {
            Phase::Exists { observed, work: Some(work), .. } if work.by == *by => {
                self.with(Phase::Exists { desired: work.before, observed: *observed, work: None })
            }
            _ => self.clone(),
        }
    }

    fn complete(
        &self,
        by: &OperationId,
        observed: Observed,
        host_key: Option<String>,
    ) -> Result<VmRecord, VmRefused> {
        let desired = match &self.phase {
            Phase::Creating { by: creator, .. } if creator == by => Desired::Running,
            Phase::Exists { desired, work: Some(work), .. } if work.by == *by => *desired,
            Phase::Exists { work: None, .. } if self.completed_by.as_ref() == Some(by) => {
                return Ok(self.clone());
            }
            _ => return Err(self.refusal()),
        };
        let mut next = self.with(Phase::Exists { desired, observed, work: None });
        next.completed_by = Some(by.clone());
        next.host_key = host_key.or(next.host_key);
        Ok(next)
    }

    fn reopen(&self, by: &OperationId, locked: Phase) -> VmRecord {
        match &self.phase {
            Phase::Exists { work: None, .. } if self.completed_by.as_ref() == Some(by) => {
                VmRecord { completed_by: None, ..self.with(locked) }
            }
            _ => self.clone(),
        }
    }

    fn adopt(&self, by: &OperationId, reserved_by: &OperationId) -> Result<VmRecord, VmRefused> {
        match &self.phase {
            Phase::Reserved { by: owner } if owner == reserved_by => {
                Ok(self.with(Phase::Creating { by: by.clone(), reserved_by: Some(reserved_by.clone()) }))
            }
            Phase::Creating { by: creator, .. } if creator == by => Ok(self.clone()),
            _ => Err(self.refusal()),
        }
    }

    fn unadopt(&self, by: &OperationId) -> VmRecord {
        match &self.phase {
            Phase::Creating { by: creator, reserved_by: Some(owner) } if creator == by => {
                VmRecord { host_key: None, ..self.with(Phase::Reserved { by: owner.clone() }) }
            }
            _ => self.clone(),
        }
    }

    fn observe(&self, before: Observed, now: Observed) -> VmRecord {
        match &self.phase {
            Phase::Exists { desired, observed, work }
                if *observed == before && work.as_ref().is_none_or(|work| !work.kind.changes_vm()) =>
            {
                self.with(Phase::Exists { desired: *desired, observed: now, work: work.clone() })
            }
            _ => self.clone(),
        }
    }

    fn release(&self, by: &OperationId, now: Observed) -> VmRecord {
        match &self.phase {
            Phase::Creating { by: creator, .. } if creator == by => {
                self.with(Phase::Exists { desired: Desired::Off, observed: now, work: None })
            }
            Phase::Exists { observed, work: Some(work), .. } if work.by == *by => {
                self.give_up(by).observe(*observed, now)
            }
            _ => self.clone(),
        }
    }

    /// Whether an operation may read its disks now.
    ///
    /// # Errors
    /// Another operation is at work on it, or its disks hold nothing to rely on.
    pub fn may_be_read(&self, by: &OperationId) -> Result<(), OpenDisksRefused> {
        let vm = self.name().clone();
        if let Some(other) = self.locked_by().filter(|other| *other != by) {
            return Err(OpenDisksRefused::Busy { vm, by: other.clone() });
        }
        match self.observed() {
            Some(observed) if observed.power != Power::Missing => Ok(()),
            _ => Err(OpenDisksRefused::NotReadable { vm, state: self.state() }),
        }
    }
}
