//! The moves: each takes a record and gives the next one, or a refusal. Every one bears being made twice by the same
//! operation, and none takes a machine away from another.

use contract::OperationId;
use contract::provisioner::{OpenDisksRefused, VmRefused};

use super::{Desired, Phase, Seen, VmRecord, Work, WorkKind};

impl VmRecord {
    fn with(&self, phase: Phase) -> VmRecord {
        VmRecord { phase, ..self.clone() }
    }

    fn locked(&self, by: &OperationId) -> VmRefused {
        VmRefused::Locked { vm: self.name().clone(), by: by.clone() }
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
        let already = |state: &str| Err(VmRefused::Already { vm: self.name().clone(), state: state.into() });
        let wanted = match (kind, desired, seen) {
            (WorkKind::Starting, Desired::Running, Seen::Running { ready: true, .. }) => {
                return already("running");
            }
            (WorkKind::Stopping, Desired::Off, Seen::Off) => return already("stopped"),
            (WorkKind::Starting, ..) => Desired::Running,
            (WorkKind::Stopping, ..) => Desired::Off,
            (WorkKind::Removing | WorkKind::Reading, ..) => desired,
        };
        let work = Some(Work { by: by.clone(), kind, before: desired });
        Ok(self.with(Phase::Living { desired: wanted, seen, work }))
    }

    /// Takes back what [`VmRecord::begin`] did. Calm where that operation is not at work.
    pub fn give_up(&self, by: &OperationId) -> VmRecord {
        match &self.phase {
            Phase::Living { seen, work: Some(work), .. } if work.by == *by => {
                self.with(Phase::Living { desired: work.before, seen: *seen, work: None })
            }
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
            Phase::Living { desired, work: Some(work), .. } if work.by == *by => *desired,
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
        let mut next = self.with(Phase::Living { desired, seen, work: None });
        next.settled_by = Some(by.clone());
        Ok(next)
    }

    /// Takes back the [`VmRecord::settle`] of an operation that made it: it is being made again. Calm otherwise.
    pub fn unmake(&self, by: &OperationId, reserved_by: Option<OperationId>) -> VmRecord {
        match &self.phase {
            Phase::Living { work: None, .. } if self.settled_by.as_ref() == Some(by) => {
                let mut next = self.with(Phase::Creating { by: by.clone(), reserved_by });
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
            Phase::Reserved { by: owner } if owner == reserved_by => {
                Ok(self.with(Phase::Creating { by: by.clone(), reserved_by: Some(reserved_by.clone()) }))
            }
            Phase::Creating { by: maker, .. } if maker == by => Ok(self.clone()),
            _ => Err(self.locked_by().cloned()),
        }
    }

    /// Takes back what [`VmRecord::adopt`] did. Calm otherwise.
    pub fn unadopt(&self, by: &OperationId) -> VmRecord {
        match &self.phase {
            Phase::Creating { by: maker, reserved_by: Some(owner) } if maker == by => {
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
            return Err(OpenDisksRefused::Busy { vm, by: other.clone() });
        }
        match &self.phase {
            Phase::Living { seen: Seen::Running { .. } | Seen::Off, .. } => Ok(()),
            _ => {
                Err(OpenDisksRefused::NotReadable { vm, state: format!("{:?}", self.state()).to_lowercase() })
            }
        }
    }

    /// Takes over what the hypervisor says, if the record still says what it said when the hypervisor was looked at.
    /// Calm while an operation changes the machine: it knows better.
    pub fn saw(&self, before: Seen, now: Seen) -> VmRecord {
        match &self.phase {
            Phase::Living { desired, seen, work }
                if *seen == before && work.as_ref().is_none_or(|work| work.kind == WorkKind::Reading) =>
            {
                self.with(Phase::Living { desired: *desired, seen: now, work: work.clone() })
            }
            _ => self.clone(),
        }
    }

    /// Frees it from an operation that ended and left it behind: what was half made can then be removed.
    pub fn release(&self, by: &OperationId, seen: Seen) -> VmRecord {
        match &self.phase {
            Phase::Creating { by: maker, .. } if maker == by => {
                self.with(Phase::Living { desired: Desired::Off, seen, work: None })
            }
            Phase::Living { seen: before, work: Some(work), .. } if work.by == *by => {
                self.give_up(by).saw(*before, seen)
            }
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
            VmMove::KnowHostKey(key) => Ok(VmRecord { host_key: Some(key), ..self.clone() }),
        }
    }
}
