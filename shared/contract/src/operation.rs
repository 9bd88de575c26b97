//! Operations: durable work. A command that begins one is answered at once with its id; progress and outcome
//! are events, and the operation can be listed, watched and cancelled at the service that carries it out.
//!
//! ```text
//!   begun -> running -> done
//!                   \-> undoing -> undone      (a step failed, or it was cancelled)
//!                             \--> stuck       (an undo step failed for good: a person is needed)
//! ```

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::message::{Caller, MessageOwner, NeverRefused, messages};
use crate::{HostName, OperationId, Service, Timestamp};

messages! { MessageOwner::EachWithOperations =>
    request ListOperations { "list_operations", from [People], reply Vec<OperationReport>, refusal NeverRefused }
    request GetOperation {
        "get_operation", from [People, To(Backup, Provisioner)], reply OperationReport, refusal UnknownOperation
    }
    request CancelOperation {
        "cancel_operation", from [People, To(Backup, Provisioner)], reply OperationReport, refusal UnknownOperation
    }
    request GetScriptOutput {
        "get_script_output", from [People], reply Vec<ScriptOutput>, refusal UnknownOperation
    }
    event OperationChanged {
        "operation", to [], about |it| format!("{}.{}.{}", it.0.service, it.0.host, it.0.id)
    }
}

/// The reply to a durable command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BegunOperation {
    /// The operation was begun with this id.
    Begun(OperationId),
    /// This very command was given before; this is the operation it began.
    AlreadyBegun(OperationId),
}

impl BegunOperation {
    /// The operation, whether new or known.
    pub fn operation(&self) -> &OperationId {
        match self {
            BegunOperation::Begun(id) | BegunOperation::AlreadyBegun(id) => id,
        }
    }
}

/// The state of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// Its steps are being done.
    Running,
    /// A step failed or it was cancelled; what was done is being undone.
    Undoing,
    /// All steps are done.
    Done,
    /// It did not succeed, and everything is as before.
    Undone,
    /// It could be neither finished nor undone; `reason` says what a person must check.
    Stuck,
    /// A state of a later version. It is never stored.
    #[serde(other)]
    Unknown,
}

impl OperationState {
    /// Whether nothing more will happen.
    pub fn is_final(&self) -> bool {
        matches!(self, OperationState::Done | OperationState::Undone | OperationState::Stuck)
    }
}

/// An operation as seen from outside; also the event published at each change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OperationReport {
    /// Its id.
    pub id: OperationId,
    /// The service that carries it out.
    pub service: Service,
    /// The host on which it runs.
    pub host: HostName,
    /// Who sent the command.
    pub caller: Caller,
    /// For whom the caller sent it, where it did so for another: the person whose schedule the scheduler carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<Caller>,
    /// What it does: the name of the command that began it (`create_vm`).
    pub kind: String,
    /// What it is about, for people and for filters (`web`).
    pub about: String,
    /// Its state.
    pub state: OperationState,
    /// The current step; absent once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Steps done so far.
    pub steps_done: u32,
    /// Steps in all.
    pub steps_total: u32,
    /// How far the current step is, where it counts bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Why the current step goes no further: what it waits for, or the error after which it is being tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// Why it is undoing, undone or stuck.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its result, once done: the last step's output. Lists leave it out; `get_operation` has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<serde_json::Value>,
    /// When it was begun.
    pub started: Timestamp,
    /// When it last changed.
    pub updated: Timestamp,
    /// The trace that follows it, 32 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

impl OperationReport {
    /// Who asked for it in the end: for whom it was sent, or else who sent it.
    pub fn asked_by(&self) -> &Caller {
        self.on_behalf_of.as_ref().unwrap_or(&self.caller)
    }
}

/// How much of a step is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Progress {
    /// Bytes gone through.
    pub done_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Bytes that were new and had to be stored, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<u64>,
}

/// An operation changed: a step began or ended, or its progress went on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct OperationChanged(pub OperationReport);

/// Asks a service for its operations, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListOperations {
    /// Only those that have not ended.
    #[serde(default)]
    pub unfinished_only: bool,
    /// Only those that this person, by name or public key, or this service asked for, itself or through the scheduler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Only those whose id begins so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_prefix: Option<String>,
    /// Only those that come after this one in the list: the last of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<OperationPosition>,
    /// How many at most, 1 to 200; 100 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u16>,
}

/// The place of an operation in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OperationPosition {
    /// When it was begun.
    pub started: Timestamp,
    /// Its id, which decides among those that were begun at one moment.
    pub id: OperationId,
}

impl From<&OperationReport> for OperationPosition {
    fn from(report: &OperationReport) -> OperationPosition {
        OperationPosition { started: report.started, id: report.id.clone() }
    }
}

/// Asks a service for one of its operations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GetOperation {
    /// The operation.
    pub id: OperationId,
}

/// Asks a service what the scripts of one of its operations wrote. It may hold secrets: it is shown to the operator, and
/// to whoever asked for the operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GetScriptOutput {
    /// The operation.
    pub id: OperationId,
}

/// What a script wrote.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ScriptOutput {
    /// The name of the script.
    pub script: String,
    /// The last lines that it wrote, at most 1,000 bytes.
    #[schemars(extend("x-secret" = true))]
    pub output: String,
}

impl std::fmt::Debug for ScriptOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ScriptOutput({:?}, {} bytes)", self.script, self.output.len())
    }
}

/// Cancels an operation: what it did is undone. A no-op where it is cancelled or has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CancelOperation {
    /// The operation.
    pub id: OperationId,
}

/// The service has no such operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("there is no operation {id} at this service")]
pub struct UnknownOperation {
    /// The id that was asked for.
    pub id: OperationId,
}
