//! The lock that an operation holds on a VM that exists: each kind of work, and the answer of each to the same questions.
//! A new kind is a variant here, and an arm where a question has another answer for it.
//!
//! Who may begin, and how work is given up or completed, is the same for all kinds: `transitions`.

use contract::OperationId;
use contract::provisioner::{VmRefused, VmState};
use serde::{Deserialize, Serialize};

use super::{DesiredPowerState, VmRecord};
use crate::power::{ObservedVmState, PowerState};

/// The lock of a VM: which operation holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmLock {
    /// Its id.
    pub by: OperationId,
    /// What it does.
    pub kind: VmLockKind,
    /// What was desired before it began, to go back to.
    pub desired_before: DesiredPowerState,
}

/// What an operation does to a VM that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VmLockKind {
    /// Starts it.
    Starting,
    /// Shuts it down.
    Stopping,
    /// Removes it.
    Removing,
    /// Reads its disks.
    ReadingDisks,
}

impl VmLockKind {
    /// All of them, for properties that hold for each.
    #[cfg(test)]
    pub(super) const ALL: &[VmLockKind] =
        &[VmLockKind::Starting, VmLockKind::Stopping, VmLockKind::Removing, VmLockKind::ReadingDisks];

    /// Its precondition: why it may not begin on a VM on which no operation is at work.
    pub(super) fn check(
        self,
        vm: &VmRecord,
        desired: DesiredPowerState,
        observed: ObservedVmState,
    ) -> Result<(), VmRefused> {
        let already = |state| VmRefused::AlreadyInState { vm: vm.name().clone(), state };
        let refuse_if = |so: bool, refusal: VmRefused| if so { Err(refusal) } else { Ok(()) };
        match self {
            VmLockKind::Starting => {
                let is_ready = desired == DesiredPowerState::Running && vm.state() == VmState::Ready;
                refuse_if(is_ready, already(VmState::Ready))
            }
            VmLockKind::Stopping => {
                let is_off = desired == DesiredPowerState::Off && observed.power == PowerState::Off;
                refuse_if(is_off, already(VmState::Stopped))
            }
            VmLockKind::Removing => Ok(()),
            VmLockKind::ReadingDisks => Ok(()),
        }
    }

    /// What is desired from its beginning on; `None` where it changes nothing about that.
    pub(super) fn desires(self) -> Option<DesiredPowerState> {
        match self {
            VmLockKind::Starting => Some(DesiredPowerState::Running),
            VmLockKind::Stopping => Some(DesiredPowerState::Off),
            VmLockKind::Removing => None,
            VmLockKind::ReadingDisks => None,
        }
    }

    /// The state that is shown meanwhile; `None` where it is the observed one.
    pub(super) fn shows(self) -> Option<VmState> {
        match self {
            VmLockKind::Starting => Some(VmState::Starting),
            VmLockKind::Stopping => Some(VmState::Stopping),
            VmLockKind::Removing => Some(VmState::Removing),
            VmLockKind::ReadingDisks => None,
        }
    }

    /// Whether it changes the VM, so that what the hypervisor reports meanwhile does not count.
    pub(crate) fn changes_vm(self) -> bool {
        self != VmLockKind::ReadingDisks
    }
}

#[cfg(test)]
mod tests {
    use contract::provisioner::PauseReason;

    use super::super::VmPhase;
    use super::super::tests::{begin, complete, existing, name, observed};
    use super::*;

    const PAUSED: PowerState = PowerState::Paused(PauseReason::User);

    fn already(state: VmState) -> Result<VmRecord, VmRefused> {
        Err(VmRefused::AlreadyInState { vm: name("web"), state })
    }

    #[test]
    fn only_a_vm_that_should_run_and_is_ready_is_not_started() {
        assert_eq!(begin(&existing(), 3, VmLockKind::Starting), already(VmState::Ready));
        for power in [PAUSED, PowerState::Off, PowerState::Missing] {
            begin(&observed(power), 3, VmLockKind::Starting).expect("it is not running");
        }
    }

    #[test]
    fn only_a_vm_that_should_be_off_and_is_off_is_not_stopped() {
        for power in [PowerState::Running, PAUSED, PowerState::Off, PowerState::Missing] {
            let stopping = begin(&observed(power), 3, VmLockKind::Stopping).expect("it should run");
            let stopped = complete(&stopping, 3, ObservedVmState::OFF).expect("at work");
            assert_eq!(begin(&stopped, 4, VmLockKind::Stopping), already(VmState::Stopped));
        }
    }

    #[test]
    fn work_on_a_vm_shows_its_state_and_changes_what_is_desired_or_leaves_it() {
        for (kind, shown, wanted) in [
            (VmLockKind::Starting, VmState::Starting, DesiredPowerState::Running),
            (VmLockKind::Stopping, VmState::Stopping, DesiredPowerState::Off),
            (VmLockKind::Removing, VmState::Removing, DesiredPowerState::Running),
            (VmLockKind::ReadingDisks, VmState::Paused, DesiredPowerState::Running),
        ] {
            let working = begin(&observed(PAUSED), 3, kind).expect("free");
            assert_eq!(working.state(), shown, "{kind:?}");
            assert!(
                matches!(working.phase, VmPhase::Exists { desired, .. } if desired == wanted),
                "{kind:?}"
            );
        }
    }
}
