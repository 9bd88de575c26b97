//! The engine: begins, resumes, lists and cancels the operations of one service.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bus::{Bus, Destination, Entry, ErrorReply, IncomingRequest, Table, TableError};
use contract::message::{DurableCommand, Failure, FailureKind};
use contract::operation::{ListOperations, OperationReport, ScriptOutput};
use contract::{HostName, OperationId, Request, Service, bucket};
use encryption::{DecryptError, RowKeys};
use futures::{StreamExt, TryStreamExt, stream};
use saga::drive;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::confidential::{Cipher, Decrypted, StoredCommand};
use crate::context::{Context, ProgressMeter, ScriptOutputs};
use crate::index::{Index, IndexEntry};
use crate::metrics;
use crate::record::OperationRecord;
use crate::runtime::{BusRuntime, Confidential};
use crate::sagas::{RegisteredSaga, Saga};

/// How long the end of a process waits for its drivers to stop.
const SHUTDOWN_MAX: Duration = Duration::from_secs(5);
/// Rows that a list reads at the same time.
const READS_AT_ONCE: usize = 16;
/// Records that are removed in one round; the next round removes more.
const PRUNED_AT_ONCE: usize = 1000;

/// How long the instance on another host may take to answer; callers give up a little later.
const FORWARD_MAX: Duration = Duration::from_secs(9);

/// Why operations could not be resumed.
#[derive(Debug, thiserror::Error)]
#[error("reading the operations to resume")]
pub struct ResumeError(#[from] TableError);

/// An operation that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnfinishedOperation {
    /// Its id.
    pub id: OperationId,
    /// The host on which it runs.
    pub host: HostName,
    /// What it is about.
    pub about: String,
}

pub(crate) struct EngineShared {
    pub(crate) bus: Bus,
    pub(crate) table: Table<OperationRecord>,
    pub(crate) index: Arc<Index>,
    pub(crate) service: Service,
    pub(crate) host: HostName,
    pub(crate) sagas: HashMap<&'static str, RegisteredSaga>,
    keys: Arc<RowKeys>,
    running: Mutex<HashMap<OperationId, Running>>,
    /// Unfinished operations whose row does not decrypt: they are left as they are.
    undecryptable: Mutex<BTreeSet<OperationId>>,
    pub(crate) shutdown: CancellationToken,
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
    pub(crate) shared: Arc<EngineShared>,
}

/// An id for a new operation.
pub fn new_id() -> OperationId {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    OperationId::from_parts(since.as_millis() as u64, rand::random())
}

impl Engine {
    pub(crate) fn over(
        bus: Bus,
        service: Service,
        host: HostName,
        sagas: HashMap<&'static str, RegisteredSaga>,
        keys: Arc<RowKeys>,
    ) -> Engine {
        let shared = EngineShared {
            table: bus.table(bucket::OPERATIONS),
            index: Arc::default(),
            bus,
            service,
            host,
            sagas,
            keys,
            running: Mutex::default(),
            undecryptable: Mutex::default(),
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        Engine { shared: Arc::new(shared) }
    }

    /// Runs work to its end, even when its caller no longer waits: between the check of a command and the start of its
    /// operation nothing may be cut off.
    ///
    /// # Panics
    /// When the work does.
    pub async fn run_to_end<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        self.shared.tasks.spawn(work.in_current_span()).await.expect("the work is never aborted")
    }

    /// The host whose operations these are.
    pub fn host(&self) -> &HostName {
        &self.shared.host
    }

    /// Passes a request on to the instance of this service on another host.
    ///
    /// # Errors
    /// What that instance answered, or that it does not answer.
    pub async fn forward<R: Request>(
        &self,
        host: &HostName,
        call: IncomingRequest<R>,
    ) -> Result<R::Reply, ErrorReply<R::Refusal>> {
        let place = Destination::on(self.shared.service, host);
        let forwarded = self.shared.bus.forward(place, call, FORWARD_MAX).await;
        forwarded.map_err(|declined| match declined {
            ErrorReply::Failed(Failure { kind: kind @ FailureKind::Unavailable, message }) => {
                let service = self.shared.service;
                let message = format!("the {service} service of host {host} does not answer: {message}");
                ErrorReply::Failed(Failure { kind, message })
            }
            declined => declined,
        })
    }

    /// Drives a row on, unless it has ended or is driven already.
    pub(crate) fn drive_on(&self, row: Entry<OperationRecord>) {
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
        let row = self.shared.table.get(id.as_str()).await?;
        Ok(row.map(|row| self.report(&row.value)))
    }

    /// Drives on whatever an earlier process of this host left unfinished; returns how many operations that are.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn resume(&self) -> Result<usize, ResumeError> {
        let EngineShared { index, table, host, .. } = &*self.shared;
        index.catch_up(table).await?;
        let unfinished = index.unfinished(|entry| entry.host == *host);
        for (id, _) in &unfinished {
            if let Some(row) = read_row(table, id).await? {
                self.drive_on(row);
            }
        }
        Ok(unfinished.len())
    }

    /// Requests the cancellation of an operation; a no-op where it has ended.
    pub(crate) fn cancel(&self, id: &OperationId) {
        if let Some(running) = self.running().get(id) {
            running.cancel.cancel();
        }
    }

    /// Stops every driver at its next record, in bounded time. Unfinished operations go on after the next start.
    pub async fn shut_down(&self) {
        self.shared.shutdown.cancel();
        self.shared.tasks.close();
        if tokio::time::timeout(SHUTDOWN_MAX, self.shared.tasks.wait()).await.is_err() {
            tracing::warn!(
                "operations were stopped in the middle of a step; they go on after the next start"
            );
        }
    }

    /// The operations of the service that are asked for, newest first, with their outputs.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn list(&self, query: &ListOperations) -> Result<Vec<OperationReport>, TableError> {
        let EngineShared { index, table, .. } = &*self.shared;
        index.catch_up(table).await?;
        let ids = index.select(query);
        let mut reports = Vec::with_capacity(ids.len());
        let rows = ids.into_iter().map(|id| {
            let table = table.clone();
            async move { read_row(&table, &id).await }
        });
        let mut rows = stream::iter(rows).buffered(READS_AT_ONCE);
        while let Some(row) = rows.try_next().await? {
            // It may have ended, or been removed, since.
            let report = row.map(|row| self.report(&row.value));
            reports.extend(report.filter(|report| !query.unfinished_only || !report.state.is_final()));
        }
        Ok(reports)
    }

    /// The operations of a command that have not ended, on all hosts.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn unfinished<C: DurableCommand>(&self) -> Result<Vec<UnfinishedOperation>, TableError> {
        let EngineShared { index, table, .. } = &*self.shared;
        index.catch_up(table).await?;
        let unfinished = index.unfinished(|entry| entry.kind == C::NAME);
        let operation = |(id, entry): (OperationId, IndexEntry)| UnfinishedOperation {
            id,
            host: entry.host,
            about: entry.about,
        };
        Ok(unfinished.into_iter().map(operation).collect())
    }

    /// Removes the records of ended operations of this host beyond the newest `kept`, a bounded number of them.
    ///
    /// # Errors
    /// When the table cannot be read or written.
    pub async fn prune(&self, kept: usize) -> Result<(), TableError> {
        let EngineShared { index, table, host, .. } = &*self.shared;
        index.catch_up(table).await?;
        for (id, revision) in index.excess(host, kept).into_iter().take(PRUNED_AT_ONCE) {
            match table.remove(id.as_str(), revision).await {
                // Another process removed it.
                Ok(()) | Err(TableError::Conflict { .. }) => index.remove(&id, revision),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn report(&self, record: &OperationRecord) -> OperationReport {
        let meter = self.running().get(&record.id).map(|running| running.progress.clone());
        record.report(meter.as_ref())
    }

    /// Whether this process drives an operation.
    pub(crate) fn is_driving(&self, id: &OperationId) -> bool {
        self.running().contains_key(id)
    }

    /// How many operations this process drives.
    pub(crate) fn count_driven(&self) -> usize {
        self.running().len()
    }

    pub(crate) fn cipher(&self, id: &OperationId) -> Cipher {
        Cipher::new(Arc::clone(&self.shared.keys), id.clone())
    }

    /// The unfinished operations that are left as they are, because what is encrypted of them does not decrypt. With
    /// the right keys they go on after the next start.
    pub fn undecryptable(&self) -> Vec<OperationId> {
        self.undecryptable_ids().iter().cloned().collect()
    }

    fn undecryptable_ids(&self) -> MutexGuard<'_, BTreeSet<OperationId>> {
        self.shared.undecryptable.lock().expect("no code here panics while it holds the lock")
    }

    /// What the scripts of an operation wrote.
    pub(crate) fn scripts(&self, record: &OperationRecord) -> Result<Vec<ScriptOutput>, DecryptError> {
        self.cipher(&record.id).scripts(&record.command)
    }

    fn running(&self) -> MutexGuard<'_, HashMap<OperationId, Running>> {
        self.shared.running.lock().expect("no code here panics while it holds the lock")
    }

    pub(crate) fn launch(&self, row: Entry<OperationRecord>) {
        let Some(kind) = self.shared.sagas.get(row.value.kind.as_str()) else {
            tracing::error!(operation = %row.value.id, kind = row.value.kind, "this version has no saga of this kind");
            return;
        };
        let span = tracing::info_span!(
            parent: None,
            "operation",
            otel.name = row.value.kind,
            operation = %row.value.id,
            about = row.value.about,
            caller = %row.value.caller,
            host = %row.value.host
        );
        telemetry::continue_trace(&span, &row.value.trace);
        let running =
            Running { cancel: self.shared.shutdown.child_token(), progress: ProgressMeter::default() };
        // Begun and resumed at the same time: one driver is enough.
        if self.running().contains_key(&row.value.id) {
            return;
        }
        self.running().insert(row.value.id.clone(), running);
        self.shared.tasks.spawn((kind.drive)(self.clone(), row).instrument(span));
    }

    pub(crate) async fn run<C: Saga<S>, S: Send + Sync + 'static>(
        self,
        state: Arc<S>,
        row: Entry<OperationRecord>,
    ) {
        let id = row.value.id.clone();
        let Running { cancel, progress } =
            self.running().get(&id).cloned().expect("launch put it there and only we remove it");
        match self.read::<C>(&row.value) {
            Err(reason) => tracing::error!(operation = %id, reason, "the operation is left as it is"),
            Ok((command, whole)) => {
                let context = Context {
                    state,
                    command,
                    id: id.clone(),
                    scripts: whole.scripts.clone(),
                    progress: progress.clone(),
                    cancel: cancel.clone(),
                };
                self.drive_saga(&context, row, whole).await;
            }
        }
        self.running().remove(&id);
    }

    /// The command of an operation, and all that its row holds.
    fn read<C: DurableCommand>(&self, record: &OperationRecord) -> Result<(C, Decrypted), String> {
        let whole = match &record.command {
            StoredCommand::Plain(command) => Decrypted {
                command: command.clone(),
                journal: record.journal.clone(),
                scripts: ScriptOutputs::default(),
            },
            StoredCommand::Encrypted(encrypted) => {
                let decrypted = self.cipher(&record.id).decrypt(encrypted, &record.journal);
                decrypted.map_err(|error| {
                    self.undecryptable_ids().insert(record.id.clone());
                    format!("it does not decrypt: {error}")
                })?
            }
            StoredCommand::Ended { .. } => return Err("it has ended".into()),
        };
        // The error is not shown: it may quote a value.
        let command = serde_json::from_value(whole.command.clone());
        Ok((command.map_err(|_| "this version cannot read its command")?, whole))
    }

    async fn drive_saga<C: Saga<S>, S: Send + Sync + 'static>(
        &self,
        context: &Context<S, C>,
        row: Entry<OperationRecord>,
        Decrypted { command, mut journal, scripts }: Decrypted,
    ) {
        let (id, kind, started) = (&context.id, C::NAME, row.value.started);
        let is_encrypted = matches!(row.value.command, StoredCommand::Encrypted(_));
        let mut runtime = BusRuntime {
            bus: self.shared.bus.clone(),
            table: self.shared.table.clone(),
            generation: self.shared.table.generation(),
            index: Arc::clone(&self.shared.index),
            confidential: is_encrypted.then(|| Confidential { cipher: self.cipher(id), command, scripts }),
            operation_record: row.value,
            revision: row.revision,
            progress: context.progress.clone(),
            cancel: context.cancel.clone(),
            shutdown: self.shared.shutdown.clone(),
        };
        metrics::driver_started(kind);
        match drive(&C::steps(), context, &mut journal, &mut runtime).await {
            Ok(outcome) => {
                metrics::ended(kind, &outcome, started, chrono::Utc::now());
                tracing::info!(operation = %id, kind, ?outcome, "operation ended");
            }
            Err(fenced) => tracing::info!(operation = %id, kind, %fenced, "operation left"),
        }
        metrics::driver_stopped(kind);
    }
}

/// A row, unless it is gone or this build cannot read it; the bus reports the latter.
async fn read_row(
    table: &Table<OperationRecord>,
    id: &OperationId,
) -> Result<Option<Entry<OperationRecord>>, TableError> {
    match table.get(id.as_str()).await {
        Err(TableError::Unreadable { .. }) => Ok(None),
        row => row,
    }
}
