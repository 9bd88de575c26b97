//! Who may open the repository: listing, adding and removing keys, and beginning a new epoch.
//!
//! Every change writes the next key roster with one create-if-absent: of two changes at once, one succeeds and the
//! other fails with [`KeyError::ChangedMeanwhile`]. Old rosters are removed afterwards.

use bytes::Bytes;
use tokio::task::spawn_blocking;
use tracing::instrument;
use ulid::Ulid;

use crate::damage::{Damage, WriteOnly};
use crate::format::roster::{self, UnverifiedKeyRoster};
use crate::keys::{KdfCost, KeyRoster, KeyRosterError, Keys, Recipient, Role, Secret, SlotId, SlotOwner};
use crate::open_error::{OpenError, not_opened};
use crate::repository::{Repository, unix_ms_now};
use crate::rosters::read_roster;
use crate::store::{CreateOutcome, StoreError, names};

/// Labels are short names for people.
const LABEL_CHARS_MAX: usize = 100;

/// One key that opens the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySlot {
    /// A ULID in lower case.
    pub id: String,
    /// Free text for people, 1 to 100 characters.
    pub label: String,
    /// Whether it can read stored data.
    pub role: Role,
    /// `passphrase`, `key-file` or `recipient`.
    pub kind: &'static str,
    /// The public key, for the kind `recipient`.
    pub recipient: Option<Recipient>,
    /// When it was added, in milliseconds since 1970.
    pub created_unix_ms: u64,
    /// Whether this repository handle was opened with it.
    pub in_use: bool,
}

/// A key to be added.
pub enum NewKey {
    /// A passphrase, key file or identity, and the cost of each guess at it.
    Secret(Secret, KdfCost),
    /// A public key; its owner keeps the private one.
    Recipient(Recipient),
}

/// The keys could not be changed. They are as they were.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A write-only key cannot manage keys.
    #[error(transparent)]
    WriteOnly(#[from] WriteOnly),
    /// No key has this id.
    #[error("there is no key {0}")]
    Unknown(String),
    /// Several keys begin like this.
    #[error("several keys begin with {0}: give more characters")]
    Ambiguous(String),
    /// Without it no key could read the repository any more.
    #[error("key {0} is the last that can read this repository: add another first")]
    Last(String),
    /// The key in use: removing it could lock out its owner.
    #[error("key {0} is the one in use: prove that you have another that can read")]
    InUse(String),
    /// What was given as proof opens nothing, only the key to be removed, or only a write-only key.
    #[error("the proof does not open another key that can read this repository")]
    OtherKeyNotProven,
    /// The label is empty, too long, or has control characters.
    #[error("a label has 1 to {LABEL_CHARS_MAX} characters, none of them a control character")]
    Label,
    /// Another process changed the keys at the same time.
    #[error("the keys were changed by another process at the same time: list them and try again")]
    ChangedMeanwhile,
    /// The roster could not be read.
    #[error("could not read the keys")]
    Open(#[from] OpenError),
    /// The store failed; list the keys to see whether the change was made.
    #[error("could not change the keys")]
    Store(#[from] StoreError),
}

impl Repository {
    /// Every key that opens the repository.
    ///
    /// # Errors
    /// When the store fails or the roster is damaged.
    pub async fn keys(&self) -> Result<Vec<KeySlot>, KeyError> {
        let (roster, keys) = self.roster().await?;
        let in_use = keys.slot();
        let slot = |slot: &crate::keys::Slot| KeySlot {
            id: slot.id.to_string().to_lowercase(),
            label: slot.label.clone(),
            role: slot.role,
            kind: slot.kind(),
            recipient: slot.recipient(),
            created_unix_ms: slot.created_unix_ms,
            in_use: slot.id == in_use,
        };
        Ok(roster.roster.slots.iter().map(slot).collect())
    }

    /// Adds a key and returns its id.
    ///
    /// # Errors
    /// When this key is write-only, the label is not usable, or the store fails.
    #[instrument(name = "repository.add_key", skip(self, key))]
    pub async fn add_key(&self, label: &str, role: Role, key: NewKey) -> Result<String, KeyError> {
        check_label(label)?;
        let (roster, keys) = self.roster_to_change().await?;
        let owner = match key {
            NewKey::Secret(secret, cost) => SlotOwner::Secret(secret, cost),
            NewKey::Recipient(recipient) => SlotOwner::Recipient(recipient),
        };
        let label = label.to_owned();
        let made = spawn_blocking(move || {
            let (roster, id) = roster.roster.with_slot(&keys, label, role, owner, unix_ms_now())?;
            Ok((roster, keys, id))
        });
        let (roster, keys, id) = made.await.expect("making a slot does not panic").map_err(self.refused())?;
        let is_added = |newest: &KeyRoster| newest.slots.iter().any(|slot| slot.id == id);
        self.commit_roster(roster, keys, is_added).await?;
        Ok(id.to_string().to_lowercase())
    }

    /// Changes the label of a key.
    ///
    /// # Errors
    /// When there is no such key, the label is not usable, this key is write-only, or the store fails.
    #[instrument(name = "repository.label_key", skip(self))]
    pub async fn label_key(&self, id: &str, label: &str) -> Result<(), KeyError> {
        check_label(label)?;
        let (roster, keys) = self.roster_to_change().await?;
        let slot = named(&roster.roster, id)?;
        let is_labelled =
            |newest: &KeyRoster| newest.slots.iter().any(|other| other.id == slot && other.label == label);
        self.commit_roster(roster.roster.with_label(slot, label), keys, is_labelled).await
    }

    /// Removes a key and begins an epoch that is not granted to it: the removed key cannot read what is stored from now
    /// on. It can still read what was stored before. To remove the key in use, prove another that can read.
    ///
    /// # Errors
    /// When there is no such key, it is the last that can read, it is in use and no other is proven, this key is
    /// write-only, or the store fails.
    #[instrument(name = "repository.remove_key", skip(self, proof))]
    pub async fn remove_key(&self, id: &str, proof: Option<Secret>) -> Result<(), KeyError> {
        let (roster, keys) = self.roster_to_change().await?;
        let slot = named(&roster.roster, id)?;
        let slots = &roster.roster.slots;
        if !slots.iter().any(|other| other.id != slot && other.role == Role::Full) {
            return Err(KeyError::Last(id.to_owned()));
        }
        let (roster, keys) = match proof {
            None if keys.slot() == slot => return Err(KeyError::InUse(id.to_owned())),
            None => (roster, keys),
            Some(proof) => {
                let repository = self.id();
                let (roster, proven) = spawn_blocking(move || {
                    let proven = roster.open_other(repository, &proof, slot);
                    (roster, proven)
                })
                .await
                .expect("opening a slot does not panic");
                let proven = proven.map_err(|error| match error {
                    KeyRosterError::NoMatchingSlot => KeyError::OtherKeyNotProven,
                    error => self.refused()(error),
                })?;
                if !proven.can_read() {
                    return Err(KeyError::OtherKeyNotProven);
                }
                (roster, if keys.slot() == slot { proven } else { keys })
            }
        };
        let (roster, keys) = roster.roster.without(keys, slot).map_err(self.refused())?;
        let is_granted = roster.recognises_grant_of(keys.slot());
        self.commit_roster(roster, keys, is_granted).await
    }

    /// Begins a new epoch: what is stored from now on is encrypted with new keys, which every key slot is granted.
    /// Returns its number.
    ///
    /// # Errors
    /// When this key is write-only or the store fails.
    #[instrument(name = "repository.rotate_keys", skip(self))]
    pub async fn rotate_keys(&self) -> Result<u32, KeyError> {
        let (roster, keys) = self.roster_to_change().await?;
        let (roster, keys) = roster.roster.with_new_epoch(keys).map_err(self.refused())?;
        let epoch = keys.current().number;
        let is_granted = roster.recognises_grant_of(keys.slot());
        self.commit_roster(roster, keys, is_granted).await?;
        Ok(epoch)
    }

    /// The roster in force, and its keys.
    async fn roster(&self) -> Result<(UnverifiedKeyRoster, Keys), KeyError> {
        let found = read_roster(&self.shared.store, self.id(), 0).await?;
        let (name, roster) = found.ok_or_else(|| {
            let name = names::rosters(self.id()).to_string();
            OpenError::Damaged { name, source: Damage::Missing { what: "key roster" } }
        })?;
        let keys = roster.reopen(self.id(), &self.shared.keys()).map_err(|error| match error {
            KeyRosterError::NoMatchingSlot => OpenError::KeyRemoved,
            error => not_opened(error, name),
        })?;
        Ok((roster, keys))
    }

    async fn roster_to_change(&self) -> Result<(UnverifiedKeyRoster, Keys), KeyError> {
        if !self.can_read() {
            return Err(WriteOnly.into());
        }
        self.roster().await
    }

    fn refused(&self) -> impl Fn(KeyRosterError) -> KeyError + use<> {
        let name = names::rosters(self.id()).to_string();
        move |error| not_opened(error, name.clone()).into()
    }

    /// Writes the next roster; `is_in` recognises the change in a later one.
    async fn commit_roster(
        &self,
        roster: KeyRoster,
        keys: Keys,
        is_in: impl Fn(&KeyRoster) -> bool,
    ) -> Result<(), KeyError> {
        let store = &self.shared.store;
        let name = names::roster(self.id(), roster.number);
        let object = roster::encode(&roster, &keys).map_err(KeyRosterError::from).map_err(self.refused())?;
        if store.create_locked(&name, Bytes::from(object)).await? == CreateOutcome::AlreadyThere {
            return Err(KeyError::ChangedMeanwhile);
        }
        // The number was free also where later changes took it and removed it again: then they do not know of ours.
        if let Some((_, newest)) = read_roster(store, self.id(), roster.number).await?
            && !is_in(&newest.roster)
        {
            store.delete(&name).await?;
            return Err(KeyError::ChangedMeanwhile);
        }
        self.use_newer_keys(keys).await?;
        for listed in store.list(&names::rosters(self.id())).await? {
            if names::roster_number(&listed.path).is_some_and(|number| number < roster.number) {
                store.delete(&listed.path).await?;
            }
        }
        Ok(())
    }
}

fn check_label(label: &str) -> Result<(), KeyError> {
    let chars = label.chars().count();
    if chars == 0 || chars > LABEL_CHARS_MAX || label.chars().any(char::is_control) {
        return Err(KeyError::Label);
    }
    Ok(())
}

fn named(roster: &KeyRoster, id: &str) -> Result<SlotId, KeyError> {
    let wanted = id.to_uppercase();
    let mut fitting =
        roster.slots.iter().map(|slot| slot.id).filter(|slot: &Ulid| slot.to_string().starts_with(&wanted));
    match (fitting.next(), fitting.next()) {
        (Some(slot), None) if !wanted.is_empty() => Ok(slot),
        (None, _) => Err(KeyError::Unknown(id.to_owned())),
        _ => Err(KeyError::Ambiguous(id.to_owned())),
    }
}
