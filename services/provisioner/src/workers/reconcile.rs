//! The reconciler: compares what should be with what is, and carries out what the domain decides.
//!
//! It keeps only what it has reported and tried. A round that the hypervisor does not answer fails; the next one asks
//! for everything again.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::{ErrorReply, TableError};
use chassis::Worker;
use contract::message::{Failure, with_causes};
use contract::provisioner::StartVm;
use contract::{OperationId, Service, VmName, VmUuid};
use opentelemetry::KeyValue;
use operation::{Engine, PendingCommand, new_id};
use provisioner_domain::reconcile::{self, decide};
use provisioner_domain::{
    FoundVm, FreeSpaceHysteresis, Inventory, OperationStatus, PowerState, ReconcileAction, VmRecord,
    VmRetryBackoff, VmTransition,
};

use super::outcomes::{outcome_of, outcomes};
use crate::metrics;
use crate::ports::{DiskError, HypervisorError, HypervisorErrorKind, MarkedVm, disk_changes};
use crate::state::ServiceState;
use crate::vm_spec::disks_of;

/// A VM that went off by itself is started again at once, then after this long, then after twice as long, up to the
/// maximum.
const START_PAUSE_FIRST: Duration = Duration::from_secs(10);
const START_PAUSE_MAX: Duration = Duration::from_secs(600);
/// The same for a VM that is paused for lack of space again and again: each time its guest writes until it is paused.
const RESUME_PAUSE_FIRST: Duration = Duration::from_secs(30);
const RESUME_PAUSE_MAX: Duration = Duration::from_secs(600);
/// Changes often come in groups: between two rounds there is at least this long.
const GROUP: Duration = Duration::from_millis(50);
/// One round: a few calls to the hypervisor for each VM.
const ROUND_MAX: Duration = Duration::from_secs(600);

/// The worker.
pub struct VmReconciler {
    state: Arc<ServiceState>,
    engine: Engine,
    reported: HashSet<VmUuid>,
    starts: VmRetryBackoff,
    resumes: VmRetryBackoff,
    room: FreeSpaceHysteresis,
    /// When the hypervisor answered last.
    answered: Option<Instant>,
}

/// Why a round failed.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error("asking the hypervisor")]
    Hypervisor(#[from] HypervisorError),
    #[error("asking the registry")]
    Registry(#[from] Failure),
    #[error("reading the table of operations")]
    Operations(#[from] TableError),
    #[error("asking for disks")]
    Disks(#[from] DiskError),
}

impl Worker for VmReconciler {
    fn name(&self) -> &'static str {
        "reconcile_vms"
    }
    fn interval(&self) -> Duration {
        self.state.limits.reconcile_interval
    }
    fn timeout(&self) -> Duration {
        ROUND_MAX
    }
    async fn round(&mut self) -> Result<(), String> {
        if let Some(at) = self.answered.filter(|at| at.elapsed() < GROUP) {
            tokio::time::sleep(GROUP - at.elapsed().min(GROUP)).await;
        }
        self.reconcile().await.map_err(|error| with_causes(&error))
    }
}

impl VmReconciler {
    /// A reconciler that has reported and tried nothing yet.
    pub fn new(state: Arc<ServiceState>, engine: Engine) -> VmReconciler {
        let room = FreeSpaceHysteresis::new(state.limits.free_space_low, state.limits.free_space_to_resume);
        VmReconciler {
            state,
            engine,
            reported: HashSet::new(),
            starts: VmRetryBackoff::new(START_PAUSE_FIRST, START_PAUSE_MAX),
            resumes: VmRetryBackoff::new(RESUME_PAUSE_FIRST, RESUME_PAUSE_MAX),
            room,
            answered: None,
        }
    }

    async fn reconcile(&mut self) -> Result<(), RoundError> {
        let inventory = self.state.registry.snapshot().await?;
        let found = match self.found(&inventory).await {
            Ok(found) => found,
            Err(error) => {
                self.without_answer(&inventory, &error).await?;
                return Err(error);
            }
        };
        self.answered = Some(Instant::now());
        let outcomes = outcomes(&self.engine, &inventory, &found).await?;
        let outcome =
            |id: &OperationId| outcomes.get(id).copied().unwrap_or(OperationStatus::NoSuchOperation);
        let has_room = match self.state.disks.free().await {
            Ok(free) => self.room.measured(free),
            Err(error) => {
                // Health says so, too; everything but the resumption of paused VMs goes on.
                tracing::warn!(error = with_causes(&error), "the free space is not known");
                false
            }
        };
        let mut failed = None;
        for decision in decide(inventory.vms(), &found, &outcome, has_room) {
            // One VM that fails keeps no other from its turn.
            if let Err(error) = self.carry_out(decision).await {
                tracing::warn!(error = with_causes(&error), "a decision could not be carried out");
                failed = failed.or(Some(error));
            }
        }
        self.starts.retain(|vm| inventory.vm(vm).is_some());
        self.resumes.retain(|vm| inventory.vm(vm).is_some());
        self.withdraw_seeds(&inventory).await?;
        self.discard_set_aside().await?;
        self.expire_reservations(&inventory).await?;
        metrics::measure_vms(&inventory);
        failed.map_or(Ok(()), Err)
    }

    /// Says of all VMs that their state is unknown, once the hypervisor has been away for a while.
    async fn without_answer(&self, inventory: &Inventory, error: &RoundError) -> Result<(), RoundError> {
        let RoundError::Hypervisor(HypervisorError { kind: HypervisorErrorKind::Unavailable, .. }) = error
        else {
            return Ok(());
        };
        if self.answered.is_some_and(|at| at.elapsed() < self.state.limits.unknown_after) {
            return Ok(());
        }
        for decision in reconcile::without_answer(inventory.vms()) {
            if let ReconcileAction::RecordObservation(vm, before, now) = decision {
                self.apply(&vm, VmTransition::RecordObservation { before, now }).await?;
            }
        }
        metrics::measure_vms(&self.state.registry.snapshot().await?);
        Ok(())
    }

    /// Every VM that carries our mark, with what is not known of it yet.
    async fn found(&self, inventory: &Inventory) -> Result<Vec<FoundVm>, RoundError> {
        let mut found = Vec::new();
        for MarkedVm { uuid, power, mark, disks } in self.state.hypervisor.marked(&self.state.realm).await? {
            let record = inventory.vms().find(|record| record.identity.uuid == uuid);
            if record.is_none() && !inventory.knows_all_vms() {
                // It may be the one whose row cannot be read: it is no orphan and no leftover.
                continue;
            }
            let mut vm = FoundVm {
                uuid,
                vm: mark.vm,
                operation: mark.operation,
                power,
                address: None,
                guest_answers: false,
                off_in_order: None,
                disks_changed: false,
            };
            if let Some(record) = record {
                let defined = disks_of(record, self.state.disks.as_ref());
                vm.disks_changed = disk_changes(&vm.uuid, &defined, &disks).is_some();
            }
            if let (PowerState::Running, Some(record)) = (power, record) {
                self.probe(record, &mut vm).await?;
            }
            if power == PowerState::Off {
                let asked = self.state.hypervisor.went_off_in_order(&vm.uuid).await;
                vm.off_in_order = unless_unavailable(asked)?.flatten();
            }
            found.push(vm);
        }
        Ok(found)
    }

    /// The address of a running VM; and whether its guest answers, where that is not known yet.
    async fn probe(&self, record: &VmRecord, vm: &mut FoundVm) -> Result<(), HypervisorError> {
        let Some(observed) = record.observed() else {
            return Ok(());
        };
        let hypervisor = &self.state.hypervisor;
        vm.address = unless_unavailable(hypervisor.address(&vm.uuid, &record.identity.mac).await)?.flatten();
        vm.guest_answers = (observed.ready && observed.power.is_on() && !observed.stale)
            || unless_unavailable(hypervisor.agent_answers(&vm.uuid).await)?.unwrap_or(false);
        Ok(())
    }

    async fn carry_out(&mut self, decision: ReconcileAction) -> Result<(), RoundError> {
        match decision {
            ReconcileAction::RecordObservation(vm, before, now) => {
                tracing::info!(%vm, ?before, ?now, "a VM changed by itself");
                self.apply(&vm, VmTransition::RecordObservation { before, now }).await
            }
            ReconcileAction::ReleaseVmLock(vm, by, observed) => {
                tracing::warn!(%vm, %by, "an operation ended and left a VM locked; releasing it");
                self.apply(&vm, VmTransition::Release { by, observed }).await
            }
            ReconcileAction::StartVm(vm) => {
                self.start(vm).await;
                Ok(())
            }
            ReconcileAction::ResumeVm(vm, uuid) => {
                self.resume(&vm, &uuid).await;
                Ok(())
            }
            ReconcileAction::RemoveLeftoverVm(FoundVm { uuid, vm, operation, .. }) => {
                tracing::warn!(%uuid, %vm, %operation, "removing what an undone operation left");
                metrics::ORPHANS.add(1, &[KeyValue::new("what", "cleaned")]);
                self.state.hypervisor.destroy(&uuid).await?;
                Ok(self.state.hypervisor.undefine(&uuid).await?)
            }
            ReconcileAction::ReportOrphanVm(FoundVm { uuid, vm, operation, .. }) => {
                if self.reported.insert(uuid.clone()) {
                    metrics::ORPHANS.add(1, &[KeyValue::new("what", "reported")]);
                    tracing::error!(
                        %uuid, %vm, %operation,
                        "the hypervisor has a VM with our mark that no record knows; it is left alone"
                    );
                }
                Ok(())
            }
        }
    }

    async fn apply(&self, vm: &VmName, transition: VmTransition) -> Result<(), RoundError> {
        match self.state.registry.apply(vm, transition).await {
            // Removed, or locked by an operation meanwhile.
            Ok(_) | Err(ErrorReply::Refused(_)) => Ok(()),
            Err(ErrorReply::Failed(failure)) => Err(failure.into()),
        }
    }

    async fn start(&mut self, vm: VmName) {
        if !self.starts.is_due(&vm, Instant::now()) {
            return;
        }
        tracing::info!(%vm, "it should run and is off; starting it");
        let command = StartVm { vm: vm.clone(), operation_id: None };
        let command = PendingCommand::of_service(Service::Provisioner, new_id(), command);
        if let Err(error) = self.engine.begin(command).await {
            tracing::warn!(%vm, error = with_causes(&error), "it could not be started");
        }
    }

    async fn resume(&mut self, vm: &VmName, uuid: &VmUuid) {
        if !self.resumes.is_due(vm, Instant::now()) {
            return;
        }
        tracing::warn!(%vm, "it was paused for lack of space, and there is room again; resuming it");
        match self.state.resume(uuid).await {
            Ok(()) => {}
            Err(error) => tracing::warn!(%vm, error = with_causes(&error), "it could not be resumed"),
        }
    }

    /// Frees the names of seeds whose operation has ended without importing them.
    async fn withdraw_seeds(&self, inventory: &Inventory) -> Result<(), RoundError> {
        for (name, by) in inventory.importing_seeds() {
            let outcome = outcome_of(&self.engine, by).await?;
            if matches!(outcome, OperationStatus::Undone | OperationStatus::Stuck) {
                tracing::warn!(seed = %name, %by, "an operation ended without importing a seed; freeing its name");
                match self.state.registry.withdraw_seed(name.clone(), by.clone()).await {
                    Ok(()) | Err(ErrorReply::Refused(_)) => {}
                    Err(ErrorReply::Failed(failure)) => return Err(failure.into()),
                }
            }
        }
        Ok(())
    }

    /// Frees the names, and removes the files, of restores that nobody carries on.
    async fn expire_reservations(&self, inventory: &Inventory) -> Result<(), RoundError> {
        for (vm, by) in inventory.expired_reservations(chrono::Utc::now()) {
            tracing::warn!(%vm, %by, "the reservation of a name has expired; freeing it");
            self.state.release(vm, by).await?;
        }
        Ok(())
    }

    /// Discards what finished removals have set aside.
    async fn discard_set_aside(&self) -> Result<(), RoundError> {
        for operation in self.state.disks.set_aside_by().await? {
            if outcome_of(&self.engine, &operation).await? == OperationStatus::Done {
                self.state.disks.discard(&operation).await?;
            }
        }
        Ok(())
    }
}

/// One VM that went off between two calls does not fail the round; a hypervisor that is away does.
fn unless_unavailable<T>(answer: Result<T, HypervisorError>) -> Result<Option<T>, HypervisorError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind == HypervisorErrorKind::Unavailable => Err(error),
        Err(_) => Ok(None),
    }
}
