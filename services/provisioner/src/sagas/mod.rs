//! The provisioner's work that lasts. Each file has four parts: what it needs, its steps (act and undo side by
//! side), their order, the step functions. All of them pass `saga::harness` on the simulated state
//! (`tests/rehearsals.rs`): each step twice, failure at each step, a crash after each record.
//!
//! ```text
//!   add_seed    expect > import > keep
//!   create_vm   reserve > disk > define > start > ready > install > finish
//!   adopt_vm    take > volume > define > start > ready > finish
//!   start_vm    lock > start > ready > finish
//!   stop_vm     lock > shut_down > finish
//!   remove_vm   lock > power_off > undefine > set_aside > forget       (what is set aside is discarded later)
//! ```

pub mod add_seed;
pub mod adopt_vm;
pub mod create_vm;
mod machine;
mod ready;
pub mod remove_vm;
pub mod start_vm;
pub mod stop_vm;

use std::sync::Arc;
use std::time::Duration;

use bus::Declined;
use contract::message::{Failure, FailureKind};
use contract::{OperationId, Realm};
use operation::Context;
use provisioner_domain::VmRecord;
use provisioner_domain::export::LEASE;
use saga::Trouble;

use crate::actors::RegistryHandle;
use crate::ports::{DiskError, Disks, GuestShell, Hypervisor, HypervisorError};

pub(crate) use machine::disks_of;
pub use machine::machine_of;

/// What steps act on.
pub struct ServiceState {
    /// The records.
    pub registry: RegistryHandle,
    /// Machines.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// Disks.
    pub disks: Arc<dyn Disks>,
    /// The inside of machines.
    pub shell: Arc<dyn GuestShell>,
    /// The realm, for the mark on everything we make.
    pub realm: Realm,
    /// How patient to be.
    pub limits: Limits,
}

/// How patient to be with guests.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From its start until a machine answers.
    pub ready_within: Duration,
    /// Between two looks at a guest that boots or stops.
    pub look_again: Duration,
    /// How long the agent has to stop its guest before the power button is tried.
    pub agent_stop: Duration,
    /// How long the power button has before the plug is pulled.
    pub button_stop: Duration,
    /// How long a guest may take to hold back its writes before its disks are read as they are.
    pub freeze_within: Duration,
    /// How long a export stays open without being renewed.
    pub lease: Duration,
    /// Between two rounds of the reconciler.
    pub reconcile_every: Duration,
}

impl Limits {
    /// The usual patience: three minutes to stop, and as long to boot as the settings say.
    pub fn usual(ready_within: Duration) -> Limits {
        Limits {
            ready_within,
            look_again: Duration::from_millis(500),
            agent_stop: Duration::from_secs(90),
            button_stop: Duration::from_secs(90),
            // Above the hypervisor's own patience with an agent: a freeze must not come after its thaw.
            freeze_within: Duration::from_secs(40),
            lease: LEASE,
            reconcile_every: Duration::from_secs(10),
        }
    }
}

/// A step that only looks, or writes one row.
const MOMENT: Duration = Duration::from_secs(60);
/// A step that asks the hypervisor for one deed; libvirt itself waits half a minute for another's job.
const DEED: Duration = Duration::from_secs(120);
/// How long a hypervisor that is down is waited for.
const HYPERVISOR_PATIENCE: Duration = Duration::from_secs(180);
/// Above the longest wait for readiness that settings may ask for; the wait itself has the settings' end.
const READY_LIMIT: Duration = Duration::from_secs(7200 + 300);

fn of_hypervisor(error: HypervisorError) -> Trouble {
    match error {
        HypervisorError::Unavailable(reason) | HypervisorError::AgentSilent(reason) => {
            Trouble::Passing(reason)
        }
        HypervisorError::Unknown(reason) | HypervisorError::Failed(reason) => Trouble::Final(reason),
    }
}

fn of_disks(error: DiskError) -> Trouble {
    let reason = chain(&error);
    match error {
        DiskError::Unfit(_) => Trouble::Final(reason),
        DiskError::Io { .. } | DiskError::Tool { .. } | DiskError::Fetch { .. } => Trouble::Passing(reason),
    }
}

fn of_registry<R: std::fmt::Display>(declined: Declined<R>) -> Trouble {
    match declined {
        Declined::Refused(refusal) => Trouble::Final(refusal.to_string()),
        Declined::Failed(failure) => of_failure(failure),
    }
}

fn of_failure(failure: Failure) -> Trouble {
    match failure.kind {
        FailureKind::Busy | FailureKind::Unavailable | FailureKind::TimedOut => {
            Trouble::Passing(failure.message)
        }
        _ => Trouble::Final(failure.message),
    }
}

/// An error with its causes in one sentence.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        text = format!("{text}: {deeper}");
        cause = deeper.source();
    }
    text
}

/// The record that an operation works on, as long as it is this operation's to work on.
async fn own_record<I>(
    context: &Context<ServiceState, I>,
    vm: &contract::VmName,
) -> Result<Option<VmRecord>, Trouble> {
    let inventory = context.state.registry.look().await.map_err(of_failure)?;
    let ours = |record: &&VmRecord| is_of(record, &context.id);
    Ok(inventory.vm(vm).filter(ours).cloned())
}

/// Whether a record is being worked on, or was last brought to an end, by an operation.
fn is_of(record: &VmRecord, operation: &OperationId) -> bool {
    record.locked_by() == Some(operation)
        || (record.locked_by().is_none() && record.settled_by.as_ref() == Some(operation))
}
