//! The handlers: what is checked before an operation begins, and the requests that are answered at once.
//!
//! | message             | what is checked before it begins                                  |
//! | ------------------- | ------------------------------------------------------------------ |
//! | `StartBackup`       | repository open, VM known, no other backup of it under way         |
//! | `RestoreBackupAsVm`     | repository open, backup found, name free                           |
//! | `VerifyBackup`      | repository open, backup found                                      |
//! | `VerifyRepository`  | no other one under way, repository open                            |
//! | `CollectRepository` | no other one under way, repository open                            |
//! | `ApplyRetention`    | rules usable, VM has backups, no other one under way, repository open |
//!
//! A backup and a restore begin on the host whose disks they read or write (`routing`).
//!
//! A command that was received before is answered without a check: it has changed what a check would see.

mod routing;

use std::sync::Arc;

use backup_domain::admission::{RunningBackup, may_begin};
use backup_domain::reference::{ReferenceError, resolve};
use backup_domain::repository_state::RequiredFreshness;
use bus::{ErrorReply, IncomingRequest};
use contract::backup::{
    ApplyRetention, ApplyRetentionRefused, Backup, CollectRepository, CollectRepositoryRefused, ListBackups,
    RestoreBackupAsVm, RestoreBackupAsVmRefused, StartBackup, StartBackupRefused, VerifyBackup,
    VerifyBackupRefused, VerifyRepository, VerifyRepositoryRefused,
};
use contract::message::{DurableCommand, Failure, NeverRefused};
use contract::{BackupRef, OperationId, VmName};
use operation::{Engine, PendingCommand, UnfinishedOperation};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::actors::RepositoryClosed;
use crate::adapters::retention::policy_of;
use crate::state::ServiceState;

/// What the handlers share.
pub(crate) struct Handlers {
    state: Arc<ServiceState>,
    engine: Engine,
    admission: Arc<Mutex<()>>,
}

/// Held from a check until the operation has begun: of two commands that exclude each other, one sees the other.
type Admission = OwnedMutexGuard<()>;

impl From<RepositoryClosed> for Failure {
    fn from(closed: RepositoryClosed) -> Failure {
        Failure::unavailable(&closed)
    }
}

fn failed<F>(closed: RepositoryClosed) -> ErrorReply<F> {
    ErrorReply::Failed(closed.into())
}

impl Handlers {
    pub(crate) fn new(state: Arc<ServiceState>, engine: Engine) -> Self {
        Handlers { state, engine, admission: Arc::default() }
    }

    async fn admission(&self) -> Admission {
        Arc::clone(&self.admission).lock_owned().await
    }

    /// Operations of a command that have not ended.
    async fn unfinished<C: DurableCommand>(&self) -> Result<Vec<UnfinishedOperation>, Failure> {
        self.engine.unfinished::<C>().await.map_err(|error| error.to_failure())
    }

    /// Checks that a command on the whole repository may begin: no other one is under way, and the repository is open.
    async fn admit<R: DurableCommand>(
        &self,
        id: &OperationId,
        under_way: fn(OperationId) -> R::Refusal,
    ) -> Result<Admission, ErrorReply<R::Refusal>> {
        let admission = self.admission().await;
        if let Some(other) = self.unfinished::<R>().await?.into_iter().find(|other| other.id != *id) {
            return Err(ErrorReply::Refused(under_way(other.id)));
        }
        self.state.repository.repository().map_err(failed)?;
        Ok(admission)
    }

    /// Checks that a reference means one backup. One that is not in the list at hand is looked for in the store; so is the
    /// latest, which another host may have made.
    async fn resolve<F: From<ReferenceError>>(&self, reference: &BackupRef) -> Result<(), ErrorReply<F>> {
        let repository = &self.state.repository;
        if !reference.is_latest() {
            let at_hand = repository.backups(RequiredFreshness::Cached).await.map_err(failed)?;
            if resolve(reference, &at_hand).is_ok() {
                return Ok(());
            }
        }
        let fresh = repository.backups(RequiredFreshness::JustRead).await.map_err(failed)?;
        resolve(reference, &fresh).map(drop).map_err(|error| ErrorReply::Refused(error.into()))
    }
}

pub(crate) async fn check_start_backup(
    handlers: Arc<Handlers>,
    candidate: PendingCommand<StartBackup>,
) -> Result<Admission, ErrorReply<StartBackupRefused>> {
    let PendingCommand { id, command: StartBackup { vm, .. }, .. } = candidate;
    handlers.state.repository.repository().map_err(failed)?;
    if handlers.state.provisioner.vm(&vm).await?.is_none() {
        return Err(ErrorReply::Refused(StartBackupRefused::UnknownVm(vm)));
    }
    let admission = handlers.admission().await;
    let under_way: Vec<_> = handlers
        .unfinished::<StartBackup>()
        .await?
        .into_iter()
        .filter_map(|other| Some(RunningBackup { operation: other.id, vm: VmName::new(other.about).ok()? }))
        .collect();
    may_begin(&vm, &id, &under_way).map_err(ErrorReply::Refused)?;
    Ok(admission)
}

pub(crate) async fn check_restore_backup_as_vm(
    handlers: Arc<Handlers>,
    candidate: PendingCommand<RestoreBackupAsVm>,
) -> Result<(), ErrorReply<RestoreBackupAsVmRefused>> {
    let RestoreBackupAsVm { backup, as_vm, .. } = candidate.command;
    handlers.resolve(&backup).await?;
    if handlers.state.provisioner.vm(&as_vm).await?.is_some() {
        return Err(ErrorReply::Refused(RestoreBackupAsVmRefused::NameTaken(as_vm)));
    }
    Ok(())
}

pub(crate) async fn check_verify_backup(
    handlers: Arc<Handlers>,
    candidate: PendingCommand<VerifyBackup>,
) -> Result<(), ErrorReply<VerifyBackupRefused>> {
    handlers.resolve(&candidate.command.backup).await
}

pub(crate) async fn check_verify_repository(
    handlers: Arc<Handlers>,
    candidate: PendingCommand<VerifyRepository>,
) -> Result<Admission, ErrorReply<VerifyRepositoryRefused>> {
    handlers.admit::<VerifyRepository>(&candidate.id, VerifyRepositoryRefused::UnderWay).await
}

pub(crate) async fn check_collect_repository(
    handlers: Arc<Handlers>,
    candidate: PendingCommand<CollectRepository>,
) -> Result<Admission, ErrorReply<CollectRepositoryRefused>> {
    handlers.admit::<CollectRepository>(&candidate.id, CollectRepositoryRefused::UnderWay).await
}

pub(crate) async fn check_apply_retention(
    handlers: Arc<Handlers>,
    candidate: PendingCommand<ApplyRetention>,
) -> Result<Admission, ErrorReply<ApplyRetentionRefused>> {
    let PendingCommand { id, command: ApplyRetention { keep, vm, .. }, .. } = candidate;
    policy_of(&keep).map_err(|why| ErrorReply::Refused(ApplyRetentionRefused::BadRules(why)))?;
    if let Some(vm) = vm {
        let backups = handlers.state.repository.backups(RequiredFreshness::Cached).await.map_err(failed)?;
        if !backups.iter().any(|backup| backup.vm == vm) {
            return Err(ErrorReply::Refused(ApplyRetentionRefused::NoBackups(vm)));
        }
    }
    handlers.admit::<ApplyRetention>(&id, ApplyRetentionRefused::UnderWay).await
}

pub(crate) async fn list_backups(
    handlers: Arc<Handlers>,
    call: IncomingRequest<ListBackups>,
) -> Result<Vec<Backup>, ErrorReply<NeverRefused>> {
    let vm = call.request.vm;
    let backups = handlers.state.repository.backups(RequiredFreshness::Cached).await.map_err(failed)?;
    let is_wanted = |backup: &&Backup| vm.as_ref().is_none_or(|vm| *vm == backup.vm);
    Ok(backups.iter().filter(is_wanted).cloned().collect())
}
