//! Durable tables: one JetStream KV bucket each, changed by compare-and-set on the revision.

use std::marker::PhantomData;
use std::sync::Arc;

use contract::bucket::KvBucket;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::body::Encoding;
use crate::publish::Bus;
use crate::transport::{TableRow, Transport, TransportError, WriteOutcome};

/// The revision of a row; a change names the one it is based on.
pub type Revision = u64;

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
    /// The row cannot be read: written by a newer version, or damaged.
    #[error("{table}.{key} cannot be read: {reason}")]
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

/// A typed view of a bucket.
pub struct Table<T> {
    transport: Arc<dyn Transport>,
    name: &'static str,
    rows: PhantomData<fn() -> T>,
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        Table { transport: Arc::clone(&self.transport), name: self.name, rows: PhantomData }
    }
}

impl Bus {
    /// Opens a table. It was made by the bootstrap role beforehand.
    pub fn table<T: Serialize + DeserializeOwned>(&self, bucket: KvBucket) -> Table<T> {
        Table { transport: Arc::clone(&self.transport), name: bucket.name, rows: PhantomData }
    }
}

impl<T: Serialize + DeserializeOwned> Table<T> {
    /// Reads one row.
    ///
    /// # Errors
    /// When the bus cannot be reached, or the row cannot be decoded.
    pub async fn get(&self, key: &str) -> Result<Option<Entry<T>>, TableError> {
        let row = self.transport.get(self.name, key).await.map_err(|cause| self.link(cause))?;
        row.map(|row| self.read(row)).transpose()
    }

    /// Reads one row as the leader of a cluster has it: what a write whose answer was lost came to.
    ///
    /// # Errors
    /// As `get`.
    pub async fn get_from_leader(&self, key: &str) -> Result<Option<Entry<T>>, TableError> {
        let row = self.transport.get_from_leader(self.name, key).await.map_err(|cause| self.link(cause))?;
        row.map(|row| self.read(row)).transpose()
    }

    /// Reads every row.
    ///
    /// # Errors
    /// When the bus cannot be reached, or a row cannot be decoded.
    pub async fn all(&self) -> Result<Vec<Entry<T>>, TableError> {
        let rows = self.transport.list(self.name).await.map_err(|cause| self.link(cause))?;
        rows.into_iter().map(|row| self.read(row)).collect()
    }

    /// Writes a row that must not be there yet.
    ///
    /// # Errors
    /// A conflict where there is one already; otherwise when the bus cannot be reached, and then it may have been
    /// written all the same.
    pub async fn create(&self, key: &str, value: &T) -> Result<Revision, TableError> {
        self.update(key, value, 0).await
    }

    /// Writes a row over the revision named.
    ///
    /// # Errors
    /// A conflict where the row has another revision; otherwise when the bus cannot be reached, and then it may have
    /// been written all the same.
    pub async fn update(&self, key: &str, value: &T, over: Revision) -> Result<Revision, TableError> {
        let body = Encoding::MessagePack
            .write(value)
            .map_err(|reason| self.link(TransportError::Refused(reason)))?;
        let written =
            self.transport.put(self.name, key, body, over).await.map_err(|cause| self.link(cause))?;
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

    fn read(&self, row: TableRow) -> Result<Entry<T>, TableError> {
        match Encoding::MessagePack.read(&row.value) {
            Ok(value) => Ok(Entry { key: row.key, value, revision: row.revision }),
            Err(reason) => Err(TableError::Unreadable { table: self.name, key: row.key, reason }),
        }
    }

    fn link(&self, cause: TransportError) -> TableError {
        TableError::Transport { table: self.name, source: cause }
    }
}
