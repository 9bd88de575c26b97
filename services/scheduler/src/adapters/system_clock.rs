//! The system's clock.

use std::time::Duration;

use async_trait::async_trait;
use contract::Timestamp;

use crate::ports::Clock;

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        chrono::Utc::now()
    }

    async fn pass(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}
