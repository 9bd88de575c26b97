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

    /// Reads a value and makes sure that nothing follows it. An empty JSON body is `{}`. Fields that the type does not have
    /// are ignored: they may come from a newer version.
    ///
    /// # Errors
    /// When the body is no such value, or something follows it.
    pub fn read<T: DeserializeOwned>(self, body: &[u8]) -> Result<T, String> {
        self.read_with(body, &mut |_| {})
    }

    /// Reads a value as people write them: a field that the type does not have is a mistake.
    ///
    /// # Errors
    /// As `read`, and the path of the first field that does not exist.
    pub fn read_strictly<T: DeserializeOwned>(self, body: &[u8]) -> Result<T, String> {
        let mut unknown = None;
        let value = self.read_with(body, &mut |path| {
            unknown.get_or_insert_with(|| path.to_string());
        })?;
        unknown.map_or(Ok(value), |path| Err(format!("there is no field {}", cut(&path))))
    }

    fn read_with<T: DeserializeOwned>(
        self,
        body: &[u8],
        ignored: &mut dyn FnMut(serde_ignored::Path<'_>),
    ) -> Result<T, String> {
        match self {
            Encoding::Json => {
                let body = if body.is_empty() { b"{}" } else { body };
                let mut reader = serde_json::Deserializer::from_slice(body);
                let value = with_path(&mut reader, ignored)?;
                reader.end().map_err(|e| e.to_string())?;
                Ok(value)
            }
            Encoding::MessagePack => {
                let mut reader = rmp_serde::Deserializer::new(Cursor::new(body));
                let value = with_path(&mut reader, ignored)?;
                match body.len() as u64 - reader.position() {
                    0 => Ok(value),
                    left => Err(format!("{left} bytes follow the value")),
                }
            }
        }
    }
}

/// Reads a value; the error names the place.
fn with_path<'de, T, D>(reader: D, ignored: &mut dyn FnMut(serde_ignored::Path<'_>)) -> Result<T, String>
where
    T: DeserializeOwned,
    D: serde::Deserializer<'de>,
    D::Error: std::fmt::Display,
{
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(reader, &mut track);
    serde_ignored::deserialize(tracked, ignored).map_err(|error| {
        let (path, reason) = (track.path().to_string(), without_value(&error.to_string()));
        if path == "." { reason } else { format!("{}: {reason}", cut(&path)) }
    })
}

/// An error about a value of a wrong type, without the value: `invalid type: string "hunter2", expected a map` would write a
/// secret into the log. Names that break a rule are repeated: no secret is a checked name.
fn without_value(reason: &str) -> String {
    let wrong = reason.starts_with("invalid type: ") || reason.starts_with("invalid value: ");
    match (reason.find(['"', '`']), reason.rfind(", expected ")) {
        (Some(value), Some(expected)) if wrong && value < expected => {
            format!("{}{}", reason[..value].trim_end(), &reason[expected..])
        }
        _ => reason.into(),
    }
}

/// What somebody wrote, as far as it is repeated: at most 200 bytes, whatever they are.
pub(crate) fn cut(text: &str) -> String {
    const QUOTED_BYTES_MAX: usize = 200;
    let mut end = text.len().min(QUOTED_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let dots = if end < text.len() { "..." } else { "" };
    let plain: String = text[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("{plain}{dots}")
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
    fn a_field_that_does_not_exist_is_named_with_its_path_where_people_write() {
        #[derive(Debug, PartialEq, serde::Deserialize)]
        struct Outer {
            #[serde(default)]
            inner: Option<Inner>,
        }
        #[derive(Debug, PartialEq, serde::Deserialize)]
        struct Inner {
            known: u32,
        }
        let known = Outer { inner: Some(Inner { known: 1 }) };
        let json = br#"{"inner":{"known":1,"misspelt":2}}"#;
        assert_eq!(Encoding::Json.read::<Outer>(json).as_ref(), Ok(&known));
        let error = Encoding::Json.read_strictly::<Outer>(json).expect_err("misspelt");
        assert!(error.contains("inner") && error.ends_with("misspelt"), "{error}");
        let pack = b"\x81\xa5inner\x82\xa5known\x01\xa8misspelt\x02";
        assert_eq!(Encoding::MessagePack.read::<Outer>(pack).as_ref(), Ok(&known));
        Encoding::MessagePack.read_strictly::<Outer>(pack).expect_err("misspelt");
        let long = format!(r#"{{"{}":1}}"#, "x".repeat(100_000));
        let error = Encoding::Json.read_strictly::<Outer>(long.as_bytes()).expect_err("misspelt");
        assert!(error.len() < 300, "{} bytes", error.len());
    }

    #[test]
    fn an_error_names_the_place_and_does_not_repeat_a_value_of_a_wrong_type() {
        #[derive(Debug, serde::Deserialize)]
        struct Definition {
            #[allow(dead_code)]
            env: std::collections::BTreeMap<String, String>,
        }
        for body in
            [r#"{"env":"TOKEN=hunter2"}"#, r#"{"env":{"TOKEN":4711}}"#, r#"{"env":{"TOKEN":["hunter2"]}}"#]
        {
            let error = Encoding::Json.read::<Definition>(body.as_bytes()).expect_err("wrong");
            assert!(error.starts_with("env") && error.contains("expected a"), "{error}");
            assert!(!error.contains("hunter2") && !error.contains("4711"), "{error}");
        }
    }

    #[test]
    fn what_follows_a_value_is_an_error_in_both_forms() {
        assert!(Encoding::Json.read::<u32>(b"7 8").is_err());
        assert!(Encoding::MessagePack.read::<u32>(&[7, 8]).is_err());
        assert_eq!(Encoding::MessagePack.read::<u32>(&[7]), Ok(7));
    }
}
