//! The registry: owns all records of machines and seeds, and is the only one that writes them.
//!
//! ```text
//!   Make(vm, move) --> domain: next record, or a refusal
//!                        --> table (compare-and-set) --> VmChanged, where others see a difference --> memory
//! ```
//!
//! One change at a time: while a row is being written no other message is handled, so nobody decides on a record
//! that is about to change. If a row turns out to be changed by somebody else, it is read again and the asker told
//! to ask again. It dies with the process and is built again from its tables.

mod messages;
mod seeds;

use std::collections::HashMap;
use std::time::Duration;

use actix::fut::wrap_future;
use actix::{Actor, ActorFutureExt, AtomicResponse, Context, Handler};
use actor::Traced;
use bus::{Bus, Declined, Revision, Table, TableError};
use contract::provisioner::{CreateVmRefused, VmChanged, VmRefused};
use contract::message::{Failure, FailureKind};
use contract::{HostName, OperationId, SeedName, VmName, bucket};
use provisioner_domain::{Birth, Inventory, SeedRecord, VmRecord};

pub(super) use messages::{
    Create, ExpectSeed, Forget, KeepSeed, Look, Make, Remember, RemoveSeedRecord, Reserve, UnexpectSeed,
};

/// Questions and steps that may wait: every endpoint of the desk and every running operation at once.
pub(crate) const MAILBOX: usize = 256;
/// How long telling a change may take; nobody's answer waits longer for listeners.
const TELL_MAX: Duration = Duration::from_secs(2);

/// Owns the records.
pub struct Registry {
    bus: Bus,
    vms: Table<VmRecord>,
    seeds: Table<SeedRecord>,
    inventory: Inventory,
    vm_revisions: HashMap<VmName, Revision>,
    seed_revisions: HashMap<SeedName, Revision>,
    host: HostName,
    hypervisor: &'static str,
}

impl Actor for Registry {
    type Context = Context<Self>;
}

/// What a change came to.
type Changed<T, R> = AtomicResponse<Registry, Result<T, Declined<R>>>;

impl Registry {
    /// Reads the tables.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn open(bus: Bus, host: HostName, hypervisor: &'static str) -> Result<Registry, TableError> {
        let (vms, seeds) = (bus.table(bucket::VMS), bus.table(bucket::SEEDS));
        let vm_rows: Vec<bus::Entry<VmRecord>> = vms.all().await?;
        let seed_rows: Vec<bus::Entry<SeedRecord>> = seeds.all().await?;
        let vm_revisions = vm_rows.iter().map(|row| (row.value.name().clone(), row.revision)).collect();
        let seed_revisions = seed_rows.iter().map(|row| (row.value.name().clone(), row.revision)).collect();
        let inventory = Inventory::new(
            vm_rows.into_iter().map(|row| row.value),
            seed_rows.into_iter().map(|row| row.value),
        );
        Ok(Registry { bus, vms, seeds, inventory, vm_revisions, seed_revisions, host, hypervisor })
    }

    fn birth(&self, by: OperationId) -> Birth {
        Birth { by, random: rand::random(), host: self.host.clone(), now: chrono::Utc::now() }
    }

    /// Writes the record that was decided on, tells the change, and only then takes it over.
    fn keep<R: 'static>(&self, decided: Result<VmRecord, R>) -> Changed<VmRecord, R> {
        let record = match decided {
            Err(refusal) => return at_once(Err(Declined::Refused(refusal))),
            Ok(record) if self.inventory.vm(record.name()) == Some(&record) => return at_once(Ok(record)),
            Ok(record) => record,
        };
        let name = record.name().clone();
        let over = self.vm_revisions.get(&name).copied().unwrap_or(0);
        let (table, bus) = (self.vms.clone(), self.bus.clone());
        let told = self.difference(&record);
        let work = async move {
            let written = table.update(name.as_str(), &record, over).await;
            match written {
                Ok(revision) => {
                    tell(&bus, told).await;
                    Ok((record, revision))
                }
                Err(error) => Err((reread(&table, name, &error).await, error)),
            }
        };
        AtomicResponse::new(Box::pin(wrap_future::<_, Self>(work).map(|outcome, this, _| match outcome {
            Ok((record, revision)) => {
                this.vm_revisions.insert(record.name().clone(), revision);
                this.inventory.put_vm(record.clone());
                Ok(record)
            }
            Err((row, error)) => {
                this.take_over(row);
                Err(table_down(&error))
            }
        })))
    }

    /// The event that a new record is worth, if others see a difference.
    fn difference(&self, record: &VmRecord) -> Option<VmChanged> {
        let view = record.outline(self.hypervisor);
        let before = self.inventory.vm(record.name()).map(|before| before.outline(self.hypervisor));
        (before.as_ref() != Some(&view)).then(|| VmChanged { name: record.name().clone(), vm: Some(view) })
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
        }
    }
}

/// What a row is after a write that did not succeed; the write may have got through and its answer not.
enum Reread {
    There(Box<bus::Entry<VmRecord>>),
    Gone(VmName),
    Unknown,
}

async fn reread(table: &Table<VmRecord>, name: VmName, error: &TableError) -> Reread {
    if !matches!(error, TableError::Conflict { .. }) {
        return Reread::Unknown;
    }
    match table.get(name.as_str()).await {
        Ok(Some(row)) => Reread::There(Box::new(row)),
        Ok(None) => Reread::Gone(name),
        Err(_) => Reread::Unknown,
    }
}

async fn tell(bus: &Bus, event: Option<VmChanged>) {
    let Some(event) = event else { return };
    match tokio::time::timeout(TELL_MAX, bus.publish(&event)).await {
        Ok(Ok(())) => {}
        // The table holds it; whoever listens also asks.
        Ok(Err(error)) => tracing::debug!(vm = %event.name, %error, "a change was not told"),
        Err(_) => tracing::debug!(vm = %event.name, "a change was not told in time"),
    }
}

fn at_once<T: 'static, R: 'static>(answer: Result<T, Declined<R>>) -> Changed<T, R> {
    AtomicResponse::new(Box::pin(actix::fut::ready(answer)))
}

fn table_down<R>(error: &TableError) -> Declined<R> {
    Declined::Failed(Failure { kind: FailureKind::Unavailable, message: error.to_string() })
}

impl Handler<Traced<Look>> for Registry {
    type Result = actix::MessageResult<Traced<Look>>;
    fn handle(&mut self, _: Traced<Look>, _: &mut Context<Self>) -> Self::Result {
        actix::MessageResult(self.inventory.clone())
    }
}

impl Handler<Traced<Create>> for Registry {
    type Result = Changed<VmRecord, CreateVmRefused>;
    fn handle(&mut self, asked: Traced<Create>, _: &mut Context<Self>) -> Self::Result {
        let _in = asked.span.enter();
        let Create { definition, by } = asked.message;
        self.keep(self.inventory.create(&definition, &self.birth(by)))
    }
}

impl Handler<Traced<Reserve>> for Registry {
    type Result = Changed<VmRecord, CreateVmRefused>;
    fn handle(&mut self, asked: Traced<Reserve>, _: &mut Context<Self>) -> Self::Result {
        let _in = asked.span.enter();
        let Reserve { definition, disks, by } = asked.message;
        self.keep(self.inventory.reserve(&definition, &disks, &self.birth(by)))
    }
}

impl Handler<Traced<Make>> for Registry {
    type Result = Changed<VmRecord, VmRefused>;
    fn handle(&mut self, asked: Traced<Make>, _: &mut Context<Self>) -> Self::Result {
        let _in = asked.span.enter();
        let Make { vm, this } = asked.message;
        let decided = match self.inventory.vm(&vm) {
            Some(record) => record.make(this),
            None => Err(VmRefused::Unknown(vm)),
        };
        self.keep(decided)
    }
}

impl Handler<Traced<Remember>> for Registry {
    type Result = Changed<VmRecord, VmRefused>;
    fn handle(&mut self, asked: Traced<Remember>, _: &mut Context<Self>) -> Self::Result {
        let _in = asked.span.enter();
        let Remember(record) = asked.message;
        match self.inventory.vm(record.name()) {
            Some(other) if other.identity != record.identity => {
                at_once(Err(Declined::Refused(VmRefused::Unknown(record.name().clone()))))
            }
            Some(present) => at_once(Ok(present.clone())),
            None => self.keep(Ok(record)),
        }
    }
}

impl Handler<Traced<Forget>> for Registry {
    type Result = Changed<bool, VmRefused>;
    fn handle(&mut self, asked: Traced<Forget>, _: &mut Context<Self>) -> Self::Result {
        let _in = asked.span.enter();
        let Forget { vm, by } = asked.message;
        if self.inventory.vm(&vm).and_then(VmRecord::locked_by) != Some(&by) {
            return at_once(Ok(false));
        }
        let over = self.vm_revisions.get(&vm).copied().unwrap_or(0);
        let (table, bus) = (self.vms.clone(), self.bus.clone());
        let work = async move {
            match table.remove(vm.as_str(), over).await {
                Ok(()) => {
                    let gone = VmChanged { name: vm.clone(), vm: None };
                    tell(&bus, Some(gone)).await;
                    Ok(vm)
                }
                Err(error) => Err((reread(&table, vm, &error).await, error)),
            }
        };
        AtomicResponse::new(Box::pin(wrap_future::<_, Self>(work).map(|outcome, this, _| match outcome {
            Ok(vm) => {
                this.take_over(Reread::Gone(vm));
                Ok(true)
            }
            Err((row, error)) => {
                this.take_over(row);
                Err(table_down(&error))
            }
        })))
    }
}
