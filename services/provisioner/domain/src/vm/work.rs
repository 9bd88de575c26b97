//! What an operation does to a VM that exists: each kind of work, and the answer of each to the same questions. A new
//! kind is a variant here, and an arm where a question has another answer for it.
//!
//! Who may begin, and how work is given up or completed, is the same for all kinds: `transitions`.

use contract::OperationId;
use contract::provisioner::{VmRefused, VmState};
use serde::{Deserialize, Serialize};

use super::{Desired, VmRecord};
use crate::power::{Observed, Power};

/// An operation at work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Its id.
    pub by: OperationId,
    /// What it does.
    pub kind: WorkKind,
    /// What was desired before it began, to go back to.
    pub before: Desired,
}

/// What an operation does to a VM that exists.
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

impl WorkKind {
    /// All of them, for properties that hold for each.
    #[cfg(test)]
    pub(super) const ALL: &[WorkKind] =
        &[WorkKind::Starting, WorkKind::Stopping, WorkKind::Removing, WorkKind::Reading];

    /// Its precondition: why it may not begin on a VM on which no operation is at work.
    pub(super) fn check(self, vm: &VmRecord, desired: Desired, observed: Observed) -> Result<(), VmRefused> {
        let already = |state| VmRefused::Already { vm: vm.name().clone(), state };
        let refuse_if = |so: bool, refusal: VmRefused| if so { Err(refusal) } else { Ok(()) };
        match self {
            WorkKind::Starting => {
                let is_ready = desired == Desired::Running && vm.state() == VmState::Ready;
                refuse_if(is_ready, already(VmState::Ready))
            }
            WorkKind::Stopping => {
                let is_off = desired == Desired::Off && observed.power == Power::Off;
                refuse_if(is_off, already(VmState::Stopped))
            }
            WorkKind::Removing => Ok(()),
            WorkKind::Reading => Ok(()),
        }
    }

    /// What is desired from its beginning on; `None` where it changes nothing about that.
    pub(super) fn desires(self) -> Option<Desired> {
        match self {
            WorkKind::Starting => Some(Desired::Running),
            WorkKind::Stopping => Some(Desired::Off),
            WorkKind::Removing => None,
            WorkKind::Reading => None,
        }
    }

    /// The state that is shown meanwhile; `None` where it is the observed one.
    pub(super) fn shows(self) -> Option<VmState> {
        match self {
            WorkKind::Starting => Some(VmState::Starting),
            WorkKind::Stopping => Some(VmState::Stopping),
            WorkKind::Removing => Some(VmState::Removing),
            WorkKind::Reading => None,
        }
    }

    /// Whether it changes the VM, so that what the hypervisor reports meanwhile does not count.
    pub(crate) fn changes_vm(self) -> bool {
        self != WorkKind::Reading
    }
}

#[cfg(test)]
mod tests {
    use contract::provisioner::PauseReason;

    use super::super::Phase;
    use super::super::tests::{begin, complete, existing, name, observed};
    use super::*;

    const PAUSED: Power = Power::Paused(PauseReason::User);

    fn already(state: VmState) -> Result<VmRecord, VmRefused> {
        Err(VmRefused::Already { vm: name("web"), state })
    }

    #[test]
    fn only_a_vm_that_should_run_and_is_ready_is_not_started() {
        assert_eq!(begin(&existing(), 3, WorkKind::Starting), already(VmState::Ready));
        for power in [PAUSED, Power::Off, Power::Missing] {
            begin(&observed(power), 3, WorkKind::Starting).expect("it is not running");
        }
    }

    #[test]
    fn only_a_vm_that_should_be_off_and_is_off_is_not_stopped() {
        for power in [Power::Running, PAUSED, Power::Off, Power::Missing] {
            let stopping = begin(&observed(power), 3, WorkKind::Stopping).expect("it should run");
            let stopped = complete(&stopping, 3, Observed::OFF).expect("at work");
            assert_eq!(begin(&stopped, 4, WorkKind::Stopping), already(VmState::Stopped));
        }
    }

    #[test]
    fn work_on_a_vm_shows_its_state_and_changes_what_is_desired_or_leaves_it() {
        for (kind, shown, wanted) in [
            (WorkKind::Starting, VmState::Starting, Desired::Running),
            (WorkKind::Stopping, VmState::Stopping, Desired::Off),
            (WorkKind::Removing, VmState::Removing, Desired::Running),
            (WorkKind::Reading, VmState::Paused, Desired::Running),
        ] {
            let working = begin(&observed(PAUSED), 3, kind).expect("free");
            assert_eq!(working.state(), shown, "{kind:?}");
            assert!(matches!(working.phase, Phase::Exists { desired, .. } if desired == wanted), "{kind:?}");
        }
    }
}
