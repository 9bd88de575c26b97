//! The export warden: knows which disks stand open for whom and until when, and closes what nobody renews.
//!
//! It keeps the table `exports`. A export that is being opened or closed is left alone until that has come to its end; a
//! reader who asks meanwhile is told to ask again. After a restart, exports that were half open are closed, and open
//! ones get a fresh lease.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::fut::wrap_future;
use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, ResponseActFuture};
use actor::{Traced, ask, start};
use bus::{Bus, Declined, Table, TableError};
use contract::provisioner::{Closed, NotOpen, OpenDisksRefused, OpenedDisks, Renewed};
use contract::message::{Failure, FailureKind, NoRefusal};
use contract::{OperationId, Timestamp, VmName, bucket};
use provisioner_domain::{ExportPhase, ExportRecord, Leases};
use tracing::Instrument;

use super::opening::{NotOpened, Row, close, open, stands};
use crate::metrics;
use crate::sagas::ServiceState;

/// Readers who ask at once; there are never more than a few backups under way on one host.
const MAILBOX: usize = 64;
/// How often leases are looked at, at least.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long an answer may take: freezing, a hypervisor that waits for another job, thawing.
const ANSWER_MAX: Duration = Duration::from_secs(110);

/// An answer that comes later, while the actor goes on.
type Later<T, R> = ResponseActFuture<ExportKeeper, Result<T, Declined<R>>>;

/// Keeps the exports.
pub struct ExportKeeper {
    state: Arc<ServiceState>,
    table: Table<ExportRecord>,
    exports: HashMap<OperationId, Standing>,
    leases: Leases,
}

/// A export as the warden knows it.
#[derive(Clone)]
enum Standing {
    /// It stands open.
    Open(Row),
    /// It is being opened or closed.
    Moving,
    /// It must be closed, and was not yet.
    ToClose(Row),
}

#[derive(Message)]
#[rtype(result = "Result<OpenedDisks, Declined<OpenDisksRefused>>")]
pub(crate) struct Open {
    vm: VmName,
    operation: OperationId,
}

#[derive(Message)]
#[rtype(result = "Result<Renewed, Declined<NotOpen>>")]
pub(crate) struct Renew(OperationId);

#[derive(Message)]
#[rtype(result = "Result<Closed, Declined<NoRefusal>>")]
pub(crate) struct Close(OperationId);

impl ExportKeeper {
    /// Reads the table.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn open(bus: &Bus, state: Arc<ServiceState>) -> Result<ExportKeeper, TableError> {
        let table = bus.table::<ExportRecord>(bucket::DISK_EXPORTS);
        let mut exports = HashMap::new();
        let mut leases = Leases::lasting(state.limits.lease);
        for entry in table.all().await? {
            let row = Row { record: entry.value, revision: entry.revision };
            let operation = row.record.operation.clone();
            let standing = match row.record.phase {
                ExportPhase::Open(_) => {
                    leases.grant(&operation, now());
                    Standing::Open(row)
                }
                ExportPhase::Opening => Standing::ToClose(row),
            };
            exports.insert(operation, standing);
        }
        Ok(ExportKeeper { state, table, exports, leases })
    }

    fn busy<R>(operation: &OperationId) -> Declined<R> {
        Declined::Failed(Failure {
            kind: FailureKind::Busy,
            message: format!("the exports of operation {operation} are being opened or closed; ask again"),
        })
    }

    fn opened(
        &mut self,
        operation: OperationId,
        outcome: Result<(Row, OpenedDisks), NotOpened>,
    ) -> Result<OpenedDisks, Declined<OpenDisksRefused>> {
        match outcome {
            Ok((row, opened)) => {
                self.leases.grant(&operation, now());
                self.exports.insert(operation, Standing::Open(row));
                Ok(opened)
            }
            Err(NotOpened { why, left }) => {
                match left {
                    Some(row) => self.exports.insert(operation, Standing::ToClose(row)),
                    None => self.exports.remove(&operation),
                };
                Err(why)
            }
        }
    }

    /// Whether an open export really stands open; then its lease begins anew, else it is closed at the next look.
    fn still_open(&self, operation: OperationId, row: Row) -> ResponseActFuture<Self, bool> {
        let exports = row.opened().map(|opened| opened.exports).unwrap_or_default();
        let look = async move { stands(&exports).await }.in_current_span();
        Box::pin(wrap_future::<_, Self>(look).map(move |stands, this, _| {
            match (this.exports.get_mut(&operation), stands) {
                (Some(Standing::Open(_)), true) => this.leases.grant(&operation, now()),
                (Some(standing @ Standing::Open(_)), false) => {
                    tracing::warn!(%operation, vm = %row.record.vm, "nobody serves at its exports any more; closing them");
                    *standing = Standing::ToClose(row);
                }
                // Closed while we looked.
                _ => return false,
            }
            stands
        }))
    }

    /// Begins to close a export; the actor goes on meanwhile.
    fn closing(&mut self, operation: OperationId, row: Row) -> Later<Closed, NoRefusal> {
        self.exports.insert(operation.clone(), Standing::Moving);
        let (state, table) = (Arc::clone(&self.state), self.table.clone());
        let work = async move {
            let closed = close(&state, &table, &row).await;
            (row, closed)
        };
        Box::pin(wrap_future::<_, Self>(work.in_current_span()).map(
            move |(row, closed), this, _| match closed {
                Ok(()) => {
                    this.exports.remove(&operation);
                    this.leases.end(&operation);
                    Ok(Closed { was_open: true })
                }
                Err(failure) => {
                    this.exports.insert(operation, Standing::ToClose(row));
                    Err(Declined::Failed(failure))
                }
            },
        ))
    }

    /// Closes what nobody renewed and what was not closed before.
    fn look(&mut self, context: &mut Context<Self>) {
        let run_out = self.leases.run_out(now());
        let due: Vec<(OperationId, Row)> = self
            .exports
            .iter()
            .filter_map(|(operation, standing)| match standing {
                Standing::Open(row) if run_out.contains(operation) => {
                    tracing::warn!(%operation, vm = %row.record.vm, "nobody renewed the lease of its exports; closing them");
                    metrics::LEASES_RUN_OUT.add(1, &[]);
                    Some((operation.clone(), row.clone()))
                }
                Standing::ToClose(row) => Some((operation.clone(), row.clone())),
                Standing::Open(_) | Standing::Moving => None,
            })
            .collect();
        for (operation, row) in due {
            let closing = self.closing(operation, row).map(|outcome, _, _| {
                if let Err(Declined::Failed(failure)) = outcome {
                    tracing::warn!("a export is not closed yet: {failure}");
                }
            });
            context.spawn(closing);
        }
        metrics::DISK_EXPORTS.record(self.exports.len() as u64, &[]);
    }
}

fn now() -> Timestamp {
    chrono::Utc::now()
}

impl Actor for ExportKeeper {
    type Context = Context<Self>;
    fn started(&mut self, context: &mut Context<Self>) {
        self.look(context);
        let every = LOOK_EVERY.min(self.state.limits.lease / 4);
        context.run_interval(every, Self::look);
    }
}

impl Handler<Traced<Open>> for ExportKeeper {
    type Result = Later<OpenedDisks, OpenDisksRefused>;
    fn handle(&mut self, asked: Traced<Open>, _: &mut Context<Self>) -> Self::Result {
        let Open { vm, operation } = asked.message;
        match self.exports.get(&operation).cloned() {
            Some(Standing::Open(row)) if row.record.vm == vm => {
                let (opened, busy) = (row.opened(), Self::busy(&operation));
                Box::pin(
                    self.still_open(operation, row)
                        .map(move |stands, _, _| opened.filter(|_| stands).ok_or(busy)),
                )
            }
            Some(_) => Box::pin(actix::fut::ready(Err(Self::busy(&operation)))),
            None => {
                self.exports.insert(operation.clone(), Standing::Moving);
                let (state, table, of) = (Arc::clone(&self.state), self.table.clone(), operation.clone());
                let work = async move { open(&state, &table, &vm, &of).await };
                Box::pin(
                    wrap_future::<_, Self>(work.instrument(asked.span))
                        .map(move |outcome, this, _| this.opened(operation, outcome)),
                )
            }
        }
    }
}

impl Handler<Traced<Renew>> for ExportKeeper {
    type Result = Later<Renewed, NotOpen>;
    fn handle(&mut self, asked: Traced<Renew>, _: &mut Context<Self>) -> Self::Result {
        let Renew(operation_id) = asked.message;
        let renewed = Renewed { lease_seconds: self.state.limits.lease.as_secs() as u32 };
        let not_open = Declined::Refused(NotOpen { operation_id: operation_id.clone() });
        match self.exports.get(&operation_id).cloned() {
            Some(Standing::Open(row)) => Box::pin(
                self.still_open(operation_id, row)
                    .map(move |stands, _, _| stands.then_some(renewed).ok_or(not_open)),
            ),
            _ => Box::pin(actix::fut::ready(Err(not_open))),
        }
    }
}

impl Handler<Traced<Close>> for ExportKeeper {
    type Result = Later<Closed, NoRefusal>;
    fn handle(&mut self, asked: Traced<Close>, _: &mut Context<Self>) -> Self::Result {
        let _in = asked.span.enter();
        let Close(operation) = asked.message;
        match self.exports.get(&operation).cloned() {
            None => Box::pin(actix::fut::ready(Ok(Closed { was_open: false }))),
            Some(Standing::Moving) => Box::pin(actix::fut::ready(Err(Self::busy(&operation)))),
            Some(Standing::Open(row) | Standing::ToClose(row)) => self.closing(operation, row),
        }
    }
}

/// Speaks to the warden. Cloning is cheap.
#[derive(Clone)]
pub struct ExportKeeperHandle {
    warden: Addr<ExportKeeper>,
}

impl ExportKeeperHandle {
    /// Starts the warden on the arbiter at hand.
    pub fn start(warden: ExportKeeper) -> ExportKeeperHandle {
        ExportKeeperHandle { warden: start(MAILBOX, warden) }
    }

    pub(crate) async fn open(
        &self,
        vm: VmName,
        operation: OperationId,
    ) -> Result<OpenedDisks, Declined<OpenDisksRefused>> {
        answered(ask(&self.warden, Open { vm, operation }, ANSWER_MAX).await)
    }

    pub(crate) async fn renew(&self, operation: OperationId) -> Result<Renewed, Declined<NotOpen>> {
        answered(ask(&self.warden, Renew(operation), ANSWER_MAX).await)
    }

    pub(crate) async fn close(&self, operation: OperationId) -> Result<Closed, Declined<NoRefusal>> {
        answered(ask(&self.warden, Close(operation), ANSWER_MAX).await)
    }
}

fn answered<T, R>(answer: Result<Result<T, Declined<R>>, actor::AskError>) -> Result<T, Declined<R>> {
    answer.unwrap_or_else(|error| {
        Err(Declined::Failed(Failure { kind: FailureKind::TimedOut, message: error.to_string() }))
    })
}
