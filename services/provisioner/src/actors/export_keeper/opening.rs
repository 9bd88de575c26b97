//! How exports are opened and closed, in an order that a crash at any point leaves recoverable.
//!
//! ```text
//!   open:   row Opening > lock the VM > folder > (freeze) > export > (thaw) > row Open
//!   close:  (thaw) > close exports > folder > unlock > row removed
//! ```

use std::path::Path;
use std::time::Duration;

use bus::{ErrorReply, Revision, Table, TableError};
use contract::message::{Failure, FailureKind};
use contract::provisioner::{Consistency, DiskExport, OpenDisksRefused, OpenedDisks, VmRefused, VmState};
use contract::{HostName, OperationId, Timestamp, VmName, VmUuid};
use provisioner_domain::{
    ExportPhase, ExportRecord, ExportServer, ObservedVmState, PowerState, VmLockKind, VmRecord, VmTransition,
};
use tokio::net::UnixStream;

use crate::ports::{Disk, Export, HypervisorErrorKind};
use crate::state::ServiceState;
use crate::vm_spec::disks_of;

/// A guest that stays frozen is worse than a lost backup: thawing is tried this often.
const THAW_ATTEMPTS: u32 = 10;
const THAW_INTERVAL: Duration = Duration::from_secs(2);
/// A local socket answers at once, or no server listens.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// The key of the exports of an operation in the table.
pub(super) fn row_key(host: &HostName, operation: &OperationId) -> String {
    format!("{host}.{operation}")
}

type Refused = ErrorReply<OpenDisksRefused>;

/// An export with its row's revision.
#[derive(Clone)]
pub(super) struct ExportRow {
    pub(super) record: ExportRecord,
    pub(super) revision: Revision,
}

impl ExportRow {
    /// The reply to the request that opened it.
    pub(super) fn opened(&self) -> Option<OpenedDisks> {
        match &self.record.phase {
            ExportPhase::Open(opened) => Some((**opened).clone()),
            ExportPhase::Opening => None,
        }
    }
}

/// Why disks were not exported, and the row that is left where even closing them again did not succeed.
pub(super) struct OpenExportsError {
    pub(super) reason: Refused,
    pub(super) leftover_row: Option<ExportRow>,
}

impl From<Refused> for OpenExportsError {
    fn from(reason: Refused) -> Self {
        OpenExportsError { reason, leftover_row: None }
    }
}

/// Exports the disks of a VM for an operation.
pub(super) async fn open(
    state: &ServiceState,
    table: &Table<ExportRecord>,
    vm: &VmName,
    operation: &OperationId,
) -> Result<(ExportRow, OpenedDisks), OpenExportsError> {
    let found = state.registry.vm(vm).await.map_err(refusal)?;
    found.may_be_read(operation).map_err(ErrorReply::Refused)?;
    let power = power_of(state, &found).await?;
    if !power.is_on() {
        unchanged(state, &found).await?;
    }
    let served_by = if power.is_on() { ExportServer::Hypervisor } else { ExportServer::NbdServer };
    let record = ExportRecord {
        operation: operation.clone(),
        vm: vm.clone(),
        uuid: found.identity.uuid.clone(),
        served_by,
        phase: ExportPhase::Opening,
    };
    let (row, written) = match table.create(&row_key(&state.host, operation), &record).await {
        Ok(revision) => (ExportRow { record, revision }, Ok(())),
        // Another version's exports: nothing of them may be closed.
        Err(error @ TableError::Unreadable { .. }) => return Err(Refused::from(error.to_failure()).into()),
        // Perhaps it was written and only the answer was lost, now or before: it is closed like one that is half open.
        Err(error) => (ExportRow { record, revision: 0 }, Err(Refused::from(Failure::unavailable(&error)))),
    };
    let opened = match written {
        Ok(()) => open_written(state, table, &found, power, &row).await,
        Err(reason) => Err(reason),
    };
    match opened {
        Ok((open, opened)) => Ok((open, opened)),
        Err(reason) => {
            let left = match close(state, table, &row).await {
                Ok(()) => None,
                Err(failure) => {
                    tracing::warn!(%operation, %vm, "disks that were not exported are not closed yet: {failure}");
                    Some(row)
                }
            };
            Err(OpenExportsError { reason, leftover_row: left })
        }
    }
}

/// Everything after the row was written.
async fn open_written(
    state: &ServiceState,
    table: &Table<ExportRecord>,
    found: &VmRecord,
    power: PowerState,
    row: &ExportRow,
) -> Result<(ExportRow, OpenedDisks), Refused> {
    let (vm, operation) = (&row.record.vm, &row.record.operation);
    let begin = VmTransition::Begin { by: operation.clone(), kind: VmLockKind::ReadingDisks };
    state.registry.apply(vm, begin).await.map_err(refusal)?;
    let folder = state.disks.create_export_folder(operation).await;
    let folder = folder.map_err(|error| Failure::unavailable(&error))?;
    let disks = disks_of(found, state.disks.as_ref());
    let Moment { exports, opened_at, consistency } = match row.record.served_by {
        ExportServer::Hypervisor => open_on(state, found, power, &disks, &folder).await?,
        ExportServer::NbdServer => Moment {
            opened_at: chrono::Utc::now(),
            exports: serve_all(state, &disks, &folder).await?,
            consistency: consistency_when_off(state, found).await?,
        },
    };
    let opened = OpenedDisks {
        host: found.host.clone(),
        exports: with_sizes(found, exports),
        definition: found.definition.clone(),
        opened_at,
        consistency,
        lease_seconds: state.limits.export_lease.as_secs() as u32,
    };
    let mut record = row.record.clone();
    record.phase = ExportPhase::Open(Box::new(opened.clone()));
    let updated = table.update(&row_key(&state.host, operation), &record, row.revision).await;
    let revision = updated.map_err(|error| Failure::unavailable(&error))?;
    Ok((ExportRow { record, revision }, opened))
}

fn refusal(declined: ErrorReply<VmRefused>) -> Refused {
    match declined {
        ErrorReply::Refused(VmRefused::UnknownVm(vm)) => ErrorReply::Refused(OpenDisksRefused::UnknownVm(vm)),
        ErrorReply::Refused(VmRefused::Locked { vm, by }) => {
            ErrorReply::Refused(OpenDisksRefused::Busy { vm, by })
        }
        ErrorReply::Refused(other) => {
            ErrorReply::Failed(Failure { kind: FailureKind::Internal, message: other.to_string() })
        }
        ErrorReply::Failed(failure) => ErrorReply::Failed(failure),
    }
}

/// The hypervisor is asked, not the record: the VM may have gone off a second ago.
async fn power_of(state: &ServiceState, vm: &VmRecord) -> Result<PowerState, Refused> {
    match state.hypervisor.power(&vm.identity.uuid).await {
        Ok(PowerState::Missing) => Err(ErrorReply::Refused(OpenDisksRefused::NotReadable {
            vm: vm.name().clone(),
            state: VmState::Missing,
        })),
        Ok(power) => Ok(power),
        Err(error) => Err(Failure::unavailable(&error).into()),
    }
}

/// After a crash of the guest or its host a VM is off, too.
async fn consistency_when_off(state: &ServiceState, vm: &VmRecord) -> Result<Consistency, Failure> {
    let in_order = state.hypervisor.went_off_in_order(&vm.identity.uuid).await;
    let in_order = in_order.map_err(|error| Failure::unavailable(&error))?;
    let off = ObservedVmState::off(vm.observed(), in_order);
    Ok(if off.off_in_order { Consistency::PoweredOff } else { Consistency::Crash })
}

/// Of a VM that is off the files are read, not what the hypervisor would start.
async fn unchanged(state: &ServiceState, vm: &VmRecord) -> Result<(), Refused> {
    match state.disk_changes(vm).await {
        Ok(None) => Ok(()),
        Ok(Some(changes)) => {
            let vm = vm.name().clone();
            Err(ErrorReply::Refused(OpenDisksRefused::DisksChanged { vm, changes }))
        }
        Err(error) => Err(Failure::unavailable(&error).into()),
    }
}

/// Exports of all disks of a VM at one point in time.
struct Moment {
    exports: Vec<Export>,
    opened_at: Timestamp,
    consistency: Consistency,
}

/// The guest is frozen while the point in time is fixed, if its agent can do that; whatever happens, it is thawed.
async fn open_on(
    state: &ServiceState,
    vm: &VmRecord,
    power: PowerState,
    disks: &[Disk],
    folder: &Path,
) -> Result<Moment, Failure> {
    let uuid = &vm.identity.uuid;
    let consistency = match power {
        PowerState::Running => freeze(state, vm).await,
        // The agent of a paused guest does not answer.
        _ => Consistency::Crash,
    };
    let exports = state.hypervisor.open_exports(uuid, disks, folder).await;
    let opened_at = chrono::Utc::now();
    if power == PowerState::Running {
        thaw(state, uuid).await;
    }
    let exports = exports.map_err(|error| Failure::unavailable(&error))?;
    Ok(Moment { exports, opened_at, consistency })
}

async fn freeze(state: &ServiceState, vm: &VmRecord) -> Consistency {
    let frozen = state.hypervisor.freeze(&vm.identity.uuid);
    match tokio::time::timeout(state.limits.freeze_timeout, frozen).await {
        Ok(Ok(())) => Consistency::Filesystem,
        Ok(Err(error)) => {
            let error = &error as &dyn std::error::Error;
            tracing::info!(vm = %vm.name(), error, "not frozen; its disks are read as after a power cut");
            Consistency::Crash
        }
        Err(_) => {
            tracing::warn!(vm = %vm.name(), "its file systems did not freeze in time");
            Consistency::Crash
        }
    }
}

/// Thaws a guest. One without an agent was never frozen.
async fn thaw(state: &ServiceState, uuid: &VmUuid) {
    for attempt in 1..=THAW_ATTEMPTS {
        match state.hypervisor.thaw(uuid).await {
            Ok(()) => return,
            Err(error) if attempt > 1 && error.kind != HypervisorErrorKind::Unavailable => return,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(%uuid, error, attempt, "a guest is not thawed yet");
            }
        }
        tokio::time::sleep(THAW_INTERVAL).await;
    }
    tracing::error!(%uuid, "a guest may still be frozen: its hypervisor does not answer");
}

async fn serve_all(state: &ServiceState, disks: &[Disk], folder: &Path) -> Result<Vec<Export>, Failure> {
    let mut exports = Vec::new();
    for disk in disks {
        let socket = folder.join(format!("{}.sock", disk.name));
        let served = state.disks.serve(disk, &socket).await;
        served.map_err(|error| Failure::unavailable(&error))?;
        exports.push(Export { disk: disk.name.clone(), name: disk.name.to_string(), socket });
    }
    Ok(exports)
}

fn with_sizes(vm: &VmRecord, exports: Vec<Export>) -> Vec<DiskExport> {
    let sizes = vm.disks();
    let size = |export: &Export| {
        sizes.iter().find(|disk| disk.disk == export.disk).map_or_else(Default::default, |disk| disk.size)
    };
    exports
        .into_iter()
        .map(|export| DiskExport {
            size: size(&export),
            disk: export.disk,
            socket: export.socket,
            export_name: export.name,
        })
        .collect()
}

/// Whether a server still listens for every export: a VM may have crashed, a server may have been killed.
pub(super) async fn are_served(exports: &[DiskExport]) -> bool {
    for export in exports {
        let connected = tokio::time::timeout(CONNECT_MAX, UnixStream::connect(&export.socket)).await;
        if !matches!(connected, Ok(Ok(_))) {
            return false;
        }
    }
    true
}

/// Closes exports, however far they were opened. Idempotent.
pub(super) async fn close(
    state: &ServiceState,
    table: &Table<ExportRecord>,
    row: &ExportRow,
) -> Result<(), Failure> {
    let record = &row.record;
    let key = row_key(&state.host, &record.operation);
    let folder = state.disks.create_export_folder(&record.operation).await;
    let folder = folder.map_err(|error| Failure::unavailable(&error))?;
    match record.served_by {
        ExportServer::Hypervisor => {
            if record.phase == ExportPhase::Opening {
                thaw(state, &record.uuid).await;
            }
            let closed = state.hypervisor.close_exports(&record.uuid, &folder);
            closed.await.map_err(|error| Failure::unavailable(&error))?;
        }
        ExportServer::NbdServer => {
            let disks = match state.registry.vm(&record.vm).await {
                Ok(vm) => disks_of(&vm, state.disks.as_ref()),
                Err(ErrorReply::Refused(_)) => Vec::new(),
                Err(ErrorReply::Failed(failure)) => return Err(failure),
            };
            for disk in disks {
                let socket = folder.join(format!("{}.sock", disk.name));
                let stopped = state.disks.stop_serving(&socket).await;
                stopped.map_err(|error| Failure::unavailable(&error))?;
            }
        }
    }
    let removed = state.disks.remove_export_folder(&record.operation).await;
    removed.map_err(|error| Failure::unavailable(&error))?;
    let freed = state.registry.apply(&record.vm, VmTransition::RevertBegin { by: record.operation.clone() });
    match freed.await {
        Ok(_) | Err(ErrorReply::Refused(_)) => {}
        Err(ErrorReply::Failed(failure)) => return Err(failure),
    }
    match table.remove(&key, row.revision).await {
        Ok(()) => Ok(()),
        // The answer to an earlier write was lost: the row's present revision counts.
        Err(TableError::Conflict { .. }) => match table.get(&key).await {
            Ok(None) => Ok(()),
            Ok(Some(other)) => {
                let removed = table.remove(&key, other.revision).await;
                removed.map_err(|error| Failure::unavailable(&error))
            }
            Err(error) => Err(Failure::unavailable(&error)),
        },
        Err(error) => Err(Failure::unavailable(&error)),
    }
}
