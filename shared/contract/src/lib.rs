//! The words of Loam: everything one part may say to another, and nothing else.
//!
//! ```text
//!   names    checked identifiers: a VM name is a DNS label, a NATS token and a KV key at once
//!   amount   byte counts
//!   service  who owns a word
//!   word     Request, Event: a type that knows its owner, its name, its reply and its refusal
//!   subject  where a word travels; the only place that spells subjects
//!   bucket   which durable tables there are and who may write them
//!   rights   who may say and hear what, computed from the lists above
//!   book     the list of all words, with schemas; tests and generators walk it
//!
//!   operation, provisioner, backup, proxy, scheduler, upgrade, supervisor: the words, one module an owner
//! ```
//!
//! The contract promises that a word means the same to sender and receiver, in MessagePack and in JSON, today and
//! after an optional field is added (`wire/` holds one golden sample per word). It performs no IO, keeps no state
//! and knows neither NATS nor actors: `bus` makes the words travel.

pub mod amount;
pub mod backup;
pub mod book;
pub mod bucket;
pub mod names;
pub mod operation;
pub mod provisioner;
pub mod proxy;
pub mod rights;
pub mod scheduler;
pub mod service;
pub mod subject;
pub mod supervisor;
pub mod upgrade;
pub mod word;

pub use amount::ByteCount;
pub use names::{
    BackupId, BackupRef, DiskName, DomainName, HostName, InvalidName, OperationId, ScheduleId, SeedName,
    VmName,
};
pub use service::Service;
pub use subject::{Realm, Subject};
pub use word::{Audience, Event, Nothing, Owner, Request, Timestamp};
