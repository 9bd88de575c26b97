//! What answers the requests: each reads or changes a few rows, and reports the change to the ticker.

use std::sync::Arc;
use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{Addr, Context, Handler, Message};
use actor::{TracedMessage, ask};
use bus::{ErrorReply, IncomingRequest, TableError};
use chassis::PartCheck;
use contract::message::{Failure, FailureKind, NeverRefused};
use contract::scheduler::{
    AddSchedule, AddScheduleRefused, ListRuns, ListSchedules, RemoveSchedule, Schedule, ScheduleStatus,
    ScheduledRun, UnknownSchedule,
};
use contract::{ScheduleId, Timestamp};
use scheduler_domain::{CRON_CHARS_MAX, CronError, CronSchedule};

use crate::actors::{GetStoreProblem, ScheduleAdded, ScheduleRemoved, Ticker};
use crate::commands;
use crate::ports::Clock;
use crate::store::{AddScheduleOutcome, ScheduleRow, ScheduleStore};

/// The ticker answers from memory.
const TICKER_MAX: Duration = Duration::from_secs(30);
/// Schedules in all: their list must fit into one answer.
const SCHEDULES_MAX: usize = 300;

/// What the handlers share.
pub(crate) struct Handlers {
    pub(crate) store: ScheduleStore,
    pub(crate) ticker: Addr<Ticker>,
    pub(crate) clock: Arc<dyn Clock>,
}

pub(crate) async fn add_schedule(
    handlers: Arc<Handlers>,
    call: IncomingRequest<AddSchedule>,
) -> Result<ScheduleStatus, ErrorReply<AddScheduleRefused>> {
    let (asked_by, now) = (call.asked_by().clone(), handlers.clock.now());
    let schedule = call.request.schedule;
    check_cron(&schedule, now).map_err(ErrorReply::Refused)?;
    commands::check(&schedule.command, &asked_by).map_err(ErrorReply::Refused)?;
    handlers.check_room(&schedule.id).await?;
    match handlers.store.add(&schedule, &asked_by, now).await.map_err(unavailable)? {
        AddScheduleOutcome::NameTaken => Err(ErrorReply::Refused(AddScheduleRefused::NameTaken(schedule.id))),
        AddScheduleOutcome::Stored(row) => {
            let status = handlers.status(&row, now).await.map_err(unavailable)?;
            handlers.report(ScheduleAdded(*row)).await?;
            Ok(status)
        }
    }
}

pub(crate) async fn remove_schedule(
    handlers: Arc<Handlers>,
    call: IncomingRequest<RemoveSchedule>,
) -> Result<Schedule, ErrorReply<UnknownSchedule>> {
    let id = call.request.id;
    let removed = handlers.store.remove(&id).await.map_err(unavailable)?;
    handlers.report(ScheduleRemoved(id.clone())).await?;
    removed.ok_or(ErrorReply::Refused(UnknownSchedule { id }))
}

pub(crate) async fn list_schedules(
    handlers: Arc<Handlers>,
    _: IncomingRequest<ListSchedules>,
) -> Result<Vec<ScheduleStatus>, ErrorReply<NeverRefused>> {
    let (mut statuses, now) = (Vec::new(), handlers.clock.now());
    for row in handlers.store.schedules().await.map_err(unavailable)? {
        statuses.push(handlers.status(&row, now).await.map_err(unavailable)?);
    }
    statuses.sort_by(|one, other| one.schedule.id.cmp(&other.schedule.id));
    Ok(statuses)
}

pub(crate) async fn list_runs(
    handlers: Arc<Handlers>,
    call: IncomingRequest<ListRuns>,
) -> Result<Vec<ScheduledRun>, ErrorReply<UnknownSchedule>> {
    let id = call.request.id;
    let runs = handlers.store.runs_of(&id).await.map_err(unavailable)?;
    runs.ok_or(ErrorReply::Refused(UnknownSchedule { id }))
}

/// Whether the ticker can read the schedules.
pub(crate) fn schedules_check(ticker: Addr<Ticker>) -> PartCheck {
    Arc::new(move || {
        let ticker = ticker.clone();
        Box::pin(async move {
            match ask(&ticker, GetStoreProblem, TICKER_MAX).await {
                Ok(problem) => problem,
                Err(error) => Some(error.to_string()),
            }
        })
    })
}

impl Handlers {
    async fn check_room(&self, id: &ScheduleId) -> Result<(), ErrorReply<AddScheduleRefused>> {
        let rows = self.store.schedules().await.map_err(unavailable)?;
        if rows.len() < SCHEDULES_MAX || rows.iter().any(|row| row.schedule.id == *id) {
            return Ok(());
        }
        let message = format!("there are {SCHEDULES_MAX} schedules already; remove one first");
        Err(Failure { kind: FailureKind::Busy, message }.into())
    }

    async fn status(&self, row: &ScheduleRow, now: Timestamp) -> Result<ScheduleStatus, TableError> {
        let cron = CronSchedule::parse(&row.schedule.cron, &row.schedule.time_zone, now);
        Ok(ScheduleStatus {
            schedule: row.schedule.clone(),
            created_by: row.created_by.clone(),
            next: cron.ok().and_then(|cron| cron.next_after(now)),
            last: self.store.last_run(row).await?,
        })
    }

    /// Reports a change to the ticker.
    async fn report<M, F>(&self, change: M) -> Result<(), ErrorReply<F>>
    where
        M: Message<Result = ()> + Send + 'static,
        Ticker: Handler<TracedMessage<M>>,
        Context<Ticker>: ToEnvelope<Ticker, TracedMessage<M>>,
    {
        ask(&self.ticker, change, TICKER_MAX).await.map_err(|error| Failure::unavailable(&error).into())
    }
}

fn check_cron(schedule: &Schedule, now: Timestamp) -> Result<(), AddScheduleRefused> {
    match CronSchedule::parse(&schedule.cron, &schedule.time_zone, now) {
        Ok(_) => Ok(()),
        Err(CronError::UnknownTimeZone(zone)) => Err(AddScheduleRefused::UnknownTimeZone(zone)),
        Err(CronError::BadCron(reason)) => {
            let cron = schedule.cron.chars().take(CRON_CHARS_MAX).collect();
            Err(AddScheduleRefused::BadCron { cron, reason })
        }
    }
}

fn unavailable<F>(error: TableError) -> ErrorReply<F> {
    error.to_failure().into()
}
