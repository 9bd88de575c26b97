//! The provisioner, over the bus: each call with its deadline, each error as transient or permanent. What is about disks goes
//! to the provisioner of our own host, whose files and sockets we reach; anything else to any.

use std::time::Duration;

use bus::{Bus, CallError, Destination};
use contract::message::Failure;
use contract::operation::{CancelOperation, GetOperation, OperationReport, OperationState};
use contract::provisioner::{
    CloseDisks, CreateReservedVm, GetVm, Host, ListHosts, OpenDisks, OpenDisksRefused, OpenedDisks,
    ReleaseVmName, RemoveVm, RenewDisks, RenewedLease, ReserveVmName, ReservedVm, Vm, VmRefused,
};
use contract::{HostName, OperationId, Request, Service, VmName};
use operation::call_error;
use saga::StepError;

/// Requests that are answered from memory.
const QUICK: Duration = Duration::from_secs(10);
/// Opening freezes the guest's file systems and starts a backup job; closing ends it.
const EXPORT_MAX: Duration = Duration::from_secs(90);

/// The provisioner, over the bus.
#[derive(Clone)]
pub struct ProvisionerClient {
    bus: Bus,
    here: Destination,
}

/// Whether disk exports are still open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseStatus {
    /// They are, for this long without another renewal.
    Held(Duration),
    /// They are not: the lease ran out, or the provisioner was started again.
    Lost,
}

/// How another service's operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChildOutcome {
    /// It was never begun.
    NeverBegun,
    /// It is done.
    Done,
    /// Everything is as before; this is why.
    Undone(String),
    /// A person is needed.
    Stuck(String),
}

impl ProvisionerClient {
    /// The provisioners on this bus, for the backup service of a host.
    pub fn new(bus: Bus, host: &HostName) -> Self {
        ProvisionerClient { bus, here: Destination::on(Service::Provisioner, host) }
    }

    /// The VM of that name, if there is one.
    ///
    /// # Errors
    /// When the provisioner does not answer.
    pub async fn vm(&self, vm: &VmName) -> Result<Option<Vm>, Failure> {
        match self.bus.call(&GetVm { vm: vm.clone() }, QUICK).await {
            Ok(vm) => Ok(Some(vm)),
            Err(CallError::Refused(VmRefused::UnknownVm(_))) => Ok(None),
            Err(error) => Err(error.into_failure()),
        }
    }

    /// The hosts.
    ///
    /// # Errors
    /// When the provisioner does not answer.
    pub async fn hosts(&self) -> Result<Vec<Host>, Failure> {
        self.bus.call(&ListHosts {}, QUICK).await.map_err(CallError::into_failure)
    }

    async fn call_here<R: Request>(
        &self,
        request: &R,
        deadline: Duration,
    ) -> Result<R::Reply, CallError<R::Refusal>> {
        self.bus.call_at(self.here.clone(), request, deadline).await
    }

    /// Opens exports of the disks of a VM. One that another operation works on may be free soon, so that is transient.
    ///
    /// # Errors
    /// When they are not opened.
    pub async fn open_disks(&self, vm: &VmName, id: &OperationId) -> Result<OpenedDisks, StepError> {
        let open = OpenDisks { vm: vm.clone(), operation_id: id.clone() };
        self.call_here(&open, EXPORT_MAX).await.map_err(|error| match error {
            CallError::Refused(busy @ OpenDisksRefused::Busy { .. }) => {
                StepError::Transient(busy.to_string())
            }
            error => call_error(error),
        })
    }

    /// Renews the lease of the exports.
    ///
    /// # Errors
    /// When the provisioner does not answer.
    pub async fn renew_disks(&self, id: &OperationId) -> Result<LeaseStatus, StepError> {
        let renew = RenewDisks { operation_id: id.clone() };
        match self.call_here(&renew, QUICK).await {
            Ok(RenewedLease { lease_seconds }) => {
                Ok(LeaseStatus::Held(Duration::from_secs(lease_seconds.into())))
            }
            Err(CallError::Refused(_)) => Ok(LeaseStatus::Lost),
            Err(error) => Err(call_error(error)),
        }
    }

    /// Closes the exports; a no-op where they are closed.
    ///
    /// # Errors
    /// When the provisioner does not answer.
    pub async fn close_disks(&self, id: &OperationId) -> Result<(), StepError> {
        let close = CloseDisks { operation_id: id.clone() };
        self.call_here(&close, EXPORT_MAX).await.map(drop).map_err(call_error)
    }

    /// Reserves a name and the paths of its disks.
    ///
    /// # Errors
    /// When they are not reserved.
    pub async fn reserve(&self, reserve: &ReserveVmName) -> Result<ReservedVm, StepError> {
        self.call_here(reserve, QUICK).await.map_err(call_error)
    }

    /// Releases a reserved name.
    ///
    /// # Errors
    /// When the provisioner does not answer.
    pub async fn release(&self, vm: &VmName, id: &OperationId) -> Result<(), StepError> {
        let release = ReleaseVmName { vm: vm.clone(), operation_id: id.clone() };
        self.call_here(&release, EXPORT_MAX).await.map(drop).map_err(call_error)
    }

    /// Begins to create a VM of a reserved name.
    ///
    /// # Errors
    /// When it is not begun.
    pub async fn create_reserved_vm(&self, command: &CreateReservedVm) -> Result<(), StepError> {
        self.call_here(command, QUICK).await.map(drop).map_err(call_error)
    }

    /// Begins to remove a VM; a no-op where there is none.
    ///
    /// # Errors
    /// When it is not begun.
    pub async fn remove(&self, vm: &VmName, id: &OperationId) -> Result<BeginOutcome, StepError> {
        let remove = RemoveVm { vm: vm.clone(), operation_id: Some(id.clone()) };
        match self.bus.call(&remove, QUICK).await {
            Ok(_) => Ok(BeginOutcome::Begun),
            Err(CallError::Refused(VmRefused::UnknownVm(_))) => Ok(BeginOutcome::NothingToDo),
            Err(CallError::Refused(locked @ VmRefused::Locked { .. })) => {
                Err(StepError::Transient(locked.to_string()))
            }
            Err(error) => Err(call_error(error)),
        }
    }

    /// An operation of the provisioner, if it was begun.
    ///
    /// # Errors
    /// When the provisioner does not answer.
    pub async fn operation(&self, id: &OperationId) -> Result<Option<OperationReport>, StepError> {
        let get = GetOperation { id: id.clone() };
        match self.bus.call_at(Service::Provisioner, &get, QUICK).await {
            Ok(report) => Ok(Some(report)),
            Err(CallError::Refused(_)) => Ok(None),
            Err(error) => Err(call_error(error)),
        }
    }

    /// Cancels an operation of the provisioner.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn cancel(&self, id: &OperationId) -> Result<(), StepError> {
        let cancel = CancelOperation { id: id.clone() };
        match self.bus.call_at(Service::Provisioner, &cancel, QUICK).await {
            // One that was never begun need not be cancelled.
            Ok(_) | Err(CallError::Refused(_)) => Ok(()),
            Err(error) => Err(call_error(error)),
        }
    }

    /// Waits for the end of one of its operations.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn outcome(&self, id: &OperationId, timeout: Duration) -> Result<ChildOutcome, StepError> {
        let why = |report: OperationReport| report.reason.unwrap_or_else(|| "no reason was given".into());
        match operation::wait_for_operation(&self.bus, Service::Provisioner, id, timeout, |_| {}).await {
            Ok(report) => Ok(match report.state {
                OperationState::Done => ChildOutcome::Done,
                OperationState::Stuck => ChildOutcome::Stuck(why(report)),
                OperationState::Undone
                | OperationState::Running
                | OperationState::Undoing
                | OperationState::Unknown => ChildOutcome::Undone(why(report)),
            }),
            Err(CallError::Refused(_)) => Ok(ChildOutcome::NeverBegun),
            Err(error) => Err(call_error(error)),
        }
    }
}

/// Whether an operation was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeginOutcome {
    /// It was begun, now or before.
    Begun,
    /// Everything is so already.
    NothingToDo,
}
