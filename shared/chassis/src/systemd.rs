//! What is sent to systemd about a service that it started with `Type=notify`: that it is ready, how it is, that it still
//! answers, and that it ends. Nothing where it did not (`NOTIFY_SOCKET` is not set).
//!
//! A check of its own health is also how a service shows that it does not hang: a check that comes back feeds the
//! watchdog, whatever it found. Being degraded is no reason to be restarted.

use std::time::Duration;

use contract::health::Health;
use sd_notify::NotifyState;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::start::BoxFuture;

/// The variable with which systemd says where it listens.
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";
/// Between two checks, where no watchdog asks for more, and until the service is ready.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
const READY_INTERVAL: Duration = Duration::from_millis(200);
/// A service whose hypervisor or store is away for longer than this has started all the same: it waits for it.
const READY_MAX: Duration = Duration::from_secs(60);
/// A watchdog is fed this often in its time, so that one late check is not the end.
const CHECKS_IN_TIME: u32 = 3;

/// Notifies until it is dropped.
pub(crate) struct Notifier(JoinHandle<()>);

impl Notifier {
    /// Begins, where systemd listens.
    pub(crate) fn start(check: impl Fn() -> BoxFuture<Health> + Send + 'static) -> Option<Notifier> {
        std::env::var_os(NOTIFY_SOCKET)?;
        let interval = sd_notify::watchdog_enabled()
            .map_or(CHECK_INTERVAL, |time| CHECK_INTERVAL.min(time / CHECKS_IN_TIME));
        Some(Notifier(tokio::spawn(async move {
            let begun = Instant::now();
            let mut is_ready = false;
            loop {
                let problems = problems(&check().await);
                send(&[NotifyState::Watchdog, NotifyState::Status(&problems)]);
                if !is_ready && (problems.is_empty() || begun.elapsed() >= READY_MAX) {
                    is_ready = true;
                    send(&[NotifyState::Ready]);
                }
                let pause = if is_ready { interval } else { READY_INTERVAL.min(interval) };
                tokio::time::sleep(pause).await;
            }
        })))
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.0.abort();
        send(&[NotifyState::Stopping]);
    }
}

/// One line.
fn problems(health: &Health) -> String {
    let problem =
        |part: &contract::health::PartHealth| Some(format!("{}: {}", part.part, part.problem.as_ref()?));
    let problems: Vec<String> = health.parts.iter().filter_map(problem).collect();
    problems.join("; ").replace('\n', " ")
}

fn send(state: &[NotifyState<'_>]) {
    // It listens again after its own restart.
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "nothing was sent to systemd");
    }
}
