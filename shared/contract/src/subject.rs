//! Where messages travel. Subjects are built here, from the message types, and nowhere else.
//!
//! ```text
//!   {realm}.v1.{service}.{verb_noun}             a request
//!   {realm}.v1.{service}.{verb_noun}.{host}      the same, to the instance on one host
//!   {realm}.v1.{service}.internal.{verb_noun}    a request of a service to itself: no other account can send it
//!   {realm}.v1.{service}.internal.{verb_noun}.{host}  the same, to the instance on one host: also what one instance
//!                                                received and another has to answer
//!   {realm}.v1.event.{service}.{noun_past}.{id}  an event
//!   {realm}.v1.event.operation.{service}.{host}.{id}  progress of an operation
//! ```

use std::fmt;

use crate::{Event, HostName, InvalidName, MessageOwner, Request, Service};

/// The first token of every subject: one installation, or one test.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Realm(String);

impl Realm {
    /// Checks a realm's name: a NATS token of lower-case letters, digits and `-`.
    ///
    /// # Errors
    /// When the text breaks that rule.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidName> {
        HostName::new(text)
            .map(|name| Realm(name.into()))
            .map_err(|e| InvalidName { expected_kind: "a realm", ..e })
    }
}

impl Default for Realm {
    fn default() -> Self {
        Realm("loam".into())
    }
}
impl fmt::Display for Realm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl TryFrom<String> for Realm {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        Realm::new(text)
    }
}
impl From<Realm> for String {
    fn from(realm: Realm) -> String {
        realm.0
    }
}

/// A subject: literal, or a pattern with `*` and `>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject(String);

impl Subject {
    /// The subject as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where a request goes that one service owns.
    pub fn of_request<R: Request>(realm: &Realm) -> Subject {
        match R::OWNER {
            MessageOwner::One(service) => Subject::at_service(realm, service, R::NAME),
            _ => panic!("{} is answered by several services, each for itself; say which", R::NAME),
        }
    }

    /// Where a request goes to a service named by the caller.
    pub fn at_service(realm: &Realm, service: Service, name: &str) -> Subject {
        Subject(format!("{realm}.v1.{service}.{name}"))
    }

    /// Where a service sends a request to itself: a subject that its account does not export.
    pub fn internal(realm: &Realm, service: Service, name: &str) -> Subject {
        Subject(format!("{realm}.v1.{service}.internal.{name}"))
    }

    /// Every request that an instance of a service passes on to the instance on another host: a pattern.
    pub fn forwarded(realm: &Realm, service: Service) -> Subject {
        Subject(format!("{realm}.v1.{service}.internal.*.*"))
    }

    /// The same request, to the instance on one host only.
    pub fn on_host(&self, host: &HostName) -> Subject {
        Subject(format!("{}.{host}", self.0))
    }

    /// The same request, to the instance on any one host: a pattern.
    pub fn on_any_host(&self) -> Subject {
        Subject(format!("{}.*", self.0))
    }

    /// Every request to a service: a pattern.
    pub fn all_of_service(realm: &Realm, service: Service) -> Subject {
        Subject(format!("{realm}.v1.{service}.>"))
    }

    /// Where an event is published.
    pub fn of_event<E: Event>(realm: &Realm, event: &E) -> Subject {
        Subject(format!("{}.{}", event_stem(realm, E::OWNER, E::NAME), event.about()))
    }

    /// Every event of a kind, whatever it is about: a pattern.
    pub fn of_events<E: Event>(realm: &Realm) -> Subject {
        let stem = event_stem(realm, E::OWNER, E::NAME);
        match E::OWNER {
            MessageOwner::One(_) => Subject(format!("{stem}.*")),
            MessageOwner::Each | MessageOwner::EachWithOperations => Subject(format!("{stem}.>")),
        }
    }

    /// The events of a kind that one of its owners publishes: a pattern.
    pub(crate) fn of_events_of(realm: &Realm, owner: MessageOwner, name: &str, service: Service) -> Subject {
        let stem = event_stem(realm, owner, name);
        match owner {
            MessageOwner::One(_) => Subject(format!("{stem}.*")),
            MessageOwner::Each | MessageOwner::EachWithOperations => Subject(format!("{stem}.{service}.*.*")),
        }
    }

    /// All events of the realm.
    pub fn all_events(realm: &Realm) -> Subject {
        Subject(format!("{realm}.v1.event.>"))
    }
}

/// The subject of an event without what it is about. Events of several owners carry theirs behind it.
fn event_stem(realm: &Realm, owner: MessageOwner, name: &str) -> String {
    match owner {
        MessageOwner::One(service) => format!("{realm}.v1.event.{service}.{name}"),
        MessageOwner::Each | MessageOwner::EachWithOperations => format!("{realm}.v1.event.{name}"),
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
