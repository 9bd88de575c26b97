//! Transfer slots: how many operations copy, read back and maintain at one time.
//!
//! It keeps who has a slot and who waits for one, first come first served. An operation has at most one slot; taking
//! again, as a repeated step does, is a no-op. When the process dies all slots are free again, and whoever goes on takes
//! one anew.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use actix::{Actor, Addr, Context, Handler, Message, MessageResult};
use actor::{AskError, TracedMessage, ask};
use backup_repository::Cancel;
use contract::OperationId;
use tokio::sync::oneshot;

use super::MAILBOX;

/// Backups copied at one time: each takes a share of the memory budget, and more only share the same line.
pub const COPIES_MAX: usize = 2;
/// Restores and verifications of one backup at one time. They have slots of their own: a restore must not wait for
/// backups.
pub const READS_MAX: usize = 2;
/// Operations on the whole repository at one time: they take long and can wait; backups and restores cannot.
pub const MAINTENANCE_MAX: usize = 1;
/// Operations that wait for a slot; the engine accepts no more operations than this either.
const WAITING_MAX: usize = 500;
/// How long the actor may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// What a slot is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SlotKind {
    /// Copying disks into the store.
    Copy,
    /// Reading a backup from it.
    Read,
    /// Verifying, collecting and forgetting in the whole repository.
    Maintenance,
}

/// Keeps the slots of all kinds.
pub struct TransferSlots {
    copies: Slots,
    reads: Slots,
    maintenance: Slots,
}

struct Slots {
    total: usize,
    taken: BTreeSet<OperationId>,
    waiting: VecDeque<(OperationId, oneshot::Sender<()>)>,
}

/// Takes a slot; the receiver resolves when the operation has it.
#[derive(Message)]
#[rtype(result = "Option<oneshot::Receiver<()>>")]
struct Take(SlotKind, OperationId);

/// Gives a slot, or the wait for one, back.
#[derive(Message)]
#[rtype(result = "()")]
struct Release(OperationId);

impl Slots {
    fn new(total: usize) -> Self {
        Slots { total, taken: BTreeSet::new(), waiting: VecDeque::new() }
    }

    fn take(&mut self, id: OperationId) -> Option<oneshot::Receiver<()>> {
        let (granted, slot) = oneshot::channel();
        // A repeated step keeps its turn, with a new receiver.
        if let Some((_, old)) = self.waiting.iter_mut().find(|(waiting, _)| *waiting == id) {
            *old = granted;
        } else if self.taken.contains(&id) {
            let _receiver_is_below = granted.send(());
        } else if self.waiting.len() >= WAITING_MAX {
            return None;
        } else {
            self.waiting.push_back((id, granted));
        }
        self.grant();
        Some(slot)
    }

    fn release(&mut self, id: &OperationId) {
        self.taken.remove(id);
        self.waiting.retain(|(waiting, _)| waiting != id);
        self.grant();
    }

    fn grant(&mut self) {
        while self.taken.len() < self.total
            && let Some((id, granted)) = self.waiting.pop_front()
        {
            // Whoever stopped waiting takes no slot.
            if granted.send(()).is_ok() {
                self.taken.insert(id);
            }
        }
    }
}

impl Default for TransferSlots {
    fn default() -> Self {
        TransferSlots {
            copies: Slots::new(COPIES_MAX),
            reads: Slots::new(READS_MAX),
            maintenance: Slots::new(MAINTENANCE_MAX),
        }
    }
}

impl Actor for TransferSlots {
    type Context = Context<Self>;
}

impl Handler<TracedMessage<Take>> for TransferSlots {
    type Result = MessageResult<TracedMessage<Take>>;
    fn handle(&mut self, request: TracedMessage<Take>, _: &mut Context<Self>) -> Self::Result {
        let Take(kind, id) = request.message;
        MessageResult(match kind {
            SlotKind::Copy => self.copies.take(id),
            SlotKind::Read => self.reads.take(id),
            SlotKind::Maintenance => self.maintenance.take(id),
        })
    }
}

impl Handler<TracedMessage<Release>> for TransferSlots {
    type Result = ();
    fn handle(&mut self, request: TracedMessage<Release>, _: &mut Context<Self>) {
        for slots in [&mut self.copies, &mut self.reads, &mut self.maintenance] {
            slots.release(&request.message.0);
        }
    }
}

/// Why there is no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferSlotError {
    /// Too many wait already.
    #[error("{WAITING_MAX} operations wait for a transfer slot already")]
    QueueFull,
    /// The operation was cancelled while it waited.
    #[error("cancelled while it waited for a transfer slot")]
    Cancelled,
    /// The actor did not answer.
    #[error(transparent)]
    Actor(#[from] AskError),
}

/// The handle that sagas use. Cloning is cheap.
#[derive(Clone)]
pub struct TransferSlotsHandle(Addr<TransferSlots>);

impl TransferSlotsHandle {
    /// Starts the actor on the arbiter at hand.
    pub fn start() -> Self {
        TransferSlotsHandle(actor::start(MAILBOX, TransferSlots::default()))
    }

    /// Waits for a slot, until there is one or the operation is cancelled. An operation that has one keeps it.
    ///
    /// # Errors
    /// When too many wait, or the operation is cancelled.
    pub async fn take(
        &self,
        kind: SlotKind,
        id: &OperationId,
        cancel: &Cancel,
    ) -> Result<(), TransferSlotError> {
        let slot = ask(&self.0, Take(kind, id.clone()), ANSWER_MAX).await?;
        let slot = slot.ok_or(TransferSlotError::QueueFull)?;
        tokio::select! {
            granted = slot => granted.map_err(|_| TransferSlotError::Cancelled),
            () = cancel.cancelled() => Err(TransferSlotError::Cancelled),
        }
    }

    /// Gives the slot back; a no-op where there is none.
    ///
    /// # Errors
    /// When the actor does not answer.
    pub async fn release(&self, id: &OperationId) -> Result<(), TransferSlotError> {
        Ok(ask(&self.0, Release(id.clone()), ANSWER_MAX).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(bits: u128) -> OperationId {
        OperationId::from_bits(bits)
    }

    fn is_granted(slot: &mut Option<oneshot::Receiver<()>>) -> bool {
        slot.as_mut().is_some_and(|slot| slot.try_recv().is_ok())
    }

    #[test]
    fn slots_are_granted_first_come_first_served_and_a_repeated_step_keeps_its_own() {
        let mut slots = Slots::new(1);
        assert!(is_granted(&mut slots.take(id(1))));
        assert!(is_granted(&mut slots.take(id(1))), "taking again is a no-op");
        let (mut second, mut third) = (slots.take(id(2)), slots.take(id(3)));
        assert!(!is_granted(&mut second) && !is_granted(&mut third));
        slots.release(&id(1));
        assert!(is_granted(&mut second) && !is_granted(&mut third));
        slots.release(&id(2));
        assert!(is_granted(&mut third));
    }

    #[test]
    fn whoever_stopped_waiting_takes_no_slot() {
        let mut slots = Slots::new(1);
        assert!(is_granted(&mut slots.take(id(1))));
        drop(slots.take(id(2)));
        let mut third = slots.take(id(3));
        slots.release(&id(1));
        assert!(is_granted(&mut third));
    }

    #[actix::test]
    async fn waiting_ends_when_the_operation_is_cancelled() {
        let slots = TransferSlotsHandle::start();
        let cancel = Cancel::new();
        for bits in 0..COPIES_MAX as u128 {
            slots.take(SlotKind::Copy, &id(bits), &cancel).await.expect("a slot is free");
        }
        slots.take(SlotKind::Read, &id(90), &cancel).await.expect("reads have slots of their own");
        cancel.cancel();
        assert_eq!(slots.take(SlotKind::Copy, &id(99), &cancel).await, Err(TransferSlotError::Cancelled));
    }
}
