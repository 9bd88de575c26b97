//! Accounts and permissions on the bus, computed from the catalog and the buckets; permissions default to nothing.
//!
//! ```text
//!   account PROVISIONER ... SUPERVISOR     one for each service, with its own JetStream: nobody else reaches its tables
//!     user provisioner     answers its requests, publishes its events, reads and writes its rows
//!     user bootstrap       creates its tables and does nothing else
//!     exports              what it answers and publishes, each to the accounts that may use it
//!     imports              what it may send to other services, and the events that it subscribes to
//!   account PEOPLE         people and other systems, no JetStream: imports of what people may use
//!   account JOINING        a user for each join token that is not used yet, no JetStream: may ask to join
//! ```
//!
//! A NATS server does not check the reply subject of a request: whoever may read a row can have it sent to any subject
//! of its account. So only accounts separate services. Inside its account a service may do no more than it needs: it
//! creates no stream and no consumer.

use std::fmt;

use crate::bucket::{self, KvBucket};
use crate::catalog;
use crate::message::Sender;
use crate::{HostName, Realm, Service, Subject};

/// An account of the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Account {
    /// The account of one service.
    Service(Service),
    /// The account of people and other systems.
    People,
    /// The account of hosts that hold a join token.
    Joining,
}

impl Account {
    /// All of them.
    pub fn all() -> Vec<Account> {
        Service::ALL.into_iter().map(Account::Service).chain([Account::People, Account::Joining]).collect()
    }

    /// Its name on the server.
    pub fn name(self) -> &'static str {
        match self {
            Account::Service(Service::Provisioner) => "PROVISIONER",
            Account::Service(Service::Backup) => "BACKUP",
            Account::Service(Service::Proxy) => "PROXY",
            Account::Service(Service::Scheduler) => "SCHEDULER",
            Account::Service(Service::Upgrade) => "UPGRADE",
            Account::Service(Service::Supervisor) => "SUPERVISOR",
            Account::Service(Service::Unknown) => "UNKNOWN",
            Account::People => "PEOPLE",
            Account::Joining => "JOINING",
        }
    }

    /// The account of this name.
    pub fn named(name: &str) -> Option<Account> {
        Account::all().into_iter().find(|account| account.name() == name)
    }

    /// What it lets other accounts use.
    pub fn exports(self, realm: &Realm) -> Vec<Export> {
        match self {
            Account::Service(service) => exports_of(realm, service),
            Account::People | Account::Joining => Vec::new(),
        }
    }

    /// What it uses of other accounts, each with its owner.
    pub fn imports(self, realm: &Realm) -> Vec<(Service, Export)> {
        let of_owner = |owner: Service| {
            let exports = exports_of(realm, owner).into_iter();
            exports.filter(|export| export.to.contains(&self)).map(move |export| (owner, export))
        };
        Service::ALL.into_iter().flat_map(of_owner).collect()
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Subjects of a service that other accounts use. They have the same names there: each subject names its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The subject, or a pattern.
    pub subject: String,
    /// How it is used.
    pub kind: ExportKind,
    /// The accounts that use it, and no others.
    pub to: Vec<Account>,
}

/// How an exported subject is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportKind {
    /// Requests with one answer each.
    Request,
    /// Service discovery: every instance answers.
    Discovery,
    /// Events.
    Event,
}

/// A user of the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum User {
    /// A service.
    Service(Service),
    /// Creates the tables of one service.
    Bootstrap(Service),
    /// A person or another system, by name.
    Person(String),
    /// A host that holds a join token.
    JoiningHost(HostName),
}

/// What a user of the bus may do in its account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// Subjects it may publish on.
    pub publish: Vec<String>,
    /// Subjects it may subscribe to.
    pub subscribe: Vec<String>,
}

impl User {
    /// The account that the user is in.
    pub fn account(&self) -> Account {
        match self {
            User::Service(service) | User::Bootstrap(service) => Account::Service(*service),
            User::Person(_) => Account::People,
            User::JoiningHost(_) => Account::Joining,
        }
    }

    /// The beginning of the user's reply subjects (`_INBOX_backup`). Nobody receives replies meant for another.
    pub fn inbox_prefix(&self) -> String {
        match self {
            User::Service(service) => format!("_INBOX_{service}"),
            User::Bootstrap(_) => "_INBOX_bootstrap".into(),
            User::Person(name) => format!("_INBOX_{name}"),
            User::JoiningHost(host) => format!("_INBOX_joining_{host}"),
        }
    }

    /// What the user may do.
    pub fn permissions(&self, realm: &Realm) -> Permissions {
        let mut permissions = match self {
            User::Service(service) => of_service(realm, *service),
            User::Bootstrap(service) => of_bootstrap(*service),
            // Nobody publishes in the account of people, so every event there is one that a service exports.
            User::Person(_) => Permissions {
                subscribe: vec![Subject::all_events(realm).to_string()],
                ..of_imports(realm, Account::People)
            },
            User::JoiningHost(_) => of_imports(realm, Account::Joining),
        };
        permissions.subscribe.push(format!("{}.>", self.inbox_prefix()));
        permissions.publish.sort();
        permissions.subscribe.sort();
        permissions
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            User::Service(service) => write!(f, "{service}"),
            User::Bootstrap(service) => write!(f, "bootstrap of {service}"),
            User::Person(name) => f.write_str(name),
            User::JoiningHost(host) => write!(f, "{host}, which joins"),
        }
    }
}

/// Where the server sends the reply to a request of another account on from: a random subject, which takes one reply.
const CROSS_ACCOUNT_REPLIES: &str = "_R_.>";

/// The verbs of service discovery (NATS ADR-32).
const DISCOVERY: [&str; 3] = ["PING", "INFO", "STATS"];

/// The subject on which one service answers to discovery. The subject of all services together is not exported: an
/// account can import a subject from one other account only.
pub fn discovery_subject(verb: &str, service: Service) -> String {
    format!("$SRV.{verb}.{service}")
}

fn exports_of(realm: &Realm, service: Service) -> Vec<Export> {
    let mut exports = Vec::new();
    let mut add = |subject: String, kind, to: Vec<Account>| {
        if !to.is_empty() {
            exports.push(Export { subject, kind, to });
        }
    };
    for entry in catalog::requests() {
        if !entry.owners().contains(&service) {
            continue;
        }
        let subject = Subject::at_service(realm, service, entry.name);
        let services: Vec<Account> = Service::ALL
            .into_iter()
            .filter(|sender| *sender != service && entry.owners_for(*sender).contains(&service))
            .map(Account::Service)
            .collect();
        let people = entry.is_sent_by(Sender::People).then_some(Account::People);
        if entry.is_sent_to_hosts() {
            add(subject.on_any_host().to_string(), ExportKind::Request, services.clone());
        }
        if entry.is_sent_by(Sender::JoiningHost) {
            add(subject.on_any_host().to_string(), ExportKind::Request, vec![Account::Joining]);
        }
        if !entry.is_sent_to_one_host() {
            add(subject.to_string(), ExportKind::Request, services.into_iter().chain(people).collect());
        }
    }
    for verb in DISCOVERY {
        let upgrade = Account::Service(Service::Upgrade);
        let uses = (verb == "PING" && service != Service::Upgrade).then_some(upgrade);
        let to = uses.into_iter().chain([Account::People]).collect();
        add(discovery_subject(verb, service), ExportKind::Discovery, to);
    }
    for entry in catalog::events() {
        if entry.owner.services().contains(&service) {
            let subject = Subject::of_events_of(realm, entry.owner, entry.name, service);
            let subscribers = entry.subscribers.iter().map(|subscriber| Account::Service(*subscriber));
            add(subject.to_string(), ExportKind::Event, subscribers.chain([Account::People]).collect());
        }
    }
    exports.sort_by(|a, b| a.subject.cmp(&b.subject));
    exports
}

/// Use of all that the account imports.
fn of_imports(realm: &Realm, account: Account) -> Permissions {
    let mut permissions = Permissions::default();
    for (_, import) in account.imports(realm) {
        match import.kind {
            ExportKind::Request | ExportKind::Discovery => permissions.publish.push(import.subject),
            ExportKind::Event => permissions.subscribe.push(import.subject),
        }
    }
    permissions
}

/// A service may reply because it may publish on the subjects of replies, those of other accounts and its own. The server
/// can also count the requests that a client received (`allow_responses`), but forgets them when it reads its settings
/// again: the replies to all requests under way would be refused.
fn of_service(realm: &Realm, service: Service) -> Permissions {
    let mut permissions = of_imports(realm, Account::Service(service));
    let own_inboxes = format!("{}.>", User::Service(service).inbox_prefix());
    permissions.publish.extend([CROSS_ACCOUNT_REPLIES.to_string(), own_inboxes]);
    permissions.subscribe.push(Subject::all_of_service(realm, service).to_string());
    for verb in DISCOVERY {
        permissions.subscribe.extend([
            format!("$SRV.{verb}"),
            discovery_subject(verb, service),
            format!("{}.*", discovery_subject(verb, service)),
        ]);
    }
    for entry in catalog::requests() {
        if entry.owners_for(service).contains(&service) {
            let subject = Subject::internal(realm, service, entry.name);
            permissions.publish.extend([subject.to_string(), subject.on_any_host().to_string()]);
        }
    }
    if Service::WITH_OPERATIONS.contains(&service) {
        permissions.publish.push(Subject::forwarded(realm, service).to_string());
    }
    for entry in catalog::events() {
        if entry.owner.services().contains(&service) {
            let subject = Subject::of_events_of(realm, entry.owner, entry.name, service);
            permissions.publish.push(subject.to_string());
        }
    }
    if service == Service::Upgrade {
        permissions.publish.push(discovery_subject("PING", service));
    }
    permissions.publish.extend(bucket::of_service(service).iter().flat_map(row_permissions));
    permissions
}

/// Reading and writing rows; nothing that creates or consumes. `STREAM.MSG.GET` is answered by the leader of a cluster.
fn row_permissions(bucket: &KvBucket) -> [String; 4] {
    let name = bucket.name;
    [
        format!("$KV.{name}.>"),
        format!("$JS.API.DIRECT.GET.KV_{name}"),
        format!("$JS.API.DIRECT.GET.KV_{name}.$KV.{name}.>"),
        format!("$JS.API.STREAM.MSG.GET.KV_{name}"),
    ]
}

fn of_bootstrap(service: Service) -> Permissions {
    let streams = bucket::of_service(service).iter().flat_map(|bucket| {
        ["CREATE", "INFO", "UPDATE"].map(|verb| format!("$JS.API.STREAM.{verb}.KV_{}", bucket.name))
    });
    let publish = ["$JS.API.INFO".to_string()].into_iter().chain(streams).collect();
    Permissions { publish, subscribe: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published_by(user: User) -> Vec<String> {
        user.permissions(&Realm::default()).publish
    }

    #[test]
    fn no_service_may_create_streams_consumers_or_buckets() {
        for service in Service::ALL {
            for subject in published_by(User::Service(service)) {
                assert!(!subject.contains("CREATE") && !subject.contains("UPDATE"), "{service}: {subject}");
                assert!(subject != ">" && !subject.starts_with("$JS.API.>"), "{service}: {subject}");
            }
        }
    }

    #[test]
    fn the_scheduler_may_send_what_may_be_scheduled_and_nothing_else() {
        let requests = |subject: &String| subject.starts_with("loam.v1.") && !subject.contains(".event.");
        let sent: Vec<String> =
            published_by(User::Service(Service::Scheduler)).into_iter().filter(requests).collect();
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
        let exported = published_by(User::Person("ada".into()));
        assert!(exported.contains(&"loam.v1.backup.start_backup".to_string()));
        for internal in ["open_disks", "create_reserved_vm", "replace_service", "internal"] {
            assert!(!exported.iter().any(|subject| subject.contains(internal)), "{internal}");
        }
    }

    #[test]
    fn no_account_imports_a_subject_twice_or_from_itself() {
        for account in Account::all() {
            let imports = account.imports(&Realm::default());
            let mut subjects: Vec<&str> = imports.iter().map(|(_, import)| import.subject.as_str()).collect();
            let count = subjects.len();
            subjects.sort_unstable();
            subjects.dedup();
            assert_eq!(subjects.len(), count, "{account}");
            assert!(imports.iter().all(|(owner, _)| Account::Service(*owner) != account), "{account}");
        }
    }

    #[test]
    fn nobody_exports_a_table_or_an_api_of_jetstream() {
        for account in Account::all() {
            for export in account.exports(&Realm::default()) {
                let subject = export.subject;
                assert!(
                    subject.starts_with("loam.v1.") || subject.starts_with("$SRV."),
                    "{account}: {subject}"
                );
            }
        }
    }
}
