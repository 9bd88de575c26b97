//! The export keeper's handle: one method for each message.

use std::path::PathBuf;
use std::time::Duration;

use actix::Addr;
use actor::{AskError, ask, start};
use bus::ErrorReply;
use contract::message::{Failure, FailureKind, NeverRefused, with_causes};
use contract::provisioner::{ClosedExports, NotOpen, OpenDisksRefused, OpenedDisks, RenewedLease};
use contract::{OperationId, VmName};

use super::{ANSWER_MAX, Close, Expire, ExportKeeper, Find, MAILBOX, Open, Renew};

/// Looked up in memory.
const FIND_MAX: Duration = Duration::from_secs(10);

/// A handle of the export keeper. Cloning is cheap.
#[derive(Clone)]
pub struct ExportKeeperHandle {
    keeper: Addr<ExportKeeper>,
}

impl ExportKeeperHandle {
    /// Starts the export keeper on the current arbiter.
    pub fn start(keeper: ExportKeeper) -> ExportKeeperHandle {
        ExportKeeperHandle { keeper: start(MAILBOX, keeper) }
    }

    pub(crate) async fn open(
        &self,
        vm: VmName,
        operation: OperationId,
    ) -> Result<OpenedDisks, ErrorReply<OpenDisksRefused>> {
        answered(ask(&self.keeper, Open { vm, operation }, ANSWER_MAX).await)
    }

    pub(crate) async fn renew(&self, operation: OperationId) -> Result<RenewedLease, ErrorReply<NotOpen>> {
        answered(ask(&self.keeper, Renew(operation), ANSWER_MAX).await)
    }

    pub(crate) async fn close(
        &self,
        operation: OperationId,
    ) -> Result<ClosedExports, ErrorReply<NeverRefused>> {
        answered(ask(&self.keeper, Close(operation), ANSWER_MAX).await)
    }

    /// The socket of an export that is open for this operation.
    pub(crate) async fn find(
        &self,
        operation: OperationId,
        export_name: String,
    ) -> Result<Option<PathBuf>, AskError> {
        ask(&self.keeper, Find { operation, export_name }, FIND_MAX).await
    }

    pub(crate) async fn expire(&self) -> Result<(), String> {
        ask(&self.keeper, Expire, ANSWER_MAX).await.map_err(|error| with_causes(&error))?
    }
}

fn answered<T, R>(answer: Result<Result<T, ErrorReply<R>>, AskError>) -> Result<T, ErrorReply<R>> {
    answer.unwrap_or_else(|error| {
        Err(ErrorReply::Failed(Failure { kind: FailureKind::TimedOut, message: with_causes(&error) }))
    })
}
