//! Types that are stored in durable tables: their rows outlive the version that wrote them.
//!
//! ```text
//!   bytes of a row:  0x92  version  value        a MessagePack array of two: an unsigned integer, the value by field names
//! ```
//!
//! The version is in the row itself, so that an export of a bucket can be read without its headers. A version counts the
//! changes that an older build must not read past: a field or case that it would lose by writing the row again. A field
//! that may be lost needs no new version.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A type whose values are rows.
pub trait Stored: Serialize + DeserializeOwned {
    /// The version that is written, from 1. Rows of higher ones are set aside.
    const VERSION: u16;
    /// The type as the version before stored it; [`NoPrevious`] for the first.
    type Previous: Stored;

    /// Turns a row of the version before into one of this version.
    fn migrate(previous: Self::Previous) -> Self;

    /// Whether every case in the value is known to this build. A row with a case that is not is set aside, and never
    /// written: types that hold an enum with an `Unknown` case check it here.
    fn is_known(&self) -> bool {
        true
    }
}

/// What was stored before the first version: nothing.
#[derive(Debug, Serialize, Deserialize)]
pub enum NoPrevious {}

impl Stored for NoPrevious {
    const VERSION: u16 = 0;
    type Previous = NoPrevious;

    fn migrate(previous: NoPrevious) -> NoPrevious {
        previous
    }
}
