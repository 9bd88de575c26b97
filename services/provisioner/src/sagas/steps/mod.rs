//! Steps that several sagas share. Every saga about a VM begins with a step `lock`, whose output is the VM's record as it
//! was locked; the steps here read it from there.
//!
//! `lock` takes and frees the record, `power` asks and restores the power state, `boot` defines and starts, `ready` waits
//! for the guest, `shutdown` ends it, `complete` writes the result, `error` decides which errors are transient.

mod boot;
mod complete;
mod error;
mod lock;
mod power;
mod ready;
mod shutdown;

use std::time::Duration;

use contract::message::VmCommand;
use provisioner_domain::VmLockKind;
use saga::{Step, StepFn};
use serde::Serialize;

pub(super) use boot::{define, destroy, start, undefine};
pub(super) use complete::{complete, complete_as, revert_complete};
pub(super) use error::{disk_error, hypervisor_error, shell_error};
pub(super) use lock::{apply, lock, locked_record, own_record, unlock};
pub(super) use power::{power, restore_power};
pub(super) use ready::{Ready, guest_of, ready};
pub(super) use shutdown::shut_down;

/// A step that reads, or writes one row or file.
pub(super) const QUICK: Duration = Duration::from_secs(60);
/// One call to the hypervisor; libvirt itself waits half a minute for another job.
const HYPERVISOR_CALL: Duration = Duration::from_secs(120);
/// How long a hypervisor that is down is waited for.
pub(super) const HYPERVISOR_RETRY: Duration = Duration::from_secs(180);
/// A guest that restarts its SSH server, or is slow.
pub(super) const GUEST_RETRY: Duration = Duration::from_secs(120);
/// Above the longest wait for readiness that settings allow; the wait itself ends as the settings say.
pub(super) const READY_MAX: Duration = Duration::from_secs(7200 + 300);

/// A step that makes one call to the hypervisor, which is waited for while it is down.
pub(super) fn hypervisor_call<C: 'static, T: Serialize + 'static>(
    name: &'static str,
    act: impl for<'a> StepFn<'a, C, T> + Send + Sync + 'static,
) -> Step<C> {
    Step::new(name, HYPERVISOR_CALL, act).retrying_for(HYPERVISOR_RETRY)
}

/// A command whose saga locks a VM that exists.
pub(crate) trait VmLockingCommand: VmCommand {
    /// What it does to the VM.
    const KIND: VmLockKind;
}
