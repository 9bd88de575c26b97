//! What answers the requests.

use std::sync::Arc;

use bus::{Bus, ErrorReply, IncomingRequest};
use contract::message::{Failure, NeverRefused};
use contract::upgrade::{
    ApplyRelease, ApplyReleaseRefused, ListServices, RollBackService, RollBackServiceRefused, RunningService,
};
use operation::PendingCommand;

use crate::admission::{AdmissionGuard, ReleaseAdmission};
use crate::discovery;
use crate::metrics::{ReleaseOutcome, count};

/// What the handlers share.
pub(crate) struct Handlers {
    pub(crate) bus: Bus,
    pub(crate) admission: ReleaseAdmission,
}

pub(crate) async fn list_services(
    handlers: Arc<Handlers>,
    _: IncomingRequest<ListServices>,
) -> Result<Vec<RunningService>, ErrorReply<NeverRefused>> {
    let found = discovery::running_services(&handlers.bus).await;
    found.map_err(|error| Failure::unavailable(&error).into())
}

pub(crate) async fn check_apply_release(
    handlers: Arc<Handlers>,
    candidate: PendingCommand<ApplyRelease>,
) -> Result<AdmissionGuard, ErrorReply<ApplyReleaseRefused>> {
    let folder = candidate.command.folder.clone();
    let admitted = handlers.admission.admit(candidate).await;
    if let Err(ErrorReply::Refused(refusal)) = &admitted {
        count(ReleaseOutcome::Refused);
        tracing::warn!(folder = %folder.display(), %refusal, "a release is refused");
    }
    admitted
}

pub(crate) async fn check_roll_back_service(
    handlers: Arc<Handlers>,
    candidate: PendingCommand<RollBackService>,
) -> Result<AdmissionGuard, ErrorReply<RollBackServiceRefused>> {
    handlers.admission.admit_roll_back(candidate).await
}
