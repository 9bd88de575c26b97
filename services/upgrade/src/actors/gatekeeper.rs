//! The Gatekeeper lets one release in at a time. While it examines one, the next waits in its mailbox. It keeps
//! nothing: which upgrade is under way is told by what was received on the shelf and by the operations.

use std::path::PathBuf;

use actix::{Actor, Addr, AtomicResponse, Context, Handler, Message, WrapFuture};
use actor::Traced;
use bus::Declined;
use contract::OperationId;
use contract::operation::Begun;
use contract::upgrade::ApplyReleaseRefused;
use contract::message::{Failure, FailureKind};
use operation::{BeginError, Operations};
use tracing::Instrument;

use crate::metrics::{Outcome, count};
use crate::sagas::{ApplyRelease, Folder};
use crate::shelf::{Shelf, ShelfError};

/// As many as the desk lets in at a time.
const MAILBOX: usize = 64;

/// Lets releases in.
pub(crate) struct Gatekeeper {
    shelf: Shelf,
    operations: Operations,
}

/// Apply the release in this folder.
#[derive(Message)]
#[rtype(result = "Result<Begun, Declined<ApplyReleaseRefused>>")]
pub(crate) struct Apply {
    pub(crate) id: OperationId,
    pub(crate) folder: PathBuf,
}

impl Gatekeeper {
    pub(crate) fn start(shelf: Shelf, operations: Operations) -> Addr<Gatekeeper> {
        actor::start(MAILBOX, Gatekeeper { shelf, operations })
    }
}

impl Actor for Gatekeeper {
    type Context = Context<Self>;
}

impl Handler<Traced<Apply>> for Gatekeeper {
    type Result = AtomicResponse<Self, Result<Begun, Declined<ApplyReleaseRefused>>>;

    fn handle(&mut self, asked: Traced<Apply>, _: &mut Context<Self>) -> Self::Result {
        let (shelf, operations) = (self.shelf.clone(), self.operations.clone());
        let Apply { id, folder } = asked.message;
        let examined = async move {
            let answer = examine(shelf, operations, id, folder.clone()).await;
            if let Err(Declined::Refused(refused)) = &answer {
                count(Outcome::Refused);
                tracing::warn!(folder = %folder.display(), %refused, "a release is refused");
            }
            answer
        };
        AtomicResponse::new(Box::pin(examined.instrument(asked.span).into_actor(self)))
    }
}

async fn examine(
    shelf: Shelf,
    operations: Operations,
    id: OperationId,
    folder: PathBuf,
) -> Result<Begun, Declined<ApplyReleaseRefused>> {
    let known = operations.find(&id).await.map_err(|error| unavailable(error.to_string()))?;
    if known.is_none() {
        make_way(&shelf, &operations).await?;
        let (receiving, id, folder) = (shelf.clone(), id.clone(), folder.clone());
        blocking(move || receiving.receive(&id, &folder)).await?;
    }
    operations.begin::<ApplyRelease>(id, &Folder { folder }).await.map_err(|error| match error {
        BeginError::IdReused(id) => Declined::Refused(ApplyReleaseRefused::IdReused(id)),
        other => Declined::Failed(other.into()),
    })
}

/// Makes sure that no other upgrade is under way, and removes what earlier ones left on the shelf.
async fn make_way(shelf: &Shelf, operations: &Operations) -> Result<(), Declined<ApplyReleaseRefused>> {
    let looking = shelf.clone();
    for id in blocking(move || looking.receipts()).await? {
        let report = operations.find(&id).await.map_err(|error| unavailable(error.to_string()))?;
        if report.is_some_and(|report| !report.state.is_final()) {
            return Err(Declined::Refused(ApplyReleaseRefused::UnderWay(id)));
        }
        let forgetting = shelf.clone();
        blocking(move || forgetting.forget(&id)).await?;
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ShelfError> + Send + 'static,
) -> Result<T, Declined<ApplyReleaseRefused>> {
    let done = tokio::task::spawn_blocking(work).await.expect("shelf work does not panic");
    done.map_err(|error| match error {
        ShelfError::Refused(refused) => Declined::Refused(refused),
        ShelfError::Disk { .. } => unavailable(error.to_string()),
    })
}

fn unavailable<F>(message: String) -> Declined<F> {
    Declined::Failed(Failure { kind: FailureKind::Unavailable, message })
}
