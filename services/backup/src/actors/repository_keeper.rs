//! The keeper of the open repository: gives it out, or the reason why it is closed, and the list of its backups.
//!
//! Which content answers a question is decided by `backup_domain::repository_state`; the worker of `refresh_repository`
//! finds it out in rounds, and at once when a question or a change needs it. The repository itself is given out without
//! waiting. Nothing here is durable.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use backup_domain::repository_state::{RepositoryLookup, RepositoryState, RequiredFreshness};
use backup_repository::Repository;
use chassis::{PartCheck, Waker};
use contract::backup::Backup;
use tokio::sync::watch;

use super::refresh_repository::REFRESH_MAX;
use crate::adapters::listing::RepositoryListing;

/// The refresh under way may have begun before what the question is about; the next one answers.
const ANSWER_MAX: Duration = REFRESH_MAX.saturating_mul(2);

/// The repository cannot be used now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the backup store cannot be used: {reason}")]
pub struct RepositoryClosed {
    /// Why, with all causes.
    pub reason: String,
}

/// The handle. Cloning is cheap.
#[derive(Clone, Default)]
pub struct RepositoryKeeper(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<RepositoryState<RepositoryListing>>,
    ended: watch::Sender<()>,
    refresh: Waker,
}

impl RepositoryKeeper {
    /// The open repository; answered at once.
    ///
    /// # Errors
    /// When it is closed.
    pub fn repository(&self) -> Result<Repository, RepositoryClosed> {
        let listing = self.state().content().clone();
        listing.map(|listing| listing.repository).map_err(|reason| RepositoryClosed { reason })
    }

    /// The backups that there are, newest first.
    ///
    /// # Errors
    /// When the repository is closed, or the store does not answer within the time of two refreshes.
    pub async fn backups(&self, freshness: RequiredFreshness) -> Result<Arc<Vec<Backup>>, RepositoryClosed> {
        let mut ended = self.0.ended.subscribe();
        let answer = self.state().answer(freshness);
        let listing = match answer {
            RepositoryLookup::Found(listing) => Ok(listing),
            RepositoryLookup::Closed(reason) => Err(reason),
            RepositoryLookup::AfterRefresh(refresh) => {
                self.0.refresh.wake();
                let answered = ended.wait_for(|()| self.state().answer_after(refresh).is_some());
                match tokio::time::timeout(ANSWER_MAX, answered).await {
                    Ok(_) => self.state().content().clone(),
                    Err(_) => Err("it could not be listed in time".into()),
                }
            }
        };
        listing.map(|listing| listing.backups).map_err(|reason| RepositoryClosed { reason })
    }

    /// Reports that the store's content changed, or that the store may not be healthy.
    pub fn report_change(&self) {
        self.state().change();
        self.0.refresh.wake();
    }

    /// The health check of the store: why it is closed, or which backups cannot be listed.
    pub fn check(&self) -> PartCheck {
        let keeper = self.clone();
        Arc::new(move || {
            let problem = match keeper.state().content() {
                Ok(listing) => (!listing.damaged.is_empty()).then(|| listing.damaged.join("; ")),
                Err(reason) => Some(reason.clone()),
            };
            Box::pin(async move { problem })
        })
    }

    /// Wakes those who wait for the end of a refresh.
    pub(super) fn announce(&self) {
        self.0.ended.send_replace(());
    }

    /// Wakes the worker.
    pub fn waker(&self) -> Waker {
        self.0.refresh.clone()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, RepositoryState<RepositoryListing>> {
        self.0.state.lock().expect("no code here panics while it holds the lock")
    }
}
