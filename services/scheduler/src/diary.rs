//! The diary: what is written down of schedules and runs, and the moves on it. Every change is a compare-and-set, so
//! that two schedulers can keep one diary.

use std::cmp::Reverse;

use bus::{Bus, Entry, Table, TableError};
use contract::scheduler::{Run, RunOutcome, Schedule, ScheduledWork};
use contract::{ScheduleId, Timestamp, bucket};
use scheduler_domain::{goes_beyond, operation_for};
use serde::{Deserialize, Serialize};

/// Runs of a schedule that are kept for looking back.
const RUNS_KEPT: usize = 100;
/// How often a change is tried when others change the same row; there are two or three of them at most.
const CHANGE_TRIES: usize = 5;

/// A schedule as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ScheduleRow {
    pub(crate) schedule: Schedule,
    pub(crate) added: Timestamp,
    /// The latest appointment that was kept.
    #[serde(default)]
    pub(crate) kept: Option<Timestamp>,
}

impl ScheduleRow {
    /// Nothing up to this moment needs to be kept any more.
    pub(crate) fn kept_up_to(&self) -> Timestamp {
        self.kept.unwrap_or(self.added)
    }
}

/// A run as it is kept: with everything needed to ask again, should the schedule be gone by then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunRow {
    pub(crate) run: Run,
    pub(crate) work: ScheduledWork,
    /// Which run of which scheduler made the row, so that it knows its own when an answer was lost.
    by: String,
}

/// What came of adding a schedule.
pub(crate) enum Added {
    /// It is there, new or the very same as before.
    There(ScheduleRow),
    /// Another has the name.
    NameTaken,
}

/// What came of claiming an appointment.
pub(crate) enum Claim {
    /// It is ours to ask.
    Ours(Entry<RunRow>),
    /// Somebody keeps it, or kept it.
    Kept,
    /// The schedule is no more, or another now.
    Gone,
}

/// The two tables.
#[derive(Clone)]
pub(crate) struct Diary {
    schedules: Table<ScheduleRow>,
    runs: Table<RunRow>,
    we: String,
}

fn run_key(schedule: &ScheduleId, due: Timestamp) -> String {
    format!("{schedule}.{}", due.timestamp())
}

impl Diary {
    pub(crate) fn of(bus: &Bus) -> Diary {
        Diary {
            schedules: bus.table(bucket::SCHEDULES),
            runs: bus.table(bucket::RUNS),
            we: operation::fresh_id().to_string(),
        }
    }

    pub(crate) async fn schedules(&self) -> Result<Vec<ScheduleRow>, TableError> {
        let rows = self.schedules.all().await?;
        Ok(rows.into_iter().map(|row| row.value).collect())
    }

    pub(crate) async fn add(&self, schedule: &Schedule, now: Timestamp) -> Result<Added, TableError> {
        let row = ScheduleRow { schedule: schedule.clone(), added: now, kept: None };
        let conflict = match self.schedules.create(schedule.id.as_str(), &row).await {
            Ok(_) => return Ok(Added::There(row)),
            Err(error @ TableError::Conflict { .. }) => error,
            Err(error) => return Err(error),
        };
        match self.schedules.get(schedule.id.as_str()).await? {
            Some(known) if known.value.schedule == *schedule => Ok(Added::There(known.value)),
            Some(_) => Ok(Added::NameTaken),
            // It was removed a moment ago.
            None => Err(conflict),
        }
    }

    /// Removes a schedule and what it leaves in the diary; nothing where there is none.
    pub(crate) async fn remove(&self, id: &ScheduleId) -> Result<Option<Schedule>, TableError> {
        let mut tries = 0;
        let schedule = loop {
            let Some(row) = self.schedules.get(id.as_str()).await? else {
                return Ok(None);
            };
            match self.schedules.remove(&row.key, row.revision).await {
                Err(TableError::Conflict { .. }) if tries < CHANGE_TRIES => tries += 1,
                outcome => {
                    outcome?;
                    break row.value.schedule;
                }
            }
        };
        self.drop_runs(self.run_rows(id).await?).await?;
        Ok(Some(schedule))
    }

    /// Claims an appointment and moves the schedule past it.
    pub(crate) async fn claim(
        &self,
        schedule: &Schedule,
        due: Timestamp,
        now: Timestamp,
    ) -> Result<Claim, TableError> {
        let known = self.schedules.get(schedule.id.as_str()).await?;
        if known.is_none_or(|row| row.value.schedule != *schedule) {
            return Ok(Claim::Gone);
        }
        let key = run_key(&schedule.id, due);
        let value = RunRow {
            run: Run {
                schedule: schedule.id.clone(),
                due,
                fired: now,
                outcome: RunOutcome::Asking(operation_for(&schedule.id, due)),
            },
            work: schedule.work.clone(),
            by: self.we.clone(),
        };
        let claim = match self.runs.create(&key, &value).await {
            Ok(revision) => Claim::Ours(Entry { key, value, revision }),
            // Perhaps it is ours: the answer to our own creation may have been lost.
            Err(TableError::Conflict { .. }) => match self.runs.get(&key).await? {
                Some(row) if self.made(&row.value) && is_asking(&row.value) => Claim::Ours(row),
                _ => Claim::Kept,
            },
            Err(error) => return Err(error),
        };
        if let Err(error) = self.move_past(&schedule.id, due, now).await {
            // The claim holds; the next look finds the row of the run and moves the schedule then.
            tracing::warn!(schedule = %schedule.id, %error, "an appointment is kept but not yet ticked off");
        }
        Ok(claim)
    }

    async fn move_past(&self, id: &ScheduleId, due: Timestamp, now: Timestamp) -> Result<(), TableError> {
        let mut tries = 0;
        loop {
            let Some(mut row) = self.schedules.get(id.as_str()).await? else {
                return Ok(());
            };
            if !goes_beyond(due, row.value.kept_up_to(), now) {
                return Ok(());
            }
            row.value.kept = Some(due);
            match self.schedules.update(&row.key, &row.value, row.revision).await {
                Err(TableError::Conflict { .. }) if tries < CHANGE_TRIES => tries += 1,
                outcome => return outcome.map(|_| ()),
            }
        }
    }

    /// Writes down what came of a run. Nothing where somebody else did, or the run is no more.
    pub(crate) async fn settle(
        &self,
        row: &Entry<RunRow>,
        outcome: RunOutcome,
    ) -> Result<Option<Run>, TableError> {
        let mut value = row.value.clone();
        value.run.outcome = outcome;
        match self.runs.update(&row.key, &value, row.revision).await {
            Ok(_) => Ok(Some(value.run)),
            Err(TableError::Conflict { .. }) => {
                // An update whose answer was lost looks like somebody else's; the row itself tells.
                let now = self.runs.get(&row.key).await?;
                Ok(now.is_some_and(|now| now.value == value).then_some(value.run))
            }
            Err(error) => Err(error),
        }
    }

    /// The run that a schedule made last.
    pub(crate) async fn last_run(&self, row: &ScheduleRow) -> Result<Option<Run>, TableError> {
        let Some(kept) = row.kept else { return Ok(None) };
        let last = self.runs.get(&run_key(&row.schedule.id, kept)).await?;
        Ok(last.map(|row| row.value.run))
    }

    /// The runs of a schedule, newest first; nothing where there is no such schedule.
    pub(crate) async fn runs_of(&self, id: &ScheduleId) -> Result<Option<Vec<Run>>, TableError> {
        if self.schedules.get(id.as_str()).await?.is_none() {
            return Ok(None);
        }
        let rows = self.run_rows(id).await?;
        Ok(Some(rows.into_iter().take(RUNS_KEPT).map(|row| row.value.run).collect()))
    }

    /// The runs of a schedule that are still being asked for.
    pub(crate) async fn unsettled(&self, id: &ScheduleId) -> Result<Vec<Entry<RunRow>>, TableError> {
        let mut rows = self.run_rows(id).await?;
        rows.retain(|row| is_asking(&row.value));
        Ok(rows)
    }

    /// Whether this run of the scheduler made the row.
    pub(crate) fn made(&self, row: &RunRow) -> bool {
        row.by == self.we
    }

    /// Removes settled runs beyond the newest hundred.
    pub(crate) async fn prune(&self, id: &ScheduleId) -> Result<(), TableError> {
        let mut rows = self.run_rows(id).await?;
        let mut old = rows.split_off(rows.len().min(RUNS_KEPT));
        old.retain(|row| !is_asking(&row.value));
        self.drop_runs(old).await
    }

    async fn drop_runs(&self, rows: Vec<Entry<RunRow>>) -> Result<(), TableError> {
        for row in rows {
            match self.runs.remove(&row.key, row.revision).await {
                // Somebody settled it in between, or removed it himself.
                Ok(()) | Err(TableError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn run_rows(&self, id: &ScheduleId) -> Result<Vec<Entry<RunRow>>, TableError> {
        let mut rows = self.runs.all_under(&format!("{id}.")).await?;
        rows.sort_by_key(|row| Reverse(row.value.run.due));
        Ok(rows)
    }
}

fn is_asking(row: &RunRow) -> bool {
    matches!(row.run.outcome, RunOutcome::Asking(_))
}
