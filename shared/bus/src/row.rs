//! Rows as bytes, and those that this build cannot read.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use contract::Stored;
use serde::Deserialize;

use crate::body::Encoding;
use crate::metrics;

/// A row is a MessagePack array of two: version and value.
const ARRAY_OF_TWO: u8 = 0x92;
/// A reason may quote the row; in health and log it is cut here.
const REASON_BYTES_MAX: usize = 200;

/// A row that this build cannot read: of a later version, with a case that it does not know, or damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableRow {
    /// The table.
    pub table: &'static str,
    /// The key.
    pub key: String,
    /// Its revision.
    pub revision: u64,
    /// Why it cannot be read, at most 200 bytes.
    pub reason: String,
}

/// Writes a value as the bytes of a row.
///
/// # Errors
/// When it holds a case that this build does not know.
pub fn write<T: Stored>(value: &T) -> Result<Bytes, String> {
    if !value.is_known() {
        return Err("it holds a case that this version does not know".into());
    }
    Encoding::MessagePack.write(&(T::VERSION, value))
}

/// Reads a value from the bytes of a row, of this version or one before.
///
/// # Errors
/// Why this build cannot read it, in at most 200 bytes.
pub fn read<T: Stored>(row: &[u8]) -> Result<T, String> {
    let cut = |reason: String| match reason.floor_char_boundary(REASON_BYTES_MAX) {
        at if at < reason.len() => reason[..at].to_string(),
        _ => reason,
    };
    read_whole(row).map_err(cut)
}

fn read_whole<T: Stored>(row: &[u8]) -> Result<T, String> {
    let body = row.strip_prefix(&[ARRAY_OF_TWO]).ok_or("it does not begin with a version")?;
    let mut reader = rmp_serde::Deserializer::new(std::io::Cursor::new(body));
    let version = u16::deserialize(&mut reader).map_err(|_| "it does not begin with a version")?;
    let value = body.get(reader.position() as usize..).unwrap_or_default();
    match version {
        0 => Err("it is of version 0, which was never written".into()),
        _ => read_version(version, value),
    }
}

fn read_version<T: Stored>(version: u16, value: &[u8]) -> Result<T, String> {
    if version > T::VERSION {
        return Err(format!("it is of version {version}, this build reads up to {}", T::VERSION));
    }
    let value: T = if version == T::VERSION {
        Encoding::MessagePack.read(value)?
    } else {
        T::migrate(read_version(version, value)?)
    };
    match value.is_known() {
        true => Ok(value),
        false => Err("it holds a case that this version does not know".into()),
    }
}

/// The rows that were found unreadable and have not been read since.
#[derive(Default)]
pub(crate) struct UnreadableRows {
    rows: Mutex<BTreeMap<(&'static str, String), UnreadableRow>>,
}

impl UnreadableRows {
    /// All of them, by table and key.
    pub(crate) fn all(&self) -> Vec<UnreadableRow> {
        self.rows().values().cloned().collect()
    }

    /// A whole table was read, or the keys with a prefix: these are its unreadable rows.
    pub(crate) fn replace(&self, table: &'static str, prefix: &str, found: &[UnreadableRow]) {
        let mut rows = self.rows();
        for row in found {
            report(&rows, row);
        }
        rows.retain(|(of, key), _| *of != table || !key.starts_with(prefix));
        rows.extend(found.iter().map(|row| ((table, row.key.clone()), row.clone())));
        measure(&rows, table);
    }

    /// One row was read.
    pub(crate) fn set(&self, table: &'static str, key: &str, found: Option<UnreadableRow>) {
        let mut rows = self.rows();
        let changed = match found {
            Some(row) => {
                report(&rows, &row);
                rows.insert((table, key.into()), row).is_none()
            }
            None => rows.remove(&(table, key.into())).is_some(),
        };
        if changed {
            measure(&rows, table);
        }
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<(&'static str, String), UnreadableRow>> {
        self.rows.lock().expect("no code here panics while it holds the lock")
    }
}

/// Each revision is reported once.
fn report(known: &BTreeMap<(&'static str, String), UnreadableRow>, row: &UnreadableRow) {
    if known.get(&(row.table, row.key.clone())) != Some(row) {
        let UnreadableRow { table, key, reason, .. } = row;
        tracing::error!(table, key, reason, "a row cannot be read; it is left as it is");
    }
}

fn measure(rows: &BTreeMap<(&'static str, String), UnreadableRow>, table: &'static str) {
    metrics::unreadable_rows(table, rows.keys().filter(|(of, _)| *of == table).count());
}

#[cfg(test)]
mod tests {
    use contract::NoPrevious;
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct First {
        size: u32,
    }

    impl Stored for First {
        const VERSION: u16 = 1;
        type Previous = NoPrevious;
        fn migrate(previous: NoPrevious) -> First {
            match previous {}
        }
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Second {
        bytes: u64,
    }

    impl Stored for Second {
        const VERSION: u16 = 2;
        type Previous = First;
        fn migrate(previous: First) -> Second {
            Second { bytes: u64::from(previous.size) * 1024 }
        }
        fn is_known(&self) -> bool {
            self.bytes != 13
        }
    }

    #[test]
    fn a_row_is_an_array_of_its_version_and_its_value() {
        assert_eq!(&write(&First { size: 7 }).expect("written")[..], b"\x92\x01\x81\xa4size\x07");
        assert_eq!(read::<First>(b"\x92\x01\x81\xa4size\x07"), Ok(First { size: 7 }));
        // Every width of the version is read.
        assert_eq!(read::<First>(b"\x92\xcd\x00\x01\x81\xa4size\x07"), Ok(First { size: 7 }));
    }

    #[test]
    fn a_row_of_an_earlier_version_is_read_through_its_predecessors() {
        let old = write(&First { size: 2 }).expect("written");
        assert_eq!(read::<Second>(&old), Ok(Second { bytes: 2048 }));
    }

    #[test]
    fn a_row_of_a_later_version_is_not_read() {
        let new = write(&Second { bytes: 1 }).expect("written");
        assert_eq!(read::<First>(&new), Err("it is of version 2, this build reads up to 1".into()));
    }

    #[test]
    fn an_unknown_field_is_ignored_and_an_unknown_case_is_neither_read_nor_written() {
        assert_eq!(read::<First>(b"\x92\x01\x82\xa4size\x07\xa3new\xc3"), Ok(First { size: 7 }));
        assert!(write(&Second { bytes: 13 }).is_err());
        assert!(read::<Second>(b"\x92\x02\x81\xa5bytes\x0d").is_err());
    }

    #[test]
    fn a_damaged_row_has_a_short_reason() {
        let long = [b"\x92\x01\x81\xa4size\xda\x10\x00".as_slice(), &[b'x'; 4096]].concat();
        let rows: [&[u8]; 8] = [
            b"",
            b"\x92",
            b"\x92\x01",
            b"\x92\x00\x80",
            b"\x81\xa4size\x07",
            b"\x92\xff\x80",
            b"\x92\x01\x81\xa4size\x07\xc0",
            &long,
        ];
        for row in rows {
            let reason = read::<First>(row).expect_err("unreadable");
            assert!(!reason.is_empty() && reason.len() <= REASON_BYTES_MAX, "{row:?}: {reason}");
        }
    }
}
