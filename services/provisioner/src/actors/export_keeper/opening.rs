//! How a export is opened and closed: the deeds of the export warden, in the order that a crash forgives.
//!
//! ```text
//!   open:   row Opening > lock the machine > folder > (freeze) > exports > (thaw) > row Open
//!   close:  (thaw) > exports > folder > unlock > row gone
//! ```

use std::time::Duration;

use bus::{Declined, Revision, Table, TableError};
use contract::provisioner::{Consistency, DiskExport, OpenDisksRefused, OpenedDisks, VmRefused};
use contract::message::{Failure, FailureKind};
use contract::{OperationId, VmName};
use provisioner_domain::{ExportPhase, ExportRecord, ServedBy, VmTransition, VmRecord, WorkKind};

use tokio::net::UnixStream;

use crate::ports::{Disk, DiskError, Export, HypervisorError, Power};
use crate::sagas::{ServiceState, chain, disks_of};

/// A guest that stays frozen is worse than a lost backup: thawing is tried this often.
const THAW_TRIES: u32 = 10;
const THAW_AGAIN: Duration = Duration::from_secs(2);
/// A local socket answers at once, or nobody is behind it.
const CONNECT_MAX: Duration = Duration::from_secs(2);

type Refused = Declined<OpenDisksRefused>;

/// A export with its row's revision.
#[derive(Clone)]
pub(super) struct Row {
    pub(super) record: ExportRecord,
    pub(super) revision: Revision,
}

impl Row {
    /// What was answered when it was opened.
    pub(super) fn opened(&self) -> Option<OpenedDisks> {
        match &self.record.phase {
            ExportPhase::Open(opened) => Some(opened.clone()),
            ExportPhase::Opening => None,
        }
    }
}

/// Why a export was not opened, and the row that is left where even closing it again did not succeed.
pub(super) struct NotOpened {
    pub(super) why: Refused,
    pub(super) left: Option<Row>,
}

impl From<Refused> for NotOpened {
    fn from(why: Refused) -> Self {
        NotOpened { why, left: None }
    }
}

fn failed(kind: FailureKind, message: impl Into<String>) -> Failure {
    Failure { kind, message: message.into() }
}

pub(super) fn table_down(error: &TableError) -> Failure {
    failed(FailureKind::Unavailable, error.to_string())
}

fn disks_down(error: &DiskError) -> Failure {
    failed(FailureKind::Unavailable, chain(error))
}

fn hypervisor_down(error: HypervisorError) -> Failure {
    failed(FailureKind::Unavailable, error.to_string())
}

/// Opens the disks of a machine for an operation.
pub(super) async fn open(
    state: &ServiceState,
    table: &Table<ExportRecord>,
    vm: &VmName,
    operation: &OperationId,
) -> Result<(Row, OpenedDisks), NotOpened> {
    let machine = state.registry.vm(vm).await.map_err(of_lookup)?;
    machine.may_be_read(operation).map_err(Declined::Refused)?;
    let way = way_to(state, &machine).await?;
    let record = ExportRecord {
        operation: operation.clone(),
        vm: vm.clone(),
        uuid: machine.identity.uuid.clone(),
        way,
        phase: ExportPhase::Opening,
    };
    let (row, noted) = match table.create(operation.as_str(), &record).await {
        Ok(revision) => (Row { record, revision }, Ok(())),
        // Perhaps it was written and only the answer was lost, now or before: it is taken back like a export half open.
        Err(error) => (Row { record, revision: 0 }, Err(Refused::from(table_down(&error)))),
    };
    let opened = match noted {
        Ok(()) => open_noted(state, table, &machine, &row).await,
        Err(why) => Err(why),
    };
    match opened {
        Ok((open, opened)) => Ok((open, opened)),
        Err(why) => {
            let left = match close(state, table, &row).await {
                Ok(()) => None,
                Err(failure) => {
                    tracing::warn!(%operation, %vm, "a export that was not opened is not closed yet: {failure}");
                    Some(row)
                }
            };
            Err(NotOpened { why, left })
        }
    }
}

/// Everything after the row was written.
async fn open_noted(
    state: &ServiceState,
    table: &Table<ExportRecord>,
    machine: &VmRecord,
    row: &Row,
) -> Result<(Row, OpenedDisks), Refused> {
    let (vm, operation) = (&row.record.vm, &row.record.operation);
    let begin = VmTransition::Begin(operation.clone(), WorkKind::Reading);
    state.registry.make(vm, begin).await.map_err(of_lookup)?;
    let folder = state.disks.make_export_folder(operation.as_str()).await;
    let folder = folder.map_err(|error| disks_down(&error))?;
    let disks = disks_of(machine, state.disks.as_ref());
    let (exports, consistency) = match row.record.way {
        ServedBy::Hypervisor => open_running(state, machine, &disks, &folder).await?,
        ServedBy::NbdServer => (serve_all(state, &disks, &folder).await?, Consistency::Off),
    };
    let opened = OpenedDisks {
        host: machine.host.clone(),
        exports: told(machine, exports),
        definition: machine.definition.clone(),
        consistency,
        lease_seconds: state.limits.lease.as_secs() as u32,
    };
    let mut record = row.record.clone();
    record.phase = ExportPhase::Open(opened.clone());
    let revision =
        table.update(operation.as_str(), &record, row.revision).await.map_err(|error| table_down(&error))?;
    Ok((Row { record, revision }, opened))
}

fn of_lookup(declined: Declined<VmRefused>) -> Refused {
    match declined {
        Declined::Refused(VmRefused::Unknown(vm)) => Declined::Refused(OpenDisksRefused::Unknown(vm)),
        Declined::Refused(VmRefused::Locked { vm, by }) => {
            Declined::Refused(OpenDisksRefused::Busy { vm, by })
        }
        Declined::Refused(other) => Declined::Failed(failed(FailureKind::Internal, other.to_string())),
        Declined::Failed(failure) => Declined::Failed(failure),
    }
}

/// The hypervisor is asked, not the record: it may have gone off a second ago.
async fn way_to(state: &ServiceState, machine: &VmRecord) -> Result<ServedBy, Refused> {
    match state.hypervisor.power(&machine.identity.uuid).await {
        Ok(Some(Power::Running)) => Ok(ServedBy::Hypervisor),
        Ok(Some(Power::Off)) => Ok(ServedBy::NbdServer),
        Ok(None) => Err(Declined::Refused(OpenDisksRefused::NotReadable {
            vm: machine.name().clone(),
            state: "missing".into(),
        })),
        Err(error) => Err(hypervisor_down(error).into()),
    }
}

/// The guest holds back while the instant is fixed, if its agent can make it; whatever happens, it is let go again.
async fn open_running(
    state: &ServiceState,
    machine: &VmRecord,
    disks: &[Disk],
    folder: &std::path::Path,
) -> Result<(Vec<Export>, Consistency), Failure> {
    let uuid = &machine.identity.uuid;
    let frozen = tokio::time::timeout(state.limits.freeze_within, state.hypervisor.freeze(uuid)).await;
    let consistency = match frozen {
        Ok(Ok(())) => Consistency::Filesystem,
        Ok(Err(error)) => {
            tracing::info!(vm = %machine.name(), %error, "its file systems are not frozen; its disks are read as after a power cut");
            Consistency::Crash
        }
        Err(_) => {
            tracing::warn!(vm = %machine.name(), "its file systems did not freeze in time");
            Consistency::Crash
        }
    };
    let exports = state.hypervisor.open_exports(uuid, disks, folder).await;
    thaw(state, uuid).await;
    Ok((exports.map_err(hypervisor_down)?, consistency))
}

/// Lets a guest go. A guest without an agent was never held.
async fn thaw(state: &ServiceState, uuid: &str) {
    for again in 1..=THAW_TRIES {
        match state.hypervisor.thaw(uuid).await {
            Ok(()) => return,
            Err(
                HypervisorError::AgentSilent(_) | HypervisorError::Unknown(_) | HypervisorError::Failed(_),
            ) if again > 1 => {
                return;
            }
            Err(error) => tracing::warn!(uuid, %error, again, "a guest is not thawed yet"),
        }
        tokio::time::sleep(THAW_AGAIN).await;
    }
    tracing::error!(uuid, "a guest may be frozen still: its hypervisor does not answer");
}

async fn serve_all(state: &ServiceState, disks: &[Disk], folder: &std::path::Path) -> Result<Vec<Export>, Failure> {
    let mut exports = Vec::new();
    for disk in disks {
        let socket = folder.join(format!("{}.sock", disk.name));
        let served = state.disks.serve(disk, &socket).await;
        served.map_err(|error| disks_down(&error))?;
        exports.push(Export { disk: disk.name.clone(), export: disk.name.to_string(), socket });
    }
    Ok(exports)
}

fn told(machine: &VmRecord, exports: Vec<Export>) -> Vec<DiskExport> {
    let sizes = machine.disks();
    let size = |export: &Export| {
        sizes.iter().find(|disk| disk.disk == export.disk).map_or_else(Default::default, |disk| disk.size)
    };
    exports
        .into_iter()
        .map(|export| DiskExport { size: size(&export), disk: export.disk, socket: export.socket, export: export.export })
        .collect()
}

/// Whether somebody serves at every export still: a machine may have crashed, a server may have been killed.
pub(super) async fn stands(exports: &[DiskExport]) -> bool {
    for export in exports {
        let connected = tokio::time::timeout(CONNECT_MAX, UnixStream::connect(&export.socket)).await;
        if !matches!(connected, Ok(Ok(_))) {
            return false;
        }
    }
    true
}

/// Closes a export, however far it was opened. It bears being repeated.
pub(super) async fn close(state: &ServiceState, table: &Table<ExportRecord>, row: &Row) -> Result<(), Failure> {
    let record = &row.record;
    let operation = record.operation.as_str();
    let folder = state.disks.make_export_folder(operation).await;
    let folder = folder.map_err(|error| disks_down(&error))?;
    match record.way {
        ServedBy::Hypervisor => {
            if record.phase == ExportPhase::Opening {
                thaw(state, &record.uuid).await;
            }
            let closed = state.hypervisor.close_exports(&record.uuid, &folder);
            closed.await.map_err(hypervisor_down)?;
        }
        ServedBy::NbdServer => {
            let disks = match state.registry.vm(&record.vm).await {
                Ok(machine) => disks_of(&machine, state.disks.as_ref()),
                Err(Declined::Refused(_)) => Vec::new(),
                Err(Declined::Failed(failure)) => return Err(failure),
            };
            for disk in disks {
                let socket = folder.join(format!("{}.sock", disk.name));
                let stopped = state.disks.stop_serving(&socket).await;
                stopped.map_err(|error| disks_down(&error))?;
            }
        }
    }
    let removed = state.disks.remove_export_folder(operation).await;
    removed.map_err(|error| disks_down(&error))?;
    let freed = state.registry.make(&record.vm, VmTransition::GiveUp(record.operation.clone()));
    match freed.await {
        Ok(_) | Err(Declined::Refused(_)) => {}
        Err(Declined::Failed(failure)) => return Err(failure),
    }
    match table.remove(operation, row.revision).await {
        Ok(()) => Ok(()),
        // The answer to an earlier write was lost: go by what the row says now.
        Err(TableError::Conflict { .. }) => match table.get(operation).await {
            Ok(None) => Ok(()),
            Ok(Some(other)) => {
                table.remove(operation, other.revision).await.map_err(|error| table_down(&error))
            }
            Err(error) => Err(table_down(&error)),
        },
        Err(error) => Err(table_down(&error)),
    }
}
