//! The worker that keeps the repository open: it opens, checks and lists it in rounds.

use std::sync::Arc;
use std::time::Duration;

use backup_domain::repository_state::RepositoryTransition;
use chassis::Worker;
use contract::message::with_causes;

use super::RepositoryKeeper;
use crate::adapters::listing::RepositoryListing;
use crate::adapters::repository::RepositoryConfig;
use crate::metrics::Metrics;

/// How long one refresh may take; a store that hangs is a store that is down.
pub(super) const REFRESH_MAX: Duration = Duration::from_secs(30);
/// The worker cuts a round off a little later, so that the state gets a reason.
const ROUND_MAX: Duration = Duration::from_secs(35);

/// The worker that keeps what the keeper knows up to date.
pub struct RepositoryRefresher {
    /// How the repository is opened.
    pub config: Arc<RepositoryConfig>,
    /// The keeper that gets what was found.
    pub keeper: RepositoryKeeper,
    /// Counts whether it is open.
    pub metrics: Metrics,
}

impl Worker for RepositoryRefresher {
    fn name(&self) -> &'static str {
        "refresh_repository"
    }

    fn interval(&self) -> Duration {
        self.config.refresh_interval
    }

    fn timeout(&self) -> Duration {
        ROUND_MAX
    }

    async fn round(&mut self) -> Result<(), String> {
        self.keeper.state().begin();
        let before = self.keeper.state().content().clone().ok();
        let url = &self.config.store.url;
        let found =
            match tokio::time::timeout(REFRESH_MAX, RepositoryListing::read(&self.config, before)).await {
                Ok(found) => found.map_err(|error| with_causes(&error)),
                Err(_) => Err(format!("{url} did not answer within {} s", REFRESH_MAX.as_secs())),
            };
        for damaged in found.iter().flat_map(|listing| &listing.damaged) {
            tracing::warn!(damaged, "a backup cannot be listed");
        }
        let outcome = found.as_ref().map(drop).map_err(String::clone);
        match self.keeper.state().end(found) {
            RepositoryTransition::Opened => {
                tracing::info!(store = %url, "the repository is open");
                self.metrics.store_open(true);
            }
            RepositoryTransition::Closed => self.metrics.store_open(false),
            RepositoryTransition::Unchanged => {}
        }
        self.keeper.announce();
        outcome
    }
}
