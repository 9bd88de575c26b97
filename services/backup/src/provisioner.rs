//! What we ask of the provisioner: each question with its deadline, each answer sorted into what passes by waiting
//! and what does not.

use std::time::Duration;

use bus::{Bus, CallError};
use contract::operation::{CancelOperation, GetOperation, OperationReport, OperationState};
use contract::provisioner::{
    AdoptVm, AdoptVmRefused, CloseDisks, GetVm, OpenDisks, OpenDisksRefused, OpenedDisks, ReleaseVm,
    RemoveVm, RenewDisks, Renewed, ReserveVm, ReservedVm, VmRefused,
};
use contract::message::Failure;
use contract::{OperationId, Service, VmName};
use saga::Trouble;

/// Questions that are answered from what the provisioner knows.
const QUICK: Duration = Duration::from_secs(10);
/// Opening freezes the guest's file systems and starts a backup job; closing ends it.
const DISK_EXPORTS: Duration = Duration::from_secs(90);

/// The provisioner, over the bus.
#[derive(Clone)]
pub struct Provisioner(Bus);

/// Whether doors still stand open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// They do, for this long without another renewal.
    Goes(Duration),
    /// They do not: the lease ran out, or the provisioner was started again.
    Gone,
}

/// How another service's operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Child {
    /// It was never begun.
    Unknown,
    /// It is done.
    Done,
    /// The world is as before; this is why.
    Undone(String),
    /// A person is needed.
    Stuck(String),
}

/// Trouble of a call that was not refused: it passes or it does not, as the error says.
fn trouble<F: std::fmt::Debug + std::fmt::Display>(error: CallError<F>) -> Trouble {
    if error.is_transient() { Trouble::Passing(error.to_string()) } else { Trouble::Final(error.to_string()) }
}

impl Provisioner {
    /// Speaks to the provisioner on this bus.
    pub fn new(bus: Bus) -> Self {
        Provisioner(bus)
    }

    /// Whether there is a machine of that name.
    ///
    /// # Errors
    /// When the provisioner does not say.
    pub async fn has_vm(&self, vm: &VmName) -> Result<bool, Failure> {
        match self.0.call(&GetVm { vm: vm.clone() }, QUICK).await {
            Ok(_) => Ok(true),
            Err(CallError::Refused(VmRefused::Unknown(_))) => Ok(false),
            Err(error) => Err(error.into_failure()),
        }
    }

    /// Opens the disks; a machine at which somebody else is at work may be free soon.
    ///
    /// # Errors
    /// When they are not opened.
    pub async fn open_disks(&self, vm: &VmName, id: &OperationId) -> Result<OpenedDisks, Trouble> {
        let open = OpenDisks { vm: vm.clone(), operation_id: id.clone() };
        self.0.call(&open, DISK_EXPORTS).await.map_err(|error| match error {
            CallError::Refused(busy @ OpenDisksRefused::Busy { .. }) => Trouble::Passing(busy.to_string()),
            error => trouble(error),
        })
    }

    /// Renews the lease.
    ///
    /// # Errors
    /// When the provisioner does not say whether they stand open.
    pub async fn renew_disks(&self, id: &OperationId) -> Result<Lease, Trouble> {
        let renew = RenewDisks { operation_id: id.clone() };
        match self.0.call(&renew, QUICK).await {
            Ok(Renewed { lease_seconds }) => Ok(Lease::Goes(Duration::from_secs(lease_seconds.into()))),
            Err(CallError::Refused(_)) => Ok(Lease::Gone),
            Err(error) => Err(trouble(error)),
        }
    }

    /// Closes the disks.
    ///
    /// # Errors
    /// When the provisioner does not answer.
    pub async fn close_disks(&self, id: &OperationId) -> Result<(), Trouble> {
        let close = CloseDisks { operation_id: id.clone() };
        self.0.call(&close, DISK_EXPORTS).await.map(drop).map_err(trouble)
    }

    /// Reserves a name and the places of its disks.
    ///
    /// # Errors
    /// When they are not reserved.
    pub async fn reserve(&self, reserve: &ReserveVm) -> Result<ReservedVm, Trouble> {
        self.0.call(reserve, QUICK).await.map_err(trouble)
    }

    /// Gives a reserved name back.
    ///
    /// # Errors
    /// When the provisioner does not answer.
    pub async fn release(&self, vm: &VmName, id: &OperationId) -> Result<(), Trouble> {
        let release = ReleaseVm { vm: vm.clone(), operation_id: id.clone() };
        self.0.call(&release, DISK_EXPORTS).await.map(drop).map_err(trouble)
    }

    /// Begins to make a machine of a reserved name.
    ///
    /// # Errors
    /// When it is not begun.
    pub async fn adopt(&self, adopt: &AdoptVm) -> Result<(), Trouble> {
        self.0.call(adopt, QUICK).await.map(drop).map_err(trouble::<AdoptVmRefused>)
    }

    /// Begins to remove a machine; one that is not there is removed.
    ///
    /// # Errors
    /// When it is not begun.
    pub async fn remove(&self, vm: &VmName, id: &OperationId) -> Result<Begin, Trouble> {
        let remove = RemoveVm { vm: vm.clone(), operation_id: Some(id.clone()) };
        match self.0.call(&remove, QUICK).await {
            Ok(_) => Ok(Begin::Begun),
            Err(CallError::Refused(VmRefused::Unknown(_))) => Ok(Begin::NothingToDo),
            Err(CallError::Refused(locked @ VmRefused::Locked { .. })) => {
                Err(Trouble::Passing(locked.to_string()))
            }
            Err(error) => Err(trouble(error)),
        }
    }

    /// An operation of the provisioner, if it was begun.
    ///
    /// # Errors
    /// When the provisioner does not answer.
    pub async fn operation(&self, id: &OperationId) -> Result<Option<OperationReport>, Trouble> {
        let get = GetOperation { id: id.clone() };
        match self.0.call_at(Service::Provisioner, &get, QUICK).await {
            Ok(report) => Ok(Some(report)),
            Err(CallError::Refused(_)) => Ok(None),
            Err(error) => Err(trouble(error)),
        }
    }

    /// Asks the provisioner to give an operation up.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn cancel(&self, id: &OperationId) -> Result<(), Trouble> {
        let cancel = CancelOperation { id: id.clone() };
        match self.0.call_at(Service::Provisioner, &cancel, QUICK).await {
            // One that was never begun need not be given up.
            Ok(_) | Err(CallError::Refused(_)) => Ok(()),
            Err(error) => Err(trouble(error)),
        }
    }

    /// Waits for the end of one of its operations.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn outcome(&self, id: &OperationId, patience: Duration) -> Result<Child, Trouble> {
        let why = |report: OperationReport| report.reason.unwrap_or_else(|| "it does not say why".into());
        match operation::wait_for_operation(&self.0, Service::Provisioner, id, patience, |_| {}).await {
            Ok(report) => Ok(match report.state {
                OperationState::Done => Child::Done,
                OperationState::Stuck => Child::Stuck(why(report)),
                OperationState::Undone | OperationState::Running | OperationState::Undoing => {
                    Child::Undone(why(report))
                }
            }),
            Err(CallError::Refused(_)) => Ok(Child::Unknown),
            Err(error) => Err(trouble(error)),
        }
    }
}

/// Whether there was something to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// It was begun, now or before.
    Begun,
    /// The world is so already.
    NothingToDo,
}
