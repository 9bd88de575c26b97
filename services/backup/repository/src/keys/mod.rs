//! Keys: how they are derived from secrets, and what each encrypts.
//!
//! ```text
//!   passphrase | key file ──Argon2id──> unwraps ┐
//!   identity file (X25519) ────────────────────┴─> a slot's private key ──> its grant: a key bundle
//!                                                                               │
//!      for all time      ids (one key per kind of blob), chunker seed, authority (Ed25519: public, or whole)
//!      for each epoch    meta (symmetric), reader (X25519: public, or whole)
//!
//!   what                               is encrypted with                                 so it is read by
//!   recipes, index, snapshots, leases  meta                                              every slot
//!   chunks, definitions of machines    fresh X25519 key agreed with the reader, and meta  slots that may read
//!   key roster, config                 signed by the authority                           every slot
//! ```
//!
//! ```text
//!   derive( purpose, parts )   BLAKE3 in its mode for deriving keys: context = purpose, material = the parts joined
//!
//!   id key of a kind     derive( "loam repository v1 id of KIND", ids )        KIND: chunk, leaf, page, disk, stream
//!   chunker seed         derive( "loam repository v1 chunker seed", ids ), its first 8 bytes
//!   aligned chunker      derive( "loam repository v1 aligned chunker", ids ): two keys of 16
//!   local cache          derive( "loam repository v1 local cache", ids )
//!   object key           derive( "loam repository v1 object", meta | salt 32 )
//!   pack of recipes      derive( "loam repository v1 meta pack", meta | pack 16 )
//!   directory of a pack  derive( "loam repository v1 directory", meta | pack 16 )
//!   pack of chunks       agreed( "loam repository v1 data pack", meta | pack 16 ) with the reader, see recipient.rs
//!   private bytes        agreed( "loam repository v1 for readers", meta ) with the reader
//!   signature            Ed25519 (RFC 8032) by the authority, of: purpose | 0 × 1 | text
//! ```
//!
//! A **write-only** slot is granted the public halves: its host stores backups, finds what is already stored and reuses
//! what did not change, and can decrypt no byte of any disk, its own included. A new **epoch** grants new keys to every
//! slot in the roster; ids stay, so that nothing is stored twice because of it.
//!
//! Promises: no two messages are ever encrypted with the same key and nonce; keys are wiped from memory when dropped;
//! nothing here is printed by `Debug`.
//!
//! It deliberately does not hide from a write-only host which ids are stored: the holder of the id keys can find out
//! whether a chunk that it knows is in the repository.

mod bundle;
mod cipher;
mod epoch;
pub mod identity;
mod recipient;
mod roster;
pub mod secret;
mod slot;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use zeroize::Zeroizing;

use crate::damage::{Damage, WriteOnly};
use crate::ids::{BlobId, BlobKind};

use self::bundle::KeyBundle;
#[doc(hidden)]
pub use self::cipher::disregard_aes_instructions;
pub(crate) use self::cipher::{Aead, Cipher, TAG_BYTES};
pub(crate) use self::epoch::EpochKeys;
pub use self::identity::{Identity, Recipient};
pub(crate) use self::recipient::PUBLIC_BYTES;
pub(crate) use self::roster::{KeyRoster, KeyRosterError};
pub use self::secret::{Secret, SecretError};
pub use self::slot::{KdfCost, Role};
pub(crate) use self::slot::{OpenedSlot, Slot, SlotId, SlotOwner};

/// Bytes of a symmetric key and of every private key.
const KEY_BYTES: usize = 32;
/// Bytes of an Ed25519 signature.
pub(crate) const SIGNATURE_BYTES: usize = 64;

type Key = Zeroizing<[u8; KEY_BYTES]>;

fn derive(purpose: &str, parts: &[&[u8]]) -> Key {
    let mut hasher = blake3::Hasher::new_derive_key(purpose);
    for part in parts {
        hasher.update(part);
    }
    let key = Zeroizing::new(*hasher.finalize().as_bytes());
    zeroize::Zeroize::zeroize(&mut hasher);
    key
}

/// All keys that one slot grants.
pub(crate) struct Keys {
    bundle: KeyBundle,
    ids: Zeroizing<[[u8; KEY_BYTES]; BlobKind::ALL.len()]>,
    chunker_seed: u64,
    /// The slot that was opened, so that a later epoch can be opened without the secret.
    opened: OpenedSlot,
    /// Which roster this comes from.
    roster: u64,
    /// How many slots there are in it.
    slots: u64,
}

impl Keys {
    fn new(bundle: KeyBundle, opened: OpenedSlot, roster: u64, slots: u64) -> Keys {
        let id =
            |kind: BlobKind| *derive(&format!("loam repository v1 id of {}", kind.name()), &[&*bundle.ids]);
        let ids = Zeroizing::new(BlobKind::ALL.map(id));
        let seed = derive("loam repository v1 chunker seed", &[&*bundle.ids]);
        let chunker_seed = u64::from_le_bytes(*seed.first_chunk().expect("32 bytes hold 8"));
        Keys { bundle, ids, chunker_seed, opened, roster, slots }
    }

    /// The content id of a blob; the same bytes under two kinds have unrelated ids.
    pub(crate) fn id(&self, kind: BlobKind, bytes: &[u8]) -> BlobId {
        BlobId::from(*blake3::keyed_hash(&self.ids[kind as usize], bytes).as_bytes())
    }

    /// Makes cut points of FastCDC differ from those of other repositories. Not a security boundary.
    pub(crate) fn chunker_seed(&self) -> u64 {
        self.chunker_seed
    }

    /// The keys of the aligned chunker.
    pub(crate) fn aligned_chunker(&self) -> Key {
        derive("loam repository v1 aligned chunker", &[&*self.bundle.ids])
    }

    /// What files in the local cache are authenticated with.
    pub(crate) fn cache_key(&self) -> [u8; KEY_BYTES] {
        *derive("loam repository v1 local cache", &[&*self.bundle.ids])
    }

    /// The keys that new objects are encrypted with.
    pub(crate) fn current(&self) -> &EpochKeys {
        self.bundle.epochs.last().expect("a bundle without an epoch is refused when it is read")
    }

    /// The keys of an epoch.
    pub(crate) fn epoch(&self, number: u32) -> Result<&EpochKeys, Damage> {
        let found = self.bundle.epochs.binary_search_by_key(&number, |epoch| epoch.number);
        found.map(|at| &self.bundle.epochs[at]).map_err(|_| Damage::UnknownEpoch { epoch: number })
    }

    /// Which roster these keys come from; a higher number is newer.
    pub(crate) fn roster(&self) -> u64 {
        self.roster
    }

    /// How many slots the roster has.
    pub(crate) fn slots(&self) -> u64 {
        self.slots
    }

    /// The slot that was opened.
    pub(crate) fn slot(&self) -> SlotId {
        self.opened.slot
    }

    /// Whether stored disks can be read.
    pub(crate) fn can_read(&self) -> bool {
        self.bundle.authority_private_key.is_some()
    }

    /// The public key that config and roster are signed with.
    pub(crate) fn authority(&self) -> &[u8; PUBLIC_BYTES] {
        &self.bundle.authority_public_key
    }

    /// Signs an object of the kind that `purpose` names.
    pub(crate) fn sign(&self, purpose: &str, text: &[u8]) -> Result<[u8; SIGNATURE_BYTES], WriteOnly> {
        let seed = self.bundle.authority_private_key.as_ref().ok_or(WriteOnly)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&**seed).expect("any 32 bytes are a seed");
        let signature = pair.sign(&signed(purpose, text));
        Ok(signature.as_ref().try_into().expect("an Ed25519 signature has 64 bytes"))
    }

    /// Whether the authority signed it.
    pub(crate) fn is_signed(&self, purpose: &str, text: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.authority()).verify(&signed(purpose, text), signature).is_ok()
    }
}

#[cfg(any(test, fuzzing))]
impl Keys {
    /// Fixed public keys, for tests that compare bytes.
    pub(crate) fn known() -> Keys {
        let key = |byte| Zeroizing::new([byte; KEY_BYTES]);
        let (reader, seed) = (key(3), key(4));
        let epoch = EpochKeys {
            number: 1,
            meta: key(2),
            reader_public_key: recipient::public_of(&reader),
            reader_private_key: Some(reader),
        };
        let authority = authority_of(&seed);
        let bundle = KeyBundle {
            ids: key(1),
            authority_public_key: authority,
            authority_private_key: Some(seed),
            epochs: vec![epoch],
        };
        let opened =
            OpenedSlot { slot: SlotId::nil(), private_key: key(5), authority_public_key: Some(authority) };
        Keys::new(bundle, opened, 1, 1)
    }

    /// What a full slot is granted of these keys.
    #[cfg(test)]
    pub(crate) fn granted(&self) -> Vec<u8> {
        self.bundle.encode_for(Role::Full).to_vec()
    }

    /// Reads what a slot is granted.
    pub(crate) fn read_grant(text: &[u8]) -> Result<(), Damage> {
        KeyBundle::decode(text).map(drop)
    }
}

/// The signed message: the purpose, so that an object cannot pass as another kind, and the text.
fn signed(purpose: &str, text: &[u8]) -> Vec<u8> {
    [purpose.as_bytes(), &[0], text].concat()
}

fn authority_of(seed: &[u8; KEY_BYTES]) -> [u8; PUBLIC_BYTES] {
    use aws_lc_rs::signature::KeyPair;
    let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("any 32 bytes are a seed");
    pair.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes")
}
