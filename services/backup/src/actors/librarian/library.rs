//! How the rest of the service speaks to the librarian.

use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use actor::ask;
use backup_repository::Repository;

use super::{Borrow, Catalogue, Complain, Freshness, LOOK_MAX, Librarian, List, LookAgain, StoreShut};
use crate::actors::MAILBOX;

/// How long the actor may take for an answer that it has.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// The librarian's desk. Cloning is cheap.
#[derive(Clone)]
pub struct Library(Addr<Librarian>);

impl Library {
    /// Starts the actor on the arbiter at hand.
    pub fn start(librarian: Librarian) -> Self {
        Library(actor::start(MAILBOX, librarian))
    }

    /// The open repository.
    ///
    /// # Errors
    /// When the store is shut, with the reason; answered at once.
    pub async fn repository(&self) -> Result<Repository, StoreShut> {
        ask(&self.0, Borrow, ANSWER_MAX).await?
    }

    /// The list of backups.
    ///
    /// # Errors
    /// When the store is shut, or does not answer within the time of one look.
    pub async fn catalogue(&self, freshness: Freshness) -> Result<Arc<Catalogue>, StoreShut> {
        let promise = ask(&self.0, List(freshness), ANSWER_MAX).await??;
        // Two looks: the one under way may have begun before what the asker wants to see.
        match tokio::time::timeout(2 * LOOK_MAX, promise).await {
            Ok(Ok(listed)) => listed,
            Ok(Err(_)) | Err(_) => Err(StoreShut { reason: "it could not be listed in time".into() }),
        }
    }

    /// Tells that the store's content changed, or that it may not be well.
    pub async fn look_again(&self) {
        if let Err(error) = ask(&self.0, LookAgain, ANSWER_MAX).await {
            tracing::debug!(%error, "the librarian will see for himself");
        }
    }

    /// What is wrong with the store, if anything is; answered at once.
    pub async fn trouble(&self) -> Option<String> {
        match ask(&self.0, Complain, ANSWER_MAX).await {
            Ok(trouble) => trouble,
            Err(error) => Some(error.to_string()),
        }
    }
}
