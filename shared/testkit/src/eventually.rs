//! Waiting for a condition.

use std::time::{Duration, Instant};

/// How long a test waits for what must come: far longer than it takes, short enough to fail in this lifetime.
pub const PATIENCE: Duration = Duration::from_secs(30);
const BETWEEN: Duration = Duration::from_millis(20);

/// Waits until a condition holds; panics with `what` when patience ends.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    eventually_some(what, PATIENCE, async || condition().await.then_some(())).await;
}

/// Waits until there is a value; panics with `what` when patience ends.
pub async fn eventually_some<T>(
    what: &str,
    patience: Duration,
    mut value: impl AsyncFnMut() -> Option<T>,
) -> T {
    let until = Instant::now() + patience;
    loop {
        if let Some(value) = value().await {
            return value;
        }
        assert!(Instant::now() < until, "waited {patience:?} in vain: {what}");
        tokio::time::sleep(BETWEEN).await;
    }
}
