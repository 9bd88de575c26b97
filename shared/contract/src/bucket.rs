//! The durable tables: JetStream KV buckets. Each key has one writer; a service never opens another's bucket,
//! but for `operations`, where every service writes under its own name.

use crate::Service;

/// A durable table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvBucket {
    /// Its name.
    pub name: &'static str,
    /// Who writes it, or every service under its own name.
    pub writer: Writer,
    /// How many revisions of a key the server keeps.
    pub history: u8,
}

/// Who writes a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// One service.
    One(Service),
    /// Every service, keys that begin with its name and a dot.
    EachServiceOwnPrefix,
}

/// Operations of every service: `{service}.{operation id}`.
pub const OPERATIONS: KvBucket =
    KvBucket { name: "operations", writer: Writer::EachServiceOwnPrefix, history: 1 };
/// Virtual machines as they should be.
pub const VMS: KvBucket = KvBucket { name: "vms", writer: Writer::One(Service::Provisioner), history: 8 };
/// Seeds.
pub const SEEDS: KvBucket = KvBucket { name: "seeds", writer: Writer::One(Service::Provisioner), history: 8 };
/// Open disk exports.
pub const DISK_EXPORTS: KvBucket =
    KvBucket { name: "disk_exports", writer: Writer::One(Service::Provisioner), history: 1 };
/// The routes that the proxy last knew.
pub const ROUTES: KvBucket = KvBucket { name: "routes", writer: Writer::One(Service::Proxy), history: 1 };
/// Schedules.
pub const SCHEDULES: KvBucket =
    KvBucket { name: "schedules", writer: Writer::One(Service::Scheduler), history: 8 };
/// Runs: `{schedule}.{due, unix seconds}`; whoever creates the key fires the run.
pub const RUNS: KvBucket = KvBucket { name: "runs", writer: Writer::One(Service::Scheduler), history: 1 };

/// All of them.
pub const ALL: [KvBucket; 7] = [OPERATIONS, VMS, SEEDS, DISK_EXPORTS, ROUTES, SCHEDULES, RUNS];

impl KvBucket {
    /// The keys that a service may write in this bucket, as a subject tail; nothing if none.
    pub fn keys_of(&self, service: Service) -> Option<String> {
        match self.writer {
            Writer::One(owner) if owner == service => Some(">".into()),
            Writer::One(_) => None,
            Writer::EachServiceOwnPrefix => Some(format!("{service}.>")),
        }
    }
}
