//! The export keeper's handle: one method for each message.

use actix::Addr;
use actor::{AskError, ask, start};
use bus::Declined;
use contract::message::{Failure, FailureKind, NoRefusal, with_causes};
use contract::provisioner::{Closed, NotOpen, OpenDisksRefused, OpenedDisks, Renewed};
use contract::{OperationId, VmName};

use super::{ANSWER_MAX, Close, Expire, ExportKeeper, MAILBOX, Open, Renew};

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
    ) -> Result<OpenedDisks, Declined<OpenDisksRefused>> {
        answered(ask(&self.keeper, Open { vm, operation }, ANSWER_MAX).await)
    }

    pub(crate) async fn renew(&self, operation: OperationId) -> Result<Renewed, Declined<NotOpen>> {
        answered(ask(&self.keeper, Renew(operation), ANSWER_MAX).await)
    }

    pub(crate) async fn close(&self, operation: OperationId) -> Result<Closed, Declined<NoRefusal>> {
        answered(ask(&self.keeper, Close(operation), ANSWER_MAX).await)
    }

    pub(crate) async fn expire(&self) -> Result<(), String> {
        ask(&self.keeper, Expire, ANSWER_MAX).await.map_err(|error| with_causes(&error))?
    }
}

fn answered<T, R>(answer: Result<Result<T, Declined<R>>, AskError>) -> Result<T, Declined<R>> {
    answer.unwrap_or_else(|error| {
        Err(Declined::Failed(Failure { kind: FailureKind::TimedOut, message: with_causes(&error) }))
    })
}
