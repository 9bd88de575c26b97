//! Secrets and what is made of them.
//!
//! ```text
//!   passphrase | key file --Argon2id--> wrapping key --opens--> key slot --> master key
//!                                                                               |
//!        +----------------+----------------+----------------+-------------------+
//!   one key per kind   pack key base     object key base   chunker seed      config MAC key
//!   of blob id         + pack id         + object salt
//! ```
//!
//! Promises: no two messages are ever sealed with the same key and nonce; keys are wiped from memory when
//! dropped; nothing here is printed by `Debug`.

pub mod secret;
mod slot;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::format::blob::{BlobId, BlobKind};
use crate::format::pack::PackId;

pub use secret::{Secret, SecretError};
pub use slot::KdfCost;
pub(crate) use slot::{Slot, SlotError};

/// Bytes that an AEAD adds to what it seals.
pub(crate) const TAG_BYTES: usize = 16;

/// The secret that all other keys of a repository come from.
pub(crate) struct MasterKey(Zeroizing<[u8; 32]>);

/// All keys derived from the master key.
pub(crate) struct Keys {
    ids: Zeroizing<[[u8; 32]; 4]>,
    pack: Zeroizing<[u8; 32]>,
    object: Zeroizing<[u8; 32]>,
    config: Zeroizing<[u8; 32]>,
    chunker_seed: u64,
}

/// The text did not open: wrong key, or changed since it was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotAuthentic;

/// Fills a buffer from the system's random generator.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system's random generator never fails on Linux");
    bytes
}

impl MasterKey {
    pub(crate) fn generate() -> MasterKey {
        MasterKey(Zeroizing::new(random()))
    }

    pub(crate) fn derive(&self) -> Keys {
        let derive = |purpose: &str| Zeroizing::new(blake3::derive_key(purpose, &*self.0));
        let seed = derive("loam repository v1 chunker seed");
        Keys {
            ids: Zeroizing::new(
                BlobKind::ALL.map(|kind| *derive(&format!("loam repository v1 id of {}", kind.word()))),
            ),
            pack: derive("loam repository v1 pack keys"),
            object: derive("loam repository v1 object keys"),
            config: derive("loam repository v1 config authentication"),
            chunker_seed: u64::from_le_bytes(*seed.first_chunk().expect("32 bytes hold 8")),
        }
    }
}

impl Keys {
    /// The content id of a blob; the same bytes under two kinds have unrelated ids.
    pub(crate) fn id(&self, kind: BlobKind, bytes: &[u8]) -> BlobId {
        BlobId::from(*blake3::keyed_hash(&self.ids[kind as usize], bytes).as_bytes())
    }

    /// The key of one pack.
    pub(crate) fn pack(&self, id: PackId) -> Aead {
        Aead::derived("loam repository v1 one pack", &self.pack, id.as_bytes())
    }

    /// The key of one sealed object, by its random salt.
    pub(crate) fn object(&self, salt: &[u8; 32]) -> Aead {
        Aead::derived("loam repository v1 one object", &self.object, salt)
    }

    /// Authenticates the open text of the config object.
    pub(crate) fn config_mac(&self, text: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.config, text)
    }

    /// Makes cut points differ from those of other repositories. Not a security boundary.
    pub(crate) fn chunker_seed(&self) -> u64 {
        self.chunker_seed
    }
}

/// AES-256-GCM under a key used for one pack or one object, with a counter as nonce.
pub(crate) struct Aead(LessSafeKey);

impl Aead {
    pub(crate) fn new(key: &[u8; 32]) -> Aead {
        let key = UnboundKey::new(&AES_256_GCM, key).expect("the key has the cipher's length");
        Aead(LessSafeKey::new(key))
    }

    fn derived(purpose: &str, base: &[u8; 32], name: &[u8]) -> Aead {
        let mut material = Zeroizing::new(Vec::with_capacity(base.len() + name.len()));
        material.extend_from_slice(base);
        material.extend_from_slice(name);
        Aead::new(&Zeroizing::new(blake3::derive_key(purpose, &material)))
    }

    /// Seals in place and appends the tag. Each `number` is used once per key.
    pub(crate) fn seal(&self, number: u32, bound: &[u8], text: &mut Vec<u8>) {
        self.0
            .seal_in_place_append_tag(nonce(number), Aad::from(bound), text)
            .expect("texts are far below the cipher's 64 GiB");
    }

    /// Opens in place and returns the text without the tag.
    pub(crate) fn open<'a>(
        &self,
        number: u32,
        bound: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], NotAuthentic> {
        self.0.open_in_place(nonce(number), Aad::from(bound), sealed).map_err(|_| NotAuthentic)
    }
}

fn nonce(number: u32) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - 4..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}
