//! Durable tables: one JetStream KV bucket each, changed by compare-and-set on the revision.
//!
//! A row that this build cannot read hides no other, and is never written over or removed: only who has read a row
//! knows the revision that a change must name.

use std::marker::PhantomData;
use std::sync::Arc;

use contract::Stored;
use contract::bucket::KvBucket;
use contract::message::{Failure, FailureKind, with_causes};

use crate::publish::Bus;
use crate::row::{self, UnreadableRow, UnreadableRows};
use crate::transport::{TableRow, Transport, TransportError, WriteOutcome};

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
    name: &'static str,
    rows: PhantomData<fn() -> T>,
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        Table {
            transport: Arc::clone(&self.transport),
            unreadable: Arc::clone(&self.unreadable),
            name: self.name,
            rows: PhantomData,
        }
    }
}

impl Bus {
    /// Opens a table. It was made by the bootstrap role beforehand.
    pub fn table<T: Stored>(&self, bucket: KvBucket) -> Table<T> {
        Table {
            transport: Arc::clone(&self.transport),
            unreadable: Arc::clone(&self.unreadable),
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
        let listed = self.transport.list(self.name, prefix).await.map_err(|cause| self.link(cause))?;
        let mut rows = Rows { read: Vec::new(), unreadable: Vec::new() };
        for row in listed {
            match self.read(row) {
                Ok(entry) => rows.read.push(entry),
                Err(row) => rows.unreadable.push(row),
            }
        }
        self.unreadable.replace(self.name, prefix, &rows.unreadable);
        Ok(rows)
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
