//! The power state of a VM: one type for the hypervisor port, the reconciler and the record.

use std::net::IpAddr;

use contract::provisioner::PauseReason;
use serde::{Deserialize, Serialize};

/// What a VM is doing at the hypervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PowerState {
    /// It runs, or is shutting down.
    Running,
    /// Its processors are stopped; its process and its memory stay.
    Paused(PauseReason),
    /// It is defined and has no process.
    Off,
    /// The hypervisor does not know it.
    Missing,
}

impl PowerState {
    /// Whether it has a process: its disks are in use, and its memory would be lost by a power cut.
    pub fn is_on(self) -> bool {
        matches!(self, PowerState::Running | PowerState::Paused(_))
    }
}

/// What was last observed of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedVmState {
    /// What it is doing.
    pub power: PowerState,
    /// Whether its guest has answered since it was started. A pause does not change that.
    pub ready: bool,
    /// Its address, once known; kept while it is paused.
    pub address: Option<IpAddr>,
    /// Whether the hypervisor has not answered for a while: the rest is what it was before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
    /// Whether it is off, and its guest shut down in order. Kept here because a hypervisor forgets it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub off_in_order: bool,
    /// Whether others have changed its disks at the hypervisor.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disks_changed: bool,
}

impl ObservedVmState {
    /// It is off.
    pub const OFF: ObservedVmState = ObservedVmState::without_guest(PowerState::Off);
    /// The hypervisor does not know it.
    pub const MISSING: ObservedVmState = ObservedVmState::without_guest(PowerState::Missing);

    /// It runs.
    pub const fn running(ready: bool, address: Option<IpAddr>) -> ObservedVmState {
        ObservedVmState { ready, address, ..ObservedVmState::without_guest(PowerState::Running) }
    }

    const fn without_guest(power: PowerState) -> ObservedVmState {
        ObservedVmState {
            power,
            ready: false,
            address: None,
            stale: false,
            off_in_order: false,
            disks_changed: false,
        }
    }

    /// It is off; `in_order` is what the hypervisor says of how it went off.
    pub fn off(before: Option<ObservedVmState>, in_order: Option<bool>) -> ObservedVmState {
        let was_in_order = before.is_some_and(|before| before.off_in_order);
        let off = ObservedVmState::after(before, PowerState::Off);
        ObservedVmState { off_in_order: in_order.unwrap_or(was_in_order), ..off }
    }

    /// It is in a power state, with what was known before where that still holds.
    pub fn after(before: Option<ObservedVmState>, power: PowerState) -> ObservedVmState {
        match before {
            Some(before) if power.is_on() && before.power.is_on() => ObservedVmState { power, ..before },
            Some(before) if power == before.power => before,
            _ => ObservedVmState {
                disks_changed: before.is_some_and(|before| before.disks_changed),
                ..ObservedVmState::without_guest(power)
            },
        }
    }

    /// Why it is paused.
    pub fn pause_reason(&self) -> Option<PauseReason> {
        match self.power {
            PowerState::Paused(reason) => Some(reason),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_vm_went_off_is_known_until_it_is_on_again() {
        let running = Some(ObservedVmState::running(true, None));
        let in_order = |before, said| ObservedVmState::off(before, said).off_in_order;
        assert!(!in_order(running, None), "its host crashed");
        assert!(!in_order(running, Some(false)));
        let off = ObservedVmState::off(running, Some(true));
        assert!(off.off_in_order);
        assert!(in_order(Some(off), None), "the hypervisor has forgotten it");
        assert!(!in_order(Some(off), Some(false)), "it was on in between");
        assert!(!ObservedVmState::after(Some(off), PowerState::Running).off_in_order);
        assert_eq!(ObservedVmState::after(Some(off), PowerState::Off), off);
    }
}
