//! The list of all words. Generators (rights, schemas) and tests (golden samples, subjects) walk it.

use schemars::{Schema, schema_for};

use crate::word::{Audience, Event, Owner, Request};
use crate::{backup, operation, provisioner, proxy, scheduler, supervisor, upgrade};

/// What the book says of a request.
#[derive(Clone, Debug)]
pub struct RequestEntry {
    /// Its name in the subject.
    pub name: &'static str,
    /// Who answers.
    pub owner: Owner,
    /// Who may ask.
    pub audience: Audience,
    /// The schema of the question.
    pub request: Schema,
    /// The schema of the answer.
    pub reply: Schema,
    /// The schema of the refusal.
    pub refusal: Schema,
}

/// What the book says of an event.
#[derive(Clone, Debug)]
pub struct EventEntry {
    /// Its name in the subject.
    pub name: &'static str,
    /// Who tells it.
    pub owner: Owner,
    /// Its schema.
    pub event: Schema,
}

/// The entry of one request type.
pub fn request_entry<R: Request>() -> RequestEntry {
    RequestEntry {
        name: R::NAME,
        owner: R::OWNER,
        audience: R::AUDIENCE,
        request: schema_for!(R),
        reply: schema_for!(R::Reply),
        refusal: schema_for!(R::Refusal),
    }
}

fn event_entry<E: Event>() -> EventEntry {
    EventEntry { name: E::NAME, owner: E::OWNER, event: schema_for!(E) }
}

/// All requests.
pub fn requests() -> Vec<RequestEntry> {
    vec![
        request_entry::<operation::ListOperations>(),
        request_entry::<operation::GetOperation>(),
        request_entry::<operation::CancelOperation>(),
        request_entry::<operation::CheckHealth>(),
        request_entry::<provisioner::AddSeed>(),
        request_entry::<provisioner::ListSeeds>(),
        request_entry::<provisioner::RemoveSeed>(),
        request_entry::<provisioner::CreateVm>(),
        request_entry::<provisioner::StartVm>(),
        request_entry::<provisioner::StopVm>(),
        request_entry::<provisioner::RemoveVm>(),
        request_entry::<provisioner::ListVms>(),
        request_entry::<provisioner::GetVm>(),
        request_entry::<provisioner::OpenDisks>(),
        request_entry::<provisioner::RenewDisks>(),
        request_entry::<provisioner::CloseDisks>(),
        request_entry::<provisioner::ReserveVm>(),
        request_entry::<provisioner::ReleaseVm>(),
        request_entry::<provisioner::AdoptVm>(),
        request_entry::<backup::StartBackup>(),
        request_entry::<backup::RestoreBackup>(),
        request_entry::<backup::VerifyBackup>(),
        request_entry::<backup::ListBackups>(),
        request_entry::<proxy::ListRoutes>(),
        request_entry::<scheduler::AddSchedule>(),
        request_entry::<scheduler::RemoveSchedule>(),
        request_entry::<scheduler::ListSchedules>(),
        request_entry::<scheduler::ListRuns>(),
        request_entry::<upgrade::ListServices>(),
        request_entry::<upgrade::ApplyRelease>(),
        request_entry::<supervisor::ListProcesses>(),
        request_entry::<supervisor::ReplaceService>(),
    ]
}

/// All events.
pub fn events() -> Vec<EventEntry> {
    vec![
        event_entry::<operation::OperationMoved>(),
        event_entry::<provisioner::VmChanged>(),
        event_entry::<backup::BackupSealed>(),
        event_entry::<scheduler::RunFired>(),
    ]
}
