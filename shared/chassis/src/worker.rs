//! Background work in rounds: reconcile, refresh, renew, verify. A worker says its name, its interval and what one
//! round does; the rest is here: back-off, deadlines, health, metrics, the end.
//!
//! ```text
//!   start -> round -> ok:     wait its interval, or until woken -> round
//!                \--> failed: wait 1, 2, 4 ... s (never longer than the interval, at least 1 s) -> round; health says why
//! ```

use std::future::Future;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use telemetry::{Counter, Histogram, KeyValue, meter};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::health::PartCheck;

/// Rounds, by worker and outcome (`done`, `failed`).
const ROUNDS: &str = "loam_worker_rounds_total";
/// How long a round takes, by worker.
const ROUND_DURATION: &str = "loam_worker_round_duration_seconds";
/// From a read of memory to a walk through a large store.
const DURATION_BOUNDS_SECONDS: [f64; 9] = [0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 14_400.0];

/// The first pause after a failed round; doubled each time, up to the interval.
const BACK_OFF_FIRST: Duration = Duration::from_secs(1);
/// How long the end of a process waits for rounds to stop.
const SHUTDOWN_MAX: Duration = Duration::from_secs(5);

/// Work that is done in rounds.
pub trait Worker: Send + 'static {
    /// Its name in health, metrics and logs: `verb_noun`.
    fn name(&self) -> &'static str;

    /// The pause between two rounds.
    fn interval(&self) -> Duration;

    /// How long one round may take. It is dropped there: a round must be safe to cut off at any await.
    fn timeout(&self) -> Duration;

    /// One round.
    ///
    /// # Errors
    /// What is wrong, in a sentence for the service's health. The next round comes sooner.
    fn round(&mut self) -> impl Future<Output = Result<(), String>> + Send;
}

/// The workers of a service.
#[derive(Default)]
pub struct Workers {
    tasks: JoinSet<()>,
    ending: CancellationToken,
    checks: Vec<(&'static str, PartCheck)>,
}

/// Makes a worker's next round come at once. Cloning is cheap.
#[derive(Clone, Default)]
pub struct Waker(Arc<Notify>);

impl Waker {
    /// Wakes the worker. Several calls during one round are one.
    pub fn wake(&self) {
        self.0.notify_one();
    }
}

impl Workers {
    /// Starts a worker; its first round begins at once, and until it has ended health says so.
    pub fn start<W: Worker>(&mut self, worker: W) -> Waker {
        let waker = Waker::default();
        self.start_with(worker, waker.clone());
        waker
    }

    /// Starts a worker whose waker was handed out already.
    pub fn start_with<W: Worker>(&mut self, worker: W, waker: Waker) {
        let problem = Arc::new(Mutex::new(Some("its first round has not ended yet".to_string())));
        let shown = Arc::clone(&problem);
        let check: PartCheck = Arc::new(move || {
            let problem = shown.lock().expect("no code here panics while it holds the lock").clone();
            Box::pin(async move { problem })
        });
        self.checks.push((worker.name(), check));
        let ending = self.ending.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = run(worker, waker, problem) => {}
                () = ending.cancelled() => {}
            }
        });
    }

    /// A health check for each worker: what its last round failed with.
    pub fn checks(&self) -> Vec<(&'static str, PartCheck)> {
        self.checks.clone()
    }

    /// Stops all workers, in bounded time.
    pub async fn shut_down(mut self) {
        self.ending.cancel();
        let stopped = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN_MAX, stopped).await.is_err() {
            tracing::warn!("a worker did not stop in time");
        }
    }
}

async fn run<W: Worker>(mut worker: W, waker: Waker, problem: Arc<Mutex<Option<String>>>) {
    let mut failures = 0;
    loop {
        let (name, started, timeout) = (worker.name(), Instant::now(), worker.timeout());
        let span = tracing::info_span!(parent: None, "worker", otel.name = name);
        let round = tokio::time::timeout(timeout, worker.round()).instrument(span).await;
        let outcome = round.unwrap_or_else(|_| Err(format!("took longer than {} s", timeout.as_secs())));
        METRICS.round(name, outcome.is_ok(), started.elapsed());
        let pause = match &outcome {
            Ok(()) => {
                failures = 0;
                worker.interval()
            }
            Err(reason) => {
                tracing::warn!(worker = name, reason, "a round failed");
                let pause = BACK_OFF_FIRST.saturating_mul(1 << u32::min(failures, 16));
                failures += 1;
                pause.min(worker.interval()).max(BACK_OFF_FIRST)
            }
        };
        *problem.lock().expect("no code here panics while it holds the lock") = outcome.err();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = waker.0.notified() => {}
        }
    }
}

struct Metrics {
    rounds: Counter<u64>,
    duration: Histogram<f64>,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let meter = meter("loam_worker");
    Metrics {
        rounds: meter
            .u64_counter(ROUNDS)
            .with_description("rounds of background workers, by worker and outcome")
            .build(),
        duration: meter
            .f64_histogram(ROUND_DURATION)
            .with_description("how long a round takes, by worker")
            .with_boundaries(DURATION_BOUNDS_SECONDS.to_vec())
            .build(),
    }
});

impl Metrics {
    fn round(&self, worker: &'static str, done: bool, took: Duration) {
        let worker = KeyValue::new("worker", worker);
        self.duration.record(took.as_secs_f64(), std::slice::from_ref(&worker));
        let outcome = KeyValue::new("outcome", if done { "done" } else { "failed" });
        self.rounds.add(1, &[worker, outcome]);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    struct Counting {
        rounds: Arc<AtomicU32>,
        fails_until: u32,
        hangs: bool,
    }

    impl Worker for Counting {
        fn name(&self) -> &'static str {
            "count_rounds"
        }
        fn interval(&self) -> Duration {
            Duration::from_secs(60)
        }
        fn timeout(&self) -> Duration {
            Duration::from_secs(10)
        }
        async fn round(&mut self) -> Result<(), String> {
            let round = self.rounds.fetch_add(1, Ordering::SeqCst);
            if self.hangs {
                std::future::pending::<()>().await;
            }
            if round < self.fails_until { Err("the hypervisor does not answer".into()) } else { Ok(()) }
        }
    }

    fn start(fails_until: u32, hangs: bool) -> (Workers, Waker, Arc<AtomicU32>) {
        let (mut workers, rounds) = (Workers::default(), Arc::new(AtomicU32::new(0)));
        let waker = workers.start(Counting { rounds: Arc::clone(&rounds), fails_until, hangs });
        (workers, waker, rounds)
    }

    async fn problem(workers: &Workers) -> Option<String> {
        workers.checks()[0].1().await
    }

    #[tokio::test(start_paused = true)]
    async fn a_round_comes_at_once_then_at_its_interval_or_when_woken() {
        let (workers, waker, rounds) = start(0, false);
        tokio::time::sleep(Duration::from_secs(59)).await;
        assert_eq!(rounds.load(Ordering::SeqCst), 1);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(rounds.load(Ordering::SeqCst), 2);
        waker.wake();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(rounds.load(Ordering::SeqCst), 3);
        workers.shut_down().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_round_comes_again_soon_and_health_says_why_until_one_is_done() {
        let (workers, _, rounds) = start(3, false);
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(problem(&workers).await.as_deref(), Some("the hypervisor does not answer"));
        // 1 + 2 + 4 seconds of back-off.
        tokio::time::sleep(Duration::from_secs(7)).await;
        assert_eq!(rounds.load(Ordering::SeqCst), 4);
        assert_eq!(problem(&workers).await, None);
        workers.shut_down().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_is_not_healthy_before_its_first_round_has_ended() {
        let (workers, _, _) = start(0, true);
        assert_eq!(problem(&workers).await.as_deref(), Some("its first round has not ended yet"));
        workers.shut_down().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_round_that_hangs_is_cut_off() {
        let (workers, _, _) = start(0, true);
        tokio::time::sleep(Duration::from_millis(10_500)).await;
        assert_eq!(problem(&workers).await.as_deref(), Some("took longer than 10 s"));
        workers.shut_down().await;
    }
}
