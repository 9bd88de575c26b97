//! The office that begins, resumes, lists and cancels the operations of one service.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bus::{Bus, CallError, Declined, Entry, TransportError, Server, Table, TableError};
use contract::operation::{
    Begun, CancelOperation, GetOperation, ListOperations, OperationReport, UnknownOperation,
};
use contract::message::{Failure, FailureKind, NoRefusal};
use contract::{OperationId, Service, bucket};
use saga::{Journal, Step, drive};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span};

use crate::ledger::BusLedger;
use crate::metrics;
use crate::progress::{Context, Meter};
use crate::record::Record;

/// Finished operations that are kept for looking back; older ones are removed when new ones begin.
const KEPT_FINISHED: usize = 200;
/// Unfinished operations that a service accepts: a bound on memory and on what a restart has to resume.
const UNFINISHED_MAX: usize = 500;
/// How long the end of a process waits for its runners to leave the stage.
const LEAVE_MAX: Duration = Duration::from_secs(5);
/// A write whose answer was lost may wait in the client for the next connection, or show at one replica of the table
/// before the others: not seeing it once means little.
const SETTLE_LOOKS: u32 = 3;
const SETTLE_EVERY: Duration = Duration::from_secs(1);

/// One kind of operation: a command and the saga that carries it out.
pub trait Work: Send + Sync + 'static {
    /// The name of the command.
    const KIND: &'static str;
    /// The ports that its steps use.
    type World: Send + Sync + 'static;
    /// The command.
    type Input: Serialize + DeserializeOwned + Clone + Send + Sync + 'static;
    /// What it is about, for people.
    fn about(input: &Self::Input) -> String;
    /// Its steps in order.
    fn steps() -> Vec<Step<Context<Self::World, Self::Input>>>;
}

/// Why an operation was not begun.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// The id was used for another command.
    #[error("operation id {0} was used for another command")]
    IdReused(OperationId),
    /// Too much is under way.
    #[error("{0} operations are under way; wait for some to end")]
    TooMany(usize),
    /// The table cannot be read or written.
    #[error(transparent)]
    Table(#[from] TableError),
}

impl From<BeginError> for Failure {
    fn from(error: BeginError) -> Failure {
        let kind = match &error {
            BeginError::IdReused(_) => FailureKind::Internal,
            BeginError::TooMany(_) => FailureKind::Busy,
            BeginError::Table(_) => FailureKind::Unavailable,
        };
        Failure { kind, message: error.to_string() }
    }
}

/// Why operations could not be resumed.
#[derive(Debug, thiserror::Error)]
pub enum OperationsError {
    /// The table cannot be read.
    #[error("reading the operations to resume")]
    Table(#[from] TableError),
}

type Run = Arc<dyn Fn(Operations, Entry<Record>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

struct Kind {
    steps: Vec<String>,
    run: Run,
}

struct Office {
    bus: Bus,
    table: Table<Record>,
    service: Service,
    kinds: HashMap<&'static str, Kind>,
    under_way: Mutex<HashMap<OperationId, UnderWay>>,
    ending: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Clone)]
struct UnderWay {
    cancel: CancellationToken,
    meter: Meter,
}

/// The operations of one service. Cloning is cheap.
#[derive(Clone)]
pub struct Operations {
    office: Arc<Office>,
}

/// An id for a new operation.
pub fn fresh_id() -> OperationId {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    OperationId::from_parts(since.as_millis() as u64, rand::random())
}

/// Collects the kinds of operation before the office opens.
pub struct Builder {
    bus: Bus,
    service: Service,
    kinds: HashMap<&'static str, Kind>,
}

impl Builder {
    /// Adds a kind of operation.
    pub fn with<W: Work>(mut self, world: Arc<W::World>) -> Self {
        let steps = W::steps().iter().map(|step| step.name.to_string()).collect();
        let run: Run = Arc::new(move |operations, row| {
            let world = Arc::clone(&world);
            Box::pin(async move { operations.run::<W>(world, row).await })
        });
        self.kinds.insert(W::KIND, Kind { steps, run });
        self
    }

    /// Opens the office.
    pub fn open(self) -> Operations {
        let table = self.bus.table(bucket::OPERATIONS);
        let office = Office {
            bus: self.bus,
            table,
            service: self.service,
            kinds: self.kinds,
            under_way: Mutex::default(),
            ending: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        Operations { office: Arc::new(office) }
    }
}

impl Operations {
    /// Begins to set up the office of a service.
    pub fn of(bus: Bus, service: Service) -> Builder {
        Builder { bus, service, kinds: HashMap::new() }
    }

    /// Begins an operation, or finds the one that this command began before.
    pub async fn begin<W: Work>(&self, id: OperationId, input: &W::Input) -> Result<Begun, BeginError> {
        let office = &self.office;
        let kind =
            office.kinds.get(W::KIND).expect("every kind that a service begins is registered at its start");
        let key = Record::key(office.service, &id);
        let input_json = serde_json::to_value(input).expect("commands are plain data");
        if let Some(known) = office.table.get(&key).await? {
            return already(known.value, W::KIND, &input_json);
        }
        self.make_room().await?;
        let now = chrono::Utc::now();
        let record = Record {
            id: id.clone(),
            service: office.service,
            kind: W::KIND.into(),
            about: W::about(input),
            input: input_json.clone(),
            journal: Journal::default(),
            state: contract::operation::OperationState::Running,
            steps: kind.steps.clone(),
            begun: now,
            moved: now,
            trace: telemetry::inject(&Span::current()),
        };
        match office.table.create(&key, &record).await {
            Ok(revision) => {
                self.launch(Entry { key, value: record, revision });
                Ok(Begun::Begun(id))
            }
            Err(TableError::Conflict { .. }) => match office.table.get(&key).await? {
                Some(known) => already(known.value, W::KIND, &input_json),
                None => Err(BeginError::Table(TableError::Conflict { table: bucket::OPERATIONS.name, key })),
            },
            Err(error) => {
                office.tasks.spawn(self.clone().settle(key).in_current_span());
                Err(error.into())
            }
        }
    }

    /// Finds out whether a row was written whose answer was lost, and drives it on as a restart would.
    async fn settle(self, key: String) {
        let mut looks = 0;
        while looks < SETTLE_LOOKS {
            tokio::select! {
                () = self.office.ending.cancelled() => return,
                () = tokio::time::sleep(SETTLE_EVERY) => {}
            }
            match self.office.table.get(&key).await {
                Ok(Some(row)) => return self.take_up(row),
                Ok(None) => looks += 1,
                Err(error) => tracing::debug!(key, %error, "whether an operation was begun is not known yet"),
            }
        }
    }

    /// Drives a row on, unless that is done already.
    fn take_up(&self, row: Entry<Record>) {
        if !row.value.state.is_final() && !self.under_way().contains_key(&row.value.id) {
            tracing::info!(operation = %row.value.id, kind = row.value.kind, about = row.value.about, "resuming");
            self.launch(row);
        }
    }

    /// The operation of this id, if the service has it, whatever command began it.
    pub async fn find(&self, id: &OperationId) -> Result<Option<OperationReport>, TableError> {
        let row = self.office.table.get(&Record::key(self.office.service, id)).await?;
        Ok(row.map(|row| self.report(&row.value)))
    }

    /// Drives on whatever an earlier process left unfinished.
    pub async fn resume(&self) -> Result<usize, OperationsError> {
        let unfinished: Vec<_> =
            self.rows().await?.into_iter().filter(|row| !row.value.state.is_final()).collect();
        let count = unfinished.len();
        for row in unfinished {
            self.take_up(row);
        }
        Ok(count)
    }

    /// Answers questions about operations at the service's desk.
    pub fn serve(&self, server: &mut Server) {
        let this = self.clone();
        server.on::<ListOperations, _, _>(move |asked| {
            let this = this.clone();
            async move {
                this.list(asked.request.unfinished_only).await.map_err(|error| table_down::<NoRefusal>(&error))
            }
        });
        let this = self.clone();
        server.on::<GetOperation, _, _>(move |asked| {
            let this = this.clone();
            async move { this.get(asked.request.id).await }
        });
        let this = self.clone();
        server.on::<CancelOperation, _, _>(move |asked| {
            let this = this.clone();
            async move {
                let under_way = this.under_way().get(&asked.request.id).cloned();
                if let Some(under_way) = under_way {
                    under_way.cancel.cancel();
                }
                this.get(asked.request.id).await
            }
        });
    }

    /// Leaves the stage: every runner stops at its next record, in bounded time. Unfinished operations go on after
    /// the next start.
    pub async fn leave(&self) {
        self.office.ending.cancel();
        self.office.tasks.close();
        if tokio::time::timeout(LEAVE_MAX, self.office.tasks.wait()).await.is_err() {
            tracing::warn!("operations were left in the middle of a step; they go on after the next start");
        }
    }

    /// The operations of the service, newest first; for rules such as "one of these at a time".
    pub async fn list(&self, unfinished_only: bool) -> Result<Vec<OperationReport>, TableError> {
        let mut reports: Vec<OperationReport> =
            self.rows().await?.iter().map(|row| self.report(&row.value)).collect();
        reports.retain(|report| !unfinished_only || !report.state.is_final());
        reports.sort_by_key(|report| Reverse(report.begun));
        Ok(reports)
    }

    async fn get(&self, id: OperationId) -> Result<OperationReport, Declined<UnknownOperation>> {
        match self.find(&id).await {
            Ok(Some(report)) => Ok(report),
            Ok(None) => Err(Declined::Refused(UnknownOperation { id })),
            Err(error) => Err(table_down(&error)),
        }
    }

    fn report(&self, record: &Record) -> OperationReport {
        let progress = self.under_way().get(&record.id).and_then(|under_way| under_way.meter.read());
        record.report(progress)
    }

    async fn rows(&self) -> Result<Vec<Entry<Record>>, TableError> {
        self.office.table.all_under(&format!("{}.", self.office.service)).await
    }

    async fn make_room(&self) -> Result<(), BeginError> {
        let rows = self.rows().await?;
        let unfinished = rows.iter().filter(|row| !row.value.state.is_final()).count();
        if unfinished >= UNFINISHED_MAX {
            return Err(BeginError::TooMany(unfinished));
        }
        let mut finished: Vec<_> = rows.into_iter().filter(|row| row.value.state.is_final()).collect();
        finished.sort_by_key(|row| Reverse(row.value.moved));
        for old in finished.iter().skip(KEPT_FINISHED) {
            match self.office.table.remove(&old.key, old.revision).await {
                // Somebody else removed it.
                Ok(()) | Err(TableError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<OperationId, UnderWay>> {
        self.office.under_way.lock().expect("no code here panics while it holds the lock")
    }

    fn launch(&self, row: Entry<Record>) {
        let Some(kind) = self.office.kinds.get(row.value.kind.as_str()) else {
            tracing::error!(operation = %row.value.id, kind = row.value.kind, "this version knows no such operation");
            return;
        };
        let span = tracing::info_span!(
            parent: None,
            "operation",
            otel.name = row.value.kind,
            operation = %row.value.id,
            about = row.value.about
        );
        telemetry::continue_trace(&span, &row.value.trace);
        let under_way = UnderWay { cancel: self.office.ending.child_token(), meter: Meter::default() };
        self.under_way().insert(row.value.id.clone(), under_way);
        self.office.tasks.spawn((kind.run)(self.clone(), row).instrument(span));
    }

    async fn run<W: Work>(self, world: Arc<W::World>, row: Entry<Record>) {
        let id = row.value.id.clone();
        let under_way = self.under_way().get(&id).cloned().expect("launch put it there");
        match serde_json::from_value::<W::Input>(row.value.input.clone()) {
            Err(error) => tracing::error!(operation = %id, %error, "this version cannot read the command"),
            Ok(input) => {
                metrics::taken_up(W::KIND);
                let begun = row.value.begun;
                let mut journal = row.value.journal.clone();
                let UnderWay { cancel, meter } = under_way;
                let context =
                    Context { world, input, id: id.clone(), meter: meter.clone(), cancel: cancel.clone() };
                let mut ledger = BusLedger {
                    bus: self.office.bus.clone(),
                    table: self.office.table.clone(),
                    record: row.value,
                    revision: row.revision,
                    meter,
                    cancel,
                    ending: self.office.ending.clone(),
                };
                match drive(&W::steps(), &context, &mut journal, &mut ledger).await {
                    Ok(ending) => {
                        metrics::ended(W::KIND, &ending, begun, chrono::Utc::now());
                        tracing::info!(operation = %id, kind = W::KIND, ?ending, "ended");
                    }
                    Err(lost) => tracing::info!(operation = %id, kind = W::KIND, %lost, "left"),
                }
                metrics::laid_down(W::KIND);
            }
        }
        self.under_way().remove(&id);
    }
}

fn already(known: Record, kind: &str, input: &serde_json::Value) -> Result<Begun, BeginError> {
    if known.kind == kind && known.input == *input {
        Ok(Begun::AlreadyBegun(known.id))
    } else {
        Err(BeginError::IdReused(known.id))
    }
}

fn table_down<F>(error: &TableError) -> Declined<F> {
    Declined::Failed(Failure { kind: FailureKind::Unavailable, message: error.to_string() })
}

/// Asks another service about an operation until it ends, in bounded time; the answer to a command that lasts is
/// only its id. Passing trouble on the way is waited out.
pub async fn wait_for_operation(
    bus: &Bus,
    service: Service,
    id: &OperationId,
    patience: Duration,
    mut seen: impl FnMut(&OperationReport),
) -> Result<OperationReport, CallError<UnknownOperation>> {
    const ONE_QUESTION: Duration = Duration::from_secs(5);
    const BETWEEN: Duration = Duration::from_millis(250);
    let until = tokio::time::Instant::now() + patience;
    loop {
        match bus.call_at(service, &GetOperation { id: id.clone() }, ONE_QUESTION).await {
            Ok(report) if report.state.is_final() => return Ok(report),
            Ok(report) => seen(&report),
            Err(error) if error.is_transient() => tracing::debug!(%error, "asking again about an operation"),
            Err(error) => return Err(error),
        }
        if tokio::time::Instant::now() >= until {
            let subject = format!("operation {id}");
            let cause = TransportError::TimedOut { subject, after: patience };
            return Err(CallError::Transport { service, request: "get_operation", cause });
        }
        tokio::time::sleep(BETWEEN).await;
    }
}
