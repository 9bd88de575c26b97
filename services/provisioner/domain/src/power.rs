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
        ObservedVmState { power, ready: false, address: None, disks_changed: false }
    }

    /// It is in a power state, with what was known before where that still holds.
    pub fn after(before: Option<ObservedVmState>, power: PowerState) -> ObservedVmState {
        match before {
            Some(before) if power.is_on() && before.power.is_on() => ObservedVmState { power, ..before },
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
