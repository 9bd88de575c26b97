//! A key pair of its owner: the identity stays in a file, the recipient is given to the person who adds the slot.
//!
//! ```text
//!   # made 2026-01-31, for the host kvm3
//!   # recipient: loam-recipient-…
//!   loam-identity-…
//! ```
//!
//! After the prefix come 32 bytes in hexadecimal and a checksum of four: the first bytes of the BLAKE3 hash of the prefix
//! and the 32 bytes.

use std::fmt;
use std::str::FromStr;

use zeroize::Zeroizing;

use super::recipient::{self, PUBLIC_BYTES};
use super::{KEY_BYTES, Key};

const IDENTITY: &str = "loam-identity-";
const RECIPIENT: &str = "loam-recipient-";
const CHECK_BYTES: usize = 4;

/// A private key; write its file with [`Identity::file`].
pub struct Identity(pub(super) Key);

/// A public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipient(pub(super) [u8; PUBLIC_BYTES]);

/// The text is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not a {what} (it begins with `{prefix}` and ends with {hex} hexadecimal digits; check for typing errors)",
    hex = 2 * (KEY_BYTES + CHECK_BYTES))]
pub struct NotAKey {
    what: &'static str,
    prefix: &'static str,
}

fn check(prefix: &str, key: &[u8; KEY_BYTES]) -> [u8; CHECK_BYTES] {
    let hash = blake3::Hasher::new().update(prefix.as_bytes()).update(key).finalize();
    *hash.as_bytes().first_chunk().expect("a hash is longer than its check")
}

fn write(prefix: &str, key: &[u8; KEY_BYTES]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(prefix.len() + 2 * (KEY_BYTES + CHECK_BYTES)));
    text.push_str(prefix);
    let mut digits = Zeroizing::new([0; 2 * KEY_BYTES]);
    hex::encode_to_slice(key, &mut *digits).expect("there are two digits for each byte");
    text.push_str(std::str::from_utf8(&*digits).expect("digits are text"));
    text.push_str(&hex::encode(check(prefix, key)));
    text
}

fn read(text: &str, what: &'static str, prefix: &'static str) -> Result<Key, NotAKey> {
    let refused = NotAKey { what, prefix };
    let mut bytes = Zeroizing::new([0; KEY_BYTES + CHECK_BYTES]);
    let digits = text.trim().strip_prefix(prefix).ok_or(refused)?;
    hex::decode_to_slice(digits, &mut *bytes).map_err(|_| refused)?;
    let (key, found) = bytes.split_first_chunk().expect("it is longer than a key");
    if check(prefix, key) == found { Ok(Zeroizing::new(*key)) } else { Err(refused) }
}

impl Identity {
    /// A new key pair.
    pub fn generate() -> Identity {
        Identity(recipient::private())
    }

    /// The public half, for the person who adds the slot.
    pub fn recipient(&self) -> Recipient {
        Recipient(recipient::public_of(&self.0))
    }

    /// The content of the identity file. Keep it secret.
    pub fn file(&self) -> Zeroizing<String> {
        let identity = write(IDENTITY, &self.0);
        Zeroizing::new(format!("# recipient: {}\n{}\n", self.recipient(), *identity))
    }

    /// Reads what [`Identity::file`] wrote; lines that begin with `#` and empty ones are passed over.
    ///
    /// # Errors
    /// When there is no identity in it, or more than one.
    pub(super) fn parse(file: &str) -> Result<Identity, NotAKey> {
        let mut lines = file.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
        match (lines.next(), lines.next()) {
            (Some(line), None) => read(line, "identity", IDENTITY).map(Identity),
            _ => Err(NotAKey { what: "identity", prefix: IDENTITY }),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity of {}", self.recipient())
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&write(RECIPIENT, &self.0))
    }
}

impl FromStr for Recipient {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Recipient, NotAKey> {
        read(text, "recipient", RECIPIENT).map(|key| Recipient(*key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_and_recipients_are_written_as_in_version_1() {
        let identity = Identity(Zeroizing::new([5; 32]));
        assert_eq!(
            *identity.file(),
            "# recipient: loam-recipient-50a61409b1ddd0325e9b16b700e719e9772c07000b1bd7786e907c653d20495d0a0cdd2d\n\
             loam-identity-0505050505050505050505050505050505050505050505050505050505050505edf5317c\n"
        );
    }

    #[test]
    fn identities_and_recipients_are_read_as_they_were_written_and_mistyped_ones_are_not() {
        let identity = Identity::generate();
        let file = identity.file();
        assert_eq!(Identity::parse(&file).expect("ours").0, identity.0);
        let recipient = identity.recipient().to_string();
        assert_eq!(recipient.parse(), Ok(identity.recipient()));
        for at in RECIPIENT.len()..recipient.len() {
            let mut mistyped = recipient.clone().into_bytes();
            mistyped[at] = if mistyped[at] == b'0' { b'1' } else { b'0' };
            let mistyped = String::from_utf8(mistyped).expect("digits");
            assert!(mistyped.parse::<Recipient>().is_err(), "digit {at}");
        }
        assert!(file.parse::<Recipient>().is_err(), "an identity is no recipient");
        assert!(Identity::parse(&recipient).is_err(), "a recipient is no identity");
        assert!(Identity::parse(&format!("{}{}", *file, *file)).is_err(), "two identities");
    }
}
