//! What a word is: a type that knows who owns it, what it is called, what answers it and how it may be refused.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Service;

/// A point in time, UTC, written as RFC 3339.
pub type Timestamp = chrono::DateTime<chrono::Utc>;

/// Who answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// One service.
    One(Service),
    /// Every service for itself; the caller names which.
    Each,
}

/// Who may say a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Services, people and other systems.
    Everyone,
    /// The services named, nobody else.
    Services(&'static [Service]),
}

/// A command or question. The answer is a `Reply`, or a `Refusal` from an owner who understood and says no.
pub trait Request: Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// Who answers.
    const OWNER: Owner;
    /// Its name in the subject: `verb_noun`.
    const NAME: &'static str;
    /// Who may ask.
    const AUDIENCE: Audience = Audience::Everyone;
    /// What answers it.
    type Reply: Serialize + DeserializeOwned + JsonSchema + Send + 'static;
    /// How it may be refused; its `Display` is a sentence for people.
    type Refusal: Serialize
        + DeserializeOwned
        + JsonSchema
        + std::fmt::Display
        + std::fmt::Debug
        + Send
        + Sync
        + 'static;
}

/// Something that has happened, told to whoever listens.
pub trait Event: Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// Who tells it.
    const OWNER: Owner;
    /// Its name in the subject: `noun_past`.
    const NAME: &'static str;
    /// What it is about; the last token of the subject.
    fn about(&self) -> &str;
}

/// A refusal that cannot happen: the request is never refused, it can only fail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
pub enum Nothing {}

/// What a service answers to a request that it did not carry out for a reason outside its own rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind of failure, for programs.
    pub kind: FailureKind,
    /// What was attempted and why it failed, for people.
    pub message: String,
}

/// Kinds of failure that a caller can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The message could not be read; nothing was done.
    Malformed,
    /// The message is larger than a word may be; nothing was done.
    TooLarge,
    /// The caller has no right to say this.
    NotAllowed,
    /// Too much is being asked at once; ask again later.
    Busy,
    /// Something the service needs (hypervisor, store, bus) does not answer; ask again later.
    Unavailable,
    /// The work took longer than it may.
    TimedOut,
    /// A defect of the service itself.
    Internal,
}
