//! What answers the requests.

use std::sync::Arc;

use bus::{Bus, Call, Declined};
use contract::message::{Failure, NoRefusal};
use contract::upgrade::{ApplyRelease, ApplyReleaseRefused, ListServices, RunningService};
use operation::Candidate;

use crate::admission::{Admission, Admitted};
use crate::discovery;
use crate::metrics::{Outcome, count};

/// What the handlers share.
pub(crate) struct Handlers {
    pub(crate) bus: Bus,
    pub(crate) admission: Admission,
}

pub(crate) async fn list_services(
    handlers: Arc<Handlers>,
    _: Call<ListServices>,
) -> Result<Vec<RunningService>, Declined<NoRefusal>> {
    let found = discovery::running_services(&handlers.bus).await;
    found.map_err(|error| Failure::unavailable(&error).into())
}

pub(crate) async fn check_apply_release(
    handlers: Arc<Handlers>,
    candidate: Candidate<ApplyRelease>,
) -> Result<Admitted, Declined<ApplyReleaseRefused>> {
    let folder = candidate.command.folder.clone();
    let admitted = handlers.admission.admit(candidate).await;
    if let Err(Declined::Refused(refusal)) = &admitted {
        count(Outcome::Refused);
        tracing::warn!(folder = %folder.display(), %refusal, "a release is refused");
    }
    admitted
}
