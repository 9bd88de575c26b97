//! The durable tables: JetStream KV buckets. Each belongs to one service and lies in the JetStream of its account, which
//! nobody else can reach; so tables of the same name in two accounts are two tables.

use crate::Service;

/// A durable table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvBucket {
    /// Its name.
    pub name: &'static str,
    /// How many revisions of a key the server keeps.
    pub history: u8,
}

/// The operations of the service that owns it: `{operation id}`.
pub const OPERATIONS: KvBucket = KvBucket { name: "operations", history: 1 };
/// Virtual machines as they should be: `{host}.{uuid}`. The provisioner of that host alone writes the row.
pub const VMS: KvBucket = KvBucket { name: "vms", history: 8 };
/// Who has the name of a VM, on whatever host: `{name}`.
pub const VM_NAMES: KvBucket = KvBucket { name: "vm_names", history: 1 };
/// The hosts that run VMs, each as its provisioner last reported it: `{host}`.
pub const HOSTS: KvBucket = KvBucket { name: "hosts", history: 1 };
/// Seeds: `{host}.{name}`. Each host has files of its own.
pub const SEEDS: KvBucket = KvBucket { name: "seeds", history: 8 };
/// Open disk exports: `{host}.{operation id}`.
pub const DISK_EXPORTS: KvBucket = KvBucket { name: "disk_exports", history: 1 };
/// Who does what only one host may do at a time: `{work}`.
pub const LEASES: KvBucket = KvBucket { name: "leases", history: 1 };
/// The routes that the proxy last knew.
pub const ROUTES: KvBucket = KvBucket { name: "routes", history: 1 };
/// Schedules.
pub const SCHEDULES: KvBucket = KvBucket { name: "schedules", history: 8 };
/// Runs: `{schedule}.{due, unix seconds}`; whoever creates the key fires the run.
pub const RUNS: KvBucket = KvBucket { name: "runs", history: 1 };

/// The tables of a service. The supervisor has none.
pub const fn of_service(service: Service) -> &'static [KvBucket] {
    match service {
        Service::Provisioner => &[OPERATIONS, VMS, VM_NAMES, HOSTS, SEEDS, DISK_EXPORTS],
        Service::Backup => &[OPERATIONS, LEASES],
        Service::Upgrade => &[OPERATIONS],
        Service::Proxy => &[ROUTES],
        Service::Scheduler => &[SCHEDULES, RUNS],
        Service::Supervisor | Service::Unknown => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog;

    #[test]
    fn services_with_durable_commands_are_those_with_operations() {
        for service in Service::ALL {
            let is_durable =
                |entry: &catalog::RequestEntry| entry.durable && entry.owners().contains(&service);
            let begins = catalog::requests().iter().any(is_durable);
            assert_eq!(begins, Service::WITH_OPERATIONS.contains(&service), "{service}");
            assert_eq!(begins, of_service(service).contains(&OPERATIONS), "{service}");
        }
    }
}
