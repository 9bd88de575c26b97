//! The key roster: every slot of the repository. How it is stored and signed: [`crate::format`].
//!
//! Rosters are numbered. A change writes the next number, which succeeds for one of many writers, and the roster with
//! the highest number is in force. So keys are never half changed, and a slot that an attacker plants is in no roster.

use serde::{Deserialize, Serialize};

use super::bundle::KeyBundle;
use super::recipient::PUBLIC_BYTES;
use super::slot::{Slot, SlotError, SlotId, SlotOwner};
use super::{KdfCost, Keys, OpenedSlot, Role, Secret};
use crate::damage::Damage;
use crate::ids::RepositoryId;

const WHAT: &str = "key roster";
/// More slots than this were not written by us: trying each costs Argon2id's memory and time.
const SLOTS_MAX: usize = 256;

/// Serialized as it stands: the names of its fields are part of the format.
#[derive(Serialize, Deserialize)]
pub(crate) struct KeyRoster {
    repository: RepositoryId,
    pub(crate) number: u64,
    /// The public key that signs it.
    #[serde(with = "serde_bytes")]
    authority: [u8; PUBLIC_BYTES],
    pub(crate) slots: Vec<Slot>,
}

/// The roster does not yield its keys.
#[derive(Debug)]
pub(crate) enum KeyRosterError {
    /// No slot opens with this secret, or the slot was removed.
    NoMatchingSlot,
    /// The cost of a slot cannot be computed here.
    KdfCost(argon2::Error),
    /// It is not as it was written.
    Damaged(Damage),
}

impl From<Damage> for KeyRosterError {
    fn from(damage: Damage) -> KeyRosterError {
        KeyRosterError::Damaged(damage)
    }
}

impl From<SlotError> for KeyRosterError {
    fn from(error: SlotError) -> KeyRosterError {
        match error {
            SlotError::WrongSecret => KeyRosterError::NoMatchingSlot,
            SlotError::KdfCost(error) => KeyRosterError::KdfCost(error),
            SlotError::Damaged(damage) => KeyRosterError::Damaged(damage),
        }
    }
}

impl KeyRoster {
    /// The first roster of a repository, with one full slot. Slow as the cost says.
    pub(crate) fn first(
        repository: RepositoryId,
        label: String,
        secret: Secret,
        cost: KdfCost,
        now_unix_ms: u64,
    ) -> Result<(KeyRoster, Keys), KeyRosterError> {
        let bundle = KeyBundle::generate();
        let owner = SlotOwner::Secret(secret, cost);
        let (slot, private) = Slot::new(repository, label, Role::Full, owner, now_unix_ms, &bundle)?;
        let private = private.expect("the private key of a secret's slot is at hand");
        let opened = OpenedSlot {
            slot: slot.id,
            private_key: private,
            authority_public_key: Some(bundle.authority_public_key),
        };
        let roster =
            KeyRoster { repository, number: 1, authority: bundle.authority_public_key, slots: vec![slot] };
        Ok((roster, Keys::new(bundle, opened, 1, 1)))
    }

    /// The next roster with one more slot. Slow as the cost says.
    pub(crate) fn with_slot(
        mut self,
        keys: &Keys,
        label: String,
        role: Role,
        owner: SlotOwner,
        now_unix_ms: u64,
    ) -> Result<(KeyRoster, SlotId), KeyRosterError> {
        let (slot, _) = Slot::new(self.repository, label, role, owner, now_unix_ms, &keys.bundle)?;
        let id = slot.id;
        self.number += 1;
        self.slots.push(slot);
        Ok((self, id))
    }

    /// The next roster, in which a slot has another label.
    pub(crate) fn with_label(mut self, slot: SlotId, label: &str) -> KeyRoster {
        self.number += 1;
        self.slots.iter_mut().filter(|other| other.id == slot).for_each(|slot| slot.label = label.to_owned());
        self
    }

    /// The next roster without a slot, and with an epoch that the removed slot is not granted.
    pub(crate) fn without(mut self, keys: Keys, slot: SlotId) -> Result<(KeyRoster, Keys), KeyRosterError> {
        self.slots.retain(|other| other.id != slot);
        self.with_new_epoch(keys)
    }

    /// The next roster, with an epoch that is granted to every slot.
    pub(crate) fn with_new_epoch(self, keys: Keys) -> Result<(KeyRoster, Keys), KeyRosterError> {
        let bundle = keys.bundle.with_new_epoch();
        let repository = self.repository;
        let slots = self.slots.into_iter().map(|slot| slot.granted(repository, &bundle));
        let slots = slots.collect::<Result<_, _>>()?;
        let number = self.number + 1;
        let roster = KeyRoster { number, slots, ..KeyRoster { slots: Vec::new(), ..self } };
        let count = roster.slots.len() as u64;
        Ok((roster, Keys::new(bundle, keys.opened, number, count)))
    }

    /// Whether a later roster has the same grant for a slot: then it was made from this one.
    pub(crate) fn recognises_grant_of(&self, slot: SlotId) -> impl Fn(&KeyRoster) -> bool + use<> {
        let grant = |roster: &KeyRoster| roster.slots.iter().find(|other| other.id == slot).map(Slot::grant);
        let ours = grant(self);
        move |newest| newest.slots.iter().find(|other| other.id == slot).map(Slot::grant) == ours
    }

    /// Refuses what no writer of ours writes, before any slot is tried.
    pub(crate) fn check(&self) -> Result<(), Damage> {
        if self.slots.len() > SLOTS_MAX {
            return Err(Damage::Malformed { what: WHAT, why: "it has too many slots" });
        }
        self.slots.iter().try_for_each(Slot::check)
    }

    /// Tries a secret on every slot but one. Slow as the slots' costs say: not for an async thread.
    pub(crate) fn open(
        &self,
        repository: RepositoryId,
        secret: &Secret,
        not_this: Option<SlotId>,
    ) -> Result<Keys, KeyRosterError> {
        for slot in self.slots.iter().filter(|slot| Some(slot.id) != not_this) {
            match slot.open(repository, secret) {
                Ok(opened) => return self.keys(repository, slot, opened),
                Err(SlotError::WrongSecret) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(KeyRosterError::NoMatchingSlot)
    }

    /// Opens a later roster with the slot that opened an earlier one.
    pub(crate) fn reopen(&self, repository: RepositoryId, keys: &Keys) -> Result<Keys, KeyRosterError> {
        let OpenedSlot { slot, private_key: private, .. } = &keys.opened;
        let found =
            self.slots.iter().find(|other| other.id == *slot).ok_or(KeyRosterError::NoMatchingSlot)?;
        let opened = OpenedSlot {
            slot: *slot,
            private_key: private.clone(),
            authority_public_key: Some(*keys.authority()),
        };
        self.keys(repository, found, opened)
    }

    fn keys(
        &self,
        repository: RepositoryId,
        slot: &Slot,
        opened: OpenedSlot,
    ) -> Result<Keys, KeyRosterError> {
        let bundle = slot.bundle(repository, &opened)?;
        if self.repository != repository || self.authority != bundle.authority_public_key {
            return Err(Damage::NotAuthentic { what: WHAT }.into());
        }
        Ok(Keys::new(bundle, opened, self.number, self.slots.len() as u64))
    }
}
