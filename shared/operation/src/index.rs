//! Which operations there are, in memory: so that no command reads the whole table. What this process writes is entered
//! at once; what others write is read before a list, by revision, so that only what changed is read.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard};

use bus::{Changes, Entry, Revision, Table, TableError};
use contract::message::Caller;
use contract::operation::ListOperations;
use contract::{HostName, OperationId, Timestamp};

use crate::record::OperationRecord;

/// Operations in one answer, where the request names no number.
const LIMIT_DEFAULT: u16 = 100;
/// Operations in one answer at most: their reports fit into one message.
const LIMIT_MAX: u16 = 200;

/// The index of the operations of a service.
#[derive(Default)]
pub(crate) struct Index {
    state: Mutex<State>,
    /// One reads the table at a time.
    reading: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// What was read of the table up to here.
    revision: Revision,
    /// Of the table that was read; absent before the first reading.
    generation: Option<u64>,
    operations: HashMap<OperationId, IndexEntry>,
    unfinished: BTreeSet<OperationId>,
    by_start: BTreeSet<(Timestamp, OperationId)>,
}

/// What lists and checks ask about an operation.
#[derive(Clone, Debug)]
pub(crate) struct IndexEntry {
    pub(crate) kind: String,
    pub(crate) about: String,
    pub(crate) host: HostName,
    caller: Caller,
    on_behalf_of: Option<Caller>,
    started: Timestamp,
    updated: Timestamp,
    pub(crate) is_final: bool,
    pub(crate) revision: Revision,
}

impl IndexEntry {
    fn of(record: &OperationRecord, revision: Revision) -> IndexEntry {
        IndexEntry {
            kind: record.kind.clone(),
            about: record.about.clone(),
            host: record.host.clone(),
            caller: record.caller.clone(),
            on_behalf_of: record.on_behalf_of.clone(),
            started: record.started,
            updated: record.updated,
            is_final: record.state.is_final(),
            revision,
        }
    }

    fn is_asked_by(&self, name: &str) -> bool {
        self.caller.is_named(name) || self.on_behalf_of.as_ref().is_some_and(|caller| caller.is_named(name))
    }
}

impl State {
    fn enter(&mut self, id: OperationId, entry: IndexEntry) {
        if self.operations.get(&id).is_some_and(|known| known.revision >= entry.revision) {
            return;
        }
        match entry.is_final {
            true => self.unfinished.remove(&id),
            false => self.unfinished.insert(id.clone()),
        };
        self.by_start.insert((entry.started, id.clone()));
        self.operations.insert(id, entry);
    }

    fn remove(&mut self, id: &OperationId, revision: Revision) {
        if self.operations.get(id).is_some_and(|known| known.revision <= revision)
            && let Some(entry) = self.operations.remove(id)
        {
            self.unfinished.remove(id);
            self.by_start.remove(&(entry.started, id.clone()));
        }
    }

    fn follow(&mut self, changes: Changes<OperationRecord>) {
        for Entry { value, revision, .. } in changes.read {
            self.enter(value.id.clone(), IndexEntry::of(&value, revision));
        }
        for (key, revision) in changes.removed {
            if let Ok(id) = key.parse() {
                self.remove(&id, revision);
            }
        }
        self.revision = changes.revision;
    }
}

impl Index {
    /// Enters what this process wrote.
    pub(crate) fn enter(&self, record: &OperationRecord, revision: Revision) {
        self.state().enter(record.id.clone(), IndexEntry::of(record, revision));
    }

    /// Removes what this process removed.
    pub(crate) fn remove(&self, id: &OperationId, revision: Revision) {
        self.state().remove(id, revision);
    }

    /// Reads what changed in the table since it was read last: all of it at first, and where the table was made anew.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub(crate) async fn catch_up(&self, table: &Table<OperationRecord>) -> Result<(), TableError> {
        let _reading = self.reading.lock().await;
        let generation = *table.generation().borrow();
        let known = self.state().generation;
        if known != Some(generation) {
            let mut fresh = State { generation: Some(generation), ..State::default() };
            while follow_page(&mut fresh, table).await? {}
            let mut state = self.state();
            let before = std::mem::replace(&mut *state, fresh);
            match before.generation {
                // What was written meanwhile.
                None => before.operations.into_iter().for_each(|(id, entry)| state.enter(id, entry)),
                Some(_) => report_lost(&before, &state),
            }
            return Ok(());
        }
        loop {
            let after = self.state().revision;
            let changes = table.changes(after).await?;
            let is_partial = changes.is_partial;
            self.state().follow(changes);
            if !is_partial {
                return Ok(());
            }
        }
    }

    /// The ids of the operations asked for, newest first.
    pub(crate) fn select(&self, query: &ListOperations) -> Vec<OperationId> {
        let ListOperations { unfinished_only, by, id_prefix, before, limit } = query;
        let limit = limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX);
        let state = self.state();
        let is_wanted = |id: &OperationId| {
            if *unfinished_only && !state.unfinished.contains(id) {
                return false;
            }
            let Some(entry) = state.operations.get(id) else { return false };
            by.as_deref().is_none_or(|name| entry.is_asked_by(name))
                && id_prefix.as_deref().is_none_or(|prefix| id.as_str().starts_with(prefix))
        };
        let wanted = |(_, id): &&(Timestamp, OperationId)| is_wanted(id);
        let take =
            |found: Vec<&(Timestamp, OperationId)>| found.into_iter().map(|(_, id)| id.clone()).collect();
        match before {
            Some(last) => {
                let end = (last.started, last.id.clone());
                take(state.by_start.range(..end).rev().filter(wanted).take(usize::from(limit)).collect())
            }
            None => take(state.by_start.iter().rev().filter(wanted).take(usize::from(limit)).collect()),
        }
    }

    /// Those that have not ended and for which a condition holds.
    pub(crate) fn unfinished(
        &self,
        is_wanted: impl Fn(&IndexEntry) -> bool,
    ) -> Vec<(OperationId, IndexEntry)> {
        let state = self.state();
        let unfinished = state.unfinished.iter().filter_map(|id| state.operations.get_key_value(id));
        let wanted = unfinished.filter(|(_, entry)| is_wanted(entry));
        wanted.map(|(id, entry)| (id.clone(), entry.clone())).collect()
    }

    /// The ended operations of a host beyond the newest `kept`, with their revisions, those that ended first in front.
    pub(crate) fn excess(&self, host: &HostName, kept: usize) -> Vec<(OperationId, Revision)> {
        let state = self.state();
        let of_host = state.operations.iter().filter(|(_, entry)| entry.is_final && entry.host == *host);
        let mut ended: Vec<_> = of_host.collect();
        let count = ended.len().saturating_sub(kept);
        if count > 0 {
            ended.sort_by_key(|(_, entry)| entry.updated);
        }
        ended.into_iter().take(count).map(|(id, entry)| (id.clone(), entry.revision)).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code here panics while it holds the lock")
    }
}

/// Unfinished ones are written again by whoever drives them.
fn report_lost(before: &State, now: &State) {
    let is_lost =
        |(id, entry): &(&OperationId, &IndexEntry)| entry.is_final && !now.operations.contains_key(*id);
    let count = before.operations.iter().filter(is_lost).count();
    if count > 0 {
        tracing::error!(count, "the table of operations was lost; the records of ended operations are gone");
    }
}

/// Reads one page into a state that nobody sees yet; says whether there is another.
async fn follow_page(state: &mut State, table: &Table<OperationRecord>) -> Result<bool, TableError> {
    let changes = table.changes(state.revision).await?;
    let is_partial = changes.is_partial;
    state.follow(changes);
    Ok(is_partial)
}
