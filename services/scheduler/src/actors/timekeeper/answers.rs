//! What the Timekeeper answers: each question is a few rows of the diary, read or changed, and then a new look.

use actix::fut::{ActorFutureExt, WrapFuture};
use actix::{Context, Handler, Message, ResponseActFuture, ResponseFuture};
use actor::Traced;
use bus::{Declined, TableError};
use contract::scheduler::{AddScheduleRefused, Run, Schedule, ScheduleStatus, UnknownSchedule};
use contract::message::{Failure, FailureKind, NoRefusal};
use contract::{ScheduleId, Timestamp};
use futures::future::ready;
use scheduler_domain::{Cadence, CadenceError};
use tracing::Instrument;

use super::Timekeeper;
use crate::diary::{Added, ScheduleRow};

/// Schedules in all: their list must fit into one answer.
const SCHEDULES_MAX: usize = 300;

/// Add this schedule.
#[derive(Message)]
#[rtype(result = "Result<ScheduleStatus, Declined<AddScheduleRefused>>")]
pub(crate) struct Add(pub(crate) Schedule);

/// Remove this schedule.
#[derive(Message)]
#[rtype(result = "Result<Schedule, Declined<UnknownSchedule>>")]
pub(crate) struct Remove(pub(crate) ScheduleId);

/// All schedules and where they stand.
#[derive(Message)]
#[rtype(result = "Result<Vec<ScheduleStatus>, Declined<NoRefusal>>")]
pub(crate) struct Statuses;

/// The runs of a schedule.
#[derive(Message)]
#[rtype(result = "Result<Vec<Run>, Declined<UnknownSchedule>>")]
pub(crate) struct Runs(pub(crate) ScheduleId);

/// What keeps the Timekeeper from its work, if anything does.
#[derive(Message)]
#[rtype(result = "Option<String>")]
pub(crate) struct TroubleAt;

impl Handler<Traced<Add>> for Timekeeper {
    type Result = ResponseActFuture<Self, Result<ScheduleStatus, Declined<AddScheduleRefused>>>;

    fn handle(&mut self, asked: Traced<Add>, _: &mut Context<Self>) -> Self::Result {
        let Add(schedule) = asked.message;
        let now = self.clock.now();
        if let Err(declined) = self.accept(&schedule, now) {
            return Box::pin(ready(Err(declined)).into_actor(self));
        }
        let diary = self.diary.clone();
        let added = async move {
            match diary.add(&schedule, now).await.map_err(diary_down)? {
                Added::There(row) => Ok((diary.last_run(&row).await.map_err(diary_down)?, row)),
                Added::NameTaken => Err(Declined::Refused(AddScheduleRefused::NameTaken(schedule.id))),
            }
        };
        Box::pin(added.instrument(asked.span).into_actor(self).map(|added, this, ctx| {
            let (last, row) = added?;
            let status = status(&row, last, this.clock.now());
            this.changes += 1;
            let known = this.watched.get(&row.schedule.id);
            if known.is_none_or(|known| known.row.schedule != row.schedule) {
                this.watch(row, false);
            }
            this.look(ctx);
            Ok(status)
        }))
    }
}

impl Handler<Traced<Remove>> for Timekeeper {
    type Result = ResponseActFuture<Self, Result<Schedule, Declined<UnknownSchedule>>>;

    fn handle(&mut self, asked: Traced<Remove>, _: &mut Context<Self>) -> Self::Result {
        let Remove(id) = asked.message;
        let diary = self.diary.clone();
        let removed = async move { diary.remove(&id).await.map(|schedule| (id, schedule)) };
        Box::pin(removed.instrument(asked.span).into_actor(self).map(|removed, this, ctx| {
            let (id, schedule) = removed.map_err(diary_down)?;
            this.changes += 1;
            this.watched.remove(&id);
            this.look(ctx);
            schedule.ok_or(Declined::Refused(UnknownSchedule { id }))
        }))
    }
}

impl Handler<Traced<Statuses>> for Timekeeper {
    type Result = ResponseFuture<Result<Vec<ScheduleStatus>, Declined<NoRefusal>>>;

    fn handle(&mut self, asked: Traced<Statuses>, _: &mut Context<Self>) -> Self::Result {
        let (diary, now) = (self.diary.clone(), self.clock.now());
        let listed = async move {
            let mut statuses = Vec::new();
            for row in diary.schedules().await.map_err(diary_down)? {
                let last = diary.last_run(&row).await.map_err(diary_down)?;
                statuses.push(status(&row, last, now));
            }
            statuses.sort_by(|one, other| one.schedule.id.cmp(&other.schedule.id));
            Ok(statuses)
        };
        Box::pin(listed.instrument(asked.span))
    }
}

impl Handler<Traced<Runs>> for Timekeeper {
    type Result = ResponseFuture<Result<Vec<Run>, Declined<UnknownSchedule>>>;

    fn handle(&mut self, asked: Traced<Runs>, _: &mut Context<Self>) -> Self::Result {
        let (diary, Runs(id)) = (self.diary.clone(), asked.message);
        let listed = async move {
            let runs = diary.runs_of(&id).await.map_err(diary_down)?;
            runs.ok_or(Declined::Refused(UnknownSchedule { id }))
        };
        Box::pin(listed.instrument(asked.span))
    }
}

impl Handler<Traced<TroubleAt>> for Timekeeper {
    type Result = Option<String>;

    fn handle(&mut self, _: Traced<TroubleAt>, _: &mut Context<Self>) -> Option<String> {
        match self.read {
            Some(_) => self.trouble.clone(),
            None => Some(self.trouble.clone().unwrap_or_else(|| "not read yet".into())),
        }
    }
}

impl Timekeeper {
    fn accept(&self, schedule: &Schedule, now: Timestamp) -> Result<(), Declined<AddScheduleRefused>> {
        if let Err(error) = Cadence::read(&schedule.cron, &schedule.time_zone, now) {
            return Err(Declined::Refused(match error {
                CadenceError::UnknownTimeZone(zone) => AddScheduleRefused::UnknownTimeZone(zone),
                CadenceError::BadCron(reason) => AddScheduleRefused::BadCron {
                    cron: schedule.cron.chars().take(scheduler_domain::TEXT_MAX).collect(),
                    reason,
                },
            }));
        }
        if self.watched.len() >= SCHEDULES_MAX && !self.watched.contains_key(&schedule.id) {
            return Err(Declined::Failed(Failure {
                kind: FailureKind::Busy,
                message: format!("there are {SCHEDULES_MAX} schedules already; remove one first"),
            }));
        }
        Ok(())
    }
}

fn status(row: &ScheduleRow, last: Option<Run>, now: Timestamp) -> ScheduleStatus {
    let cadence = Cadence::read(&row.schedule.cron, &row.schedule.time_zone, now);
    ScheduleStatus {
        schedule: row.schedule.clone(),
        next: cadence.ok().and_then(|cadence| cadence.next_after(now)),
        last,
    }
}

fn diary_down<F>(error: TableError) -> Declined<F> {
    Declined::Failed(Failure { kind: FailureKind::Unavailable, message: error.to_string() })
}
