//! Which keys are trusted to sign releases. Keys and signatures are minisign's (https://jedisct1.github.io/minisign/).

use contract::upgrade::ApplyReleaseRefused;
use minisign_verify::{Error, PublicKey, Signature};

/// The keys whose signatures are trusted; without any, no release is.
#[derive(Clone, Debug, Default)]
pub struct TrustedKeys {
    keys: Vec<PublicKey>,
}

impl TrustedKeys {
    /// Adds a key, given as the text of a minisign public key file.
    ///
    /// # Errors
    /// What is wrong with the text, where it is no key.
    pub fn trust(&mut self, text: &str) -> Result<(), String> {
        let key = PublicKey::decode(text).map_err(|error| error.to_string())?;
        self.keys.push(key);
        Ok(())
    }

    /// Whether a signature, given as the text of a `.minisig` file, was made over these bytes by a trusted key.
    ///
    /// # Errors
    /// Why it is not trusted.
    pub fn verify(&self, signed: &[u8], signature: &str) -> Result<(), ApplyReleaseRefused> {
        let untrusted = |reason: &str| Err(ApplyReleaseRefused::Untrusted(reason.into()));
        if self.keys.is_empty() {
            return untrusted("no key is trusted here; put a minisign public key (*.pub) into keys/release");
        }
        let Ok(signature) = Signature::decode(signature) else {
            return untrusted("the signature is not one of minisign's");
        };
        let mut reason = "the signature was made with a key that is not trusted here";
        for key in &self.keys {
            match key.verify(signed, &signature, false) {
                Ok(()) => return Ok(()),
                Err(Error::UnexpectedKeyId) => {}
                Err(Error::UnexpectedAlgorithm) => {
                    reason = "the signature is of minisign's old kind; sign again with a current minisign";
                }
                Err(_) => reason = "the manifest is not the one that was signed",
            }
        }
        untrusted(reason)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use minisign::KeyPair;

    use super::*;

    fn signature(pair: &KeyPair, text: &str) -> String {
        minisign::sign(None, &pair.sk, Cursor::new(text), None, None).expect("signed").into_string()
    }

    fn trusting(pairs: &[&KeyPair]) -> TrustedKeys {
        let mut keys = TrustedKeys::default();
        for pair in pairs {
            keys.trust(&pair.pk.to_box().expect("boxed").into_string()).expect("a key");
        }
        keys
    }

    fn reason(outcome: Result<(), ApplyReleaseRefused>) -> String {
        match outcome {
            Err(ApplyReleaseRefused::Untrusted(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_signature_of_any_trusted_key_is_enough() {
        let (ours, theirs) =
            (KeyPair::generate_unencrypted_keypair(), KeyPair::generate_unencrypted_keypair());
        let (ours, theirs) = (ours.expect("made"), theirs.expect("made"));
        let keys = trusting(&[&ours, &theirs]);
        for pair in [&ours, &theirs] {
            assert_eq!(keys.verify(b"release", &signature(pair, "release")), Ok(()));
        }
    }

    #[test]
    fn another_key_another_text_and_no_key_at_all_are_not_trusted() {
        let ours = KeyPair::generate_unencrypted_keypair().expect("made");
        let stranger = KeyPair::generate_unencrypted_keypair().expect("made");
        let keys = trusting(&[&ours]);
        assert!(
            reason(keys.verify(b"release", &signature(&stranger, "release"))).contains("not trusted here")
        );
        assert!(reason(keys.verify(b"relEase", &signature(&ours, "release"))).contains("not the one"));
        assert!(reason(keys.verify(b"release", "signed by me")).contains("minisign"));
        let none = TrustedKeys::default();
        assert!(reason(none.verify(b"release", &signature(&ours, "release"))).contains("no key"));
    }

    #[test]
    fn a_signature_whose_comment_was_altered_is_not_trusted() {
        let ours = KeyPair::generate_unencrypted_keypair().expect("made");
        let text = signature(&ours, "release");
        let altered = text.replace("timestamp:", "timestamp:9");
        assert_ne!(text, altered);
        assert!(trusting(&[&ours]).verify(b"release", &altered).is_err());
    }

    #[test]
    fn a_file_that_is_no_key_is_named_as_such() {
        let mut keys = TrustedKeys::default();
        assert!(keys.trust("untrusted comment: x\nRWQ\n").is_err());
        assert!(keys.trust("").is_err());
    }
}
