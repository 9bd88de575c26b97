//! How many snapshots a rule keeps.

use std::fmt;
use std::num::NonZero;
use std::str::FromStr;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const ALL: &str = "all";

/// How many snapshots a rule keeps: a number above zero, or `all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Every one that the rule fits.
    All,
    /// So many, the newest ones.
    Newest(NonZero<u32>),
}

impl Count {
    /// Whether one more fits after `kept`.
    pub(super) fn has_room(self, kept: u32) -> bool {
        match self {
            Count::All => true,
            Count::Newest(most) => kept < most.get(),
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Count::All => f.write_str(ALL),
            Count::Newest(most) => most.fmt(f),
        }
    }
}

/// The text is not a count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a count (a number above 0, or `all`; leave a rule out to disable it)")]
pub struct NotACount(String);

impl FromStr for Count {
    type Err = NotACount;

    fn from_str(text: &str) -> Result<Count, NotACount> {
        if text == ALL {
            return Ok(Count::All);
        }
        text.parse().map(Count::Newest).map_err(|_| NotACount(text.to_owned()))
    }
}

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Count::All => serializer.serialize_str(ALL),
            Count::Newest(most) => serializer.serialize_u32(most.get()),
        }
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Count, D::Error> {
        deserializer.deserialize_any(NumberOrAll)
    }
}

struct NumberOrAll;

impl Visitor<'_> for NumberOrAll {
    type Value = Count;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number above 0, or `all` (leave a rule out to disable it)")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Count, E> {
        let most = u32::try_from(number).ok().and_then(NonZero::new);
        most.map(Count::Newest).ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Count, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(number), &self)),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Count, E> {
        text.parse().map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
    }
}
