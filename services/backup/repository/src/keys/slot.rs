//! A slot: one way to open the repository.
//!
//! Every slot has a public key, to which its grant is encrypted. The private key is either wrapped in the slot itself, under
//! Argon2id (RFC 9106) of a passphrase or key file, together with the authority's public key; or it is in an identity file
//! that its owner keeps elsewhere. So the holder of one secret can grant a new epoch to all slots.
//!
//! ```text
//!   { id, label, role, created_unix_ms, lock, recipient 32, envelope 32, grant }
//!
//!   role      "full" or "write-only"; 0 or 1 where it is a byte
//!   lock      "elsewhere"   or   { "wrapped": { kind, cost { memory_kib, passes, lanes }, salt 32, text } }
//!   kind      "passphrase" (UTF-8) or "key_file" (all its bytes)
//!   text      AES-256-GCM, key Argon2id( secret, salt, cost; version 0x13, 32 bytes ), nonce 0,
//!             aad = repository 16 | slot 16, of: private key 32 | authority 32
//!   grant     AES-256-GCM, key agreed( "loam repository v1 grant", repository 16 ) through the envelope, nonce 0,
//!             aad = repository 16 | slot 16 | role 1 | recipient 32, of: a key bundle
//!   slot 16   the ULID of the slot as a number, big-endian
//! ```
//!
//! The authority in the lock and the one in the bundle must be the same.

use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};
use ulid::Ulid;
use zeroize::Zeroizing;

use super::bundle::KeyBundle;
use super::recipient::{self, PUBLIC_BYTES};
use super::secret::{Secret, SecretKind};
use super::{Aead, Cipher, KEY_BYTES, Key, Recipient};
use crate::damage::Damage;
use crate::ids::RepositoryId;
use crate::random::random;

const GRANT: &str = "loam repository v1 grant";
/// A slot that asks for more memory than this was not written by us: opening must not exhaust a machine.
const MEMORY_KIB_MAX: u32 = 2 * 1024 * 1024;
/// A slot that asks for more passes than this was not written by us.
const PASSES_MAX: u32 = 64;
/// A slot that asks for more lanes than this was not written by us.
const LANES_MAX: u32 = 64;

/// The id of a slot.
pub(crate) type SlotId = Ulid;

/// What a slot may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Role {
    /// Store, read back, manage keys.
    Full = 0,
    /// Store only: nothing can be read back with it.
    WriteOnly = 1,
}

impl Role {
    pub(super) fn from_byte(byte: u8) -> Option<Role> {
        [Role::Full, Role::WriteOnly].get(usize::from(byte)).copied()
    }
}

/// What each guess of a passphrase costs an attacker, and each opening costs us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KdfCost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over that memory.
    pub passes: u32,
    /// Lanes of it.
    pub lanes: u32,
}

impl Default for KdfCost {
    /// 64 MiB and three passes: the second recommended option of RFC 9106, with one lane.
    fn default() -> KdfCost {
        KdfCost { memory_kib: 64 * 1024, passes: 3, lanes: 1 }
    }
}

/// Where the private key of a slot is.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Lock {
    /// Here, wrapped: AES-256-GCM under Argon2id( secret, salt ), nonce 0, of private key 32 | authority 32.
    Wrapped {
        kind: SecretKind,
        cost: KdfCost,
        #[serde(with = "serde_bytes")]
        salt: [u8; 32],
        #[serde(with = "serde_bytes")]
        text: Vec<u8>,
    },
    /// In an identity file of its owner.
    Elsewhere,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Slot {
    pub(crate) id: SlotId,
    pub(crate) label: String,
    pub(crate) role: Role,
    pub(crate) created_unix_ms: u64,
    lock: Lock,
    #[serde(with = "serde_bytes")]
    recipient: [u8; PUBLIC_BYTES],
    #[serde(with = "serde_bytes")]
    envelope: [u8; PUBLIC_BYTES],
    #[serde(with = "serde_bytes")]
    grant: Vec<u8>,
}

/// Who a new slot is for.
pub(crate) enum SlotOwner {
    Secret(Secret, KdfCost),
    Recipient(Recipient),
}

/// An opened slot: its private key is known.
pub(crate) struct OpenedSlot {
    pub(super) slot: SlotId,
    pub(super) private_key: Key,
    /// The authority that the slot's owner trusts; an identity file has none.
    pub(super) authority_public_key: Option<[u8; PUBLIC_BYTES]>,
}

/// A slot did not open.
#[derive(Debug)]
pub(crate) enum SlotError {
    /// It is for another secret.
    WrongSecret,
    /// Its cost cannot be computed here.
    KdfCost(argon2::Error),
    /// It is malformed or not authentic.
    Damaged(Damage),
}

impl Slot {
    /// Makes a slot and grants it what its role may have of the bundle. Takes as long as the cost says: not for an async thread.
    pub(super) fn new(
        repository: RepositoryId,
        label: String,
        role: Role,
        owner: SlotOwner,
        created_unix_ms: u64,
        bundle: &KeyBundle,
    ) -> Result<(Slot, Option<Key>), SlotError> {
        let id = Ulid::generate();
        let (lock, recipient, private) = match owner {
            SlotOwner::Recipient(recipient) => (Lock::Elsewhere, recipient.0, None),
            SlotOwner::Secret(secret, cost) => {
                let Some(private) = secret.identity() else {
                    let private = recipient::private();
                    let lock =
                        Lock::wrap(repository, id, &secret, cost, &private, &bundle.authority_public_key)?;
                    let public = recipient::public_of(&private);
                    return Slot { id, label, role, created_unix_ms, lock, ..Slot::empty(public) }
                        .granted(repository, bundle)
                        .map(|slot| (slot, Some(private)));
                };
                (Lock::Elsewhere, recipient::public_of(&private), Some(private))
            }
        };
        Slot { id, label, role, created_unix_ms, lock, ..Slot::empty(recipient) }
            .granted(repository, bundle)
            .map(|slot| (slot, private))
    }

    fn empty(recipient: [u8; PUBLIC_BYTES]) -> Slot {
        Slot {
            id: Ulid::nil(),
            label: String::new(),
            role: Role::WriteOnly,
            created_unix_ms: 0,
            lock: Lock::Elsewhere,
            recipient,
            envelope: [0; PUBLIC_BYTES],
            grant: Vec::new(),
        }
    }

    /// The same slot with another grant.
    pub(super) fn granted(mut self, repository: RepositoryId, bundle: &KeyBundle) -> Result<Slot, SlotError> {
        let ephemeral = recipient::private();
        let (key, envelope) = recipient::send(GRANT, &ephemeral, &self.recipient, &[repository.as_bytes()])
            .map_err(|_| SlotError::Damaged(Damage::NotAuthentic { what: "recipient" }))?;
        let mut text = bundle.encode_for(self.role);
        let mut grant = Vec::with_capacity(text.len() + super::TAG_BYTES);
        grant.extend_from_slice(&text);
        zeroize::Zeroize::zeroize(&mut *text);
        Aead::new(Cipher::Aes256Gcm, &key).encrypt(0, &self.bound(repository), &mut grant);
        (self.envelope, self.grant) = (envelope, grant);
        Ok(self)
    }

    /// Tries a secret. Takes as long as the slot's cost says: not for an async thread.
    pub(super) fn open(&self, repository: RepositoryId, secret: &Secret) -> Result<OpenedSlot, SlotError> {
        match (&self.lock, secret.identity()) {
            (Lock::Elsewhere, Some(private)) if recipient::public_of(&private) == self.recipient => {
                Ok(OpenedSlot { slot: self.id, private_key: private, authority_public_key: None })
            }
            (Lock::Wrapped { kind, cost, salt, text }, None) if *kind == secret.kind => {
                let key = wrapping_key(secret, *cost, salt)?;
                let mut text = Zeroizing::new(text.clone());
                let opened = Aead::new(Cipher::Aes256Gcm, &key)
                    .decrypt(0, &wrapped_bound(repository, self.id), &mut text)
                    .map_err(|_| SlotError::WrongSecret)?;
                let (private, authority) =
                    opened.split_first_chunk::<KEY_BYTES>().ok_or(SlotError::WrongSecret)?;
                Ok(OpenedSlot {
                    slot: self.id,
                    private_key: Zeroizing::new(*private),
                    authority_public_key: Some((*authority).try_into().map_err(|_| SlotError::WrongSecret)?),
                })
            }
            _ => Err(SlotError::WrongSecret),
        }
    }

    /// Decrypts the grant.
    pub(super) fn bundle(&self, repository: RepositoryId, opened: &OpenedSlot) -> Result<KeyBundle, Damage> {
        let not_authentic = Damage::NotAuthentic { what: "grant of a key slot" };
        let key = recipient::receive(GRANT, &opened.private_key, &self.envelope, &[repository.as_bytes()])
            .map_err(|_| not_authentic.clone())?;
        let mut text = Zeroizing::new(self.grant.clone());
        let text = Aead::new(Cipher::Aes256Gcm, &key)
            .decrypt(0, &self.bound(repository), &mut text)
            .map_err(|_| not_authentic.clone())?;
        let bundle = KeyBundle::decode(text)?;
        match opened.authority_public_key {
            Some(trusted) if trusted != bundle.authority_public_key => Err(not_authentic),
            _ => Ok(bundle),
        }
    }

    /// Refuses costs that no writer of ours uses, before the slot is tried.
    pub(super) fn check(&self) -> Result<(), Damage> {
        match &self.lock {
            Lock::Wrapped { cost, .. }
                if cost.memory_kib > MEMORY_KIB_MAX || cost.passes > PASSES_MAX || cost.lanes > LANES_MAX =>
            {
                Err(Damage::Malformed { what: "key slot", why: "its key derivation costs too much" })
            }
            _ => Ok(()),
        }
    }

    /// The encrypted key bundle; another one whenever it was granted again.
    pub(super) fn grant(&self) -> Vec<u8> {
        self.grant.clone()
    }

    /// `passphrase`, `key-file` or `recipient`.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.lock {
            Lock::Wrapped { kind: SecretKind::Passphrase, .. } => "passphrase",
            Lock::Wrapped { kind: SecretKind::KeyFile, .. } => "key-file",
            Lock::Wrapped { kind: SecretKind::Identity, .. } | Lock::Elsewhere => "recipient",
        }
    }

    /// The public key, where the private one is in an identity file.
    pub(crate) fn recipient(&self) -> Option<Recipient> {
        matches!(self.lock, Lock::Elsewhere).then_some(Recipient(self.recipient))
    }

    fn bound(&self, repository: RepositoryId) -> Vec<u8> {
        let id = self.id.to_bytes();
        [repository.as_bytes(), id.as_slice(), &[self.role as u8], &self.recipient].concat()
    }
}

impl Lock {
    fn wrap(
        repository: RepositoryId,
        slot: SlotId,
        secret: &Secret,
        cost: KdfCost,
        private: &[u8; KEY_BYTES],
        authority: &[u8; PUBLIC_BYTES],
    ) -> Result<Lock, SlotError> {
        let salt: [u8; 32] = random();
        let key = wrapping_key(secret, cost, &salt)?;
        let mut text = Vec::with_capacity(KEY_BYTES + PUBLIC_BYTES + super::TAG_BYTES);
        text.extend_from_slice(private);
        text.extend_from_slice(authority);
        Aead::new(Cipher::Aes256Gcm, &key).encrypt(0, &wrapped_bound(repository, slot), &mut text);
        Ok(Lock::Wrapped { kind: secret.kind, cost, salt, text })
    }
}

fn wrapped_bound(repository: RepositoryId, slot: SlotId) -> [u8; 32] {
    let mut bound = [0; 32];
    bound[..16].copy_from_slice(repository.as_bytes());
    bound[16..].copy_from_slice(&slot.to_bytes());
    bound
}

fn wrapping_key(secret: &Secret, cost: KdfCost, salt: &[u8; 32]) -> Result<Key, SlotError> {
    let params =
        Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(KEY_BYTES)).map_err(SlotError::KdfCost)?;
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(&secret.bytes, salt, &mut *key)
        .map_err(SlotError::KdfCost)?;
    Ok(key)
}
