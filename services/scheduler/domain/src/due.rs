//! Which run to make now.

use chrono::TimeDelta;
use contract::Timestamp;

use crate::cron::CronSchedule;

/// How long ago a run may have been due and still be made. A backup that is a day late is worth having; of several
/// missed ones only the last is.
pub const MISSED_MAX: TimeDelta = TimeDelta::hours(24);

/// The run to make now: the latest that was due at or before `now`, after `done_until` (when the last run made was due,
/// or the schedule was added), and not more than `MISSED_MAX` ago.
///
/// A `done_until` more than `MISSED_MAX` ahead was written while the clock was wrong, and is ignored.
pub fn due(schedule: &CronSchedule, done_until: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let latest = schedule.last_until(now)?;
    (now - latest <= MISSED_MAX && is_news(latest, done_until, now)).then_some(latest)
}

/// Whether a run is due after those made so far; always, where that mark is from a wrong clock.
pub fn is_news(due: Timestamp, done_until: Timestamp, now: Timestamp) -> bool {
    due > done_until || done_until > now + MISSED_MAX
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("RFC 3339")
    }

    fn daily() -> CronSchedule {
        CronSchedule::parse("0 3 * * *", "UTC", at("2026-01-01T00:00:00Z")).expect("a cron schedule")
    }

    #[test]
    fn nothing_is_due_before_its_time_and_once_at_its_time() {
        let added = at("2026-05-01T12:00:00Z");
        assert_eq!(due(&daily(), added, at("2026-05-02T02:59:59.9Z")), None);
        let first = at("2026-05-02T03:00:00Z");
        assert_eq!(due(&daily(), added, first), Some(first));
        assert_eq!(due(&daily(), first, at("2026-05-02T03:00:01Z")), None);
    }

    #[test]
    fn of_several_missed_runs_the_last_is_made_if_it_is_not_too_old() {
        let done = at("2026-05-02T03:00:00Z");
        assert_eq!(due(&daily(), done, at("2026-05-06T09:00:00Z")), Some(at("2026-05-06T03:00:00Z")));
        let yearly = CronSchedule::parse("@yearly", "UTC", done).expect("a cron schedule");
        assert_eq!(due(&yearly, done, at("2027-01-02T00:00:01Z")), None);
        assert_eq!(due(&yearly, done, at("2027-01-01T23:00:00Z")), Some(at("2027-01-01T00:00:00Z")));
    }

    #[test]
    fn a_clock_set_back_repeats_nothing_and_a_mark_from_a_wrong_clock_is_ignored() {
        let done = at("2026-05-02T03:00:00Z");
        assert_eq!(due(&daily(), done, at("2026-05-02T02:00:00Z")), None);
        let mistaken = at("2031-05-02T03:00:00Z");
        assert_eq!(due(&daily(), mistaken, at("2026-05-02T03:00:00Z")), Some(at("2026-05-02T03:00:00Z")));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// Searching back from any instant finds the same time as walking towards it; through both changes of the clock
        /// in Paris.
        #[test]
        fn searching_back_finds_what_walking_forward_found(
            pick in 0usize..7,
            autumn in any::<bool>(),
            seconds in 0i64..(6 * 3600),
        ) {
            let cron = ["30 2 * * *", "15,45 2 * * *", "30 * * * *", "*/20 2 * * *", "0 3 * * *", "*/7 * * * *",
                "59 59 1 * * *"][pick];
            let base = if autumn { at("2026-10-24T22:00:00Z") } else { at("2026-03-28T23:00:00Z") };
            let schedule = CronSchedule::parse(cron, "Europe/Paris", base).expect("a cron schedule");
            let now = base + TimeDelta::seconds(seconds);
            let start = base - TimeDelta::hours(30);
            let mut walked = None;
            let mut after = start;
            while let Some(next) = schedule.next_after(after).filter(|next| *next <= now) {
                walked = Some(next);
                after = next;
            }
            let found = schedule.last_until(now).filter(|found| *found > start);
            prop_assert_eq!(found, walked, "{} at {}", cron, now);
        }

        /// A text that a person can send never ends the process, whatever it holds.
        #[test]
        fn any_text_is_read_or_refused(text in "[0-9*/,\\-LW#+?@A-Za-z ]{0,40}") {
            let now = at("2026-01-01T00:00:00Z");
            if let Ok(schedule) = CronSchedule::parse(&text, "Europe/Paris", now) {
                prop_assert!(schedule.next_after(now).is_some_and(|next| next > now));
            }
        }

        /// The same with texts that have the shape of one.
        #[test]
        fn any_five_fields_are_read_or_refused(fields in prop::collection::vec("[0-9*/,\\-LW#+?]{1,6}", 5..7)) {
            let now = at("2026-01-01T00:00:00Z");
            if let Ok(schedule) = CronSchedule::parse(&fields.join(" "), "Europe/Paris", now) {
                prop_assert!(schedule.next_after(now).is_some_and(|next| next > now));
            }
        }
    }
}
