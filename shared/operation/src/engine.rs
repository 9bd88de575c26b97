//! The engine: begins, resumes, lists and cancels the operations of one service.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bus::{Bus, Entry, Table, TableError};
use contract::message::DurableCommand;
use contract::operation::OperationReport;
use contract::{OperationId, Request, Service, bucket};
use saga::{Step, drive};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::context::{Context, ProgressMeter};
use crate::metrics;
use crate::record::Record;
use crate::runtime::BusRuntime;

/// How long the end of a process waits for its drivers to stop.
const SHUTDOWN_MAX: Duration = Duration::from_secs(5);
/// A durable command and the steps that carry it out.
pub trait Saga: Send + Sync + 'static {
    /// The command.
    type Command: DurableCommand;
    /// The state of the service that its steps use: ports and actors.
    type State: Send + Sync + 'static;
    /// Its steps in order.
    fn steps() -> Vec<Step<Context<Self::State, Self::Command>>>;
}

/// Why operations could not be resumed.
#[derive(Debug, thiserror::Error)]
#[error("reading the operations to resume")]
pub struct ResumeError(#[from] TableError);

type Drive = Arc<dyn Fn(Engine, Entry<Record>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

pub(crate) struct Kind {
    pub(crate) steps: Vec<String>,
    drive: Drive,
}

pub(crate) struct Shared {
    pub(crate) bus: Bus,
    pub(crate) table: Table<Record>,
    pub(crate) service: Service,
    pub(crate) kinds: HashMap<&'static str, Kind>,
    running: Mutex<HashMap<OperationId, Running>>,
    pub(crate) ending: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

#[derive(Clone)]
struct Running {
    cancel: CancellationToken,
    progress: ProgressMeter,
}

/// The operations of one service. Cloning is cheap.
#[derive(Clone)]
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
}

/// An id for a new operation.
pub fn new_id() -> OperationId {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    OperationId::from_parts(since.as_millis() as u64, rand::random())
}

/// Collects the sagas of a service before the engine opens.
pub struct Builder {
    bus: Bus,
    service: Service,
    kinds: HashMap<&'static str, Kind>,
}

impl Builder {
    /// Adds a saga and the state that its steps use.
    pub fn with<S: Saga>(mut self, _saga: S, state: &Arc<S::State>) -> Self {
        let steps = S::steps().iter().map(|step| step.name.to_string()).collect();
        let state = Arc::clone(state);
        let drive: Drive = Arc::new(move |engine, row| {
            let state = Arc::clone(&state);
            Box::pin(async move { engine.run::<S>(state, row).await })
        });
        self.kinds.insert(S::Command::NAME, Kind { steps, drive });
        self
    }

    /// Opens the engine. Nothing is resumed yet.
    pub fn open(self) -> Engine {
        let table = self.bus.table(bucket::OPERATIONS);
        let shared = Shared {
            bus: self.bus,
            table,
            service: self.service,
            kinds: self.kinds,
            running: Mutex::default(),
            ending: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        Engine { shared: Arc::new(shared) }
    }
}

impl Engine {
    /// The engine of a service, to be given its sagas.
    pub fn of(bus: Bus, service: Service) -> Builder {
        Builder { bus, service, kinds: HashMap::new() }
    }

    /// Runs work to its end, even when its caller no longer waits: between the check of a command and the start of its
    /// operation nothing may be cut off.
    ///
    /// # Panics
    /// When the work does.
    pub async fn run_to_end<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        self.shared.tasks.spawn(work.in_current_span()).await.expect("the work is never aborted")
    }

    /// Drives a row on, unless it has ended or is driven already.
    pub(crate) fn drive_on(&self, row: Entry<Record>) {
        if !row.value.state.is_final() && !self.running().contains_key(&row.value.id) {
            tracing::info!(operation = %row.value.id, kind = row.value.kind, about = row.value.about, "resuming");
            self.launch(row);
        }
    }

    /// The operation of this id, if the service has it, whatever command began it.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn find(&self, id: &OperationId) -> Result<Option<OperationReport>, TableError> {
        let row = self.shared.table.get(&Record::key(self.shared.service, id)).await?;
        Ok(row.map(|row| self.report(&row.value)))
    }

    /// Drives on whatever an earlier process left unfinished; returns how many operations that are.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn resume(&self) -> Result<usize, ResumeError> {
        let unfinished: Vec<_> =
            self.rows().await?.into_iter().filter(|row| !row.value.state.is_final()).collect();
        let count = unfinished.len();
        for row in unfinished {
            self.drive_on(row);
        }
        Ok(count)
    }

    /// Requests the cancellation of an operation; a no-op where it has ended.
    pub(crate) fn cancel(&self, id: &OperationId) {
        if let Some(running) = self.running().get(id) {
            running.cancel.cancel();
        }
    }

    /// Stops every driver at its next record, in bounded time. Unfinished operations go on after the next start.
    pub async fn shut_down(&self) {
        self.shared.ending.cancel();
        self.shared.tasks.close();
        if tokio::time::timeout(SHUTDOWN_MAX, self.shared.tasks.wait()).await.is_err() {
            tracing::warn!(
                "operations were stopped in the middle of a step; they go on after the next start"
            );
        }
    }

    /// The operations of the service, newest first.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn list(&self, unfinished_only: bool) -> Result<Vec<OperationReport>, TableError> {
        let mut reports: Vec<OperationReport> =
            self.rows().await?.iter().map(|row| self.report(&row.value)).collect();
        reports.retain(|report| !unfinished_only || !report.state.is_final());
        reports.sort_by_key(|report| Reverse(report.started));
        Ok(reports)
    }

    fn report(&self, record: &Record) -> OperationReport {
        let progress = self.running().get(&record.id).and_then(|running| running.progress.read());
        record.report(progress)
    }

    pub(crate) async fn rows(&self) -> Result<Vec<Entry<Record>>, TableError> {
        self.shared.table.all_under(&format!("{}.", self.shared.service)).await
    }

    fn running(&self) -> MutexGuard<'_, HashMap<OperationId, Running>> {
        self.shared.running.lock().expect("no code here panics while it holds the lock")
    }

    pub(crate) fn launch(&self, row: Entry<Record>) {
        let Some(kind) = self.shared.kinds.get(row.value.kind.as_str()) else {
            tracing::error!(operation = %row.value.id, kind = row.value.kind, "this version has no saga of this kind");
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
        let running =
            Running { cancel: self.shared.ending.child_token(), progress: ProgressMeter::default() };
        // Begun and resumed at the same time: one driver is enough.
        if self.running().contains_key(&row.value.id) {
            return;
        }
        self.running().insert(row.value.id.clone(), running);
        self.shared.tasks.spawn((kind.drive)(self.clone(), row).instrument(span));
    }

    async fn run<S: Saga>(self, state: Arc<S::State>, row: Entry<Record>) {
        let id = row.value.id.clone();
        let Running { cancel, progress } =
            self.running().get(&id).cloned().expect("launch put it there and only we remove it");
        match serde_json::from_value::<S::Command>(row.value.command.clone()) {
            Err(error) => tracing::error!(operation = %id, %error, "this version cannot read the command"),
            Ok(command) => {
                let context = Context {
                    state,
                    command,
                    id: id.clone(),
                    progress: progress.clone(),
                    cancel: cancel.clone(),
                };
                self.drive_saga::<S>(&context, row).await;
            }
        }
        self.running().remove(&id);
    }

    async fn drive_saga<S: Saga>(&self, context: &Context<S::State, S::Command>, row: Entry<Record>) {
        let (id, kind, started) = (&context.id, S::Command::NAME, row.value.started);
        let mut journal = row.value.journal.clone();
        let mut runtime = BusRuntime {
            bus: self.shared.bus.clone(),
            table: self.shared.table.clone(),
            record: row.value,
            revision: row.revision,
            progress: context.progress.clone(),
            cancel: context.cancel.clone(),
            ending: self.shared.ending.clone(),
        };
        metrics::driver_started(kind);
        match drive(&S::steps(), context, &mut journal, &mut runtime).await {
            Ok(outcome) => {
                metrics::ended(kind, &outcome, started, chrono::Utc::now());
                tracing::info!(operation = %id, kind, ?outcome, "operation ended");
            }
            Err(fenced) => tracing::info!(operation = %id, kind, %fenced, "operation left"),
        }
        metrics::driver_stopped(kind);
    }
}
