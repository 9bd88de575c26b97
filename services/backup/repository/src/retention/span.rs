//! A length of calendar time.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// No part of a span is larger: a thousand years of days are enough, and sums stay far from any overflow.
const PART_MAX: u32 = 400_000;

/// A length of calendar time, as in `30d`, `1y6m`, `2y5m7d3h` or `within 30 days`. Never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span {
    pub(super) months: u32,
    pub(super) days: u32,
    pub(super) hours: u32,
}

/// The text is not a span.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a length of time ({why}; write it like 30d, 1y6m, 12 hours or within 30 days)")]
pub struct NotASpan {
    text: String,
    why: &'static str,
}

impl FromStr for Span {
    type Err = NotASpan;

    fn from_str(text: &str) -> Result<Span, NotASpan> {
        let refuse = |why| NotASpan { text: text.to_owned(), why };
        let mut rest = text.trim();
        rest = rest.strip_prefix("within ").unwrap_or(rest).trim_start();
        let mut span = Span { months: 0, days: 0, hours: 0 };
        while !rest.is_empty() {
            let (number, after) = split_while(rest, |c| c.is_ascii_digit());
            let number: u32 = number.parse().map_err(|_| refuse("a number is missing or too large"))?;
            let (unit, after) = split_while(after.trim_start(), |c| c.is_ascii_alphabetic());
            let (part, times) = match unit {
                "y" | "year" | "years" => (&mut span.months, 12),
                "m" | "month" | "months" => (&mut span.months, 1),
                "w" | "week" | "weeks" => (&mut span.days, 7),
                "d" | "day" | "days" => (&mut span.days, 1),
                "h" | "hour" | "hours" => (&mut span.hours, 1),
                "" => return Err(refuse("its unit is missing")),
                _ => return Err(refuse("units are hours, days, weeks, months and years")),
            };
            let sum = number.checked_mul(times).and_then(|more| part.checked_add(more));
            *part = sum.filter(|&sum| sum <= PART_MAX).ok_or_else(|| refuse("it is too long"))?;
            rest = after.trim_start();
        }
        if span == (Span { months: 0, days: 0, hours: 0 }) {
            return Err(refuse("it is zero"));
        }
        Ok(span)
    }
}

fn split_while(text: &str, wanted: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !wanted(c)).unwrap_or(text.len()))
}

impl TryFrom<String> for Span {
    type Error = NotASpan;

    fn try_from(text: String) -> Result<Span, NotASpan> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> String {
        span.to_string()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [(self.months / 12, 'y'), (self.months % 12, 'm'), (self.days, 'd'), (self.hours, 'h')];
        parts
            .iter()
            .filter(|(number, _)| *number > 0)
            .try_for_each(|(number, unit)| write!(f, "{number}{unit}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_written_as_in_restic_or_in_full() {
        for (text, short) in [
            ("2y5m7d3h", "2y5m7d3h"),
            ("30d", "30d"),
            ("within 30 days", "30d"),
            ("1 week 1 day", "8d"),
            (" 18 months ", "1y6m"),
            ("36h", "36h"),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.to_string(), short);
            assert_eq!(short.parse(), Ok(span));
        }
    }

    #[test]
    fn an_invalid_span_is_refused_with_the_reason() {
        for (text, why) in [
            ("30", "unit is missing"),
            ("0d", "it is zero"),
            ("", "it is zero"),
            ("-3d", "number is missing"),
            ("3 fortnights", "units are"),
            ("99999999999d", "too large"),
            ("4000000000y", "too long"),
            ("400000d1d", "too long"),
            ("3dé", "number is missing"),
        ] {
            let refused = text.parse::<Span>().unwrap_err().to_string();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }
}
