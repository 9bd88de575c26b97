//! What a message is: a type that knows who owns it, what it is called, who may send it, what answers it and how it
//! may be refused. Each module of messages declares all of that in one table (`messages!`), from which catalog,
//! permissions, subjects, samples and schemas follow.

use std::fmt;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::operation::BegunOperation;
use crate::{OperationId, Service, VmName};

/// A point in time, UTC, written as RFC 3339.
pub type Timestamp = chrono::DateTime<chrono::Utc>;

/// Who answers a request or publishes an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageOwner {
    /// One service.
    One(Service),
    /// Every service for itself; the caller names which.
    Each,
    /// Every service that has operations ([`Service::WITH_OPERATIONS`]) for itself; the caller names which.
    EachWithOperations,
}

impl MessageOwner {
    /// The services that own it.
    pub fn services(self) -> Vec<Service> {
        match self {
            MessageOwner::One(service) => vec![service],
            MessageOwner::Each => Service::ALL.to_vec(),
            MessageOwner::EachWithOperations => Service::WITH_OPERATIONS.to_vec(),
        }
    }
}

/// Who may send a request. No one can send a request without senders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// People and other systems, in accounts of their own.
    People,
    /// A service, to the owner of the request.
    Service(Service),
    /// A service, to one of the services that each answer the request.
    To(Service, Service),
    /// A host that holds a join token, to the service on the host that the token names.
    JoiningHost,
}

/// Who sent a request, as the bus server stamped it: by account and user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Caller {
    /// A service of this installation, by its account.
    Service(Service),
    /// A person or another system.
    Person {
        /// The user: its public nkey.
        user: String,
        /// The name of that user in the installation's list of people, where it is listed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// A host that joins.
    JoiningHost {
        /// The public nkey of its token.
        token: String,
    },
    /// Nobody is named: the bus has no accounts, as in tests.
    Anonymous,
    /// A kind of caller that this version does not know.
    #[serde(other)]
    Unknown,
}

impl Caller {
    /// Whether this is the caller that a person means by a name: of a service, or of a person, who may be named by the
    /// public key, too.
    pub fn is_named(&self, text: &str) -> bool {
        match self {
            Caller::Person { user, name } => user == text || name.as_deref() == Some(text),
            other => other.to_string() == text,
        }
    }
}

/// Characters of a public key that tell users apart, for people.
const USER_CHARACTERS_SHOWN: usize = 12;

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Caller::Service(service) => f.write_str(service.name()),
            Caller::Person { name: Some(name), .. } => f.write_str(name),
            Caller::Person { user, name: None } => {
                f.write_str(user.get(..USER_CHARACTERS_SHOWN).unwrap_or(user))
            }
            Caller::JoiningHost { .. } => f.write_str("a host that joins"),
            Caller::Anonymous => f.write_str("anonymous"),
            Caller::Unknown => f.write_str("unknown"),
        }
    }
}

/// A command or query. The answer is a `Reply`, or a `Refusal` from an owner that understood and says no.
pub trait Request: Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// Who answers.
    const OWNER: MessageOwner;
    /// Its name in the subject: `verb_noun`.
    const NAME: &'static str;
    /// Who may send it.
    const SENDERS: &'static [Sender];
    /// Whether a schedule may send it. The scheduler sets the operation id and, where the command has a field
    /// `schedule`, its own schedule.
    const SCHEDULABLE: bool;
    /// What answers it.
    type Reply: Serialize + DeserializeOwned + JsonSchema + Send + 'static;
    /// How it may be refused; its `Display` is a sentence for people that says what to do next.
    type Refusal: Serialize
        + DeserializeOwned
        + JsonSchema
        + std::fmt::Display
        + std::fmt::Debug
        + Send
        + Sync
        + 'static;
}

/// A command that starts durable work. It is answered at once with the id of an operation, which survives its process
/// and can be listed, watched and cancelled. The same id and command twice are one operation.
pub trait DurableCommand: Request<Reply = BegunOperation> + Clone {
    /// The id that the sender chose for the operation, where it did.
    fn operation_id(&self) -> Option<&OperationId>;
    /// What it is about: the name that people filter operations by (a VM, a seed, a repository).
    fn about(&self) -> String;
    /// The refusal of an id that was used for another command.
    fn id_reused(id: OperationId) -> Self::Refusal;
}

/// A durable command about one VM.
pub trait VmCommand: DurableCommand {
    /// The VM's name.
    fn vm(&self) -> &VmName;
}

/// Something that has happened, published to all subscribers.
pub trait Event: Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// Who publishes it.
    const OWNER: MessageOwner;
    /// Its name in the subject: `noun_past`.
    const NAME: &'static str;
    /// Services that subscribe to it. People and other systems may subscribe to every event.
    const SUBSCRIBERS: &'static [Service];
    /// What it is about: the last token of the subject. An event that every service publishes for itself begins with its
    /// service: `{service}.{host}.{id}`.
    fn about(&self) -> String;
}

/// A refusal that cannot happen: the request is never refused, it can only fail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
pub enum NeverRefused {}

/// What a service answers to a request that it did not carry out for a reason outside its own rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind of failure, for programs.
    pub kind: FailureKind,
    /// What was attempted and why it failed, for people.
    pub message: String,
}

impl Failure {
    /// Something that the service needs does not answer: the error with its causes in one sentence.
    pub fn unavailable(error: &dyn std::error::Error) -> Failure {
        Failure { kind: FailureKind::Unavailable, message: with_causes(error) }
    }

    /// Whether the same request may succeed a little later.
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, FailureKind::Busy | FailureKind::Unavailable | FailureKind::TimedOut)
    }
}

/// An error with its causes in one sentence: `copying vda: opening /x: no such file`.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Kinds of failure that a caller can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The message could not be decoded; nothing was done.
    Malformed,
    /// The message is larger than a message may be; nothing was done.
    TooLarge,
    /// The caller has no permission to send this.
    NotAllowed,
    /// Too many requests at once; ask again later.
    Busy,
    /// Something the service needs (hypervisor, store, bus) does not answer; ask again later.
    Unavailable,
    /// The work took longer than it may.
    TimedOut,
    /// A defect of the service itself.
    Internal,
    /// A kind of a later version.
    #[serde(other)]
    Unknown,
}

/// Declares the messages of one module, a row each, and the function `visit` that walks them:
///
/// ```text
///   messages! { MessageOwner::One(Service::Provisioner) =>
///       schedulable StopVm { "stop_vm", from [People], refusal VmRefused, about vm |it| &it.vm }
///       durable AddSeed { ..., about |it| it.name.to_string() }       about something else than a VM of its owner
///       request ListVms { "list_vms", from [People, Service(Proxy)], reply Vec<Vm>, refusal NeverRefused }
///       event VmChanged { "vm_changed", to [Proxy], about |it| it.name.as_str() }
///   }
/// ```
///
/// A durable command has a field `operation_id: Option<OperationId>`, and its refusal a case `IdReused(OperationId)`.
macro_rules! messages {
    ($owner:expr => $($kind:ident $type:ident { $($row:tt)* })*) => {
        $( $crate::message::declare! { $kind $type ($owner) $($row)* } )*

        /// Walks the messages of this module.
        pub(crate) fn visit(visitor: &mut impl $crate::catalog::Visitor) {
            $( visitor.$kind::<$type>(); )*
        }
    };
}

macro_rules! declare {
    (durable $type:ident ($owner:expr) $($row:tt)*) => {
        $crate::message::declare! { command $type ($owner) (false) $($row)* }
    };
    (schedulable $type:ident ($owner:expr) $($row:tt)*) => {
        $crate::message::declare! { command $type ($owner) (true) $($row)* }
    };
    (command $type:ident ($owner:expr) ($schedulable:expr)
        $name:literal, from [$($sender:expr),*], refusal $refusal:ty, about vm |$it:ident| $vm:expr) => {
        $crate::message::declare! {
            command $type ($owner) ($schedulable)
            $name, from [$($sender),*], refusal $refusal, about |it| $crate::message::VmCommand::vm(it).to_string()
        }
        impl $crate::message::VmCommand for $type {
            fn vm(&self) -> &$crate::VmName {
                let $it = self;
                $vm
            }
        }
    };
    (command $type:ident ($owner:expr) ($schedulable:expr)
        $name:literal, from [$($sender:expr),*], refusal $refusal:ty, about |$it:ident| $about:expr) => {
        $crate::message::declare! {
            answered $type ($owner) ($schedulable)
            $name, from [$($sender),*], reply $crate::operation::BegunOperation, refusal $refusal
        }
        impl $crate::message::DurableCommand for $type {
            fn operation_id(&self) -> Option<&$crate::OperationId> {
                self.operation_id.as_ref()
            }
            fn about(&self) -> String {
                let $it = self;
                $about
            }
            fn id_reused(id: $crate::OperationId) -> $refusal {
                <$refusal>::IdReused(id)
            }
        }
    };
    (request $type:ident ($owner:expr) $($row:tt)*) => {
        $crate::message::declare! { answered $type ($owner) (false) $($row)* }
    };
    (answered $type:ident ($owner:expr) ($schedulable:expr)
        $name:literal, from [$($sender:expr),*], reply $reply:ty, refusal $refusal:ty) => {
        impl $crate::message::Request for $type {
            const OWNER: $crate::message::MessageOwner = $owner;
            const NAME: &'static str = $name;
            const SENDERS: &'static [$crate::message::Sender] = {
                #[allow(unused_imports)]
                use $crate::{Service::*, message::Sender::*};
                &[$($sender),*]
            };
            const SCHEDULABLE: bool = $schedulable;
            type Reply = $reply;
            type Refusal = $refusal;
        }
    };
    (event $type:ident ($owner:expr) $name:literal, to [$($service:expr),*], about |$it:ident| $about:expr) => {
        impl $crate::message::Event for $type {
            const OWNER: $crate::message::MessageOwner = $owner;
            const NAME: &'static str = $name;
            const SUBSCRIBERS: &'static [$crate::Service] = {
                #[allow(unused_imports)]
                use $crate::Service::*;
                &[$($service),*]
            };
            fn about(&self) -> String {
                let $it = self;
                $about.to_string()
            }
        }
    };
}
pub(crate) use {declare, messages};
