//! The export keeper: knows which disks are exported for which operation and until when, and closes what nobody renews.
//!
//! It keeps the rows of this host in the table `disk_exports`. Exports that are being opened or closed are left alone until that has ended; a
//! reader that asks meanwhile has to ask again. After a restart, exports that were half open are closed, and open ones
//! get a fresh lease. The worker `expire_exports` makes it close what is due. Exports whose row cannot be read are left as
//! they are.

mod handle;
mod opening;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix::fut::wrap_future;
use actix::{Actor, ActorFutureExt, Context, Handler, Message, ResponseActFuture};
use actor::TracedMessage;
use bus::{Bus, ErrorReply, Table, TableError};
use contract::message::{Failure, FailureKind, NeverRefused};
use contract::provisioner::{ClosedExports, NotOpen, OpenDisksRefused, OpenedDisks, RenewedLease};
use contract::{OperationId, Timestamp, VmName, bucket};
use futures::future::join_all;
use provisioner_domain::{ExportLeases, ExportPhase, ExportRecord};
use tracing::Instrument;

use self::opening::{ExportRow, OpenExportsError, are_served, close, open, row_key};
use crate::metrics;
use crate::state::ServiceState;

pub use self::handle::ExportKeeperHandle;

/// Readers that ask at once; there are never more than a few backups running on one host.
const MAILBOX: usize = 64;
/// How long an answer may take: freezing, a hypervisor that waits for another job, thawing.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(110);

/// An answer that comes later, while the actor handles other messages.
type Later<T, R> = ResponseActFuture<ExportKeeper, Result<T, ErrorReply<R>>>;

/// Keeps the exports.
pub struct ExportKeeper {
    state: Arc<ServiceState>,
    table: Table<ExportRecord>,
    exports: HashMap<OperationId, Entry>,
    leases: ExportLeases,
    /// The keys of the rows that cannot be read.
    unreadable: HashSet<String>,
}

/// The exports of one operation.
#[derive(Clone)]
enum Entry {
    /// They are open.
    Open(ExportRow),
    /// They are being opened or closed.
    Changing,
    /// They must be closed, and are not yet.
    ToClose(ExportRow),
}

#[derive(Message)]
#[rtype(result = "Result<OpenedDisks, ErrorReply<OpenDisksRefused>>")]
struct Open {
    vm: VmName,
    operation: OperationId,
}

#[derive(Message)]
#[rtype(result = "Result<RenewedLease, ErrorReply<NotOpen>>")]
struct Renew(OperationId);

#[derive(Message)]
#[rtype(result = "Result<ClosedExports, ErrorReply<NeverRefused>>")]
struct Close(OperationId);

/// The socket of an open export of an operation.
#[derive(Message)]
#[rtype(result = "Option<PathBuf>")]
struct Find {
    operation: OperationId,
    export_name: String,
}

/// Closes what is due; what could not be closed.
#[derive(Message)]
#[rtype(result = "Result<(), String>")]
struct Expire;

impl ExportKeeper {
    /// Reads the table.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn open(bus: &Bus, state: Arc<ServiceState>) -> Result<ExportKeeper, TableError> {
        let table = bus.table::<ExportRecord>(bucket::DISK_EXPORTS);
        let mut exports = HashMap::new();
        let mut leases = ExportLeases::lasting(state.limits.export_lease);
        let rows = table.all_under(&format!("{}.", state.host)).await?;
        for entry in rows.read {
            let row = ExportRow { record: entry.value, revision: entry.revision };
            let operation = row.record.operation.clone();
            let entry = match row.record.phase {
                ExportPhase::Open(_) => {
                    leases.grant(&operation, now());
                    Entry::Open(row)
                }
                ExportPhase::Opening => Entry::ToClose(row),
            };
            exports.insert(operation, entry);
        }
        let unreadable = rows.unreadable.into_iter().map(|row| row.key).collect();
        Ok(ExportKeeper { state, table, exports, leases, unreadable })
    }

    fn busy<R>(operation: &OperationId) -> ErrorReply<R> {
        ErrorReply::Failed(Failure {
            kind: FailureKind::Busy,
            message: format!("the exports of operation {operation} are being opened or closed; try again"),
        })
    }

    /// Fails where the row of an operation's exports cannot be read: whether they are open is not known then.
    fn check_readable<R>(&self, operation: &OperationId) -> Result<(), ErrorReply<R>> {
        if !self.unreadable.contains(&row_key(&self.state.host, operation)) {
            return Ok(());
        }
        let message =
            format!("the row of the exports of operation {operation} cannot be read by this version");
        Err(Failure { kind: FailureKind::Internal, message }.into())
    }

    fn opened(
        &mut self,
        operation: OperationId,
        outcome: Result<(ExportRow, OpenedDisks), OpenExportsError>,
    ) -> Result<OpenedDisks, ErrorReply<OpenDisksRefused>> {
        match outcome {
            Ok((row, opened)) => {
                self.leases.grant(&operation, now());
                self.exports.insert(operation, Entry::Open(row));
                Ok(opened)
            }
            Err(OpenExportsError { reason, leftover_row: left }) => {
                match left {
                    Some(row) => self.exports.insert(operation, Entry::ToClose(row)),
                    None => self.exports.remove(&operation),
                };
                Err(reason)
            }
        }
    }

    /// Whether open exports are really served; then their lease is renewed, else they are closed in the next round.
    fn still_open(&self, operation: OperationId, row: ExportRow) -> ResponseActFuture<Self, bool> {
        let exports = row.opened().map(|opened| opened.exports).unwrap_or_default();
        let check = async move { are_served(&exports).await }.in_current_span();
        Box::pin(wrap_future::<_, Self>(check).map(move |served, this, _| {
            match (this.exports.get_mut(&operation), served) {
                (Some(Entry::Open(_)), true) => this.leases.grant(&operation, now()),
                (Some(entry @ Entry::Open(_)), false) => {
                    tracing::warn!(%operation, vm = %row.record.vm, "its exports are not served any more; closing them");
                    *entry = Entry::ToClose(row);
                }
                // Closed meanwhile.
                _ => return false,
            }
            served
        }))
    }

    /// Closes exports; the actor handles other messages meanwhile.
    fn closing(&mut self, operation: OperationId, row: ExportRow) -> Later<ClosedExports, NeverRefused> {
        self.exports.insert(operation.clone(), Entry::Changing);
        let (state, table) = (Arc::clone(&self.state), self.table.clone());
        let closing = async move { (close(&state, &table, &row).await, row) };
        Box::pin(
            wrap_future::<_, Self>(closing.in_current_span())
                .map(move |(outcome, row), this, _| this.closed(row, outcome).map_err(ErrorReply::Failed)),
        )
    }

    fn closed(&mut self, row: ExportRow, outcome: Result<(), Failure>) -> Result<ClosedExports, Failure> {
        let operation = row.record.operation.clone();
        match outcome {
            Ok(()) => {
                self.exports.remove(&operation);
                self.leases.end(&operation);
                Ok(ClosedExports { was_open: true })
            }
            Err(failure) => {
                tracing::warn!(%operation, "exports are not closed yet: {failure}");
                self.exports.insert(operation, Entry::ToClose(row));
                Err(failure)
            }
        }
    }

    /// The exports whose lease has expired, and those that were not closed when they had to be.
    fn due(&self) -> Vec<(OperationId, ExportRow)> {
        let expired = self.leases.expired(now());
        let due = |(operation, entry): (&OperationId, &Entry)| match entry {
            Entry::Open(row) if expired.contains(operation) => {
                tracing::warn!(%operation, vm = %row.record.vm, "the lease of its exports has expired; closing them");
                metrics::LEASES_EXPIRED.add(1, &[]);
                Some((operation.clone(), row.clone()))
            }
            Entry::ToClose(row) => Some((operation.clone(), row.clone())),
            Entry::Open(_) | Entry::Changing => None,
        };
        self.exports.iter().filter_map(due).collect()
    }
}

fn now() -> Timestamp {
    chrono::Utc::now()
}

impl Actor for ExportKeeper {
    type Context = Context<Self>;
}

impl Handler<TracedMessage<Expire>> for ExportKeeper {
    type Result = ResponseActFuture<Self, Result<(), String>>;
    fn handle(&mut self, received: TracedMessage<Expire>, _: &mut Context<Self>) -> Self::Result {
        let _in = received.span.enter();
        let (state, table) = (Arc::clone(&self.state), self.table.clone());
        let rows: Vec<ExportRow> = self.due().into_iter().map(|(_, row)| row).collect();
        for row in &rows {
            self.exports.insert(row.record.operation.clone(), Entry::Changing);
        }
        metrics::DISK_EXPORTS.record(self.exports.len() as u64, &[]);
        let closing = async move {
            join_all(rows.into_iter().map(async |row| (close(&state, &table, &row).await, row))).await
        };
        Box::pin(wrap_future::<_, Self>(closing.in_current_span()).map(|closed, this, _| {
            let outcomes = closed.into_iter().map(|(outcome, row)| this.closed(row, outcome));
            let failures: Vec<String> =
                outcomes.filter_map(|outcome| Some(outcome.err()?.to_string())).collect();
            if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
        }))
    }
}

impl Handler<TracedMessage<Open>> for ExportKeeper {
    type Result = Later<OpenedDisks, OpenDisksRefused>;
    fn handle(&mut self, received: TracedMessage<Open>, _: &mut Context<Self>) -> Self::Result {
        let Open { vm, operation } = received.message;
        if let Err(unreadable) = self.check_readable(&operation) {
            return Box::pin(actix::fut::ready(Err(unreadable)));
        }
        match self.exports.get(&operation).cloned() {
            Some(Entry::Open(row)) if row.record.vm == vm => {
                let (opened, busy) = (row.opened(), Self::busy(&operation));
                Box::pin(
                    self.still_open(operation, row)
                        .map(move |served, _, _| opened.filter(|_| served).ok_or(busy)),
                )
            }
            Some(_) => Box::pin(actix::fut::ready(Err(Self::busy(&operation)))),
            None => {
                self.exports.insert(operation.clone(), Entry::Changing);
                let (state, table, of) = (Arc::clone(&self.state), self.table.clone(), operation.clone());
                let work = async move { open(&state, &table, &vm, &of).await };
                Box::pin(
                    wrap_future::<_, Self>(work.instrument(received.span))
                        .map(move |outcome, this, _| this.opened(operation, outcome)),
                )
            }
        }
    }
}

impl Handler<TracedMessage<Find>> for ExportKeeper {
    type Result = Option<PathBuf>;
    fn handle(&mut self, received: TracedMessage<Find>, _: &mut Context<Self>) -> Self::Result {
        let Find { operation, export_name } = received.message;
        let Some(Entry::Open(row)) = self.exports.get(&operation) else { return None };
        let exports = row.opened()?.exports;
        Some(exports.into_iter().find(|export| export.export_name == export_name)?.socket)
    }
}

impl Handler<TracedMessage<Renew>> for ExportKeeper {
    type Result = Later<RenewedLease, NotOpen>;
    fn handle(&mut self, received: TracedMessage<Renew>, _: &mut Context<Self>) -> Self::Result {
        let Renew(operation_id) = received.message;
        if let Err(unreadable) = self.check_readable(&operation_id) {
            return Box::pin(actix::fut::ready(Err(unreadable)));
        }
        let renewed = RenewedLease { lease_seconds: self.state.limits.export_lease.as_secs() as u32 };
        let not_open = ErrorReply::Refused(NotOpen { operation_id: operation_id.clone() });
        match self.exports.get(&operation_id).cloned() {
            Some(Entry::Open(row)) => Box::pin(
                self.still_open(operation_id, row)
                    .map(move |served, _, _| served.then_some(renewed).ok_or(not_open)),
            ),
            _ => Box::pin(actix::fut::ready(Err(not_open))),
        }
    }
}

impl Handler<TracedMessage<Close>> for ExportKeeper {
    type Result = Later<ClosedExports, NeverRefused>;
    fn handle(&mut self, received: TracedMessage<Close>, _: &mut Context<Self>) -> Self::Result {
        let _in = received.span.enter();
        let Close(operation) = received.message;
        if let Err(unreadable) = self.check_readable(&operation) {
            return Box::pin(actix::fut::ready(Err(unreadable)));
        }
        match self.exports.get(&operation).cloned() {
            None => Box::pin(actix::fut::ready(Ok(ClosedExports { was_open: false }))),
            Some(Entry::Changing) => Box::pin(actix::fut::ready(Err(Self::busy(&operation)))),
            Some(Entry::Open(row) | Entry::ToClose(row)) => self.closing(operation, row),
        }
    }
}
