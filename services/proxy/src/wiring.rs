//! This question goes to that actor.

use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use actor::ask;
use bus::Declined;
use chassis::{Endpoints, PartCheck};
use contract::proxy::ListRoutes;
use contract::message::{Failure, FailureKind};

use crate::actors::{RouteKeeper, Rows, TroubleAt};

/// The keeper answers from memory.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// What the desk answers.
pub(crate) fn endpoints(keeper: Addr<RouteKeeper>) -> Endpoints {
    Box::new(move |server| {
        server.on::<ListRoutes, _, _>(move |_| {
            let keeper = keeper.clone();
            async move {
                ask(&keeper, Rows, ANSWER_MAX).await.map_err(|error| {
                    Declined::Failed(Failure { kind: FailureKind::Unavailable, message: error.to_string() })
                })
            }
        });
    })
}

/// Whether the table is of today.
pub(crate) fn routes_check(keeper: Addr<RouteKeeper>) -> PartCheck {
    Arc::new(move || {
        let keeper = keeper.clone();
        Box::pin(async move {
            match ask(&keeper, TroubleAt, ANSWER_MAX).await {
                Ok(trouble) => trouble,
                Err(error) => Some(error.to_string()),
            }
        })
    })
}
