//! When a schedule fires: a cron text in a time zone, checked once.

use chrono::SubsecRound;
use chrono_tz::Tz;
use contract::Timestamp;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

/// The longest cron text that is read; real ones have a tenth of it.
pub const CRON_CHARS_MAX: usize = 200;

/// The nicknames that can stand for five fields.
const NICKNAMES: [&str; 7] =
    ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

/// Why a text is not a cron schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// The cron text cannot be read, or never fires.
    #[error("{0}")]
    BadCron(String),
    /// There is no such time zone.
    #[error("{0:?} is not a time zone")]
    UnknownTimeZone(String),
}

/// A cron text in a time zone, known to fire at least once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CronSchedule {
    cron: Cron,
    zone: Tz,
}

impl CronSchedule {
    /// Parses a cron text: five fields (minute, hour, day of month, month, weekday), six (seconds first) or a nickname
    /// such as `@daily`; and the name of a time zone. From `now` on it must fire at least once.
    ///
    /// # Errors
    /// What is wrong with the text or the time zone.
    pub fn parse(cron: &str, time_zone: &str, now: Timestamp) -> Result<CronSchedule, CronError> {
        let zone: Tz = time_zone
            .parse()
            .map_err(|_| CronError::UnknownTimeZone(time_zone.chars().take(80).collect()))?;
        let schedule = CronSchedule { cron: parse(cron)?, zone };
        match schedule.next_after(now) {
            Some(_) => Ok(schedule),
            None => Err(CronError::BadCron("there is no such day, it never fires".into())),
        }
    }

    /// The first time that it fires after an instant.
    pub fn next_after(&self, instant: Timestamp) -> Option<Timestamp> {
        let start = instant.with_timezone(&self.zone).trunc_subsecs(0);
        self.cron.find_next_occurrence(&start, false).ok().map(|next| next.to_utc())
    }

    /// The last time that it fires at or before an instant.
    pub fn last_until(&self, instant: Timestamp) -> Option<Timestamp> {
        let start = instant.with_timezone(&self.zone).trunc_subsecs(0);
        self.cron.find_previous_occurrence(&start, true).ok().map(|last| last.to_utc())
    }
}

fn parse(text: &str) -> Result<Cron, CronError> {
    let bad = |reason: String| Err(CronError::BadCron(reason));
    if text.len() > CRON_CHARS_MAX {
        return bad(format!("a cron text has at most {CRON_CHARS_MAX} characters"));
    }
    let text = text.trim();
    if text.contains('@') {
        if !NICKNAMES.contains(&text.to_ascii_lowercase().as_str()) {
            return bad(format!("the nicknames are {}", NICKNAMES.join(", ")));
        }
    } else if !matches!(text.split_whitespace().count(), 5 | 6) {
        return bad(
            "write five fields (minute, hour, day of month, month, day of week), or six with seconds first"
                .into(),
        );
    }
    CronParser::builder()
        .seconds(Seconds::Optional)
        .year(Year::Optional)
        .build()
        .parse(text)
        .or_else(|error| bad(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("RFC 3339")
    }

    fn schedule(cron: &str, zone: &str) -> CronSchedule {
        CronSchedule::parse(cron, zone, at("2026-01-01T00:00:00Z")).expect("a cron schedule")
    }

    /// When it fires in (from, until], as wall-clock times of Paris.
    fn in_paris(cron: &str, from: &str, until: &str) -> Vec<String> {
        let schedule = schedule(cron, "Europe/Paris");
        let (mut after, until) = (at(from), at(until));
        let mut found = Vec::new();
        while let Some(next) = schedule.next_after(after).filter(|next| *next <= until) {
            found.push(next.with_timezone(&chrono_tz::Europe::Paris).format("%dT%H:%M%:z").to_string());
            after = next;
        }
        found
    }

    #[test]
    fn five_fields_six_fields_and_nicknames_are_read() {
        let from = at("2026-05-04T10:20:30Z");
        for (cron, next) in [
            ("30 3 * * *", "2026-05-05T03:30:00Z"),
            ("*/10 * * * * *", "2026-05-04T10:20:40Z"),
            ("15 0 0 1 JAN *", "2027-01-01T00:00:15Z"),
            ("0 0 * * MON", "2026-05-11T00:00:00Z"),
            ("@daily", "2026-05-05T00:00:00Z"),
            ("@Hourly", "2026-05-04T11:00:00Z"),
            ("0 0 29 2 *", "2028-02-29T00:00:00Z"),
        ] {
            assert_eq!(schedule(cron, "UTC").next_after(from), Some(at(next)), "{cron}");
        }
    }

    #[test]
    fn it_fires_once_in_its_second_and_next_a_day_later() {
        let daily = schedule("@daily", "UTC");
        assert_eq!(daily.next_after(at("2026-05-05T00:00:00Z")), Some(at("2026-05-06T00:00:00Z")));
        assert_eq!(daily.next_after(at("2026-05-05T00:00:00.4Z")), Some(at("2026-05-06T00:00:00Z")));
        assert_eq!(daily.last_until(at("2026-05-05T00:00:00Z")), Some(at("2026-05-05T00:00:00Z")));
    }

    #[test]
    fn a_wall_clock_time_holds_in_its_zone_the_whole_year() {
        let nightly = schedule("30 3 * * *", "Europe/Paris");
        assert_eq!(nightly.next_after(at("2026-01-10T12:00:00Z")), Some(at("2026-01-11T02:30:00Z")));
        assert_eq!(nightly.next_after(at("2026-07-10T12:00:00Z")), Some(at("2026-07-11T01:30:00Z")));
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_a_reason() {
        let now = at("2026-01-01T00:00:00Z");
        for bad in [
            "",
            "* * * *",
            "* * * * * * 2030",
            "61 * * * *",
            "* 24 * * *",
            "* * * 13 *",
            "a b c d e",
            "@reboot",
            "x@daily",
            "*/0 * * * *",
            "*/99999999999999999999 * * * *",
            &"*".repeat(300),
        ] {
            let refused = CronSchedule::parse(bad, "UTC", now);
            assert!(
                matches!(&refused, Err(CronError::BadCron(reason)) if !reason.is_empty()),
                "{bad}: {refused:?}"
            );
        }
        assert_eq!(
            CronSchedule::parse("@daily", "Mars/Olympus", now),
            Err(CronError::UnknownTimeZone("Mars/Olympus".into()))
        );
    }

    #[test]
    fn a_day_that_does_not_exist_is_refused() {
        let now = at("2026-01-01T00:00:00Z");
        for never in ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 0 30 FEB *"] {
            let refused = CronSchedule::parse(never, "Europe/Paris", now);
            assert!(
                matches!(&refused, Err(CronError::BadCron(reason)) if reason.contains("never")),
                "{never}: {refused:?}"
            );
        }
    }

    #[test]
    fn in_the_skipped_hour_one_fixed_minute_runs_at_its_end_and_several_not_at_all() {
        // Paris goes from 02:00 to 03:00 on 29 March 2026.
        let (from, until) = ("2026-03-29T00:00:00Z", "2026-03-29T10:00:00Z");
        assert_eq!(in_paris("30 2 * * *", from, until), ["29T03:00+02:00"]);
        assert_eq!(in_paris("15,45 2 * * *", from, until), Vec::<String>::new());
        assert_eq!(in_paris("*/20 2 * * *", from, until), Vec::<String>::new());
    }

    #[test]
    fn in_the_hour_that_comes_twice_a_fixed_time_runs_once_and_an_hourly_job_twice() {
        // Paris goes from 03:00 back to 02:00 on 25 October 2026.
        let (from, until) = ("2026-10-24T23:45:00Z", "2026-10-25T02:00:00Z");
        assert_eq!(in_paris("30 2 * * *", from, until), ["25T02:30+02:00"]);
        assert_eq!(in_paris("30 * * * *", from, until), ["25T02:30+02:00", "25T02:30+01:00"]);
    }
}
