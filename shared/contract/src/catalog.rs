//! The catalog of all messages. What depends on every message walks it: permissions, schemas, golden samples, commands
//! by name.

use schemars::{Schema, schema_for};

use crate::message::{DurableCommand, Event, MessageOwner, Request, Sender};
use crate::{Service, backup, health, operation, provisioner, proxy, scheduler, supervisor, upgrade};

/// Is shown every message, by its type.
pub trait Visitor {
    /// A request that is answered at once.
    fn request<R: Request>(&mut self);
    /// A durable command that no schedule may send.
    fn durable<C: DurableCommand>(&mut self);
    /// A durable command that a schedule may send.
    fn schedulable<C: DurableCommand>(&mut self) {
        self.durable::<C>();
    }
    /// An event.
    fn event<E: Event>(&mut self);
}

/// Shows a visitor every message.
pub fn visit(visitor: &mut impl Visitor) {
    health::visit(visitor);
    operation::visit(visitor);
    provisioner::visit(visitor);
    backup::visit(visitor);
    proxy::visit(visitor);
    scheduler::visit(visitor);
    upgrade::visit(visitor);
    supervisor::visit(visitor);
}

/// What the catalog says of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestEntry {
    /// Its name in the subject.
    pub name: &'static str,
    /// Who answers.
    pub owner: MessageOwner,
    /// Who may send it.
    pub senders: &'static [Sender],
    /// Whether it starts durable work.
    pub durable: bool,
    /// Whether a schedule may send it.
    pub schedulable: bool,
    /// The schema of the request.
    pub request: fn() -> Schema,
    /// The schema of the reply.
    pub reply: fn() -> Schema,
    /// The schema of the refusal.
    pub refusal: fn() -> Schema,
}

/// What the catalog says of an event.
#[derive(Clone, Copy, Debug)]
pub struct EventEntry {
    /// Its name in the subject.
    pub name: &'static str,
    /// Who publishes it.
    pub owner: MessageOwner,
    /// Which services subscribe to it.
    pub subscribers: &'static [Service],
    /// Its schema.
    pub event: fn() -> Schema,
}

impl RequestEntry {
    /// The entry of one request type.
    pub fn of<R: Request>() -> RequestEntry {
        RequestEntry {
            name: R::NAME,
            owner: R::OWNER,
            senders: R::SENDERS,
            durable: false,
            schedulable: R::SCHEDULABLE,
            request: || schema_for!(R),
            reply: || schema_for!(R::Reply),
            refusal: || schema_for!(R::Refusal),
        }
    }

    /// Whether a sender may send it, to any of its owners.
    pub fn is_sent_by(&self, sender: Sender) -> bool {
        self.senders.contains(&sender)
    }

    /// The services that answer it.
    pub fn owners(&self) -> Vec<Service> {
        self.owner.services()
    }

    /// The services at which a service may send it.
    pub fn owners_for(&self, service: Service) -> Vec<Service> {
        let may = |owner: &Service| may_send(self.senders, self.schedulable, service, *owner);
        self.owners().into_iter().filter(may).collect()
    }

    /// Whether it may be sent to the instance on one host: what concerns the host's own processes and their health, and
    /// what is sent to no other ([`is_sent_to_one_host`](Self::is_sent_to_one_host)).
    pub fn is_sent_to_hosts(&self) -> bool {
        self.owner == MessageOwner::One(Service::Supervisor)
            || self.is_sent_by(Sender::Service(Service::Supervisor))
            || self.is_sent_to_one_host()
    }

    /// Whether it is sent to the instance on one host and never to any instance: the backup service reads and writes the
    /// disks of its own host.
    pub fn is_sent_to_one_host(&self) -> bool {
        self.owner == MessageOwner::One(Service::Provisioner)
            && self.senders == [Sender::Service(Service::Backup)]
    }
}

/// Whether a service may send a request to one of its owners: it is named as a sender, or it is the scheduler and the
/// request may be scheduled.
pub fn may_send(senders: &[Sender], schedulable: bool, from: Service, to: Service) -> bool {
    let named = senders.contains(&Sender::Service(from)) || senders.contains(&Sender::To(from, to));
    named || (schedulable && from == Service::Scheduler)
}

/// All requests.
pub fn requests() -> Vec<RequestEntry> {
    entries().requests
}

/// All events.
pub fn events() -> Vec<EventEntry> {
    entries().events
}

#[derive(Default)]
struct Entries {
    requests: Vec<RequestEntry>,
    events: Vec<EventEntry>,
}

fn entries() -> Entries {
    let mut entries = Entries::default();
    visit(&mut entries);
    entries
}

impl Visitor for Entries {
    fn request<R: Request>(&mut self) {
        self.requests.push(RequestEntry::of::<R>());
    }
    fn durable<C: DurableCommand>(&mut self) {
        let entry = RequestEntry { durable: true, ..RequestEntry::of::<C>() };
        self.requests.push(entry);
    }
    fn event<E: Event>(&mut self) {
        self.events.push(EventEntry {
            name: E::NAME,
            owner: E::OWNER,
            subscribers: E::SUBSCRIBERS,
            event: || schema_for!(E),
        });
    }
}
