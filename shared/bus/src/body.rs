//! Bodies: MessagePack with field names, or JSON. A reply has the encoding of its request.

use std::io::Cursor;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest body that a message may have. Disk data never travels here; a quarter of a NATS server's default limit
/// leaves room for headers and for lists in answers.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024;

pub(crate) const CONTENT_TYPE: &str = "Content-Type";

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// <https://msgpack.org>, structs as maps, so that fields can be added.
    MessagePack,
    /// RFC 8259.
    Json,
}

impl Encoding {
    /// The media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Encoding::MessagePack => "application/msgpack",
            Encoding::Json => "application/json",
        }
    }

    /// The encoding of a body: what its content type says; else JSON if it is empty or begins like a JSON object.
    pub fn of(content_type: Option<&str>, body: &[u8]) -> Encoding {
        match content_type {
            Some(text) if text.starts_with("application/json") => Encoding::Json,
            Some(text) if text.contains("msgpack") => Encoding::MessagePack,
            _ if body.is_empty() || body.first() == Some(&b'{') => Encoding::Json,
            _ => Encoding::MessagePack,
        }
    }

    /// Writes a value.
    ///
    /// # Errors
    /// When the value has no form in this encoding, as a map with keys that are no strings has none in JSON.
    pub fn write<T: Serialize>(self, value: &T) -> Result<Bytes, String> {
        match self {
            Encoding::MessagePack => {
                rmp_serde::to_vec_named(value).map(Bytes::from).map_err(|e| e.to_string())
            }
            Encoding::Json => serde_json::to_vec(value).map(Bytes::from).map_err(|e| e.to_string()),
        }
    }

    /// Reads a value and makes sure that nothing follows it. An empty JSON body is `{}`.
    ///
    /// # Errors
    /// When the body is no such value, or something follows it.
    pub fn read<T: DeserializeOwned>(self, body: &[u8]) -> Result<T, String> {
        match self {
            Encoding::Json if body.is_empty() => serde_json::from_slice(b"{}").map_err(|e| e.to_string()),
            Encoding::Json => serde_json::from_slice(body).map_err(|e| e.to_string()),
            Encoding::MessagePack => {
                let mut reader = rmp_serde::Deserializer::new(Cursor::new(body));
                let value = T::deserialize(&mut reader).map_err(|e| e.to_string())?;
                match body.len() as u64 - reader.position() {
                    0 => Ok(value),
                    left => Err(format!("{left} bytes follow the value")),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_follows_from_the_content_type_and_else_from_the_first_byte() {
        assert_eq!(Encoding::of(None, b""), Encoding::Json);
        assert_eq!(Encoding::of(None, b"{}"), Encoding::Json);
        assert_eq!(Encoding::of(None, b"\x80"), Encoding::MessagePack);
        assert_eq!(Encoding::of(Some("application/json; charset=utf-8"), b"\x80"), Encoding::Json);
        assert_eq!(Encoding::of(Some("application/msgpack"), b"{"), Encoding::MessagePack);
    }

    #[test]
    fn what_follows_a_value_is_an_error_in_both_forms() {
        assert!(Encoding::Json.read::<u32>(b"7 8").is_err());
        assert!(Encoding::MessagePack.read::<u32>(&[7, 8]).is_err());
        assert_eq!(Encoding::MessagePack.read::<u32>(&[7]), Ok(7));
    }
}
