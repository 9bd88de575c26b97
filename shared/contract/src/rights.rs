//! Who may say and hear what on the bus, computed from the book and the buckets; rights default to nothing.
//!
//! A service may: answer its own subjects, tell its own events, ask what the book lets it ask, write its own keys,
//! read its own buckets, and receive on its own inbox. It may create no stream, consumer or bucket: whoever may do
//! that can make the server publish on any subject, so only the bootstrap role may. People and other systems live in
//! an account of their own, without JetStream, and reach only what is exported to them.

use crate::bucket::{self, Bucket};
use crate::word::{Audience, Owner};
use crate::{Realm, Service, book};

/// What a user of the bus may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// Subjects it may publish on.
    pub publish: Vec<String>,
    /// Subjects it may subscribe to.
    pub subscribe: Vec<String>,
}

/// The beginning of a service's reply subjects: `_INBOX_backup`.
pub fn inbox_prefix(service: Service) -> String {
    format!("_INBOX_{service}")
}

/// The beginning of a person's reply subjects: `_INBOX_operator`. A person hears no answer meant for another.
pub fn inbox_prefix_of_person(name: &str) -> String {
    format!("_INBOX_{name}")
}

/// The beginning of the bootstrap role's reply subjects.
pub const BOOTSTRAP_INBOX_PREFIX: &str = "_INBOX_bootstrap";

/// What services ask of each other; every line is a right that somebody needs for a reason that can be read here.
const CALLS: [(Service, Service, &str); 14] = [
    (Service::Backup, Service::Provisioner, "get_vm"),
    (Service::Backup, Service::Provisioner, "open_disks"),
    (Service::Backup, Service::Provisioner, "renew_disks"),
    (Service::Backup, Service::Provisioner, "close_disks"),
    (Service::Backup, Service::Provisioner, "reserve_vm"),
    (Service::Backup, Service::Provisioner, "release_vm"),
    (Service::Backup, Service::Provisioner, "adopt_vm"),
    (Service::Backup, Service::Provisioner, "remove_vm"),
    (Service::Backup, Service::Provisioner, "get_operation"),
    (Service::Backup, Service::Provisioner, "cancel_operation"),
    (Service::Proxy, Service::Provisioner, "list_vms"),
    (Service::Scheduler, Service::Backup, "start_backup"),
    (Service::Upgrade, Service::Supervisor, "list_processes"),
    (Service::Upgrade, Service::Supervisor, "replace_service"),
];

/// Whoever reports on the services asks each of them how it is.
const ASK_EACH: [(Service, &str); 2] =
    [(Service::Upgrade, "check_health"), (Service::Supervisor, "check_health")];

/// The verbs of service discovery (NATS ADR-32).
const DISCOVERY: [&str; 3] = ["PING", "INFO", "STATS"];

/// Which events a service listens to.
const LISTENS: [(Service, Service, &str); 1] = [(Service::Proxy, Service::Provisioner, "vm_changed")];

/// The rights of a service's user.
pub fn of_service(realm: &Realm, service: Service) -> Rights {
    let mut publish = Vec::new();
    let mut subscribe = vec![format!("{}.>", inbox_prefix(service)), format!("{realm}.v1.{service}.>")];
    for verb in DISCOVERY {
        subscribe.extend([
            format!("$SRV.{verb}"),
            format!("$SRV.{verb}.{service}"),
            format!("$SRV.{verb}.{service}.*"),
        ]);
    }
    for (caller, callee, name) in CALLS {
        if caller == service && callee != service {
            publish.push(format!("{realm}.v1.{callee}.{name}"));
            if callee == Service::Supervisor {
                publish.push(format!("{realm}.v1.{callee}.{name}.*"));
            }
        }
    }
    for entry in book::events() {
        match entry.owner {
            Owner::One(owner) if owner == service => {
                publish.push(format!("{realm}.v1.event.{service}.{}.*", entry.name));
            }
            Owner::One(_) => {}
            Owner::Each => publish.push(format!("{realm}.v1.event.{}.*", entry.name)),
        }
    }
    for (listener, teller, name) in LISTENS {
        if listener == service {
            subscribe.push(format!("{realm}.v1.event.{teller}.{name}.*"));
        }
    }
    for (caller, name) in ASK_EACH {
        if caller == service {
            publish.extend(Service::ALL.map(|other| format!("{realm}.v1.{other}.{name}")));
            publish.extend(Service::ALL.map(|other| format!("{realm}.v1.{other}.{name}.*")));
        }
    }
    if service == Service::Upgrade {
        publish.push("$SRV.PING".into());
    }
    for table in bucket::ALL {
        publish.extend(bucket_rights(&table, service));
    }
    publish.sort();
    publish.dedup();
    subscribe.sort();
    Rights { publish, subscribe }
}

/// Writing own keys, reading own buckets; nothing that creates or consumes.
fn bucket_rights(table: &Bucket, service: Service) -> Vec<String> {
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
    let mut subjects = Vec::new();
    for entry in book::requests().into_iter().filter(|entry| entry.audience == Audience::Everyone) {
        let owners = match entry.owner {
            Owner::One(service) => vec![service],
            Owner::Each => Service::ALL.to_vec(),
        };
        subjects.extend(owners.into_iter().map(|service| format!("{realm}.v1.{service}.{}", entry.name)));
    }
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

/// The event subjects that people and other systems may hear.
pub fn exported_events(realm: &Realm) -> Vec<String> {
    vec![format!("{realm}.v1.event.>")]
}

/// The rights of a person's user, in an account that imports what is exported. Commands of other accounts can only
/// be reached through the imports, so the list here is a second fence, not the first.
pub fn of_person(realm: &Realm, name: &str) -> Rights {
    let mut publish = exported_requests(realm);
    publish.extend(exported_discovery());
    Rights {
        publish,
        subscribe: vec![format!("{}.>", inbox_prefix_of_person(name)), format!("{realm}.v1.event.>")],
    }
}

/// The rights of the bootstrap role, which makes the buckets and does nothing else. It is used by `loam up` for a
/// moment at each start.
pub fn of_bootstrap() -> Rights {
    let mut publish = vec!["$JS.API.INFO".to_string()];
    for table in bucket::ALL {
        publish.extend(
            ["CREATE", "INFO", "UPDATE"].map(|verb| format!("$JS.API.STREAM.{verb}.KV_{}", table.name)),
        );
    }
    Rights { publish, subscribe: vec![format!("{BOOTSTRAP_INBOX_PREFIX}.>")] }
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
    fn every_call_names_a_request_of_the_book() {
        let names: Vec<&str> = book::requests().iter().map(|entry| entry.name).collect();
        for (_, callee, name) in CALLS {
            assert!(names.contains(&name), "{callee}.{name}");
        }
    }

    #[test]
    fn people_reach_no_word_between_services() {
        let exported = exported_requests(&Realm::default());
        assert!(exported.contains(&"loam.v1.backup.start_backup".to_string()));
        for secret in ["open_disks", "adopt_vm", "replace_service"] {
            assert!(!exported.iter().any(|subject| subject.contains(secret)), "{secret}");
        }
    }
}
