//! The registry: owns all records of the VMs and seeds of this host, and is the only one that writes them.
//!
//! ```text
//!   ApplyVmTransition(vm, transition) --> domain: next record, or a refusal
//!                               --> table (compare-and-set) --> events, where others see a difference --> memory
//!   a new VM: its name is reserved before its row is written, held after it, and freed after the row is removed
//! ```
//!
//! One change at a time: while a row is being written no other message is handled, so nothing is decided on a record
//! that is about to change. If a row was changed by another writer, it is read again and the caller has to try again.
//! The registry ends with the process and is built again from its tables. Rows that cannot be read are set aside: whatever is
//! asked about them fails, and they are never written.

mod handle;
mod messages;
mod restore;
mod seeds;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::fut::wrap_future;
use actix::{Actor, ActorFutureExt, AtomicResponse, Context, Handler, MessageResult};
use actor::TracedMessage;
use bus::{Bus, ErrorReply, Revision, Table, TableError};
use contract::message::{Failure, FailureKind};
use contract::provisioner::{CreateVmRefused, Vm, VmChanged, VmDefinition, VmPaused, VmRefused};
use contract::{Event, HostName, OperationId, SeedName, VmName, bucket};
use encryption::RowKeys;
use provisioner_domain::secrets::secrets_of;
use provisioner_domain::{HypervisorInfo, Inventory, NewVmParams, SeedImageRecord, VmRecord};

use self::messages::{
    ApplyVmTransition, CreateVmRecord, DeleteVmRecord, FindVmRecord, GetInventory, ReinsertVmRecord,
    ReserveVmForRestore,
};

pub use self::handle::RegistryHandle;
use crate::installation::{Installation, NameError, Names};
use crate::secrets::{encrypt, renew};

/// Every handler and every running operation at once.
const MAILBOX: usize = 256;
/// How long publishing a change may take; no reply waits longer for subscribers.
const PUBLISH_MAX: Duration = Duration::from_secs(2);

/// Owns the records.
pub struct Registry {
    bus: Bus,
    vms: Table<VmRecord>,
    seeds: Table<SeedImageRecord>,
    names: Names,
    inventory: Inventory,
    vm_revisions: HashMap<VmName, Revision>,
    seed_revisions: HashMap<SeedName, Revision>,
    host: HostName,
    hypervisor: HypervisorInfo,
    keys: Arc<RowKeys>,
}

impl Actor for Registry {
    type Context = Context<Self>;
}

/// The result of a change.
type Changed<T, R> = AtomicResponse<Registry, Result<T, ErrorReply<R>>>;

impl Registry {
    /// Reads the host's rows of the tables.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn open(
        bus: Bus,
        installation: &Installation,
        host: HostName,
        hypervisor: HypervisorInfo,
        keys: Arc<RowKeys>,
    ) -> Result<Registry, TableError> {
        let (vms, seeds) = (bus.table(bucket::VMS), bus.table(bucket::SEEDS));
        let (names, of_host) = (installation.names.clone(), format!("{host}."));
        let mut vm_rows: bus::Rows<VmRecord> = vms.all_under(&of_host).await?;
        for row in &mut vm_rows.read {
            renew(&vms, row, &keys).await;
        }
        let seed_rows: bus::Rows<SeedImageRecord> = seeds.all_under(&of_host).await?;
        let vm_revisions = vm_rows.read.iter().map(|row| (row.value.name().clone(), row.revision)).collect();
        let seed_revisions =
            seed_rows.read.iter().map(|row| (row.value.name().clone(), row.revision)).collect();
        let mut inventory = Inventory::new(
            vm_rows.read.into_iter().map(|row| row.value),
            seed_rows.read.into_iter().map(|row| row.value),
        );
        let unreadable: Vec<&str> = vm_rows.unreadable.iter().map(|row| row.key.as_str()).collect();
        if !unreadable.is_empty() {
            unreadable.iter().for_each(|key| inventory.set_aside_vm(key, None));
            for (key, name) in names.of_rows(&unreadable).await? {
                inventory.set_aside_vm(&key, Some(name));
            }
        }
        for row in &seed_rows.unreadable {
            inventory.set_aside_seed(row.key.strip_prefix(&of_host).unwrap_or(&row.key));
        }
        Ok(Registry {
            bus,
            vms,
            seeds,
            names,
            inventory,
            vm_revisions,
            seed_revisions,
            host,
            hypervisor,
            keys,
        })
    }

    /// What a new VM gets; its secrets are encrypted.
    fn new_vm(&self, definition: &VmDefinition, by: OperationId) -> Result<NewVmParams, Failure> {
        let (host, now) = (self.host.clone(), chrono::Utc::now());
        let mut new_vm = NewVmParams { by, random_bits: rand::random(), host, now, secrets: None };
        if let Some(secrets) = secrets_of(definition) {
            let encrypted = encrypt(&self.keys, &new_vm.identity().uuid, &secrets);
            new_vm.secrets = Some(encrypted.map_err(|error| Failure::unavailable(&error))?);
        }
        Ok(new_vm)
    }

    /// Writes the record that was decided on, publishes the change, and only then takes it over.
    /// `taken` is the refusal where another VM has the name.
    fn write<R: 'static>(
        &self,
        decided: Result<VmRecord, R>,
        taken: fn(VmName) -> R,
    ) -> Changed<VmRecord, R> {
        let record = match decided {
            Ok(record) if self.inventory.is_vm_unreadable(record.name()) => {
                return at_once(Err(unreadable(record.name()).into()));
            }
            Err(refusal) => return at_once(Err(ErrorReply::Refused(refusal))),
            Ok(record) if self.inventory.vm(record.name()) == Some(&record) => return at_once(Ok(record)),
            Ok(record) => record,
        };
        let name = record.name().clone();
        let over = self.vm_revisions.get(&name).copied().unwrap_or(0);
        let (table, names, bus) = (self.vms.clone(), self.names.clone(), self.bus.clone());
        let events = self.events(&record);
        let work = async move {
            match write_row(&table, &names, &record, over).await {
                Ok(revision) => {
                    events.publish(&bus).await;
                    Ok((record, revision))
                }
                Err(NameError::Taken { name, .. }) => {
                    Err((Reread::Unknown, ErrorReply::Refused(taken(name))))
                }
                Err(NameError::Table(error)) => {
                    let row = match reread(&table, &record.key(), name, &error).await {
                        // What is desired is not forgotten because its row is missing.
                        Reread::Gone(_) => Reread::Unknown,
                        row => row,
                    };
                    Err((row, unavailable(&error)))
                }
            }
        };
        AtomicResponse::new(Box::pin(wrap_future::<_, Self>(work).map(|outcome, this, _| match outcome {
            Ok((record, revision)) => {
                this.vm_revisions.insert(record.name().clone(), revision);
                this.inventory.put_vm(record.clone());
                Ok(record)
            }
            Err((row, declined)) => {
                this.take_over(row);
                Err(declined)
            }
        })))
    }

    /// The events of a new record, where others see a difference.
    fn events(&self, record: &VmRecord) -> Events {
        let view = record.outline(&self.hypervisor);
        let before = self.inventory.vm(record.name()).map(|before| before.outline(&self.hypervisor));
        // As observed: an operation that begins on a paused VM and is undone is no new pause.
        let reason_of = |record: &VmRecord| record.observed().and_then(|observed| observed.pause_reason());
        let pause_reason = reason_of(record);
        let paused_before = self.inventory.vm(record.name()).and_then(reason_of);
        let paused = pause_reason.filter(|_| pause_reason != paused_before).map(|reason| VmPaused {
            host: record.host.clone(),
            uuid: record.identity.uuid.clone(),
            name: record.name().clone(),
            reason,
        });
        let changed = (before.as_ref() != Some(&view)).then(|| changed(record, Some(view)));
        Events { changed, paused }
    }

    fn take_over(&mut self, row: Reread) {
        match row {
            Reread::Unknown => {}
            Reread::There(row) => {
                self.vm_revisions.insert(row.value.name().clone(), row.revision);
                self.inventory.put_vm(row.value);
            }
            Reread::Gone(name) => {
                self.vm_revisions.remove(&name);
                self.inventory.forget_vm(&name);
            }
            Reread::Unreadable(key, name) => {
                self.vm_revisions.remove(&name);
                self.inventory.set_aside_vm(&key, Some(name));
            }
        }
    }
}

/// A row after a write that failed; the write may have arrived, and only its answer was lost.
enum Reread {
    There(Box<bus::Entry<VmRecord>>),
    Gone(VmName),
    Unreadable(String, VmName),
    Unknown,
}

/// Writes the row of a VM. One that is new has its name reserved before, and held after.
async fn write_row(
    table: &Table<VmRecord>,
    names: &Names,
    record: &VmRecord,
    over: Revision,
) -> Result<Revision, NameError> {
    let by = record.locked_by().filter(|_| over == 0);
    let reserved = match by {
        Some(by) => names.reserve(record, by).await?,
        None => 0,
    };
    let revision = table.update_owned(&record.key(), record, over).await?;
    if let Some(by) = by
        && let Err(taken) = names.hold(record, by, reserved).await
    {
        table.remove(&record.key(), revision).await?;
        return Err(taken);
    }
    Ok(revision)
}

/// That a VM was changed, or removed where there is no view of it.
fn changed(record: &VmRecord, vm: Option<Vm>) -> VmChanged {
    VmChanged {
        host: record.host.clone(),
        uuid: record.identity.uuid.clone(),
        name: record.name().clone(),
        vm,
    }
}

async fn reread(table: &Table<VmRecord>, key: &str, name: VmName, error: &TableError) -> Reread {
    if matches!(error, TableError::Transport { .. }) {
        return Reread::Unknown;
    }
    match table.get(key).await {
        Ok(Some(row)) => Reread::There(Box::new(row)),
        Ok(None) => Reread::Gone(name),
        Err(TableError::Unreadable { .. }) => Reread::Unreadable(key.into(), name),
        Err(_) => Reread::Unknown,
    }
}

/// What a change is published as.
struct Events {
    changed: Option<VmChanged>,
    paused: Option<VmPaused>,
}

impl Events {
    async fn publish(self, bus: &Bus) {
        if let Some(event) = self.changed {
            publish(bus, event).await;
        }
        if let Some(event) = self.paused {
            tracing::warn!(vm = %event.name, reason = %event.reason, "a VM is paused");
            publish(bus, event).await;
        }
    }
}

async fn publish<E: Event>(bus: &Bus, event: E) {
    match tokio::time::timeout(PUBLISH_MAX, bus.publish(&event)).await {
        Ok(Ok(())) => {}
        // The table holds it, and subscribers also read.
        Ok(Err(error)) => tracing::debug!(vm = event.about(), %error, "an event was not published"),
        Err(_) => tracing::debug!(vm = event.about(), "an event was not published in time"),
    }
}

fn at_once<T: 'static, R: 'static>(answer: Result<T, ErrorReply<R>>) -> Changed<T, R> {
    AtomicResponse::new(Box::pin(actix::fut::ready(answer)))
}

fn unavailable<R>(error: &TableError) -> ErrorReply<R> {
    ErrorReply::Failed(error.to_failure())
}

/// Why nothing is done about a VM whose row cannot be read.
fn unreadable(vm: &VmName) -> Failure {
    let message = format!(
        "the row of VM {vm} cannot be read by this version and is left as it is; `loam status` says why"
    );
    Failure { kind: FailureKind::Internal, message }
}

impl Handler<TracedMessage<GetInventory>> for Registry {
    type Result = MessageResult<TracedMessage<GetInventory>>;
    fn handle(&mut self, _: TracedMessage<GetInventory>, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.inventory.clone())
    }
}

impl Handler<TracedMessage<FindVmRecord>> for Registry {
    type Result = MessageResult<TracedMessage<FindVmRecord>>;
    fn handle(&mut self, received: TracedMessage<FindVmRecord>, _: &mut Context<Self>) -> Self::Result {
        let FindVmRecord(name) = received.message;
        MessageResult(match self.inventory.is_vm_unreadable(&name) {
            true => Err(unreadable(&name)),
            false => Ok(self.inventory.vm(&name).cloned()),
        })
    }
}

impl Handler<TracedMessage<CreateVmRecord>> for Registry {
    type Result = Changed<VmRecord, CreateVmRefused>;
    fn handle(&mut self, received: TracedMessage<CreateVmRecord>, _: &mut Context<Self>) -> Self::Result {
        let _in = received.span.enter();
        let CreateVmRecord { definition, by } = received.message;
        match self.new_vm(&definition, by) {
            Ok(new_vm) => self.write(self.inventory.create(&definition, &new_vm), CreateVmRefused::NameTaken),
            Err(failure) => at_once(Err(failure.into())),
        }
    }
}

impl Handler<TracedMessage<ReserveVmForRestore>> for Registry {
    type Result = Changed<VmRecord, CreateVmRefused>;
    fn handle(
        &mut self,
        received: TracedMessage<ReserveVmForRestore>,
        _: &mut Context<Self>,
    ) -> Self::Result {
        let _in = received.span.enter();
        let ReserveVmForRestore { definition, disks, by } = received.message;
        match self.new_vm(&definition, by) {
            Ok(new_vm) => {
                self.write(self.inventory.reserve(&definition, &disks, &new_vm), CreateVmRefused::NameTaken)
            }
            Err(failure) => at_once(Err(failure.into())),
        }
    }
}

impl Handler<TracedMessage<ApplyVmTransition>> for Registry {
    type Result = Changed<VmRecord, VmRefused>;
    fn handle(&mut self, received: TracedMessage<ApplyVmTransition>, _: &mut Context<Self>) -> Self::Result {
        let _in = received.span.enter();
        let ApplyVmTransition { vm, transition } = received.message;
        let decided = match self.inventory.vm(&vm) {
            Some(record) => record.apply(transition),
            None if self.inventory.is_vm_unreadable(&vm) => return at_once(Err(unreadable(&vm).into())),
            None => Err(VmRefused::UnknownVm(vm)),
        };
        self.write(decided, VmRefused::UnknownVm)
    }
}

impl Handler<TracedMessage<ReinsertVmRecord>> for Registry {
    type Result = Changed<VmRecord, VmRefused>;
    fn handle(&mut self, received: TracedMessage<ReinsertVmRecord>, _: &mut Context<Self>) -> Self::Result {
        let _in = received.span.enter();
        let ReinsertVmRecord(record) = received.message;
        match self.inventory.vm(record.name()) {
            Some(other) if other.identity != record.identity => {
                at_once(Err(ErrorReply::Refused(VmRefused::UnknownVm(record.name().clone()))))
            }
            Some(present) => at_once(Ok(present.clone())),
            None => self.write(Ok(record), VmRefused::UnknownVm),
        }
    }
}

impl Handler<TracedMessage<DeleteVmRecord>> for Registry {
    type Result = Changed<bool, VmRefused>;
    fn handle(&mut self, received: TracedMessage<DeleteVmRecord>, _: &mut Context<Self>) -> Self::Result {
        let _in = received.span.enter();
        let DeleteVmRecord { vm, by } = received.message;
        if self.inventory.is_vm_unreadable(&vm) {
            return at_once(Err(unreadable(&vm).into()));
        }
        let Some(record) = self.inventory.vm(&vm).filter(|record| record.locked_by() == Some(&by)).cloned()
        else {
            return at_once(Ok(false));
        };
        let over = self.vm_revisions.get(&vm).copied().unwrap_or(0);
        let (table, names, bus) = (self.vms.clone(), self.names.clone(), self.bus.clone());
        let work = async move {
            match table.remove(&record.key(), over).await {
                Ok(()) => {
                    Events { changed: Some(changed(&record, None)), paused: None }.publish(&bus).await;
                    if let Err(error) = names.release(&vm, &record.host, &record.identity.uuid).await {
                        // A name whose VM has no row is free all the same, and is removed later.
                        tracing::debug!(%vm, %error, "a name was not removed");
                    }
                    Ok(vm)
                }
                Err(error) => Err((reread(&table, &record.key(), vm, &error).await, error)),
            }
        };
        AtomicResponse::new(Box::pin(wrap_future::<_, Self>(work).map(|outcome, this, _| match outcome {
            Ok(vm) => {
                this.take_over(Reread::Gone(vm));
                Ok(true)
            }
            Err((row, error)) => {
                this.take_over(row);
                Err(unavailable(&error))
            }
        })))
    }
}
