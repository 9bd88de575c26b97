//! Which appointment to keep now.

use chrono::TimeDelta;
use contract::Timestamp;

use crate::cadence::Cadence;

/// How long ago an appointment may have been and still be kept. A backup that is a day late is worth having; of
/// several missed ones only the last is.
pub const MISSED_MAX: TimeDelta = TimeDelta::hours(24);

/// The appointment to keep now: the latest one at or before `now` that came after everything `kept` so far (the last
/// appointment kept, or the moment the schedule was added), and not more than `MISSED_MAX` ago.
///
/// Where `kept` lies more than `MISSED_MAX` ahead it was written while the clock was wrong, and is not believed.
pub fn due(cadence: &Cadence, kept: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let latest = cadence.last_until(now)?;
    (now - latest <= MISSED_MAX && goes_beyond(latest, kept, now)).then_some(latest)
}

/// Whether keeping an appointment goes beyond what was kept so far; always, where that cannot be believed.
pub fn goes_beyond(appointment: Timestamp, kept: Timestamp, now: Timestamp) -> bool {
    appointment > kept || kept > now + MISSED_MAX
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("RFC 3339")
    }

    fn daily() -> Cadence {
        Cadence::read("0 3 * * *", "UTC", at("2026-01-01T00:00:00Z")).expect("a cadence")
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
    fn of_several_missed_appointments_the_last_is_kept_if_it_is_not_too_old() {
        let kept = at("2026-05-02T03:00:00Z");
        assert_eq!(due(&daily(), kept, at("2026-05-06T09:00:00Z")), Some(at("2026-05-06T03:00:00Z")));
        let yearly = Cadence::read("@yearly", "UTC", kept).expect("a cadence");
        assert_eq!(due(&yearly, kept, at("2027-01-02T00:00:01Z")), None);
        assert_eq!(due(&yearly, kept, at("2027-01-01T23:00:00Z")), Some(at("2027-01-01T00:00:00Z")));
    }

    #[test]
    fn a_clock_set_back_repeats_nothing_and_a_wrong_future_is_not_believed() {
        let kept = at("2026-05-02T03:00:00Z");
        assert_eq!(due(&daily(), kept, at("2026-05-02T02:00:00Z")), None);
        let mistaken = at("2031-05-02T03:00:00Z");
        assert_eq!(due(&daily(), mistaken, at("2026-05-02T03:00:00Z")), Some(at("2026-05-02T03:00:00Z")));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// Looking back from any instant finds the same appointment as walking towards it; through both changes of
        /// the clock in Paris.
        #[test]
        fn looking_back_finds_what_walking_forward_found(
            pick in 0usize..7,
            autumn in any::<bool>(),
            seconds in 0i64..(6 * 3600),
        ) {
            let cron = ["30 2 * * *", "15,45 2 * * *", "30 * * * *", "*/20 2 * * *", "0 3 * * *", "*/7 * * * *",
                "59 59 1 * * *"][pick];
            let base = if autumn { at("2026-10-24T22:00:00Z") } else { at("2026-03-28T23:00:00Z") };
            let cadence = Cadence::read(cron, "Europe/Paris", base).expect("a cadence");
            let now = base + TimeDelta::seconds(seconds);
            let start = base - TimeDelta::hours(30);
            let mut walked = None;
            let mut after = start;
            while let Some(next) = cadence.next_after(after).filter(|next| *next <= now) {
                walked = Some(next);
                after = next;
            }
            let seen = cadence.last_until(now).filter(|seen| *seen > start);
            prop_assert_eq!(seen, walked, "{} at {}", cron, now);
        }

        /// A text that a person can send never ends the process, whatever it holds.
        #[test]
        fn any_text_is_read_or_refused(text in "[0-9*/,\\-LW#+?@A-Za-z ]{0,40}") {
            let now = at("2026-01-01T00:00:00Z");
            if let Ok(cadence) = Cadence::read(&text, "Europe/Paris", now) {
                prop_assert!(cadence.next_after(now).is_some_and(|next| next > now));
            }
        }

        /// The same with texts that have the shape of one.
        #[test]
        fn any_five_fields_are_read_or_refused(fields in prop::collection::vec("[0-9*/,\\-LW#+?]{1,6}", 5..7)) {
            let now = at("2026-01-01T00:00:00Z");
            if let Ok(cadence) = Cadence::read(&fields.join(" "), "Europe/Paris", now) {
                prop_assert!(cadence.next_after(now).is_some_and(|next| next > now));
            }
        }
    }
}
