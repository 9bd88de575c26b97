//! Bodies: MessagePack with field names, or JSON. The question's form is the answer's form.

use std::io::Cursor;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest body a word may have. Disk data never travels here; a quarter of a NATS server's default limit
/// leaves room for headers and for lists in answers.
pub const WORD_BYTES_MAX: usize = 256 * 1024;

pub(crate) const CONTENT_TYPE: &str = "Content-Type";

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// <https://msgpack.org>, structs as maps, so that fields can be added.
    MessagePack,
    /// RFC 8259.
    Json,
}

impl Form {
    /// The media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Form::MessagePack => "application/msgpack",
            Form::Json => "application/json",
        }
    }

    /// The form of a body: what its content type says; else JSON if it is empty or begins like a JSON object.
    pub fn of(content_type: Option<&str>, body: &[u8]) -> Form {
        match content_type {
            Some(text) if text.starts_with("application/json") => Form::Json,
            Some(text) if text.contains("msgpack") => Form::MessagePack,
            _ if body.is_empty() || body.first() == Some(&b'{') => Form::Json,
            _ => Form::MessagePack,
        }
    }

    /// Writes a value.
    pub fn write<T: Serialize>(self, value: &T) -> Result<Bytes, String> {
        match self {
            Form::MessagePack => rmp_serde::to_vec_named(value).map(Bytes::from).map_err(|e| e.to_string()),
            Form::Json => serde_json::to_vec(value).map(Bytes::from).map_err(|e| e.to_string()),
        }
    }

    /// Reads a value and makes sure that nothing follows it. An empty JSON body is `{}`.
    pub fn read<T: DeserializeOwned>(self, body: &[u8]) -> Result<T, String> {
        match self {
            Form::Json if body.is_empty() => serde_json::from_slice(b"{}").map_err(|e| e.to_string()),
            Form::Json => serde_json::from_slice(body).map_err(|e| e.to_string()),
            Form::MessagePack => {
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
    fn the_form_is_told_by_the_content_type_and_else_by_the_first_byte() {
        assert_eq!(Form::of(None, b""), Form::Json);
        assert_eq!(Form::of(None, b"{}"), Form::Json);
        assert_eq!(Form::of(None, b"\x80"), Form::MessagePack);
        assert_eq!(Form::of(Some("application/json; charset=utf-8"), b"\x80"), Form::Json);
        assert_eq!(Form::of(Some("application/msgpack"), b"{"), Form::MessagePack);
    }

    #[test]
    fn what_follows_a_value_is_an_error_in_both_forms() {
        assert!(Form::Json.read::<u32>(b"7 8").is_err());
        assert!(Form::MessagePack.read::<u32>(&[7, 8]).is_err());
        assert_eq!(Form::MessagePack.read::<u32>(&[7]), Ok(7));
    }
}
