//! A key slot: the master key, wrapped for one secret.
//!
//! ```text
//!   "LOAMSLOT" | version u16 LE | MessagePack { repository, kind, memory_kib, passes, lanes, salt, wrapped }
//! ```
//!
//! The wrapping key is Argon2id(secret, salt), used once, so its nonce is zero; everything else in the slot is
//! bound as associated data.

use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::secret::{Secret, SecretKind};
use super::{Aead, MasterKey, random};
use crate::format::{Damage, RepositoryId, header, packed};

const MAGIC: &[u8; 8] = b"LOAMSLOT";
/// A slot that asks for more memory than this was not written by us: opening must not exhaust a machine.
const MEMORY_KIB_MAX: u32 = 2 * 1024 * 1024;
/// A slot that asks for more passes than this was not written by us.
const PASSES_MAX: u32 = 64;
/// A slot that asks for more lanes than this was not written by us.
const LANES_MAX: u32 = 64;

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

#[derive(Serialize, Deserialize)]
pub(crate) struct Slot {
    repository: RepositoryId,
    kind: SecretKind,
    cost: KdfCost,
    #[serde(with = "serde_bytes")]
    salt: [u8; 32],
    #[serde(with = "serde_bytes")]
    wrapped: Vec<u8>,
}

/// A slot did not give its key.
#[derive(Debug)]
pub(crate) enum SlotError {
    /// It is for another secret or another repository.
    NotOurs,
    /// Its cost cannot be computed here.
    Cost(argon2::Error),
}

impl Slot {
    /// Wraps the master key. Takes as long as the cost says: not for an async thread.
    pub(crate) fn wrap(
        master: &MasterKey,
        repository: RepositoryId,
        secret: &Secret,
        cost: KdfCost,
    ) -> Result<Slot, argon2::Error> {
        let salt: [u8; 32] = random();
        let mut slot = Slot { repository, kind: secret.kind, cost, salt, wrapped: master.0.to_vec() };
        let key = slot.wrapping_key(secret)?;
        let bound = slot.bound();
        Aead::new(&key).seal(0, &bound, &mut slot.wrapped);
        Ok(slot)
    }

    /// Opens the slot. Takes as long as its cost says: not for an async thread.
    pub(crate) fn unwrap(&self, repository: RepositoryId, secret: &Secret) -> Result<MasterKey, SlotError> {
        if self.repository != repository || self.kind != secret.kind {
            return Err(SlotError::NotOurs);
        }
        let key = self.wrapping_key(secret).map_err(SlotError::Cost)?;
        let mut wrapped = Zeroizing::new(self.wrapped.clone());
        let master = Aead::new(&key).open(0, &self.bound(), &mut wrapped).map_err(|_| SlotError::NotOurs)?;
        Ok(MasterKey(Zeroizing::new((&*master).try_into().map_err(|_| SlotError::NotOurs)?)))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        packed::encode(MAGIC, self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Slot, Damage> {
        let slot: Slot = packed::decode(header(MAGIC, "key slot", bytes)?, "key slot")?;
        let cost = slot.cost;
        if cost.memory_kib > MEMORY_KIB_MAX || cost.passes > PASSES_MAX || cost.lanes > LANES_MAX {
            return Err(Damage::Malformed { what: "key slot", why: "its cost is beyond any sense" });
        }
        Ok(slot)
    }

    fn wrapping_key(&self, secret: &Secret) -> Result<Zeroizing<[u8; 32]>, argon2::Error> {
        let KdfCost { memory_kib, passes, lanes } = self.cost;
        let params = Params::new(memory_kib, passes, lanes, Some(32))?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into(
            &secret.bytes,
            &self.salt,
            &mut *key,
        )?;
        Ok(key)
    }

    /// Everything but the wrapped key, in a fixed order.
    fn bound(&self) -> Vec<u8> {
        let kind = match self.kind {
            SecretKind::Passphrase => 0,
            SecretKind::KeyFile => 1,
        };
        let mut bound = Vec::with_capacity(16 + 1 + 12 + 32);
        bound.extend_from_slice(self.repository.as_bytes());
        bound.push(kind);
        for cost in [self.cost.memory_kib, self.cost.passes, self.cost.lanes] {
            bound.extend_from_slice(&cost.to_le_bytes());
        }
        bound.extend_from_slice(&self.salt);
        bound
    }
}
