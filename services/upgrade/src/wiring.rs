//! This question goes to that actor.

use std::time::Duration;

use actix::Addr;
use actor::ask;
use bus::{Bus, Declined};
use chassis::Endpoints;
use contract::upgrade::{ApplyRelease, ListServices};
use contract::message::{Failure, FailureKind};

use crate::actors::{Apply, Gatekeeper};
use crate::survey;

/// How long the Gatekeeper may take: it copies and digests tens of megabytes, perhaps after another release.
const EXAMINE_MAX: Duration = Duration::from_secs(100);

/// What the desk answers.
pub(crate) fn endpoints(bus: Bus, gatekeeper: Addr<Gatekeeper>) -> Endpoints {
    Box::new(move |server| {
        server.on::<ListServices, _, _>(move |_| {
            let bus = bus.clone();
            async move { survey::running(&bus).await.map_err(unavailable) }
        });
        server.on::<ApplyRelease, _, _>(move |asked| {
            let gatekeeper = gatekeeper.clone();
            async move {
                let of_message = asked.operation_of_message();
                let ApplyRelease { folder, operation_id } = asked.request;
                let id = operation_id.or(of_message).unwrap_or_else(operation::fresh_id);
                let answer = ask(&gatekeeper, Apply { id, folder }, EXAMINE_MAX).await;
                answer.unwrap_or_else(|error| Err(unavailable(error)))
            }
        });
    })
}

fn unavailable<F>(error: impl std::fmt::Display) -> Declined<F> {
    Declined::Failed(Failure { kind: FailureKind::Unavailable, message: error.to_string() })
}
