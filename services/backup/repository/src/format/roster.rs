//! The key roster as an object: every slot there is, signed by the authority.
//!
//! ```text
//!   "LOAMKEYS" | version 2 | signature 64 | MessagePack { repository 16, number, authority 32, slots [ … ] }
//!
//!   signature  of the MessagePack, for the purpose "loam repository v1 key roster"
//!   slots      see keys/slot.rs
//! ```
//!
//! What a roster means and how it changes: [`crate::keys`].

use super::{header, packed};
use crate::damage::{Damage, FORMAT_VERSION};
use crate::ids::RepositoryId;
use crate::keys::{KeyRoster, KeyRosterError, Keys, SIGNATURE_BYTES, Secret, SlotId};

const MAGIC: &[u8; 8] = b"LOAMKEYS";
const WHAT: &str = "key roster";
const PURPOSE: &str = "loam repository v1 key roster";

/// A roster that was read. Its slots can be seen; its keys come only with the check of its signature.
pub(crate) struct UnverifiedKeyRoster {
    pub(crate) roster: KeyRoster,
    body: Vec<u8>,
    signature: [u8; SIGNATURE_BYTES],
}

/// The object of a roster, signed.
pub(crate) fn encode(roster: &KeyRoster, keys: &Keys) -> Result<Vec<u8>, Damage> {
    let body = packed::body(roster);
    let mut object = MAGIC.to_vec();
    object.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    object.extend_from_slice(&keys.sign(PURPOSE, &body).map_err(Damage::WriteOnlyKey)?);
    object.extend_from_slice(&body);
    Ok(object)
}

impl UnverifiedKeyRoster {
    pub(crate) fn decode(object: &[u8]) -> Result<UnverifiedKeyRoster, Damage> {
        let rest = header(MAGIC, WHAT, object)?;
        let (signature, body) =
            rest.split_first_chunk().ok_or(Damage::Malformed { what: WHAT, why: "it ends in its header" })?;
        let roster: KeyRoster = packed::decode(body, WHAT)?;
        roster.check()?;
        Ok(UnverifiedKeyRoster { roster, body: body.to_vec(), signature: *signature })
    }

    /// Opens it with a secret. Slow as its slots' costs say: not for an async thread.
    pub(crate) fn open(&self, repository: RepositoryId, secret: &Secret) -> Result<Keys, KeyRosterError> {
        self.authenticated(self.roster.open(repository, secret, None)?)
    }

    /// Opens it by another slot than `not_this`.
    pub(crate) fn open_other(
        &self,
        repository: RepositoryId,
        secret: &Secret,
        not_this: SlotId,
    ) -> Result<Keys, KeyRosterError> {
        self.authenticated(self.roster.open(repository, secret, Some(not_this))?)
    }

    /// Opens a later roster with the slot that opened an earlier one.
    pub(crate) fn reopen(&self, repository: RepositoryId, keys: &Keys) -> Result<Keys, KeyRosterError> {
        self.authenticated(self.roster.reopen(repository, keys)?)
    }

    fn authenticated(&self, keys: Keys) -> Result<Keys, KeyRosterError> {
        if keys.is_signed(PURPOSE, &self.body, &self.signature) {
            Ok(keys)
        } else {
            Err(Damage::NotAuthentic { what: WHAT }.into())
        }
    }
}
