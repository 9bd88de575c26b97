//! Durable tables: one JetStream KV bucket each, changed by compare-and-set on the revision.
//!
//! A row that this build cannot read hides no other, and is never written over or removed: only who has read a row
//! knows the revision that a change must name.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use contract::Stored;
use contract::bucket::KvBucket;
use contract::message::{Failure, FailureKind, with_causes};
use tokio::sync::watch;

use crate::generation::Generations;
use crate::publish::Bus;
use crate::row::{self, UnreadableRow, UnreadableRows};
use crate::transport::{TablePage, TableRow, Transport, TransportError, WriteOutcome};

/// The revision of a row; a change names the one it is based on.
pub type Revision = u64;

/// The revision of a row that is not there.
const NONE: Revision = 0;

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<T> {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: T,
    /// Its revision.
    pub revision: Revision,
}

/// The rows of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows<T> {
    /// Those that were read.
    pub read: Vec<Entry<T>>,
    /// Those that this build cannot read.
    pub unreadable: Vec<UnreadableRow>,
}

/// What changed in a table after a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes<T> {
    /// Rows as they are now; those that this build cannot read are left out and reported.
    pub read: Vec<Entry<T>>,
    /// Keys of rows that were removed, with the revision of their removal. The server remembers removals for an hour.
    pub removed: Vec<(String, Revision)>,
    /// The newest revision among them; the one asked after where nothing changed.
    pub revision: Revision,
    /// There is more after that revision.
    pub is_partial: bool,
}

/// Why a table was not read or changed.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// Another writer changed the row first; nothing was changed now.
    #[error("{table}.{key} was changed by another writer")]
    Conflict {
        /// The table.
        table: &'static str,
        /// The key.
        key: String,
    },
    /// The row cannot be read: written by a later version, or damaged. Nothing was changed.
    #[error("the row {table}.{key} cannot be read by this version and is left as it is: {reason}")]
    Unreadable {
        /// The table.
        table: &'static str,
        /// The key.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// The bus does not answer.
    #[error("table {table} cannot be reached")]
    Transport {
        /// The table.
        table: &'static str,
        /// What happened.
        source: TransportError,
    },
}

impl TableError {
    /// The failure to answer with. Asking again does not help where a row cannot be read.
    pub fn to_failure(&self) -> Failure {
        match self {
            TableError::Unreadable { .. } => {
                Failure { kind: FailureKind::Internal, message: with_causes(self) }
            }
            TableError::Conflict { .. } | TableError::Transport { .. } => Failure::unavailable(self),
        }
    }
}

impl From<UnreadableRow> for TableError {
    fn from(UnreadableRow { table, key, reason, .. }: UnreadableRow) -> TableError {
        TableError::Unreadable { table, key, reason }
    }
}

/// A typed view of a bucket.
pub struct Table<T> {
    transport: Arc<dyn Transport>,
    unreadable: Arc<UnreadableRows>,
    generations: Arc<Generations>,
    name: &'static str,
    rows: PhantomData<fn() -> T>,
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        Table {
            transport: Arc::clone(&self.transport),
            unreadable: Arc::clone(&self.unreadable),
            generations: Arc::clone(&self.generations),
            name: self.name,
            rows: PhantomData,
        }
    }
}

/// The newest revision that was found of each key, and its row where it was not removed. A row that is changed while a
/// table is read moves behind the page that is being read, so that every row is found.
#[derive(Default)]
struct Newest(BTreeMap<String, (Revision, Option<TableRow>)>);

impl Newest {
    fn take(&mut self, page: TablePage) {
        let rows = page.rows.into_iter().map(|row| (row.key.clone(), row.revision, Some(row)));
        let removed = page.removed.into_iter().map(|(key, revision)| (key, revision, None));
        for (key, revision, row) in rows.chain(removed) {
            let known = self.0.entry(key).or_insert((NONE, None));
            if revision > known.0 {
                *known = (revision, row);
            }
        }
    }
}

impl Bus {
    /// Opens a table. It was made by the bootstrap role beforehand.
    pub fn table<T: Stored>(&self, bucket: KvBucket) -> Table<T> {
        Table {
            transport: Arc::clone(&self.transport),
            unreadable: Arc::clone(&self.unreadable),
            generations: Arc::clone(&self.generations),
            name: bucket.name,
            rows: PhantomData,
        }
    }

    /// The rows that were found unreadable, of every table that this process opened, by table and key. A row leaves
    /// the list when it is read again, or found to be gone.
    pub fn unreadable_rows(&self) -> Vec<UnreadableRow> {
        self.unreadable.all()
    }
}

impl<T: Stored> Table<T> {
    /// Reads one row.
    ///
    /// # Errors
    /// When the bus cannot be reached, or the row cannot be read.
    pub async fn get(&self, key: &str) -> Result<Option<Entry<T>>, TableError> {
        let row = self.transport.get(self.name, key).await.map_err(|cause| self.link(cause))?;
        self.read_one(key, row)
    }

    /// Reads one row as the leader of a cluster has it: what a write whose answer was lost came to.
    ///
    /// # Errors
    /// As `get`.
    pub async fn get_from_leader(&self, key: &str) -> Result<Option<Entry<T>>, TableError> {
        let row = self.transport.get_from_leader(self.name, key).await.map_err(|cause| self.link(cause))?;
        self.read_one(key, row)
    }

    /// Reads every row.
    ///
    /// # Errors
    /// When the bus cannot be reached.
    pub async fn all(&self) -> Result<Rows<T>, TableError> {
        self.all_under("").await
    }

    /// Reads every row whose key begins with whole tokens: `nightly.`.
    ///
    /// # Errors
    /// When the bus cannot be reached.
    pub async fn all_under(&self, prefix: &str) -> Result<Rows<T>, TableError> {
        let mut found = Newest::default();
        let mut after = Some(NONE);
        while let Some(start) = after {
            let page = self.page(prefix, start).await?;
            after = page.next;
            found.take(page);
        }
        let mut rows = Rows { read: Vec::new(), unreadable: Vec::new() };
        for row in found.0.into_values().filter_map(|(_, row)| row) {
            match self.read(row) {
                Ok(entry) => rows.read.push(entry),
                Err(row) => rows.unreadable.push(row),
            }
        }
        self.unreadable.replace(self.name, prefix, &rows.unreadable);
        Ok(rows)
    }

    /// Reads what changed after a revision, a thousand rows at most. In a cluster the answer may be a little old.
    ///
    /// # Errors
    /// When the bus cannot be reached.
    pub async fn changes(&self, after: Revision) -> Result<Changes<T>, TableError> {
        let page = self.page("", after).await?;
        let next = page.next;
        let mut found = Newest::default();
        found.take(page);
        let newest = found.0.values().map(|(revision, _)| *revision).max();
        let revision = next.or(newest).unwrap_or(after);
        let mut changes =
            Changes { read: Vec::new(), removed: Vec::new(), revision, is_partial: next.is_some() };
        for (key, (revision, row)) in found.0 {
            let Some(row) = row else {
                changes.removed.push((key, revision));
                continue;
            };
            let outcome = self.read(row);
            self.unreadable.set(self.name, &key, outcome.as_ref().err().cloned());
            changes.read.extend(outcome);
        }
        Ok(changes)
    }

    async fn page(&self, prefix: &str, after: Revision) -> Result<TablePage, TableError> {
        self.transport.read_page(self.name, prefix, after).await.map_err(|cause| self.link(cause))
    }

    /// Counts how often the table was found lost and made anew, by this process and since its start.
    pub fn generation(&self) -> watch::Receiver<u64> {
        self.generations.watch(self.name)
    }

    /// Writes a row that must not be there yet.
    ///
    /// # Errors
    /// A conflict where there is one already, or that it cannot be read; otherwise when the bus cannot be reached, and then it may have been
    /// written all the same.
    pub async fn create(&self, key: &str, value: &T) -> Result<Revision, TableError> {
        self.update(key, value, NONE).await
    }

    /// Writes a row over the revision named.
    ///
    /// # Errors
    /// A conflict where the row has another revision, or that it cannot be read where none was expected; otherwise when
    /// the bus cannot be reached, and then it may have been written all the same.
    pub async fn update(&self, key: &str, value: &T, over: Revision) -> Result<Revision, TableError> {
        let body = row::write(value).map_err(|reason| self.link(TransportError::Refused(reason)))?;
        let written =
            self.transport.put(self.name, key, body, over).await.map_err(|cause| self.link(cause))?;
        if written == WriteOutcome::Conflict
            && over == NONE
            && let Err(error @ TableError::Unreadable { .. }) = self.get(key).await
        {
            return Err(error);
        }
        self.settled(key, written)
    }

    /// Writes a row that nobody but its owner removes, over the revision named. Where it has that value already, the answer to
    /// a write before was lost; where there is none, its table was lost, and it is written anew.
    ///
    /// # Errors
    /// As `update`.
    pub async fn update_owned(&self, key: &str, value: &T, over: Revision) -> Result<Revision, TableError>
    where
        T: PartialEq,
    {
        let conflict = match self.update(key, value, over).await {
            Err(error @ TableError::Conflict { .. }) => error,
            outcome => return outcome,
        };
        match self.get_from_leader(key).await? {
            Some(row) if row.value == *value => Ok(row.revision),
            Some(_) => Err(conflict),
            None => self.create(key, value).await,
        }
    }

    /// Removes a row of the revision named.
    ///
    /// # Errors
    /// A conflict where the row has another revision; otherwise when the bus cannot be reached, and then it may be
    /// gone all the same.
    pub async fn remove(&self, key: &str, over: Revision) -> Result<(), TableError> {
        let written = self.transport.remove(self.name, key, over).await.map_err(|cause| self.link(cause))?;
        self.settled(key, written).map(|_| ())
    }

    fn settled(&self, key: &str, written: WriteOutcome) -> Result<Revision, TableError> {
        match written {
            WriteOutcome::At(revision) => Ok(revision),
            WriteOutcome::Conflict => Err(TableError::Conflict { table: self.name, key: key.into() }),
        }
    }

    fn read_one(&self, key: &str, row: Option<TableRow>) -> Result<Option<Entry<T>>, TableError> {
        let read = row.map(|row| self.read(row)).transpose();
        self.unreadable.set(self.name, key, read.as_ref().err().cloned());
        Ok(read?)
    }

    fn read(&self, stored: TableRow) -> Result<Entry<T>, UnreadableRow> {
        let TableRow { key, value, revision } = stored;
        match row::read(&value) {
            Ok(value) => Ok(Entry { key, value, revision }),
            Err(reason) => Err(UnreadableRow { table: self.name, key, revision, reason }),
        }
    }

    fn link(&self, cause: TransportError) -> TableError {
        TableError::Transport { table: self.name, source: cause }
    }
}
