//! The Timekeeper owns the schedules in memory and knows which appointment comes next. It is woken at that moment, at
//! every change, and at least every half minute, because the wall clock may have been set and another scheduler may
//! have changed the diary. When it dies, the diary gives everything back.
//!
//! A schedule fires one appointment at a time: those that fall due while it is being asked for are missed ones, and
//! of these the last is kept.

mod answers;

pub(crate) use answers::{Add, Remove, Runs, Statuses, TroubleAt};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::fut::{ActorFutureExt, WrapFuture};
use actix::{Actor, Addr, AsyncContext, Context, SpawnHandle};
use actor::{Traced, ask};
use bus::TableError;
use chrono::TimeDelta;
use contract::scheduler::Schedule;
use contract::{ScheduleId, Timestamp};
use futures::future::join_all;
use scheduler_domain::{Cadence, due};
use tracing::{Instrument, Span};

use crate::actors::caller::{Caller, Fire, Fired, TakeOver};
use crate::diary::{Diary, ScheduleRow};
use crate::ports::Clock;

/// Every question of the desk (four kinds, 64 at a time each) has a place.
const MAILBOX: usize = 256;
/// The clock and the diary are looked at no less often than this.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// While the diary cannot be read.
const READ_AGAIN: Duration = Duration::from_secs(2);
/// Firing may take this long: the patience of the Caller twice.
const FIRING_MAX: Duration = Duration::from_secs(1200);
/// A run that was fired so long ago and is still being asked for was left behind by a scheduler that died: the
/// patience of the Caller and then some.
const LEFT_BEHIND_AFTER: TimeDelta = TimeDelta::minutes(20);
/// How often such runs are looked for.
const TAKE_OVER_EVERY: TimeDelta = TimeDelta::minutes(10);

/// Keeps the schedules.
pub struct Timekeeper {
    diary: Diary,
    caller: Addr<Caller>,
    clock: Arc<dyn Clock>,
    watched: BTreeMap<ScheduleId, Watched>,
    timer: Option<SpawnHandle>,
    reading: bool,
    /// Counts changes, so that rows read before a change do not take it back.
    changes: u64,
    read: Option<Timestamp>,
    taken_over: Option<Timestamp>,
    trouble: Option<String>,
}

struct Watched {
    row: ScheduleRow,
    cadence: Cadence,
    firing: bool,
}

impl Timekeeper {
    pub(crate) fn start(diary: Diary, caller: Addr<Caller>, clock: Arc<dyn Clock>) -> Addr<Timekeeper> {
        let timekeeper = Timekeeper {
            diary,
            caller,
            clock,
            watched: BTreeMap::new(),
            timer: None,
            reading: false,
            changes: 0,
            read: None,
            taken_over: None,
            trouble: None,
        };
        actor::start(MAILBOX, timekeeper)
    }

    /// Fires what is due, reads the diary where that is due, and arms the timer for what comes next.
    fn look(&mut self, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        let mut appointments = Vec::new();
        for watched in self.watched.values_mut().filter(|watched| !watched.firing) {
            if let Some(due) = due(&watched.cadence, watched.row.kept_up_to(), now) {
                watched.firing = true;
                appointments.push((watched.row.schedule.clone(), due));
            }
        }
        for (schedule, due) in appointments {
            self.fire(schedule, due, ctx);
        }
        if is_past(self.read, now, TimeDelta::from_std(LOOK_EVERY).unwrap_or_default()) {
            self.read_diary(ctx);
        }
        self.arm(now, ctx);
    }

    fn arm(&mut self, now: Timestamp, ctx: &mut Context<Self>) {
        let next = self.watched.values().filter_map(|watched| watched.cadence.next_after(now)).min();
        let until_next = next.map_or(LOOK_EVERY, |next| (next - now).to_std().unwrap_or_default());
        let clock = Arc::clone(&self.clock);
        let wait = async move { clock.pass(until_next.min(LOOK_EVERY)).await };
        let woken = wait.into_actor(self).map(|(), this, ctx| this.look(ctx));
        if let Some(before) = self.timer.replace(ctx.spawn(woken)) {
            ctx.cancel_future(before);
        }
    }

    fn fire(&mut self, schedule: Schedule, due: Timestamp, ctx: &mut Context<Self>) {
        let span = scheduled_span(&schedule.id, due);
        let caller = self.caller.clone();
        let id = schedule.id.clone();
        let fired = async move { ask(&caller, Fire { schedule, due }, FIRING_MAX).await }.instrument(span);
        ctx.spawn(fired.into_actor(self).map(move |fired, this, ctx| {
            let Some(watched) = this.watched.get_mut(&id) else {
                return;
            };
            watched.firing = false;
            match fired {
                Ok(Fired::Kept) => watched.row.kept = Some(due),
                Ok(Fired::NotNow) => {}
                Ok(Fired::Gone) => {
                    this.watched.remove(&id);
                    this.read = None;
                }
                Err(error) => tracing::warn!(schedule = %id, %due, %error, "an appointment takes long"),
            }
            this.look(ctx);
        }));
    }

    /// Reads the diary: at the start, and to learn what another scheduler changed.
    fn read_diary(&mut self, ctx: &mut Context<Self>) {
        if self.reading {
            return;
        }
        self.reading = true;
        let (diary, clock, before) = (self.diary.clone(), Arc::clone(&self.clock), self.changes);
        let read = async move {
            let rows = diary.schedules().await;
            if rows.is_err() {
                clock.pass(READ_AGAIN).await;
            }
            rows
        };
        ctx.spawn(read.into_actor(self).map(move |rows, this, ctx| {
            this.reading = false;
            match rows {
                Ok(_) if this.changes != before => {}
                Ok(rows) => {
                    this.trouble = None;
                    this.read = Some(this.clock.now());
                    this.compare(rows);
                    this.take_over(ctx);
                }
                Err(error) => {
                    tracing::warn!(%error, "the diary cannot be read");
                    this.trouble = Some(error.to_string());
                }
            }
            this.look(ctx);
        }));
    }

    /// Makes memory what the diary says.
    fn compare(&mut self, rows: Vec<ScheduleRow>) {
        let now = self.clock.now();
        let mut before = std::mem::take(&mut self.watched);
        for mut row in rows {
            let known = before.remove(&row.schedule.id);
            let same = known.filter(|known| known.row.schedule == row.schedule);
            if let Some(known) = same.as_ref().filter(|known| known.row.kept_up_to() <= now) {
                // What we kept may not be ticked off in the diary yet.
                row.kept = row.kept.max(known.row.kept);
            }
            let firing = same.is_some_and(|known| known.firing);
            self.watch(row, firing);
        }
    }

    fn watch(&mut self, row: ScheduleRow, firing: bool) {
        let (id, schedule) = (row.schedule.id.clone(), &row.schedule);
        match Cadence::read(&schedule.cron, &schedule.time_zone, self.clock.now()) {
            Ok(cadence) => {
                self.watched.insert(id, Watched { row, cadence, firing });
            }
            Err(error) => tracing::error!(schedule = %id, %error, "this version cannot keep the schedule"),
        }
    }

    /// Looks for runs that were being asked for when a scheduler died: at our start any, later those that are old.
    fn take_over(&mut self, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        if !is_past(self.taken_over, now, TAKE_OVER_EVERY) {
            return;
        }
        let first = self.taken_over.is_none();
        self.taken_over = Some(now);
        let (diary, caller) = (self.diary.clone(), self.caller.clone());
        let ids: Vec<ScheduleId> = self.watched.keys().cloned().collect();
        let take_over = async move {
            let mut left_behind = Vec::new();
            for id in ids {
                let mut rows = diary.unsettled(&id).await?;
                rows.retain(|row| {
                    let old = now - row.value.run.fired > LEFT_BEHIND_AFTER;
                    old || (first && !diary.made(&row.value))
                });
                left_behind.extend(rows);
            }
            let asked = left_behind.into_iter().map(|row| {
                let span = scheduled_span(&row.value.run.schedule, row.value.run.due);
                let message = TakeOver { row };
                caller.send(Traced { message, span })
            });
            // The Caller says nothing more, and ends only with the process.
            let _ = join_all(asked).await;
            Ok::<(), TableError>(())
        };
        ctx.spawn(take_over.into_actor(self).map(move |outcome, this, _| {
            if let Err(error) = outcome {
                tracing::warn!(%error, "runs left behind are looked for again");
                this.taken_over = None;
            }
        }));
    }
}

impl Actor for Timekeeper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.look(ctx);
    }
}

/// The root of the trace that an appointment sets in motion.
fn scheduled_span(schedule: &ScheduleId, due: Timestamp) -> Span {
    tracing::info_span!(
        parent: None,
        "scheduled_backup",
        otel.name = "scheduled_backup",
        %schedule,
        due = %due.to_rfc3339()
    )
}

/// Whether so much time went by since; also where the clock was set back before it.
fn is_past(since: Option<Timestamp>, now: Timestamp, duration: TimeDelta) -> bool {
    since.is_none_or(|since| now - since >= duration || now < since)
}
