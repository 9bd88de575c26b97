//! This question goes to that actor.

use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use actix::dev::ToEnvelope;
use actix::{Context, Handler, Message};
use actor::{Traced, ask};
use bus::Declined;
use chassis::{Endpoints, PartCheck};
use contract::scheduler::{AddSchedule, ListRuns, ListSchedules, RemoveSchedule};
use contract::message::{Failure, FailureKind};

use crate::actors::{Add, Remove, Runs, Statuses, Timekeeper, TroubleAt};

/// How long an actor may take to answer: it reads and writes a few rows.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// What the desk answers.
pub(crate) fn endpoints(timekeeper: Addr<Timekeeper>) -> Endpoints {
    Box::new(move |server| {
        let to = timekeeper.clone();
        server.on::<AddSchedule, _, _>(move |asked| put(to.clone(), Add(asked.request.schedule)));
        let to = timekeeper.clone();
        server.on::<RemoveSchedule, _, _>(move |asked| put(to.clone(), Remove(asked.request.id)));
        let to = timekeeper.clone();
        server.on::<ListSchedules, _, _>(move |_| put(to.clone(), Statuses));
        let to = timekeeper;
        server.on::<ListRuns, _, _>(move |asked| put(to.clone(), Runs(asked.request.id)));
    })
}

/// Whether the schedules are in hand.
pub(crate) fn schedules_check(timekeeper: Addr<Timekeeper>) -> PartCheck {
    Arc::new(move || {
        let timekeeper = timekeeper.clone();
        Box::pin(async move {
            match ask(&timekeeper, TroubleAt, ANSWER_MAX).await {
                Ok(trouble) => trouble,
                Err(error) => Some(error.to_string()),
            }
        })
    })
}

async fn put<M, R, F>(timekeeper: Addr<Timekeeper>, message: M) -> Result<R, Declined<F>>
where
    M: Message<Result = Result<R, Declined<F>>> + Send + 'static,
    R: Send + 'static,
    F: Send + 'static,
    Timekeeper: Handler<Traced<M>>,
    Context<Timekeeper>: ToEnvelope<Timekeeper, Traced<M>>,
{
    ask(&timekeeper, message, ANSWER_MAX).await.unwrap_or_else(|error| {
        Err(Declined::Failed(Failure { kind: FailureKind::Unavailable, message: error.to_string() }))
    })
}
