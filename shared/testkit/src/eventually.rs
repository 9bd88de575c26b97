//! Waiting for a condition.

use std::time::{Duration, Instant};

/// How long a test waits for what must come: far longer than it takes, short enough to fail in this lifetime.
pub const WAIT_MAX: Duration = Duration::from_secs(30);
const BETWEEN: Duration = Duration::from_millis(20);

/// Waits until a condition holds; panics with `what` when the time is over.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    eventually_some(what, WAIT_MAX, async || condition().await.then_some(())).await;
}

/// Waits until there is a value; panics with `what` when the time is over.
pub async fn eventually_some<T>(
    what: &str,
    wait_max: Duration,
    mut value: impl AsyncFnMut() -> Option<T>,
) -> T {
    let until = Instant::now() + wait_max;
    loop {
        if let Some(value) = value().await {
            return value;
        }
        assert!(Instant::now() < until, "waited {wait_max:?} in vain: {what}");
        tokio::time::sleep(BETWEEN).await;
    }
}
