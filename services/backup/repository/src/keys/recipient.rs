//! Encrypting to the holder of a public key.
//!
//! A fresh X25519 pair (RFC 7748) is made for each message and agreed with the recipient's key, as in the key
//! encapsulation of HPKE (RFC 9180, section 4.1); both public keys go into the derivation, which is BLAKE3's.
//!
//! ```text
//!   agreed( purpose, …bound ) = derive( purpose, X25519 secret 32 | fresh public 32 | recipient's public 32 | …bound )
//!   the fresh public key travels with the message, as its envelope
//! ```

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use zeroize::Zeroizing;

use super::{KEY_BYTES, Key, derive};
use crate::random::random;

/// Bytes of a public key, X25519 or Ed25519.
pub(crate) const PUBLIC_BYTES: usize = 32;

/// The two keys do not agree: one of them is a point of low order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyAgreementError;

/// A private key; any 32 bytes are one.
pub(super) fn private() -> Key {
    Zeroizing::new(random())
}

/// The public key of a private one.
pub(super) fn public_of(private: &[u8; KEY_BYTES]) -> [u8; PUBLIC_BYTES] {
    let public = pair(private).compute_public_key().expect("every private key has a public one");
    public.as_ref().try_into().expect("an X25519 public key has 32 bytes")
}

fn pair(private: &[u8; KEY_BYTES]) -> PrivateKey {
    PrivateKey::from_private_key(&X25519, private).expect("any 32 bytes are a private key")
}

/// The key that a sender shares with a recipient: computed by the one from `ephemeral` and `recipient_public`, by the
/// other from `recipient` and `ephemeral_public`.
fn shared(
    purpose: &str,
    private: &[u8; KEY_BYTES],
    other: &[u8; PUBLIC_BYTES],
    ephemeral_public: &[u8; PUBLIC_BYTES],
    recipient_public: &[u8; PUBLIC_BYTES],
    bound: &[&[u8]],
) -> Result<Key, KeyAgreementError> {
    let other = UnparsedPublicKey::new(&X25519, other);
    agree(&pair(private), other, KeyAgreementError, |secret| {
        let mut parts = vec![secret, ephemeral_public.as_slice(), recipient_public.as_slice()];
        parts.extend_from_slice(bound);
        Ok(derive(purpose, &parts))
    })
}

/// The sender's half: the key, and the public key that must reach the recipient.
pub(super) fn send(
    purpose: &str,
    ephemeral: &[u8; KEY_BYTES],
    recipient_public: &[u8; PUBLIC_BYTES],
    bound: &[&[u8]],
) -> Result<(Key, [u8; PUBLIC_BYTES]), KeyAgreementError> {
    let ephemeral_public = public_of(ephemeral);
    let key = shared(purpose, ephemeral, recipient_public, &ephemeral_public, recipient_public, bound)?;
    Ok((key, ephemeral_public))
}

/// The recipient's half.
pub(super) fn receive(
    purpose: &str,
    recipient: &[u8; KEY_BYTES],
    ephemeral_public: &[u8; PUBLIC_BYTES],
    bound: &[&[u8]],
) -> Result<Key, KeyAgreementError> {
    let recipient_public = public_of(recipient);
    shared(purpose, recipient, ephemeral_public, ephemeral_public, &recipient_public, bound)
}
