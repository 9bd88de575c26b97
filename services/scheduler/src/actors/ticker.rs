//! The ticker holds the schedules in memory and knows which one fires next. It wakes at that moment, at every change, and
//! at least every half minute, because the wall clock may have been set and another scheduler may have changed the
//! store. After a restart the store gives everything back.
//!
//! A schedule makes one run at a time: those that fall due while its command is being sent are missed ones, and of these
//! the last is made.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::fut::{ActorFutureExt, WrapFuture};
use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, SpawnHandle};
use actor::TracedMessage;
use bus::TableError;
use chrono::TimeDelta;
use contract::message::with_causes;
use contract::scheduler::{Schedule, ScheduledCommand};
use contract::{ScheduleId, Timestamp};
use futures::future::join_all;
use scheduler_domain::{CronSchedule, due};
use tracing::{Instrument, Span};

use crate::dispatcher::{Dispatcher, FireOutcome};
use crate::ports::Clock;
use crate::store::{ScheduleRow, ScheduleStore};

/// Changes of schedules and health checks (three kinds, 64 at a time each) all have a place.
const MAILBOX: usize = 256;
/// The clock and the store are checked no less often than this.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// While the store cannot be read.
const READ_PAUSE: Duration = Duration::from_secs(2);
/// A run that fired so long ago and is still being sent was left by a scheduler that died: a command is tried for ten
/// minutes.
const ABANDONED_AFTER: TimeDelta = TimeDelta::minutes(20);
/// How often such runs are searched for.
const TAKE_OVER_INTERVAL: TimeDelta = TimeDelta::minutes(10);

/// Fires schedules.
pub struct Ticker {
    store: ScheduleStore,
    dispatcher: Arc<Dispatcher>,
    clock: Arc<dyn Clock>,
    active: BTreeMap<ScheduleId, Active>,
    timer: Option<SpawnHandle>,
    reading: bool,
    /// Counts changes, so that rows read before a change do not undo it.
    changes: u64,
    /// How often the table of schedules was lost, as far as what we know is written again.
    generation: u64,
    last_read: Option<Timestamp>,
    last_take_over: Option<Timestamp>,
    problem: Option<String>,
}

struct Active {
    row: ScheduleRow,
    cron: CronSchedule,
    firing: bool,
    /// The store has no row of it: whether it was removed or its table was lost shows when the store is read.
    is_missing: bool,
}

/// This schedule was added to the store, or is there already.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ScheduleAdded(pub(crate) ScheduleRow);

/// This schedule was removed from the store.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ScheduleRemoved(pub(crate) ScheduleId);

/// Why the schedules are not known, if so.
#[derive(Message)]
#[rtype(result = "Option<String>")]
pub(crate) struct GetStoreProblem;

impl Ticker {
    pub(crate) fn start(
        store: ScheduleStore,
        dispatcher: Arc<Dispatcher>,
        clock: Arc<dyn Clock>,
    ) -> Addr<Ticker> {
        let ticker = Ticker {
            store,
            dispatcher,
            clock,
            active: BTreeMap::new(),
            timer: None,
            reading: false,
            changes: 0,
            generation: 0,
            last_read: None,
            last_take_over: None,
            problem: None,
        };
        actor::start(MAILBOX, ticker)
    }

    /// Fires what is due, reads the store where that is due, and sets the timer for what comes next.
    fn tick(&mut self, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        let mut runs = Vec::new();
        for active in self.active.values_mut().filter(|active| !active.firing && !active.is_missing) {
            if let Some(due) = due(&active.cron, active.row.done_until(), now) {
                active.firing = true;
                runs.push((active.row.schedule.clone(), due));
            }
        }
        for (schedule, due) in runs {
            self.fire(schedule, due, ctx);
        }
        if is_past(self.last_read, now, TimeDelta::from_std(CHECK_INTERVAL).unwrap_or_default()) {
            self.read_store(ctx);
        }
        self.set_timer(now, ctx);
    }

    fn set_timer(&mut self, now: Timestamp, ctx: &mut Context<Self>) {
        let next = self.active.values().filter_map(|active| active.cron.next_after(now)).min();
        let until_next = next.map_or(CHECK_INTERVAL, |next| (next - now).to_std().unwrap_or_default());
        let clock = Arc::clone(&self.clock);
        let wait = async move { clock.pass(until_next.min(CHECK_INTERVAL)).await };
        let woken = wait.into_actor(self).map(|(), this, ctx| this.tick(ctx));
        if let Some(before) = self.timer.replace(ctx.spawn(woken)) {
            ctx.cancel_future(before);
        }
    }

    fn fire(&mut self, schedule: Schedule, due: Timestamp, ctx: &mut Context<Self>) {
        let (dispatcher, id) = (Arc::clone(&self.dispatcher), schedule.id.clone());
        let span = run_span(&id, &schedule.command, due);
        let fired = async move { dispatcher.fire(&schedule, due).await }.instrument(span);
        ctx.spawn(fired.into_actor(self).map(move |fired, this, ctx| {
            let Some(active) = this.active.get_mut(&id) else {
                return;
            };
            active.firing = false;
            match fired {
                FireOutcome::Done => active.row.last_due = Some(due),
                FireOutcome::StillDue => {}
                FireOutcome::ScheduleGone => {
                    active.is_missing = true;
                    this.last_read = None;
                }
            }
            this.tick(ctx);
        }));
    }

    /// Reads the store: at the start, and to find what another scheduler changed.
    fn read_store(&mut self, ctx: &mut Context<Self>) {
        if self.reading {
            return;
        }
        self.reading = true;
        let (store, clock, before) = (self.store.clone(), Arc::clone(&self.clock), self.changes);
        let (generation, known) =
            (self.generation, self.active.values().map(|active| active.row.clone()).collect());
        let read = async move {
            let rows = read_or_restore(&store, generation, known).await;
            if rows.is_err() {
                clock.pass(READ_PAUSE).await;
            }
            rows
        };
        ctx.spawn(read.into_actor(self).map(move |rows, this, ctx| {
            this.reading = false;
            match rows {
                Ok((generation, _)) if this.changes != before => this.generation = generation,
                Ok((generation, rows)) => {
                    this.generation = generation;
                    this.problem = None;
                    this.last_read = Some(this.clock.now());
                    this.replace(rows);
                    this.take_over(ctx);
                }
                Err(problem) => {
                    tracing::warn!(problem, "the schedules cannot be read");
                    this.problem = Some(problem);
                }
            }
            this.tick(ctx);
        }));
    }

    /// Makes memory what the store holds.
    fn replace(&mut self, rows: Vec<ScheduleRow>) {
        let now = self.clock.now();
        let mut before = std::mem::take(&mut self.active);
        for mut row in rows {
            let known = before.remove(&row.schedule.id);
            let same = known.filter(|known| known.row.schedule == row.schedule);
            if let Some(known) = same.as_ref().filter(|known| known.row.done_until() <= now) {
                // The store may not have the mark of a run that was made.
                row.last_due = row.last_due.max(known.row.last_due);
            }
            let firing = same.is_some_and(|known| known.firing);
            self.activate(row, firing);
        }
    }

    fn activate(&mut self, row: ScheduleRow, firing: bool) {
        let (id, schedule) = (row.schedule.id.clone(), &row.schedule);
        match CronSchedule::parse(&schedule.cron, &schedule.time_zone, self.clock.now()) {
            Ok(cron) => {
                self.active.insert(id, Active { row, cron, firing, is_missing: false });
            }
            Err(error) => tracing::error!(schedule = %id, %error, "this version cannot run the schedule"),
        }
    }

    /// Completes runs whose command was being sent when a scheduler died: at our start all of them, later those that
    /// are old.
    fn take_over(&mut self, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        if !is_past(self.last_take_over, now, TAKE_OVER_INTERVAL) {
            return;
        }
        let first = self.last_take_over.is_none();
        self.last_take_over = Some(now);
        let (store, dispatcher) = (self.store.clone(), Arc::clone(&self.dispatcher));
        let ids: Vec<ScheduleId> = self.active.keys().cloned().collect();
        let take_over = async move {
            let mut abandoned = Vec::new();
            for id in ids {
                let mut rows = store.unfinished_runs(&id).await?;
                rows.retain(|row| {
                    let old = now - row.value.run.fired > ABANDONED_AFTER;
                    old || (first && !store.is_ours(&row.value))
                });
                abandoned.extend(rows);
            }
            join_all(abandoned.into_iter().map(|row| {
                let span = run_span(&row.value.run.schedule, &row.value.command, row.value.run.due);
                dispatcher.complete(row).instrument(span)
            }))
            .await;
            Ok::<(), TableError>(())
        };
        ctx.spawn(take_over.into_actor(self).map(|outcome, this, _| {
            if let Err(error) = outcome {
                tracing::warn!(error = with_causes(&error), "abandoned runs are searched for again");
                this.last_take_over = None;
            }
        }));
    }
}

impl Actor for Ticker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.tick(ctx);
    }
}

impl Handler<TracedMessage<ScheduleAdded>> for Ticker {
    type Result = ();

    fn handle(&mut self, message: TracedMessage<ScheduleAdded>, ctx: &mut Context<Self>) {
        let ScheduleAdded(row) = message.message;
        self.changes += 1;
        let known = self.active.get(&row.schedule.id);
        if known.is_none_or(|known| known.row.schedule != row.schedule) {
            self.activate(row, false);
        }
        self.tick(ctx);
    }
}

impl Handler<TracedMessage<ScheduleRemoved>> for Ticker {
    type Result = ();

    fn handle(&mut self, message: TracedMessage<ScheduleRemoved>, ctx: &mut Context<Self>) {
        self.changes += 1;
        self.active.remove(&message.message.0);
        self.tick(ctx);
    }
}

impl Handler<TracedMessage<GetStoreProblem>> for Ticker {
    type Result = Option<String>;

    fn handle(&mut self, _: TracedMessage<GetStoreProblem>, _: &mut Context<Self>) -> Option<String> {
        match self.last_read {
            Some(_) => self.problem.clone(),
            None => Some(self.problem.clone().unwrap_or_else(|| "not read yet".into())),
        }
    }
}

/// The schedules that the store holds. Where its table was lost since this generation, those that we know are written again
/// first, with the times of their last runs: none is forgotten, and none fires again.
async fn read_or_restore(
    store: &ScheduleStore,
    known_generation: u64,
    known: Vec<ScheduleRow>,
) -> Result<(u64, Vec<ScheduleRow>), String> {
    let generation = store.check().await.map_err(|error| with_causes(&error))?;
    if generation != known_generation {
        store.write_again(known).await.map_err(|error| with_causes(&error))?;
    }
    let rows = store.schedules().await.map_err(|error| with_causes(&error))?;
    Ok((generation, rows))
}

/// The root of the trace of a run.
fn run_span(schedule: &ScheduleId, command: &ScheduledCommand, due: Timestamp) -> Span {
    tracing::info_span!(
        parent: None,
        "scheduled",
        otel.name = "scheduled",
        service = command.service.name(),
        command = command.command,
        %schedule,
        due = %due.to_rfc3339()
    )
}

/// Whether so much time went by since; also where the clock was set back before it.
fn is_past(since: Option<Timestamp>, now: Timestamp, duration: TimeDelta) -> bool {
    since.is_none_or(|since| now - since >= duration || now < since)
}
