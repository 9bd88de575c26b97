//! A build that keeps dying soon after an upgrade is replaced by the build before.
//!
//! ```text
//!   keeper: the process died --> Deaths: three within ten minutes, the upgrade at most an hour ago?
//!                                    |yes
//!                                    +--> handlers: put back --> event, health, status view, metric
//! ```
//!
//! The proof of an upgrade lasts some seconds; this is for what shows later. Deaths while the bus is away do not count:
//! without it every service ends. A build before which there is none goes on being restarted.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use bus::Bus;
use chrono::TimeDelta;
use contract::{Service, Timestamp};
use telemetry::KeyValue;

use super::handlers::Handlers;
use super::keeper::{Handle, ProcessState};
use super::metrics::BUILDS_PUT_BACK;

/// So many deaths are too many ...
const DEATHS_MAX: usize = 3;
/// ... within this time ...
const DEATHS_WITHIN: TimeDelta = TimeDelta::minutes(10);
/// ... this soon after the build was put in place: an hour, and the minutes that its proof may take.
const SOON: TimeDelta = TimeDelta::minutes(65);

/// The last deaths of one build.
#[derive(Debug, Default)]
struct Deaths {
    executable: PathBuf,
    at: VecDeque<Timestamp>,
}

impl Deaths {
    /// Takes in a death. Whether the build keeps dying, if an upgrade put it in place at `upgraded`.
    fn died(&mut self, executable: PathBuf, upgraded: Timestamp, now: Timestamp) -> bool {
        if self.executable != executable {
            *self = Deaths { executable, at: VecDeque::new() };
        }
        self.at.push_back(now);
        self.at.retain(|at| *at >= upgraded && now - *at <= DEATHS_WITHIN);
        self.at.len() >= DEATHS_MAX && now - upgraded <= SOON
    }
}

/// Watches a service for as long as it is kept running.
pub(super) async fn watch(service: Service, mut keeper: Handle, handlers: Arc<Handlers>, bus: Bus) {
    let mut deaths = Deaths::default();
    let mut restarts = keeper.status().restarts;
    while let Some(status) = keeper.changed().await {
        if status.restarts <= restarts {
            continue;
        }
        restarts = status.restarts;
        if !bus.is_connected() {
            continue;
        }
        let Some((executable, upgraded)) = handlers.upgraded(service).await else { continue };
        if executable != status.executable || !deaths.died(executable, upgraded, chrono::Utc::now()) {
            continue;
        }
        let reason = match status.state {
            ProcessState::Down(reason) => reason,
            ProcessState::Up(_) | ProcessState::Stopped => "it died".into(),
        };
        match handlers.put_back(service, reason).await {
            Ok(Some(put_back)) => {
                tracing::error!(%service, ?put_back, "a build kept dying after an upgrade; the one before runs again");
                let put = telemetry::meter("loam_supervisor").u64_counter(BUILDS_PUT_BACK).build();
                put.add(1, &[KeyValue::new("service", service.name())]);
                if let Err(error) = bus.publish(&put_back).await {
                    tracing::warn!(%error, "the event was not published; health shows it");
                }
            }
            Ok(None) => tracing::warn!(%service, "the build keeps dying, and there is none before it"),
            Err(error) => tracing::error!(%service, error, "the build before cannot be put back"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minute(minute: i64) -> Timestamp {
        Timestamp::default() + TimeDelta::minutes(minute)
    }

    /// Whether a build that was put in place at minute 0 keeps dying, after each of these deaths.
    fn verdicts(minutes: &[i64]) -> Vec<bool> {
        let mut deaths = Deaths::default();
        minutes.iter().map(|at| deaths.died("/new".into(), minute(0), minute(*at))).collect()
    }

    #[test]
    fn three_deaths_within_ten_minutes_of_the_first_hour_are_too_many() {
        assert_eq!(verdicts(&[1, 2, 3]), [false, false, true]);
        assert_eq!(verdicts(&[1, 20, 40, 45, 50]), [false, false, false, false, true]);
        assert_eq!(verdicts(&[1, 12, 23, 34, 45, 56]), [false; 6], "now and then is not again and again");
        assert_eq!(
            verdicts(&[70, 71, 72, 73]),
            [false; 4],
            "it was fine for an hour: something else has changed"
        );
    }

    #[test]
    fn deaths_of_another_build_do_not_count() {
        let mut deaths = Deaths::default();
        for at in [1, 2] {
            assert!(!deaths.died("/old".into(), minute(0), minute(at)));
        }
        assert!(!deaths.died("/new".into(), minute(3), minute(3)));
        // The same executable, applied once more.
        assert!(!deaths.died("/new".into(), minute(4), minute(4)));
        assert!(!deaths.died("/new".into(), minute(4), minute(5)));
        assert!(deaths.died("/new".into(), minute(4), minute(6)));
    }
}
