//! The transitions: each takes a record and returns the next one, or a refusal. Every one is idempotent for the
//! operation that makes it, and none takes a VM from another operation.

use contract::OperationId;
use contract::provisioner::{OpenDisksRefused, VmRefused};

use super::{DesiredPowerState, VmLock, VmLockKind, VmPhase, VmRecord};
use crate::power::{ObservedVmState, PowerState};

/// A transition as a value, so that it can be sent to the owner of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmTransition {
    /// An operation begins to work on a VM that exists. What is desired changes at once, where that kind of work changes
    /// it.
    Begin {
        /// The operation.
        by: OperationId,
        /// What it does.
        kind: VmLockKind,
    },
    /// Reverts `Begin`; a no-op where that operation is not at work.
    RevertBegin {
        /// The operation.
        by: OperationId,
    },
    /// The work of an operation is done.
    Complete {
        /// The operation.
        by: OperationId,
        /// How the VM is now.
        observed: ObservedVmState,
        /// The guest's SSH host key, where the operation has seen it.
        host_key: Option<String>,
    },
    /// Reverts `Complete`: back to the phase in which the operation had locked the VM. A no-op otherwise.
    RevertComplete {
        /// The operation.
        by: OperationId,
        /// The phase that its first step left.
        locked: VmPhase,
    },
    /// Begins to create a VM from a reserved name.
    BeginReserved {
        /// The operation.
        by: OperationId,
        /// The operation that the name was reserved for.
        reserved_by: OperationId,
    },
    /// Reverts `BeginReserved`; a no-op otherwise.
    RevertBeginReserved {
        /// The operation.
        by: OperationId,
    },
    /// The hypervisor reports something new. A no-op where the record says something else than `before`, or while an
    /// operation changes the VM.
    RecordObservation {
        /// What the record said when the hypervisor was asked.
        before: ObservedVmState,
        /// What the hypervisor reported.
        now: ObservedVmState,
    },
    /// Frees a VM from an operation that ended and left it locked: what is half created can then be removed.
    Release {
        /// The operation.
        by: OperationId,
        /// How the VM is now.
        observed: ObservedVmState,
    },
}

impl VmRecord {
    /// Makes a transition.
    ///
    /// # Errors
    /// [`VmRefused::Locked`] while another operation is at work; [`VmRefused::UnknownVm`] where the operation is not at
    /// work on this VM; for `Begin` also the precondition of that kind of work.
    pub fn apply(&self, transition: VmTransition) -> Result<VmRecord, VmRefused> {
        match transition {
            VmTransition::Begin { by, kind } => self.begin(&by, kind),
            VmTransition::RevertBegin { by } => Ok(self.revert_begin(&by)),
            VmTransition::Complete { by, observed, host_key } => self.complete(&by, observed, host_key),
            VmTransition::RevertComplete { by, locked } => Ok(self.revert_complete(&by, locked)),
            VmTransition::BeginReserved { by, reserved_by } => self.begin_reserved(&by, &reserved_by),
            VmTransition::RevertBeginReserved { by } => Ok(self.revert_begin_reserved(&by)),
            VmTransition::RecordObservation { before, now } => Ok(self.observe(before, now)),
            VmTransition::Release { by, observed } => Ok(self.release(&by, observed)),
        }
    }

    fn with(&self, phase: VmPhase) -> VmRecord {
        VmRecord { phase, ..self.clone() }
    }

    /// Why an operation that is not at work on it may not change it.
    fn refusal(&self) -> VmRefused {
        match self.locked_by() {
            Some(by) => VmRefused::Locked { vm: self.name().clone(), by: by.clone() },
            None => VmRefused::UnknownVm(self.name().clone()),
        }
    }

    fn begin(&self, by: &OperationId, kind: VmLockKind) -> Result<VmRecord, VmRefused> {
        let VmPhase::Exists { desired, observed, lock } = &self.phase else {
            return Err(self.refusal());
        };
        match lock {
            Some(lock) if lock.by == *by && lock.kind == kind => return Ok(self.clone()),
            Some(_) => return Err(self.refusal()),
            None => {}
        }
        kind.check(self, *desired, *observed)?;
        let wanted = kind.desires().unwrap_or(*desired);
        let lock = Some(VmLock { by: by.clone(), kind, desired_before: *desired });
        Ok(self.with(VmPhase::Exists { desired: wanted, observed: *observed, lock }))
    }

    fn revert_begin(&self, by: &OperationId) -> VmRecord {
        match &self.phase {
            VmPhase::Exists { observed, lock: Some(lock), .. } if lock.by == *by => {
                self.with(VmPhase::Exists { desired: lock.desired_before, observed: *observed, lock: None })
            }
            _ => self.clone(),
        }
    }

    fn complete(
        &self,
        by: &OperationId,
        observed: ObservedVmState,
        host_key: Option<String>,
    ) -> Result<VmRecord, VmRefused> {
        let desired = match &self.phase {
            VmPhase::Creating { by: creator, .. } if creator == by => DesiredPowerState::Running,
            VmPhase::Exists { desired, lock: Some(lock), .. } if lock.by == *by => *desired,
            VmPhase::Exists { lock: None, .. } if self.last_completed_operation.as_ref() == Some(by) => {
                return Ok(self.clone());
            }
            _ => return Err(self.refusal()),
        };
        let disks_changed = self.observed().is_some_and(|before| before.disks_changed);
        let observed = ObservedVmState { disks_changed, ..observed };
        let mut next = self.with(VmPhase::Exists { desired, observed, lock: None });
        next.last_completed_operation = Some(by.clone());
        next.host_key = host_key.or(next.host_key);
        Ok(next)
    }

    fn revert_complete(&self, by: &OperationId, locked: VmPhase) -> VmRecord {
        match &self.phase {
            VmPhase::Exists { lock: None, .. } if self.last_completed_operation.as_ref() == Some(by) => {
                VmRecord { last_completed_operation: None, ..self.with(locked) }
            }
            _ => self.clone(),
        }
    }

    fn begin_reserved(&self, by: &OperationId, reserved_by: &OperationId) -> Result<VmRecord, VmRefused> {
        match &self.phase {
            VmPhase::Reserved { by: owner } if owner == reserved_by => {
                Ok(self.with(VmPhase::Creating { by: by.clone(), reserved_by: Some(reserved_by.clone()) }))
            }
            VmPhase::Creating { by: creator, .. } if creator == by => Ok(self.clone()),
            _ => Err(self.refusal()),
        }
    }

    fn revert_begin_reserved(&self, by: &OperationId) -> VmRecord {
        match &self.phase {
            VmPhase::Creating { by: creator, reserved_by: Some(owner) } if creator == by => {
                VmRecord { host_key: None, ..self.with(VmPhase::Reserved { by: owner.clone() }) }
            }
            _ => self.clone(),
        }
    }

    fn observe(&self, before: ObservedVmState, now: ObservedVmState) -> VmRecord {
        match &self.phase {
            VmPhase::Exists { desired, observed, lock }
                if *observed == before && lock.as_ref().is_none_or(|lock| !lock.kind.changes_vm()) =>
            {
                self.with(VmPhase::Exists { desired: *desired, observed: now, lock: lock.clone() })
            }
            _ => self.clone(),
        }
    }

    fn release(&self, by: &OperationId, now: ObservedVmState) -> VmRecord {
        match &self.phase {
            VmPhase::Creating { by: creator, .. } if creator == by => {
                self.with(VmPhase::Exists { desired: DesiredPowerState::Off, observed: now, lock: None })
            }
            VmPhase::Exists { observed, lock: Some(lock), .. } if lock.by == *by => {
                self.revert_begin(by).observe(*observed, now)
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
            Some(observed) if observed.power != PowerState::Missing => Ok(()),
            _ => Err(OpenDisksRefused::NotReadable { vm, state: self.state() }),
        }
    }
}
