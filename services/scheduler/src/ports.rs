//! What the scheduler needs of its surroundings, besides the bus.

use std::time::Duration;

use async_trait::async_trait;
use contract::Timestamp;

/// Time: the wall clock, which people and servers set, and waiting, which that does not disturb.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// The wall clock.
    fn now(&self) -> Timestamp;
    /// Waits so long, whatever the wall clock does meanwhile.
    async fn pass(&self, duration: Duration);
}
