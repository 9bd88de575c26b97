//! Beginning an operation: once for each id, after its preconditions were checked, and never half.

use std::time::Duration;

use bus::{Caller, Entry, ErrorReply, IncomingRequest, TableError};
use contract::message::{DurableCommand, Failure, FailureKind, with_causes};
use contract::operation::{BegunOperation, OperationState};
use contract::{OperationId, Service, bucket};
use encryption::{DecryptError, NoKey};
use saga::Journal;
use serde_json::Value;
use tracing::{Instrument, Span};

use crate::confidential::StoredCommand;
use crate::engine::{Engine, new_id};
use crate::record::OperationRecord;

/// Unfinished operations that a process accepts: a bound on memory and on what a restart has to resume.
const UNFINISHED_MAX: usize = 500;
/// A write whose answer was lost may wait in the client for the next connection, or show at one replica of the table
/// before the others: not finding it once means little.
const LOST_CREATE_POLLS: u32 = 3;
const LOST_CREATE_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// A durable command that was received and has not begun: what preconditions are checked on.
#[derive(Clone, Debug)]
pub struct PendingCommand<C> {
    /// The id that the operation will have.
    pub id: OperationId,
    /// The command.
    pub command: C,
    /// Who sent it.
    pub caller: Caller,
    /// For whom, where it was sent for another.
    pub on_behalf_of: Option<Caller>,
}

impl<C> PendingCommand<C> {
    /// A command that a service gives itself.
    pub fn of_service(service: Service, id: OperationId, command: C) -> Self {
        PendingCommand { id, command, caller: Caller::Service(service), on_behalf_of: None }
    }
}

/// Why an operation did not begin.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// The id was used for another command.
    #[error("operation id {0} was used for another command")]
    IdReused(OperationId),
    /// Too many have not ended.
    #[error("{0} operations have not ended; wait for some to end")]
    TooMany(usize),
    /// Whether the id was used for this command is not known.
    #[error("operation {id} was begun before, and whether by this command is not known: {source}")]
    Incomparable {
        /// The id.
        id: OperationId,
        /// Why.
        source: DecryptError,
    },
    /// The command has secret fields, and there is no key to encrypt its row with.
    #[error(transparent)]
    NoKey(#[from] NoKey),
    /// The table cannot be read or written.
    #[error(transparent)]
    Table(#[from] TableError),
}

impl From<BeginError> for Failure {
    fn from(error: BeginError) -> Failure {
        let kind = match &error {
            BeginError::IdReused(_) | BeginError::Incomparable { .. } => FailureKind::Internal,
            BeginError::TooMany(_) => FailureKind::Busy,
            BeginError::NoKey(_) => FailureKind::Unavailable,
            BeginError::Table(error) => return error.to_failure(),
        };
        Failure { kind, message: with_causes(&error) }
    }
}

impl Engine {
    /// Answers a durable command. Its id is the one that the sender chose, else one made from its message id, else a
    /// new one. A command that was received before is answered without a check, because it has changed what a check
    /// would see. `check` may return a guard, which is held until the operation has begun.
    ///
    /// # Errors
    /// What the check declined, the refusal of a reused id, or a failure of the table.
    pub async fn answer<C: DurableCommand, G>(
        &self,
        call: IncomingRequest<C>,
        check: impl AsyncFnOnce(PendingCommand<C>) -> Result<G, ErrorReply<C::Refusal>>,
    ) -> Result<BegunOperation, ErrorReply<C::Refusal>> {
        let id = id_of(&call).unwrap_or_else(new_id);
        let known = self.find(&id).await.map_err(|error| error.to_failure())?;
        let IncomingRequest { request: command, caller, on_behalf_of, .. } = call;
        let pending = PendingCommand { id, command, caller, on_behalf_of };
        let _guard = match known {
            Some(_) => None,
            None => Some(check(pending.clone()).await?),
        };
        self.begin(pending).await.map_err(|error| match error {
            BeginError::IdReused(id) => ErrorReply::Refused(C::id_reused(id)),
            error => ErrorReply::Failed(error.into()),
        })
    }

    /// Whether a command was received before, by whatever instance of the service.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn is_known<C: DurableCommand>(&self, call: &IncomingRequest<C>) -> Result<bool, TableError> {
        match id_of(call) {
            Some(id) => Ok(self.find(&id).await?.is_some()),
            None => Ok(false),
        }
    }

    /// Begins an operation, or finds the one that this command began before.
    ///
    /// # Errors
    /// When the id was used for another command, too many are unfinished, or the table does not answer.
    pub async fn begin<C: DurableCommand>(
        &self,
        pending: PendingCommand<C>,
    ) -> Result<BegunOperation, BeginError> {
        let PendingCommand { id, command, caller, on_behalf_of } = pending;
        let shared = &self.shared;
        let kind = shared.sagas.get(C::NAME).expect("an engine opens with every saga of its service");
        let key = id.to_string();
        let json = without_id(&command);
        if let Some(known) = shared.table.get(&key).await? {
            return self.already(known.value, C::NAME, &json);
        }
        // Its row was lost with the table, and its driver is about to write it again.
        if self.is_driving(&id) {
            return Err(BeginError::Table(TableError::Conflict { table: bucket::OPERATIONS.name, key }));
        }
        let unfinished = self.count_driven();
        if unfinished >= UNFINISHED_MAX {
            return Err(BeginError::TooMany(unfinished));
        }
        let stored = match kind.has_secrets {
            true => self.cipher(&id).begin(&json)?,
            false => StoredCommand::Plain(json.clone()),
        };
        let now = chrono::Utc::now();
        let record = OperationRecord {
            id: id.clone(),
            service: shared.service,
            host: shared.host.clone(),
            caller,
            on_behalf_of,
            kind: C::NAME.into(),
            about: command.about(),
            command: stored,
            journal: Journal::default(),
            state: OperationState::Running,
            steps: kind.steps.clone(),
            started: now,
            updated: now,
            trace: telemetry::inject(&Span::current()),
        };
        match shared.table.create(&key, &record).await {
            Ok(revision) => {
                shared.index.enter(&record, revision);
                self.launch(Entry { key, value: record, revision });
                Ok(BegunOperation::Begun(id))
            }
            Err(TableError::Conflict { .. }) => match shared.table.get_from_leader(&key).await? {
                Some(known) => self.already(known.value, C::NAME, &json),
                None => Err(BeginError::Table(TableError::Conflict { table: bucket::OPERATIONS.name, key })),
            },
            Err(error) => {
                shared.tasks.spawn(self.clone().find_lost_create(key).in_current_span());
                Err(error.into())
            }
        }
    }

    /// Finds out whether a row was written whose answer was lost, and drives it on as a restart would.
    async fn find_lost_create(self, key: String) {
        let mut polls = 0;
        while polls < LOST_CREATE_POLLS {
            tokio::select! {
                () = self.shared.shutdown.cancelled() => return,
                () = tokio::time::sleep(LOST_CREATE_POLL_INTERVAL) => {}
            }
            match self.shared.table.get_from_leader(&key).await {
                Ok(Some(row)) => return self.drive_on(row),
                Ok(None) => polls += 1,
                // It is another's.
                Err(TableError::Unreadable { .. }) => return,
                Err(error) => tracing::debug!(
                    key,
                    error = with_causes(&error),
                    "whether an operation began is not known yet"
                ),
            }
        }
    }

    fn already(
        &self,
        known: OperationRecord,
        kind: &str,
        command: &Value,
    ) -> Result<BegunOperation, BeginError> {
        let OperationRecord { id, kind: known_kind, command: known, .. } = known;
        if known_kind != kind {
            return Err(BeginError::IdReused(id));
        }
        match self.cipher(&id).is_begun_by(&known, command) {
            Ok(true) => Ok(BegunOperation::AlreadyBegun(id)),
            Ok(false) => Err(BeginError::IdReused(id)),
            Err(source) => Err(BeginError::Incomparable { id, source }),
        }
    }
}

/// The id that the sender chose, or the one that its message id stands for.
fn id_of<C: DurableCommand>(call: &IncomingRequest<C>) -> Option<OperationId> {
    call.request.operation_id().cloned().or_else(|| call.operation_of_message())
}

/// A command as it is stored and compared: the id is the row's key, however it was chosen.
fn without_id<C: DurableCommand>(command: &C) -> Value {
    let mut json = serde_json::to_value(command).expect("commands are plain data");
    if let Some(fields) = json.as_object_mut() {
        fields.remove("operation_id");
    }
    json
}
