//! Values of options as people write them.

use std::ffi::OsString;
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use backup_repository::{Consistency, DiskAddress};
use chrono::{DateTime, TimeDelta, Utc};
use clap::builder::PossibleValue;
use contract::ByteCount;

/// A name and what follows it: `vda=/images/web.qcow2`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamedValue<T> {
    pub name: String,
    pub value: T,
}

/// The text is not `NAME=…`.
#[derive(Debug, thiserror::Error)]
pub(super) enum ParseNamedValueError {
    #[error("write NAME={form}")]
    Syntax { form: &'static str },
    #[error(transparent)]
    Address(#[from] backup_repository::source::NotADiskAddress),
}

fn split<'a>(text: &'a str, form: &'static str) -> Result<(String, &'a str), ParseNamedValueError> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name.to_owned(), value)),
        _ => Err(ParseNamedValueError::Syntax { form }),
    }
}

/// `NAME=ADDRESS` of a disk to be read.
pub(super) fn disk_address(text: &str) -> Result<NamedValue<DiskAddress>, ParseNamedValueError> {
    let (name, address) = split(text, "ADDRESS, as in vda=/images/web.qcow2")?;
    Ok(NamedValue { name, value: address.parse()? })
}

/// Where bytes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    Path(PathBuf),
    Stdout,
}

impl From<OsString> for Destination {
    fn from(text: OsString) -> Destination {
        if text == "-" { Destination::Stdout } else { Destination::Path(text.into()) }
    }
}

/// `NAME=PATH` of a disk to be written; `-` is stdout.
pub(super) fn disk_destination(text: &str) -> Result<NamedValue<Destination>, ParseNamedValueError> {
    let (name, path) = split(text, "PATH, or NAME=- for stdout")?;
    Ok(NamedValue { name, value: OsString::from(path).into() })
}

/// `A..B`, a range of bytes on a disk; without B, to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ByteRange {
    from: u64,
    to: Option<u64>,
}

impl ByteRange {
    pub(super) fn on(&self, size_bytes: u64) -> Range<u64> {
        self.from..self.to.unwrap_or(size_bytes)
    }
}

/// The text is not a range.
#[derive(Debug, thiserror::Error)]
#[error("write FROM..TO, as in 1M..2M: bytes from the first place on, up to before the second")]
pub(super) struct NotAByteRange;

impl FromStr for ByteRange {
    type Err = NotAByteRange;

    fn from_str(text: &str) -> Result<ByteRange, NotAByteRange> {
        let (from, to) = text.split_once("..").ok_or(NotAByteRange)?;
        let place = |text: &str| text.parse().map(|ByteCount(bytes)| bytes).map_err(|_| NotAByteRange);
        let from = if from.is_empty() { 0 } else { place(from)? };
        let to = if to.is_empty() { None } else { Some(place(to)?) };
        if to.is_some_and(|to| to < from) { Err(NotAByteRange) } else { Ok(ByteRange { from, to }) }
    }
}

/// A length of time, as in `30d` or `24h`.
pub(super) fn duration(text: &str) -> Result<Duration, humantime::DurationError> {
    humantime::parse_duration(text)
}

/// A point in time: as in RFC 3339, or how long ago.
pub(super) fn moment(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok(at.with_timezone(&Utc));
    }
    let ago = duration(text).ok().and_then(|ago| TimeDelta::from_std(ago).ok());
    let at = ago.and_then(|ago| Utc::now().checked_sub_signed(ago));
    at.ok_or_else(|| "write a time as in 2026-11-26T04:00:00Z, or how long ago, as in 36h".to_owned())
}

/// The state of the guest's data, as an option value.
#[derive(Clone, Copy, Debug)]
pub(super) struct State(pub Consistency);

impl clap::ValueEnum for State {
    fn value_variants<'a>() -> &'a [State] {
        &[
            State(Consistency::Crash),
            State(Consistency::FileSystem),
            State(Consistency::Application),
            State(Consistency::PoweredOff),
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self.0 {
            Consistency::Crash => PossibleValue::new("crash").help("As after a power cut"),
            Consistency::FileSystem => PossibleValue::new("file-system").help("File systems were frozen"),
            Consistency::Application => PossibleValue::new("application").help("Applications were flushed"),
            Consistency::PoweredOff => PossibleValue::new("powered-off").help("The machine was off"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_people_write_them() {
        let read = |text: &str| text.parse::<ByteRange>().ok().map(|range| range.on(100 << 20));
        assert_eq!(read("1M..2M"), Some(1 << 20..2 << 20));
        assert_eq!(read("..4096"), Some(0..4096));
        assert_eq!(read("99M.."), Some(99 << 20..100 << 20));
        for wrong in ["", "1M", "2M..1M", "a..b", "-1..2"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_moment_is_a_time_or_how_long_ago_it_was() {
        let at = moment("2026-11-26T05:00:00+01:00").expect("a time");
        assert_eq!(at.to_rfc3339(), "2026-11-26T04:00:00+00:00");
        let at = moment("36h").expect("a while");
        let ago = Utc::now() - at;
        assert!((36 * 3600..36 * 3600 + 60).contains(&ago.num_seconds()), "{ago}");
        for wrong in ["", "yesterday", "2026-11-26", "99999999999y"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn disks_have_a_name_and_a_place() {
        let named = disk_destination("vda=a=b").expect("the first sign counts");
        assert_eq!((named.name.as_str(), named.value), ("vda", Destination::Path("a=b".into())));
        assert_eq!(disk_destination("vda=-").expect("read").value, Destination::Stdout);
        for wrong in ["vda", "=x", "vda=", ""] {
            assert!(disk_destination(wrong).is_err() && disk_address(wrong).is_err(), "{wrong}");
        }
    }
}
