//! How others speak to the registry: one method a message, each with a deadline.

use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{Addr, Context, Handler, Message};
use actor::{Traced, ask, start};
use bus::Declined;
use contract::provisioner::{
    AddSeedRefused, CreateVmRefused, DiskSize, RemoveSeedRefused, Seed, VmDefinition, VmRefused,
};
use contract::message::{Failure, FailureKind};
use contract::{OperationId, SeedName, VmName};
use provisioner_domain::{Inventory, SeedRecord, VmTransition, VmRecord};

use super::registry::{
    Create, ExpectSeed, Forget, KeepSeed, Look, MAILBOX, Make, Registry, Remember, RemoveSeedRecord, Reserve,
    UnexpectSeed,
};

/// How long an answer may take: a write to a table of a cluster that just lost its leader, and a few before it.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// Speaks to the registry. Cloning is cheap.
#[derive(Clone)]
pub struct RegistryHandle {
    registry: Addr<Registry>,
}

impl RegistryHandle {
    /// Starts the registry on the arbiter at hand.
    pub fn start(registry: Registry) -> RegistryHandle {
        RegistryHandle { registry: start(MAILBOX, registry) }
    }

    async fn ask<M, T, R>(&self, message: M) -> Result<T, Declined<R>>
    where
        M: Message<Result = Result<T, Declined<R>>> + Send + 'static,
        T: Send + 'static,
        R: Send + 'static,
        Registry: Handler<Traced<M>>,
        Context<Registry>: ToEnvelope<Registry, Traced<M>>,
    {
        match ask(&self.registry, message, ANSWER_MAX).await {
            Ok(answer) => answer,
            Err(error) => Err(Declined::Failed(silent(&error))),
        }
    }

    /// All records as they are.
    ///
    /// # Errors
    /// When the registry does not answer.
    pub async fn look(&self) -> Result<Inventory, Failure> {
        ask(&self.registry, Look, ANSWER_MAX).await.map_err(|error| silent(&error))
    }

    /// One record.
    ///
    /// # Errors
    /// When there is none, or no answer.
    pub async fn vm(&self, name: &VmName) -> Result<VmRecord, Declined<VmRefused>> {
        let inventory = self.look().await?;
        let unknown = || Declined::Refused(VmRefused::Unknown(name.clone()));
        inventory.vm(name).cloned().ok_or_else(unknown)
    }

    /// Makes the record of a new machine.
    ///
    /// # Errors
    /// Why not.
    pub async fn create(
        &self,
        definition: VmDefinition,
        by: OperationId,
    ) -> Result<VmRecord, Declined<CreateVmRefused>> {
        self.ask(Create { definition, by }).await
    }

    /// Reserves a name for a restore.
    ///
    /// # Errors
    /// Why not.
    pub async fn reserve(
        &self,
        definition: VmDefinition,
        disks: Vec<DiskSize>,
        by: OperationId,
    ) -> Result<VmRecord, Declined<CreateVmRefused>> {
        self.ask(Reserve { definition, disks, by }).await
    }

    pub(crate) async fn make(&self, vm: &VmName, this: VmTransition) -> Result<VmRecord, Declined<VmRefused>> {
        self.ask(Make { vm: vm.clone(), this }).await
    }

    pub(crate) async fn forget(&self, vm: &VmName, by: &OperationId) -> Result<bool, Declined<VmRefused>> {
        self.ask(Forget { vm: vm.clone(), by: by.clone() }).await
    }

    pub(crate) async fn remember(&self, record: VmRecord) -> Result<VmRecord, Declined<VmRefused>> {
        self.ask(Remember(record)).await
    }

    pub(crate) async fn expect_seed(
        &self,
        name: SeedName,
        sha256: String,
        by: OperationId,
    ) -> Result<Option<SeedRecord>, Declined<AddSeedRefused>> {
        self.ask(ExpectSeed { name, sha256, by }).await
    }

    pub(crate) async fn keep_seed(&self, record: SeedRecord) -> Result<SeedRecord, Declined<AddSeedRefused>> {
        self.ask(KeepSeed(record)).await
    }

    pub(crate) async fn unexpect_seed(
        &self,
        name: SeedName,
        by: OperationId,
    ) -> Result<(), Declined<AddSeedRefused>> {
        self.ask(UnexpectSeed { name, by }).await
    }

    pub(crate) async fn remove_seed(
        &self,
        name: SeedName,
    ) -> Result<(Seed, bool), Declined<RemoveSeedRefused>> {
        self.ask(RemoveSeedRecord(name)).await
    }
}

fn silent(error: &actor::AskError) -> Failure {
    Failure { kind: FailureKind::TimedOut, message: error.to_string() }
}
