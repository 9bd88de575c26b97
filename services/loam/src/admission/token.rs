//! The text that a person carries from the bus to a host that joins: `loam1.` and base 64 of what the host must know.

use std::fmt;
use std::str::FromStr;

use base64::prelude::*;
use bus::nats::CertificateDigest;
use contract::{HostName, Realm};
use serde::{Deserialize, Serialize};

const PREFIX: &str = "loam1.";
/// Far more than a token has.
const LENGTH_MAX: usize = 4096;

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenContent {
    /// The name that the host gets.
    pub host: HostName,
    /// The URLs of the bus.
    pub url: String,
    /// The SHA-256 of the certificate of its authority.
    pub authority: String,
    /// The host whose supervisor answers.
    pub answered_by: HostName,
    /// The first token of every subject.
    pub realm: Realm,
    /// The private key of the token (an nkey seed). It signs; it is never sent.
    pub seed: String,
}

/// The text is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no join token: {0}; it begins with `loam1.` and is printed by `loam host add`")]
pub struct InvalidToken(&'static str);

impl TokenContent {
    /// The digest of the authority.
    ///
    /// # Errors
    /// When it is none.
    pub fn digest(&self) -> Result<CertificateDigest, InvalidToken> {
        self.authority.parse().map_err(|_| InvalidToken("it names no authority"))
    }
}

impl fmt::Display for TokenContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_string(self).expect("plain text");
        write!(f, "{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(json))
    }
}

impl FromStr for TokenContent {
    type Err = InvalidToken;
    fn from_str(text: &str) -> Result<TokenContent, InvalidToken> {
        let text = text.trim();
        let body = text.strip_prefix(PREFIX).ok_or(InvalidToken("it begins otherwise"))?;
        if body.len() > LENGTH_MAX {
            return Err(InvalidToken("it is too long"));
        }
        let json =
            BASE64_URL_SAFE_NO_PAD.decode(body).map_err(|_| InvalidToken("a part of it is missing"))?;
        let content: TokenContent =
            serde_json::from_slice(&json).map_err(|_| InvalidToken("a part of it is missing"))?;
        content.digest()?;
        Ok(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written_and_nothing_else_is() {
        let host = |name: &str| HostName::new(name).expect("fits");
        let token = TokenContent {
            host: host("h2"),
            url: "tls://10.0.0.1:4222".into(),
            authority: "ab".repeat(32),
            answered_by: host("h1"),
            realm: Realm::default(),
            seed: "SUAB".into(),
        };
        let text = token.to_string();
        assert_eq!(format!(" {text}\n").parse(), Ok(token.clone()));
        for wrong in [&text[1..], &text[..text.len() - 9], "", "loam1.", &format!("{text}!")] {
            wrong.parse::<TokenContent>().expect_err(wrong);
        }
        TokenContent { authority: "ab".into(), ..token }
            .to_string()
            .parse::<TokenContent>()
            .expect_err("short");
    }
}
