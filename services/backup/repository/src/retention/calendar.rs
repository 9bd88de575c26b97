//! The calendar period of an instant, and the instant a span before it.

use chrono::{DateTime, Datelike, Days, Months, NaiveDateTime, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;

use super::{Rule, Span};

/// No time zone ever skipped more at once than the day that Samoa skipped in 2011.
const SKIPPED_HOURS_MAX: i64 = 26;

/// One period of a rule's kind.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Period(i64, i32);

/// An instant in local time.
#[derive(Clone, Copy)]
pub(super) struct LocalTime {
    at: NaiveDateTime,
    offset_seconds: i32,
}

impl LocalTime {
    pub(super) fn of(instant: DateTime<Utc>, zone: Tz) -> LocalTime {
        let local = instant.with_timezone(&zone);
        LocalTime { at: local.naive_local(), offset_seconds: local.offset().fix().local_minus_utc() }
    }

    /// The period of a rule that contains this; [`Rule::Last`] has none.
    pub(super) fn period(&self, rule: Rule) -> Option<Period> {
        let (day, week) = (self.at.date(), self.at.iso_week());
        Some(match rule {
            Rule::Last => return None,
            // By its offset, too: the hour that is repeated in autumn is two hours.
            Rule::Hourly => Period(self.at.and_utc().timestamp().div_euclid(3600), self.offset_seconds),
            Rule::Daily => Period(day.num_days_from_ce().into(), 0),
            Rule::Weekly => Period(week.year().into(), week.week() as i32),
            Rule::Monthly => Period(day.year().into(), day.month() as i32),
            Rule::Yearly => Period(day.year().into(), 0),
        })
    }
}

/// The instant a span before another: years, months and days on the calendar of the zone, hours as elapsed time. Where
/// the local time occurs twice, the earlier; where never, the last one before. `None` is out of range.
pub(super) fn before(instant: DateTime<Utc>, span: Span, zone: Tz) -> Option<DateTime<Utc>> {
    let local_time = LocalTime::of(instant, zone).at;
    let local_time = local_time.checked_sub_months(Months::new(span.months))?;
    let local_time = local_time.checked_sub_days(Days::new(span.days.into()))?;
    let local = (0..=SKIPPED_HOURS_MAX).find_map(|hours| {
        let local_time = local_time.checked_sub_signed(TimeDelta::hours(hours))?;
        zone.from_local_datetime(&local_time).earliest()
    })?;
    local.with_timezone(&Utc).checked_sub_signed(TimeDelta::hours(span.hours.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn same(rule: Rule, zone: Tz, one: &str, other: &str) -> bool {
        let period = |text| LocalTime::of(utc(text), zone).period(rule);
        period(one) == period(other)
    }

    #[test]
    fn periods_are_those_of_the_time_zone() {
        let (one, other) = ("2026-06-01T21:30:00Z", "2026-06-01T22:30:00Z");
        assert!(same(Rule::Daily, Tz::UTC, one, other));
        assert!(!same(Rule::Daily, Tz::Europe__Vienna, one, other));
    }

    #[test]
    fn a_week_is_that_of_iso_8601_also_around_new_year() {
        assert!(same(Rule::Weekly, Tz::UTC, "2024-12-30T00:00:00Z", "2025-01-05T23:59:59Z"));
        assert!(!same(Rule::Weekly, Tz::UTC, "2024-12-29T23:59:59Z", "2024-12-30T00:00:00Z"));
        assert!(!same(Rule::Weekly, Tz::UTC, "2024-01-03T00:00:00Z", "2024-12-30T00:00:00Z"));
    }

    #[test]
    fn the_hour_that_comes_twice_is_two_hours_of_one_day() {
        let (summer, winter) = ("2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z");
        assert!(!same(Rule::Hourly, Tz::Europe__Vienna, summer, winter));
        assert!(same(Rule::Daily, Tz::Europe__Vienna, summer, winter));
    }

    #[test]
    fn hours_begin_in_local_time() {
        assert!(!same(Rule::Hourly, Tz::Asia__Kathmandu, "2026-01-01T00:10:00Z", "2026-01-01T00:20:00Z"));
    }

    #[test]
    fn a_span_counts_on_the_calendar() {
        for (from, span, zone, to) in [
            ("2026-03-31T12:00:00Z", "1m", Tz::UTC, "2026-02-28T12:00:00Z"),
            ("2024-02-29T12:00:00Z", "1y", Tz::UTC, "2023-02-28T12:00:00Z"),
            // The day has 23 hours.
            ("2026-03-29T10:00:00Z", "1d", Tz::Europe__Vienna, "2026-03-28T11:00:00Z"),
            ("2026-03-29T10:00:00Z", "24h", Tz::Europe__Vienna, "2026-03-28T10:00:00Z"),
            // 02:30 does not exist: 01:30 is the last before.
            ("2026-03-30T00:30:00Z", "1d", Tz::Europe__Vienna, "2026-03-29T00:30:00Z"),
            // 02:30 occurs twice: the first.
            ("2026-10-26T01:30:00Z", "1d", Tz::Europe__Vienna, "2026-10-25T00:30:00Z"),
            // 30 December 2011 does not exist there.
            ("2011-12-30T20:00:00Z", "1d", Tz::Pacific__Apia, "2011-12-30T09:00:00Z"),
        ] {
            assert_eq!(before(utc(from), span.parse().unwrap(), zone), Some(utc(to)), "{from} - {span}");
        }
        assert_eq!(
            before(utc("2026-01-01T00:00:00Z"), "400000m".parse().unwrap(), Tz::UTC).map(|at| at.year()),
            Some(-31308)
        );
    }
}
