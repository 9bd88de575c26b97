//! The state of a VM in one word, and why it is paused.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The state of a VM, from what is desired, what was last observed and which operation is at work on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VmState {
    /// An operation creates or restores it; its domain and disks are incomplete.
    Creating,
    /// It runs, and its guest has not answered yet.
    Starting,
    /// It runs, and its guest has answered since it was started.
    Ready,
    /// Its processors are stopped and its memory is kept; `Vm::pause_reason` says why.
    Paused,
    /// It is shutting down.
    Stopping,
    /// It is off.
    Stopped,
    /// It is being removed.
    Removing,
    /// It should exist, but the hypervisor does not know it. Nothing is erased because of that.
    Missing,
    /// Its host does not report: it is off, or cut off from the bus, or removed. The VM may run.
    Unreachable,
    /// Not known now, because the hypervisor does not answer; or not known to this version.
    #[serde(other)]
    Unknown,
}

impl VmState {
    /// All states.
    pub const ALL: [VmState; 10] = [
        VmState::Creating,
        VmState::Starting,
        VmState::Ready,
        VmState::Paused,
        VmState::Stopping,
        VmState::Stopped,
        VmState::Removing,
        VmState::Missing,
        VmState::Unreachable,
        VmState::Unknown,
    ];

    /// Its name in messages, metrics and texts.
    pub fn name(self) -> &'static str {
        match self {
            VmState::Creating => "creating",
            VmState::Starting => "starting",
            VmState::Ready => "ready",
            VmState::Paused => "paused",
            VmState::Stopping => "stopping",
            VmState::Stopped => "stopped",
            VmState::Removing => "removing",
            VmState::Missing => "missing",
            VmState::Unreachable => "unreachable",
            VmState::Unknown => "unknown",
        }
    }
}

impl fmt::Display for VmState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why a VM is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PauseReason {
    /// A person or program suspended it (`virsh suspend`). It stays paused until it is started.
    User,
    /// A write found no space on the host. It is resumed by itself once there is room again.
    NoSpace,
    /// Another I/O error of a disk.
    IoError,
    /// Anything else that the hypervisor reports: a watchdog, a guest panic, a migration; also a reason of a later
    /// version, because it is observed anew.
    #[serde(other)]
    Other,
}

impl fmt::Display for PauseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PauseReason::User => "suspended at the hypervisor",
            PauseReason::NoSpace => "no space left on the host",
            PauseReason::IoError => "I/O error of a disk",
            PauseReason::Other => "paused by the hypervisor",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_has_one_name_everywhere() {
        for state in VmState::ALL {
            assert_eq!(serde_json::to_value(state).expect("plain data"), state.name());
            assert_eq!(state.to_string(), state.name());
        }
    }

    #[test]
    fn a_state_of_a_later_version_is_unknown() {
        let read: VmState = serde_json::from_str("\"hibernating\"").expect("any state is read");
        assert_eq!(read, VmState::Unknown);
    }
}
