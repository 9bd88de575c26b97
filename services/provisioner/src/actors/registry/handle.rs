//! The registry's handle: one method for each message, each with a deadline.

use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{Addr, Context, Handler, Message};
use actor::{AskError, TracedMessage, ask, start};
use bus::ErrorReply;
use contract::message::{Failure, FailureKind, with_causes};
use contract::provisioner::{
    AddSeedRefused, CreateVmRefused, DiskSize, RemoveSeedRefused, Seed, VmDefinition, VmRefused,
};
use contract::{OperationId, SeedName, VmName};
use provisioner_domain::{Inventory, SeedImageRecord, VmRecord, VmTransition};

use super::messages::{
    ApplyVmTransition, BeginSeedImageImport, CreateVmRecord, DeleteVmRecord, FindVmRecord, GetInventory,
    PutSeedImageRecord, ReinsertVmRecord, RemoveSeedImageImport, RemoveSeedImageRecord, ReserveVmForRestore,
    RestoreRows,
};
use super::{MAILBOX, Registry};

/// How long an answer may take: a write to a table of a cluster that just lost its leader, and a few before it.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// A handle of the registry. Cloning is cheap.
#[derive(Clone)]
pub struct RegistryHandle {
    registry: Addr<Registry>,
}

impl RegistryHandle {
    /// Starts the registry on the current arbiter.
    pub fn start(registry: Registry) -> RegistryHandle {
        RegistryHandle { registry: start(MAILBOX, registry) }
    }

    async fn ask<M, T, R>(&self, message: M) -> Result<T, ErrorReply<R>>
    where
        M: Message<Result = Result<T, ErrorReply<R>>> + Send + 'static,
        T: Send + 'static,
        R: Send + 'static,
        Registry: Handler<TracedMessage<M>>,
        Context<Registry>: ToEnvelope<Registry, TracedMessage<M>>,
    {
        match ask(&self.registry, message, ANSWER_MAX).await {
            Ok(answer) => answer,
            Err(error) => Err(ErrorReply::Failed(silent(&error))),
        }
    }

    /// All records.
    ///
    /// # Errors
    /// When the registry does not answer.
    pub async fn snapshot(&self) -> Result<Inventory, Failure> {
        ask(&self.registry, GetInventory, ANSWER_MAX).await.map_err(|error| silent(&error))
    }

    /// Writes the rows again that are missing.
    ///
    /// # Errors
    /// When the table cannot be written, or the registry does not answer.
    pub async fn restore_rows(&self) -> Result<(), Failure> {
        let restored = ask(&self.registry, RestoreRows, ANSWER_MAX).await.map_err(|error| silent(&error))?;
        restored.map_err(|error| error.to_failure())
    }

    /// One VM's record, if there is one.
    ///
    /// # Errors
    /// When its row cannot be read, or the registry does not answer.
    pub async fn find(&self, name: &VmName) -> Result<Option<VmRecord>, Failure> {
        ask(&self.registry, FindVmRecord(name.clone()), ANSWER_MAX).await.map_err(|error| silent(&error))?
    }

    /// One VM's record.
    ///
    /// # Errors
    /// When there is none, or the registry does not answer.
    pub async fn vm(&self, name: &VmName) -> Result<VmRecord, ErrorReply<VmRefused>> {
        let unknown = || ErrorReply::Refused(VmRefused::UnknownVm(name.clone()));
        self.find(name).await?.ok_or_else(unknown)
    }

    /// Creates the record of a new VM.
    ///
    /// # Errors
    /// The refusal, or no answer.
    pub async fn create(
        &self,
        definition: VmDefinition,
        by: OperationId,
    ) -> Result<VmRecord, ErrorReply<CreateVmRefused>> {
        self.ask(CreateVmRecord { definition, by }).await
    }

    /// Reserves a name for a restore.
    ///
    /// # Errors
    /// The refusal, or no answer.
    pub async fn reserve(
        &self,
        definition: VmDefinition,
        disks: Vec<DiskSize>,
        by: OperationId,
    ) -> Result<VmRecord, ErrorReply<CreateVmRefused>> {
        self.ask(ReserveVmForRestore { definition, disks, by }).await
    }

    /// Makes a transition of a VM's record.
    ///
    /// # Errors
    /// The refusal, or no answer.
    pub async fn apply(
        &self,
        vm: &VmName,
        transition: VmTransition,
    ) -> Result<VmRecord, ErrorReply<VmRefused>> {
        self.ask(ApplyVmTransition { vm: vm.clone(), transition }).await
    }

    pub(crate) async fn forget(&self, vm: &VmName, by: &OperationId) -> Result<bool, ErrorReply<VmRefused>> {
        self.ask(DeleteVmRecord { vm: vm.clone(), by: by.clone() }).await
    }

    pub(crate) async fn remember(&self, record: VmRecord) -> Result<VmRecord, ErrorReply<VmRefused>> {
        self.ask(ReinsertVmRecord(record)).await
    }

    pub(crate) async fn announce_seed(
        &self,
        name: SeedName,
        sha256: String,
        by: OperationId,
    ) -> Result<Option<SeedImageRecord>, ErrorReply<AddSeedRefused>> {
        self.ask(BeginSeedImageImport { name, sha256, by }).await
    }

    pub(crate) async fn store_seed(
        &self,
        record: SeedImageRecord,
    ) -> Result<SeedImageRecord, ErrorReply<AddSeedRefused>> {
        self.ask(PutSeedImageRecord(record)).await
    }

    pub(crate) async fn withdraw_seed(
        &self,
        name: SeedName,
        by: OperationId,
    ) -> Result<(), ErrorReply<AddSeedRefused>> {
        self.ask(RemoveSeedImageImport { name, by }).await
    }

    pub(crate) async fn remove_seed(
        &self,
        name: SeedName,
    ) -> Result<(Seed, bool), ErrorReply<RemoveSeedRefused>> {
        self.ask(RemoveSeedImageRecord(name)).await
    }
}

fn silent(error: &AskError) -> Failure {
    Failure { kind: FailureKind::TimedOut, message: with_causes(error) }
}
