//! The key roster: every slot there is, in one object, signed by the authority.
//!
//! ```text
//!   "LOAMKEYS" | version 2 | signature 64 | MessagePack { repository 16, number, authority 32, slots [ … ] }
//!
//!   signature  of the MessagePack, for the purpose "loam repository v1 key roster"
//!   slots      see slot.rs
//! ```
//!
//! Rosters are numbered; a change writes the next number, which succeeds for one of many writers, and the highest
//! number is the one that counts. So keys are never half changed, and a slot that somebody planted is in no roster.

use serde::{Deserialize, Serialize};

use super::bundle::Bundle;
use super::recipient::PUBLIC_BYTES;
use super::slot::{Owner, Slot, SlotError, SlotId};
use super::{KdfCost, Keys, Opened, Role, SIGNATURE_BYTES, Secret, sign, vouches};
use crate::format::{Damage, RepositoryId, VERSION, header, packed};

const MAGIC: &[u8; 8] = b"LOAMKEYS";
const WHAT: &str = "key roster";
/// More slots than this were not written by us: trying each costs Argon2id's memory and time.
const SLOTS_MAX: usize = 256;

#[derive(Serialize, Deserialize)]
pub(crate) struct Roster {
    repository: RepositoryId,
    pub(crate) number: u64,
    #[serde(with = "serde_bytes")]
    authority: [u8; PUBLIC_BYTES],
    pub(crate) slots: Vec<Slot>,
}

/// A roster that was read and whose authority is not known to be ours yet.
pub(crate) struct Unopened {
    pub(crate) roster: Roster,
    body: Vec<u8>,
    signature: [u8; SIGNATURE_BYTES],
}

/// The roster does not give its keys.
#[derive(Debug)]
pub(crate) enum RosterError {
    /// No slot opens with this secret, or the slot was removed.
    NoSlot,
    /// The cost of a slot cannot be computed here.
    Cost(argon2::Error),
    /// It is not as it was written.
    Damaged(Damage),
}

impl From<Damage> for RosterError {
    fn from(damage: Damage) -> RosterError {
        RosterError::Damaged(damage)
    }
}

impl From<SlotError> for RosterError {
    fn from(error: SlotError) -> RosterError {
        match error {
            SlotError::NotOurs => RosterError::NoSlot,
            SlotError::Cost(error) => RosterError::Cost(error),
            SlotError::Damaged(damage) => RosterError::Damaged(damage),
        }
    }
}

impl Roster {
    /// The first roster of a repository, with one slot that may do everything. Slow as the cost says.
    pub(crate) fn first(
        repository: RepositoryId,
        label: String,
        secret: Secret,
        cost: KdfCost,
        now_unix_ms: u64,
    ) -> Result<(Vec<u8>, Keys), RosterError> {
        let bundle = Bundle::generate();
        let owner = Owner::Secret(secret, cost);
        let (slot, private) = Slot::new(repository, label, Role::Full, owner, now_unix_ms, &bundle)?;
        let private = private.expect("the private key of a secret's slot is at hand");
        let opened = Opened { slot: slot.id, private, authority: Some(bundle.authority) };
        let roster = Roster { repository, number: 1, authority: bundle.authority, slots: vec![slot] };
        let seed = bundle.authority_seed.as_ref().expect("a new bundle is whole");
        Ok((roster.encode(|body| sign(seed, MAGIC_WORD, body)), Keys::new(bundle, opened, 1, 1)))
    }

    fn encode(&self, sign: impl FnOnce(&[u8]) -> [u8; SIGNATURE_BYTES]) -> Vec<u8> {
        let body = packed::body(self);
        let mut object = MAGIC.to_vec();
        object.extend_from_slice(&VERSION.to_le_bytes());
        object.extend_from_slice(&sign(&body));
        object.extend_from_slice(&body);
        object
    }

    /// The object of this roster, signed.
    pub(crate) fn signed(&self, keys: &Keys) -> Result<Vec<u8>, Damage> {
        let body = packed::body(self);
        let signature = keys.sign(MAGIC_WORD, &body).map_err(Damage::WriteOnly)?;
        Ok(self.encode(|_| signature))
    }

    /// The next roster with one more slot. Slow as the cost says.
    pub(crate) fn with_slot(
        mut self,
        keys: &Keys,
        label: String,
        role: Role,
        owner: Owner,
        now_unix_ms: u64,
    ) -> Result<(Roster, SlotId), RosterError> {
        let (slot, _) = Slot::new(self.repository, label, role, owner, now_unix_ms, &keys.bundle)?;
        let id = slot.id;
        self.number += 1;
        self.slots.push(slot);
        Ok((self, id))
    }

    /// The next roster, in which a slot is called something else.
    pub(crate) fn with_label(mut self, slot: SlotId, label: &str) -> Roster {
        self.number += 1;
        self.slots.iter_mut().filter(|other| other.id == slot).for_each(|slot| slot.label = label.to_owned());
        self
    }

    /// The next roster without a slot, and with an epoch that the removed one never learns of.
    pub(crate) fn without(mut self, keys: Keys, slot: SlotId) -> Result<(Roster, Keys), RosterError> {
        self.slots.retain(|other| other.id != slot);
        self.with_new_epoch(keys)
    }

    /// The next roster, with an epoch that is granted to every slot.
    pub(crate) fn with_new_epoch(self, keys: Keys) -> Result<(Roster, Keys), RosterError> {
        let bundle = keys.bundle.with_new_epoch();
        let repository = self.repository;
        let slots = self.slots.into_iter().map(|slot| slot.granted(repository, &bundle));
        let slots = slots.collect::<Result<_, _>>()?;
        let number = self.number + 1;
        let roster = Roster { number, slots, ..Roster { slots: Vec::new(), ..self } };
        let count = roster.slots.len() as u64;
        Ok((roster, Keys::new(bundle, keys.opened, number, count)))
    }
}

const MAGIC_WORD: &str = "loam repository v1 key roster";

impl Unopened {
    pub(crate) fn decode(object: &[u8]) -> Result<Unopened, Damage> {
        let rest = header(MAGIC, WHAT, object)?;
        let (signature, body) =
            rest.split_first_chunk().ok_or(Damage::Malformed { what: WHAT, why: "it ends in its header" })?;
        let roster: Roster = packed::decode(body, WHAT)?;
        if roster.slots.len() > SLOTS_MAX {
            return Err(Damage::Malformed { what: WHAT, why: "it has too many slots" });
        }
        roster.slots.iter().try_for_each(Slot::check)?;
        Ok(Unopened { roster, body: body.to_vec(), signature: *signature })
    }

    /// Opens it with a secret. Slow as its slots' costs say: not for an async thread.
    pub(crate) fn open(&self, repository: RepositoryId, secret: &Secret) -> Result<Keys, RosterError> {
        self.open_other(repository, secret, SlotId::nil())
    }

    /// Opens it by another slot than `not_this`.
    pub(crate) fn open_other(
        &self,
        repository: RepositoryId,
        secret: &Secret,
        not_this: SlotId,
    ) -> Result<Keys, RosterError> {
        for slot in self.roster.slots.iter().filter(|slot| slot.id != not_this) {
            match slot.open(repository, secret) {
                Ok(opened) => return self.enter(repository, slot, opened),
                Err(SlotError::NotOurs) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(RosterError::NoSlot)
    }

    /// Opens a later roster with the slot that opened an earlier one.
    pub(crate) fn reopen(&self, repository: RepositoryId, keys: &Keys) -> Result<Keys, RosterError> {
        let Opened { slot, private, .. } = &keys.opened;
        let found = self.roster.slots.iter().find(|other| other.id == *slot).ok_or(RosterError::NoSlot)?;
        let opened = Opened { slot: *slot, private: private.clone(), authority: Some(*keys.authority()) };
        self.enter(repository, found, opened)
    }

    fn enter(&self, repository: RepositoryId, slot: &Slot, opened: Opened) -> Result<Keys, RosterError> {
        let bundle = slot.bundle(repository, &opened)?;
        let ours = self.roster.repository == repository
            && self.roster.authority == bundle.authority
            && vouches(&bundle.authority, MAGIC_WORD, &self.body, &self.signature);
        if ours {
            Ok(Keys::new(bundle, opened, self.roster.number, self.roster.slots.len() as u64))
        } else {
            Err(Damage::NotAuthentic { what: WHAT }.into())
        }
    }
}
