//! The copyists: how many disks are copied and read back at one time.
//!
//! It keeps who has a place and who waits for one, first come first served. An operation has at most one place;
//! asking again, as a repeated step does, is asking once. When the process dies all places are free again, and
//! whoever goes on asks anew.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use actix::{Actor, Addr, Context, Handler, Message, MessageResult};
use actor::{AskError, Traced, ask};
use backup_repository::Cancel;
use contract::OperationId;
use tokio::sync::oneshot;

use super::MAILBOX;

/// Backups copied at one time: each holds a share of the memory budget, and more only share the same line.
pub const COPIES_MAX: usize = 2;
/// Restores and verifications at one time. They have places of their own: a restore must not wait for backups.
pub const READS_MAX: usize = 2;
/// Operations that wait for a place; the office accepts no more operations than this either.
const WAITING_MAX: usize = 500;
/// How long the actor may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// What a place is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trade {
    /// Copying disks into the store.
    Copy,
    /// Reading them back.
    Read,
}

/// Keeps the places of both trades.
pub struct Copyists {
    copies: Places,
    reads: Places,
}

struct Places {
    total: usize,
    taken: BTreeSet<OperationId>,
    waiting: VecDeque<(OperationId, oneshot::Sender<()>)>,
}

/// Takes a place; the receiver tells when it is there.
#[derive(Message)]
#[rtype(result = "Option<oneshot::Receiver<()>>")]
struct Take(Trade, OperationId);

/// Gives a place, or the wait for one, back.
#[derive(Message)]
#[rtype(result = "()")]
struct Leave(OperationId);

impl Places {
    fn new(total: usize) -> Self {
        Places { total, taken: BTreeSet::new(), waiting: VecDeque::new() }
    }

    fn take(&mut self, id: OperationId) -> Option<oneshot::Receiver<()>> {
        let (there, place) = oneshot::channel();
        // A repeated step waits in its old turn, with a new receiver.
        if let Some((_, old)) = self.waiting.iter_mut().find(|(waiting, _)| *waiting == id) {
            *old = there;
        } else if self.taken.contains(&id) {
            let _asker_listens = there.send(());
        } else if self.waiting.len() >= WAITING_MAX {
            return None;
        } else {
            self.waiting.push_back((id, there));
        }
        self.give_out();
        Some(place)
    }

    fn leave(&mut self, id: &OperationId) {
        self.taken.remove(id);
        self.waiting.retain(|(waiting, _)| waiting != id);
        self.give_out();
    }

    fn give_out(&mut self) {
        while self.taken.len() < self.total
            && let Some((id, there)) = self.waiting.pop_front()
        {
            // Whoever went away in the meantime takes no place.
            if there.send(()).is_ok() {
                self.taken.insert(id);
            }
        }
    }
}

impl Default for Copyists {
    fn default() -> Self {
        Copyists { copies: Places::new(COPIES_MAX), reads: Places::new(READS_MAX) }
    }
}

impl Actor for Copyists {
    type Context = Context<Self>;
}

impl Handler<Traced<Take>> for Copyists {
    type Result = MessageResult<Traced<Take>>;
    fn handle(&mut self, asked: Traced<Take>, _: &mut Context<Self>) -> Self::Result {
        let Take(trade, id) = asked.message;
        MessageResult(match trade {
            Trade::Copy => self.copies.take(id),
            Trade::Read => self.reads.take(id),
        })
    }
}

impl Handler<Traced<Leave>> for Copyists {
    type Result = ();
    fn handle(&mut self, asked: Traced<Leave>, _: &mut Context<Self>) {
        self.copies.leave(&asked.message.0);
        self.reads.leave(&asked.message.0);
    }
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CopyistsError {
    /// Too many wait already.
    #[error("{WAITING_MAX} operations wait for a place already")]
    Full,
    /// Somebody gave the operation up while it waited.
    #[error("given up while it waited for a place")]
    GivenUp,
    /// The actor did not answer.
    #[error(transparent)]
    Actor(#[from] AskError),
}

/// How the sagas speak to the copyists.
#[derive(Clone)]
pub struct Desk(Addr<Copyists>);

impl Desk {
    /// Starts the actor on the arbiter at hand.
    pub fn start() -> Self {
        Desk(actor::start(MAILBOX, Copyists::default()))
    }

    /// Waits for a place, until there is one or the operation is given up. An operation that has one keeps it.
    ///
    /// # Errors
    /// When too many wait, or the operation is given up.
    pub async fn take(&self, trade: Trade, id: &OperationId, cancel: &Cancel) -> Result<(), CopyistsError> {
        let place = ask(&self.0, Take(trade, id.clone()), ANSWER_MAX).await?;
        let place = place.ok_or(CopyistsError::Full)?;
        tokio::select! {
            there = place => there.map_err(|_| CopyistsError::GivenUp),
            () = cancel.cancelled() => Err(CopyistsError::GivenUp),
        }
    }

    /// Gives the place back; calm where there is none.
    ///
    /// # Errors
    /// When the actor does not answer.
    pub async fn leave(&self, id: &OperationId) -> Result<(), CopyistsError> {
        Ok(ask(&self.0, Leave(id.clone()), ANSWER_MAX).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(bits: u128) -> OperationId {
        OperationId::from_bits(bits)
    }

    fn is_there(place: &mut Option<oneshot::Receiver<()>>) -> bool {
        place.as_mut().is_some_and(|place| place.try_recv().is_ok())
    }

    #[test]
    fn places_are_given_first_come_first_served_and_a_repeated_step_keeps_its_own() {
        let mut places = Places::new(1);
        assert!(is_there(&mut places.take(id(1))));
        assert!(is_there(&mut places.take(id(1))), "asking again is asking once");
        let (mut second, mut third) = (places.take(id(2)), places.take(id(3)));
        assert!(!is_there(&mut second) && !is_there(&mut third));
        places.leave(&id(1));
        assert!(is_there(&mut second) && !is_there(&mut third));
        places.leave(&id(2));
        assert!(is_there(&mut third));
    }

    #[test]
    fn whoever_went_away_takes_no_place() {
        let mut places = Places::new(1);
        assert!(is_there(&mut places.take(id(1))));
        drop(places.take(id(2)));
        let mut third = places.take(id(3));
        places.leave(&id(1));
        assert!(is_there(&mut third));
    }

    #[actix::test]
    async fn waiting_ends_when_the_operation_is_given_up() {
        let desk = Desk::start();
        let cancel = Cancel::new();
        for bits in 0..COPIES_MAX as u128 {
            desk.take(Trade::Copy, &id(bits), &cancel).await.expect("free");
        }
        desk.take(Trade::Read, &id(90), &cancel).await.expect("readers have their own places");
        cancel.cancel();
        assert_eq!(desk.take(Trade::Copy, &id(99), &cancel).await, Err(CopyistsError::GivenUp));
    }
}
