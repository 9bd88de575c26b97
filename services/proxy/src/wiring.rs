//! Which request goes to which actor.

use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use actor::ask;
use bus::Declined;
use chassis::{Endpoints, PartCheck};
use contract::proxy::ListRoutes;
use contract::message::{Failure, FailureKind};

use crate::actors::{GetProblem, GetRoutes, RouteKeeper};

/// The keeper replies from memory.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// The endpoints of the service.
pub(crate) fn endpoints(keeper: Addr<RouteKeeper>) -> Endpoints {
    Box::new(move |server| {
        server.on::<ListRoutes, _, _>(move |_| {
            let keeper = keeper.clone();
            async move { ask(&keeper, GetRoutes, REPLY_TIMEOUT).await.map_err(unavailable) }
        });
    })
}

/// The health of the route table: whether it is up to date.
pub(crate) fn routes_check(keeper: Addr<RouteKeeper>) -> PartCheck {
    Arc::new(move || {
        let keeper = keeper.clone();
        Box::pin(async move {
            let problem = ask(&keeper, GetProblem, REPLY_TIMEOUT).await;
            problem.unwrap_or_else(|error| Some(error.to_string()))
        })
    })
}

fn unavailable<F>(error: impl std::fmt::Display) -> Declined<F> {
    Declined::Failed(Failure { kind: FailureKind::Unavailable, message: error.to_string() })
}
