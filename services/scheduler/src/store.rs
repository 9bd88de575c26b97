//! The schedule store: schedules and their runs as rows. Every change is a compare-and-set, so that two schedulers can
//! share the tables.

use std::cmp::Reverse;

use bus::{Bus, Caller, CanaryError, Entry, Table, TableError};
use contract::message::with_causes;
use contract::scheduler::{RunStartStatus, Schedule, ScheduledCommand, ScheduledRun};
use contract::{NoPrevious, ScheduleId, Service, Stored, Timestamp, bucket};
use scheduler_domain::{is_news, operation_for};
use serde::{Deserialize, Serialize};

/// Runs of a schedule that are kept.
const RUNS_MAX: usize = 100;
/// How often a change is tried when others change the same row; there are two or three of them at most.
const CHANGE_TRIES: usize = 5;

/// A schedule as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ScheduleRow {
    pub(crate) schedule: Schedule,
    pub(crate) added: Timestamp,
    pub(crate) created_by: Caller,
    /// When the latest run that was made was due.
    #[serde(default)]
    pub(crate) last_due: Option<Timestamp>,
}

impl Stored for ScheduleRow {
    const VERSION: u16 = 1;
    type Previous = NoPrevious;

    fn migrate(previous: NoPrevious) -> Self {
        match previous {}
    }

    fn is_known(&self) -> bool {
        self.schedule.command.service != Service::Unknown
    }
}

impl ScheduleRow {
    /// Runs that were due up to this moment need not be made any more.
    pub(crate) fn done_until(&self) -> Timestamp {
        self.last_due.unwrap_or(self.added)
    }
}

/// A run as it is stored: with everything needed to send the command again, should the schedule be gone by then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunRow {
    pub(crate) run: ScheduledRun,
    pub(crate) command: ScheduledCommand,
    pub(crate) created_by: Caller,
    /// The scheduler instance that made the row, so that it knows its own when an answer was lost.
    instance: String,
}

impl Stored for RunRow {
    const VERSION: u16 = 1;
    type Previous = NoPrevious;

    fn migrate(previous: NoPrevious) -> Self {
        match previous {}
    }

    fn is_known(&self) -> bool {
        self.command.service != Service::Unknown && !matches!(self.run.outcome, RunStartStatus::Unknown(_))
    }
}

/// The answer to adding a schedule.
pub(crate) enum AddScheduleOutcome {
    /// It is stored, new or the very same as before.
    Stored(Box<ScheduleRow>),
    /// Another schedule has the name.
    NameTaken,
}

/// The answer to claiming a run.
pub(crate) enum ClaimOutcome {
    /// We make it.
    Ours(Box<Entry<RunRow>>),
    /// Another scheduler makes or made it.
    Done,
    /// The schedule was removed or replaced.
    ScheduleGone,
}

/// The two tables. Cloning is cheap.
#[derive(Clone)]
pub(crate) struct ScheduleStore {
    bus: Bus,
    schedules: Table<ScheduleRow>,
    runs: Table<RunRow>,
    instance: String,
}

fn run_key(schedule: &ScheduleId, due: Timestamp) -> String {
    format!("{schedule}.{}", due.timestamp())
}

impl ScheduleStore {
    pub(crate) fn of(bus: &Bus) -> ScheduleStore {
        ScheduleStore {
            bus: bus.clone(),
            schedules: bus.table(bucket::SCHEDULES),
            runs: bus.table(bucket::RUNS),
            instance: operation::new_id().to_string(),
        }
    }

    /// Counts how often the table of schedules was lost and made anew, as it is now.
    pub(crate) async fn check(&self) -> Result<u64, CanaryError> {
        self.bus.check_table(&bucket::SCHEDULES).await?;
        Ok(*self.schedules.generation().borrow())
    }

    /// Writes schedules again whose table was lost. What another scheduler wrote again stays.
    pub(crate) async fn write_again(&self, rows: Vec<ScheduleRow>) -> Result<(), TableError> {
        for row in rows {
            match self.schedules.create(row.schedule.id.as_str(), &row).await {
                Ok(_) | Err(TableError::Conflict { .. } | TableError::Unreadable { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Those that can be read; the others do not fire, and keep their names.
    pub(crate) async fn schedules(&self) -> Result<Vec<ScheduleRow>, TableError> {
        let rows = self.schedules.all().await?;
        Ok(rows.read.into_iter().map(|row| row.value).collect())
    }

    pub(crate) async fn add(
        &self,
        schedule: &Schedule,
        created_by: &Caller,
        now: Timestamp,
    ) -> Result<AddScheduleOutcome, TableError> {
        let row = ScheduleRow {
            schedule: schedule.clone(),
            added: now,
            created_by: created_by.clone(),
            last_due: None,
        };
        let conflict = match self.schedules.create(schedule.id.as_str(), &row).await {
            Ok(_) => return Ok(AddScheduleOutcome::Stored(Box::new(row))),
            Err(error @ TableError::Conflict { .. }) => error,
            Err(error) => return Err(error),
        };
        match self.schedules.get(schedule.id.as_str()).await? {
            Some(known) if known.value.schedule == *schedule => {
                Ok(AddScheduleOutcome::Stored(Box::new(known.value)))
            }
            Some(_) => Ok(AddScheduleOutcome::NameTaken),
            // It was removed a moment ago.
            None => Err(conflict),
        }
    }

    /// Removes a schedule and its runs; nothing where there is none.
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
        self.remove_runs(self.run_rows(id).await?).await?;
        Ok(Some(schedule))
    }

    /// Claims a run and moves the schedule past it.
    pub(crate) async fn claim(
        &self,
        schedule: &Schedule,
        due: Timestamp,
        now: Timestamp,
    ) -> Result<ClaimOutcome, TableError> {
        let known = self.schedules.get(schedule.id.as_str()).await?;
        let Some(known) = known.filter(|row| row.value.schedule == *schedule) else {
            return Ok(ClaimOutcome::ScheduleGone);
        };
        let key = run_key(&schedule.id, due);
        let value = RunRow {
            run: ScheduledRun {
                schedule: schedule.id.clone(),
                due,
                fired: now,
                outcome: RunStartStatus::Sending(operation_for(&schedule.id, due)),
            },
            command: schedule.command.clone(),
            created_by: known.value.created_by,
            instance: self.instance.clone(),
        };
        let claim = match self.runs.create(&key, &value).await {
            Ok(revision) => ClaimOutcome::Ours(Box::new(Entry { key, value, revision })),
            // Perhaps it is ours: the answer to our own creation may have been lost.
            Err(TableError::Conflict { .. }) => match self.runs.get(&key).await? {
                Some(row) if self.is_ours(&row.value) && is_sending(&row.value) => {
                    ClaimOutcome::Ours(Box::new(row))
                }
                _ => ClaimOutcome::Done,
            },
            // A scheduler of a later version makes it.
            Err(TableError::Unreadable { .. }) => ClaimOutcome::Done,
            Err(error) => return Err(error),
        };
        if let Err(error) = self.move_past(&schedule.id, due, now).await {
            // The claim holds; the next time the row of the run is found, and the schedule is moved then.
            tracing::warn!(schedule = %schedule.id, error = with_causes(&error), "a run is claimed, the schedule does not show it yet");
        }
        Ok(claim)
    }

    async fn move_past(&self, id: &ScheduleId, due: Timestamp, now: Timestamp) -> Result<(), TableError> {
        let mut tries = 0;
        loop {
            let Some(mut row) = self.schedules.get(id.as_str()).await? else {
                return Ok(());
            };
            if !is_news(due, row.value.done_until(), now) {
                return Ok(());
            }
            row.value.last_due = Some(due);
            match self.schedules.update(&row.key, &row.value, row.revision).await {
                Err(TableError::Conflict { .. }) if tries < CHANGE_TRIES => tries += 1,
                outcome => return outcome.map(|_| ()),
            }
        }
    }

    /// Records the outcome of a run. Nothing where another scheduler did, or the run was removed.
    pub(crate) async fn record(
        &self,
        row: &Entry<RunRow>,
        outcome: RunStartStatus,
    ) -> Result<Option<ScheduledRun>, TableError> {
        let mut value = row.value.clone();
        value.run.outcome = outcome;
        match self.runs.update(&row.key, &value, row.revision).await {
            Ok(_) => Ok(Some(value.run)),
            Err(TableError::Conflict { .. }) => {
                // An update whose answer was lost looks like another scheduler's; the row itself shows whose it was.
                let now = self.runs.get(&row.key).await?;
                Ok(now.is_some_and(|now| now.value == value).then_some(value.run))
            }
            Err(error) => Err(error),
        }
    }

    /// The latest run of a schedule.
    pub(crate) async fn last_run(&self, row: &ScheduleRow) -> Result<Option<ScheduledRun>, TableError> {
        let Some(due) = row.last_due else { return Ok(None) };
        match self.runs.get(&run_key(&row.schedule.id, due)).await {
            Ok(last) => Ok(last.map(|row| row.value.run)),
            // The list of schedules is of use without it.
            Err(TableError::Unreadable { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The runs of a schedule, newest first; nothing where there is no such schedule.
    pub(crate) async fn runs_of(&self, id: &ScheduleId) -> Result<Option<Vec<ScheduledRun>>, TableError> {
        if self.schedules.get(id.as_str()).await?.is_none() {
            return Ok(None);
        }
        let rows = self.run_rows(id).await?;
        Ok(Some(rows.into_iter().take(RUNS_MAX).map(|row| row.value.run).collect()))
    }

    /// The runs of a schedule whose command is still being sent.
    pub(crate) async fn unfinished_runs(&self, id: &ScheduleId) -> Result<Vec<Entry<RunRow>>, TableError> {
        let mut rows = self.run_rows(id).await?;
        rows.retain(|row| is_sending(&row.value));
        Ok(rows)
    }

    /// Whether this instance made the row.
    pub(crate) fn is_ours(&self, row: &RunRow) -> bool {
        row.instance == self.instance
    }

    /// Removes runs beyond the newest hundred, unless their command is still being sent.
    pub(crate) async fn prune(&self, id: &ScheduleId) -> Result<(), TableError> {
        let mut rows = self.run_rows(id).await?;
        let mut old = rows.split_off(rows.len().min(RUNS_MAX));
        old.retain(|row| !is_sending(&row.value));
        self.remove_runs(old).await
    }

    async fn remove_runs(&self, rows: Vec<Entry<RunRow>>) -> Result<(), TableError> {
        for row in rows {
            match self.runs.remove(&row.key, row.revision).await {
                // Another scheduler recorded an outcome in between, or removed it.
                Ok(()) | Err(TableError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Those that can be read, newest first. The others are never removed.
    async fn run_rows(&self, id: &ScheduleId) -> Result<Vec<Entry<RunRow>>, TableError> {
        let mut rows = self.runs.all_under(&format!("{id}.")).await?.read;
        rows.sort_by_key(|row| Reverse(row.value.run.due));
        Ok(rows)
    }
}

fn is_sending(row: &RunRow) -> bool {
    matches!(row.run.outcome, RunStartStatus::Sending(_))
}

#[cfg(test)]
mod tests;
