//! The contract: every message that one part of Loam may send to another, and nothing else.
//!
//! ```text
//!   names        checked identifiers: a VM name is a DNS label, a NATS token and a KV key at once
//!   amount       byte counts
//!   service      the services by name
//!   message      Request, DurableCommand, Event: types that know owner, name, senders, reply and refusal; `messages!`
//!   catalog      the list of all messages; permissions, schemas and samples walk it
//!   subject      where a message travels; the only place that spells subjects
//!   bucket       which durable tables there are and whose they are
//!   stored       types that are rows: their versions
//!   secret       which fields may hold secrets, and who may see them
//!   permissions  the accounts of the bus, what each exports and imports, and what each user may do
//!
//!   health, operation, provisioner, backup, proxy, scheduler, upgrade, supervisor: the messages, a module for each owner
//! ```
//!
//! The contract promises that a message means the same to sender and receiver, in MessagePack and in JSON, today and
//! after an optional field is added (`wire/v1` holds golden samples of every message, made from the schemas). It
//! performs no IO, keeps no state and knows neither NATS nor actors: `bus` carries the messages.

#![warn(clippy::missing_errors_doc)]

pub mod amount;
pub mod backup;
pub mod bucket;
pub mod catalog;
pub mod health;
pub mod message;
pub mod names;
pub mod operation;
pub mod permissions;
pub mod provisioner;
pub mod proxy;
pub mod scheduler;
pub mod secret;
pub mod service;
pub mod stored;
pub mod subject;
pub mod supervisor;
pub mod upgrade;

pub use amount::ByteCount;
pub use message::{DurableCommand, Event, MessageOwner, NeverRefused, Request, Sender, Timestamp};
pub use names::{
    BackupId, BackupRef, DiskName, DomainName, HostName, InvalidName, MacAddress, OperationId, ScheduleId,
    SeedName, VmName, VmUuid,
};
pub use service::Service;
pub use stored::{NoPrevious, Stored};
pub use subject::{Realm, Subject};
