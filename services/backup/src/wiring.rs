//! The table: this message goes there.
//!
//! | message          | rule before it begins                                        | then             |
//! | ---------------- | ------------------------------------------------------------ | ---------------- |
//! | `StartBackup`    | store open, vm known, no other backup of it under way        | saga `Start`     |
//! | `RestoreBackup`  | store open, backup resolved, name free                       | saga `Restore`   |
//! | `VerifyBackup`   | store open, backup resolved                                  | saga `Verify`    |
//! | `ListBackups`    |                                                              | the `Librarian`  |
//!
//! A command that was given before is answered before any rule is looked at: the world has changed because of it.

use std::sync::Arc;

use backup_domain::admission::{UnderWay, may_begin};
use backup_domain::reference::resolve;
use bus::{Call, Declined, Server, TableError};
use contract::backup::{
    Backup, ListBackups, RestoreBackup, RestoreBackupRefused, StartBackup, StartBackupRefused, VerifyBackup,
};
use contract::operation::Begun;
use contract::message::{Failure, FailureKind, NoRefusal};
use contract::{BackupRef, OperationId, VmName};
use operation::{BeginError, Operations, Work, fresh_id};
use tokio::sync::Mutex;

use crate::actors::{Freshness, StoreShut};
use crate::sagas::{Restore, Start, Verify, World};

/// What the handlers share.
pub(crate) struct Desk {
    world: Arc<World>,
    operations: Operations,
    /// "One backup at a time" is looked at and acted on by one asker at a time.
    admission: Mutex<()>,
}

/// Adds the service's endpoints.
pub(crate) fn wire(server: &mut Server, world: Arc<World>, operations: Operations) {
    let desk = Arc::new(Desk { world, operations, admission: Mutex::new(()) });
    let at = |desk: &Arc<Desk>| Arc::clone(desk);
    let (start, restore, verify, list) = (at(&desk), at(&desk), at(&desk), at(&desk));
    server.on::<StartBackup, _, _>(move |asked| Arc::clone(&start).start(asked));
    server.on::<RestoreBackup, _, _>(move |asked| Arc::clone(&restore).restore(asked));
    server.on::<VerifyBackup, _, _>(move |asked| Arc::clone(&verify).verify(asked));
    server.on::<ListBackups, _, _>(move |asked| Arc::clone(&list).list(asked.request));
}

/// The id that a command asks for, or a new one.
fn id_of<R>(given: &Option<OperationId>, asked: &Call<R>) -> OperationId {
    given.clone().or_else(|| asked.operation_of_message()).unwrap_or_else(fresh_id)
}

fn shut(shut: &StoreShut) -> Failure {
    Failure { kind: FailureKind::Unavailable, message: shut.to_string() }
}

fn table_down(error: &TableError) -> Failure {
    Failure { kind: FailureKind::Unavailable, message: error.to_string() }
}

impl Desk {
    async fn start(
        self: Arc<Self>,
        asked: Call<StartBackup>,
    ) -> Result<Begun, Declined<StartBackupRefused>> {
        let id = id_of(&asked.request.operation_id, &asked);
        let command = StartBackup { operation_id: None, ..asked.request };
        let known = self.is_known(&id).await?;
        if !known {
            self.world.library.repository().await.map_err(|error| shut(&error))?;
            if !self.world.provisioner.has_vm(&command.vm).await? {
                return Err(Declined::Refused(StartBackupRefused::Unknown(command.vm)));
            }
        }
        let _alone = self.admission.lock().await;
        if !known {
            may_begin(&command.vm, &id, &self.under_way().await?).map_err(Declined::Refused)?;
        }
        self.begin::<Start, _>(id, &command, StartBackupRefused::IdReused).await
    }

    async fn restore(
        self: Arc<Self>,
        asked: Call<RestoreBackup>,
    ) -> Result<Begun, Declined<RestoreBackupRefused>> {
        let id = id_of(&asked.request.operation_id, &asked);
        let command = RestoreBackup { operation_id: None, ..asked.request };
        if !self.is_known(&id).await? {
            self.resolve(&command.backup).await?;
            if self.world.provisioner.has_vm(&command.as_vm).await? {
                return Err(Declined::Refused(RestoreBackupRefused::NameTaken(command.as_vm)));
            }
        }
        self.begin::<Restore, _>(id, &command, RestoreBackupRefused::IdReused).await
    }

    async fn verify(
        self: Arc<Self>,
        asked: Call<VerifyBackup>,
    ) -> Result<Begun, Declined<RestoreBackupRefused>> {
        let id = id_of(&asked.request.operation_id, &asked);
        let command = VerifyBackup { operation_id: None, ..asked.request };
        if !self.is_known(&id).await? {
            self.resolve(&command.backup).await?;
        }
        self.begin::<Verify, _>(id, &command, RestoreBackupRefused::IdReused).await
    }

    async fn list(self: Arc<Self>, asked: ListBackups) -> Result<Vec<Backup>, Declined<NoRefusal>> {
        let library = &self.world.library;
        let catalogue = library.catalogue(Freshness::AtHand).await.map_err(|error| shut(&error))?;
        let wanted = |backup: &&Backup| asked.vm.as_ref().is_none_or(|vm| *vm == backup.vm);
        Ok(catalogue.0.iter().filter(wanted).cloned().collect())
    }

    /// Whether a command of this id was given before.
    async fn is_known(&self, id: &OperationId) -> Result<bool, Failure> {
        let found = self.operations.find(id).await.map_err(|error| table_down(&error))?;
        Ok(found.is_some())
    }

    /// Backups that have not ended.
    async fn under_way(&self) -> Result<Vec<UnderWay>, Failure> {
        let unfinished = self.operations.list(true).await.map_err(|error| table_down(&error))?;
        Ok(unfinished
            .into_iter()
            .filter(|report| report.kind == Start::KIND)
            .filter_map(|report| Some(UnderWay { operation: report.id, vm: VmName::new(report.about).ok()? }))
            .collect())
    }

    /// Whether a reference means one backup. What is not in the list at hand is looked for in the store.
    async fn resolve(&self, reference: &BackupRef) -> Result<(), Declined<RestoreBackupRefused>> {
        let library = &self.world.library;
        let at_hand = library.catalogue(Freshness::AtHand).await.map_err(|error| shut(&error))?;
        if resolve(reference, &at_hand.0).is_ok() {
            return Ok(());
        }
        let fresh = library.catalogue(Freshness::Fresh).await.map_err(|error| shut(&error))?;
        resolve(reference, &fresh.0).map(drop).map_err(Declined::Refused)
    }

    async fn begin<W: Work, F>(
        &self,
        id: OperationId,
        command: &W::Input,
        reused: impl FnOnce(OperationId) -> F,
    ) -> Result<Begun, Declined<F>> {
        match self.operations.begin::<W>(id, command).await {
            Ok(begun) => Ok(begun),
            Err(BeginError::IdReused(id)) => Err(Declined::Refused(reused(id))),
            Err(error) => Err(Declined::Failed(error.into())),
        }
    }
}
