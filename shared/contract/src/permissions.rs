//! Who may publish and subscribe to what on the bus, computed from the catalog and the buckets; permissions default to
//! nothing.
//!
//! A service may: answer its own subjects, publish its own events, send the requests that name it as a sender, write
//! its own keys, read its own buckets, and receive on its own inbox. It may create no stream, consumer or bucket:
//! whoever may do that can make the server publish on any subject, so only the bootstrap role may. People and other
//! systems live in an account of their own, without JetStream, and reach only what is exported to them.

use crate::bucket::{self, KvBucket};
use crate::catalog::{self, RequestEntry};
use crate::message::{MessageOwner, Sender};
use crate::subject::event_stem;
use crate::{Realm, Service, Subject};

/// What a user of the bus may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// Subjects it may publish on.
    pub publish: Vec<String>,
    /// Subjects it may subscribe to.
    pub subscribe: Vec<String>,
}

/// The beginning of a service's reply subjects: `_INBOX_backup`.
pub fn inbox_prefix(service: Service) -> String {
    format!("_INBOX_{service}")
}

/// The beginning of a person's reply subjects: `_INBOX_operator`. Nobody receives replies meant for another.
pub fn inbox_prefix_of_person(name: &str) -> String {
    format!("_INBOX_{name}")
}

/// The beginning of the bootstrap role's reply subjects.
pub const BOOTSTRAP_INBOX_PREFIX: &str = "_INBOX_bootstrap";

/// The verbs of service discovery (NATS ADR-32).
const DISCOVERY: [&str; 3] = ["PING", "INFO", "STATS"];

/// The permissions of a service's user.
pub fn of_service(realm: &Realm, service: Service) -> Permissions {
    let mut publish = Vec::new();
    let mut subscribe =
        vec![format!("{}.>", inbox_prefix(service)), Subject::all_of_service(realm, service).to_string()];
    for verb in DISCOVERY {
        subscribe.extend([
            format!("$SRV.{verb}"),
            format!("$SRV.{verb}.{service}"),
            format!("$SRV.{verb}.{service}.*"),
        ]);
    }
    for entry in catalog::requests() {
        for owner in entry.owners_for(service) {
            publish.push(Subject::at_service(realm, owner, entry.name).to_string());
            if is_sent_to_hosts(&entry) {
                publish.push(Subject::at_service(realm, owner, entry.name).on_any_host().to_string());
            }
        }
    }
    for entry in catalog::events() {
        if matches!(entry.owner, MessageOwner::Each) || entry.owner == MessageOwner::One(service) {
            publish.push(format!("{}.*", event_stem(realm, entry.owner, entry.name)));
        }
        if entry.subscribers.contains(&service) {
            subscribe.push(format!("{}.*", event_stem(realm, entry.owner, entry.name)));
        }
    }
    if service == Service::Upgrade {
        publish.push("$SRV.PING".into());
    }
    for table in bucket::ALL {
        publish.extend(bucket_permissions(&table, service));
    }
    publish.sort();
    publish.dedup();
    subscribe.sort();
    Permissions { publish, subscribe }
}

/// Whether a request goes to the instance on one host: what concerns the host's own processes and their health.
fn is_sent_to_hosts(entry: &RequestEntry) -> bool {
    entry.owner == MessageOwner::One(Service::Supervisor)
        || entry.is_sent_by(Sender::Service(Service::Supervisor))
}

/// Writing own keys, reading own buckets; nothing that creates or consumes.
fn bucket_permissions(table: &KvBucket, service: Service) -> Vec<String> {
    let Some(keys) = table.keys_of(service) else {
        return Vec::new();
    };
    let name = table.name;
    vec![
        format!("$KV.{name}.{keys}"),
        format!("$JS.API.DIRECT.GET.KV_{name}"),
        format!("$JS.API.DIRECT.GET.KV_{name}.$KV.{name}.{keys}"),
    ]
}

/// The request subjects that people and other systems may use.
pub fn exported_requests(realm: &Realm) -> Vec<String> {
    let exported = catalog::requests().into_iter().filter(|entry| entry.is_sent_by(Sender::People));
    let subjects = exported.flat_map(|entry| {
        let subject = |owner| Subject::at_service(realm, owner, entry.name).to_string();
        entry.owners().into_iter().map(subject).collect::<Vec<_>>()
    });
    let mut subjects: Vec<String> = subjects.collect();
    subjects.sort();
    subjects
}

/// The discovery subjects that people and other systems may use; several services answer each.
pub fn exported_discovery() -> Vec<String> {
    let mut subjects = Vec::new();
    for verb in DISCOVERY {
        subjects.push(format!("$SRV.{verb}"));
        subjects.extend(Service::ALL.map(|service| format!("$SRV.{verb}.{service}")));
    }
    subjects
}

/// The event subjects that people and other systems may subscribe to.
pub fn exported_events(realm: &Realm) -> Vec<String> {
    vec![Subject::all_events(realm).to_string()]
}

/// The permissions of a person's user, in an account that imports what is exported. Requests of other accounts can
/// only be reached through the imports, so the list here is a second barrier, not the first.
pub fn of_person(realm: &Realm, name: &str) -> Permissions {
    let mut publish = exported_requests(realm);
    publish.extend(exported_discovery());
    let mut subscribe = vec![format!("{}.>", inbox_prefix_of_person(name))];
    subscribe.extend(exported_events(realm));
    Permissions { publish, subscribe }
}

/// The permissions of the bootstrap role, which makes the buckets and does nothing else. It is used by `loam up` for
/// a moment at each start.
pub fn of_bootstrap() -> Permissions {
    let mut publish = vec!["$JS.API.INFO".to_string()];
    for table in bucket::ALL {
        publish.extend(
            ["CREATE", "INFO", "UPDATE"].map(|verb| format!("$JS.API.STREAM.{verb}.KV_{}", table.name)),
        );
    }
    Permissions { publish, subscribe: vec![format!("{BOOTSTRAP_INBOX_PREFIX}.>")] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_service_may_create_streams_consumers_or_buckets() {
        for service in Service::ALL {
            for subject in of_service(&Realm::default(), service).publish {
                assert!(!subject.contains("CREATE") && !subject.contains("UPDATE"), "{service}: {subject}");
                assert!(subject != ">" && !subject.starts_with("$JS.API.>"), "{service}: {subject}");
            }
        }
    }

    #[test]
    fn the_scheduler_may_send_what_may_be_scheduled_and_nothing_else() {
        let requests = |subject: &String| subject.starts_with("loam.v1.") && !subject.contains(".event.");
        let sent: Vec<String> =
            of_service(&Realm::default(), Service::Scheduler).publish.into_iter().filter(requests).collect();
        let schedulable: Vec<String> = catalog::requests()
            .into_iter()
            .filter(|entry| entry.schedulable)
            .flat_map(|entry| {
                entry.owners().into_iter().map(move |owner| format!("loam.v1.{owner}.{}", entry.name))
            })
            .collect();
        assert!(schedulable.contains(&"loam.v1.backup.start_backup".to_string()));
        assert_eq!(sent.len(), schedulable.len(), "{sent:?}");
        assert!(sent.iter().all(|subject| schedulable.contains(subject)), "{sent:?}");
    }

    #[test]
    fn people_reach_no_request_between_services() {
        let exported = exported_requests(&Realm::default());
        assert!(exported.contains(&"loam.v1.backup.start_backup".to_string()));
        for internal in ["open_disks", "create_reserved_vm", "replace_service"] {
            assert!(!exported.iter().any(|subject| subject.contains(internal)), "{internal}");
        }
    }
}
