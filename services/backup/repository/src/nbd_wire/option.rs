//! The handshake: greeting, options and what is answered to them.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::{
    IHAVEOPT, INFO_BLOCK_SIZE, INFO_EXPORT, INFO_NAME, Malformed, NBDMAGIC, OPTION_REPLY_MAGIC,
    STRING_BYTES_MAX, take,
};

/// What a newstyle server begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// Handshake flags.
    pub flags: u16,
}

/// What an option begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionHeader {
    /// `OPT_…`.
    pub option: u32,
    /// Bytes of data that follow.
    pub length: u32,
}

/// What a reply to an option begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionReplyHeader {
    /// The option that is answered.
    pub option: u32,
    /// `REP_…`.
    pub kind: u32,
    /// Bytes of data that follow.
    pub length: u32,
}

/// Data of `OPT_INFO` and `OPT_GO`: an export, and what the client wants to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InfoRequest<'a> {
    /// The export's name; empty for the server's default.
    pub export: &'a str,
    /// `INFO_…`.
    pub info_types: Vec<u16>,
}

/// Data of `OPT_LIST_META_CONTEXT` and `OPT_SET_META_CONTEXT`: an export and contexts of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextRequest<'a> {
    /// The export's name; empty for the server's default.
    pub export: &'a str,
    /// Names of contexts, or of a namespace of them.
    pub queries: Vec<&'a str>,
}

/// Data of `REP_INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Info<'a> {
    /// Sent for every export.
    Export {
        /// Size of the disk.
        size_bytes: u64,
        /// Transmission flags.
        flags: u16,
    },
    /// The name under which the server knows the export.
    Name(&'a str),
    /// Bounds of requests, in bytes.
    BlockSize {
        /// Requests begin and end at multiples of this.
        min: u32,
        /// Smaller requests are possible and wasteful.
        preferred: u32,
        /// No request carries more.
        max: u32,
    },
}

/// Data of `REP_META_CONTEXT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaContext {
    /// The server's id for it; block status carries it.
    pub id: u32,
    /// Its name.
    pub name: String,
}

impl Greeting {
    /// As it is sent.
    pub fn encode(&self) -> [u8; 18] {
        let mut bytes = [0; 18];
        bytes[..8].copy_from_slice(&NBDMAGIC.to_be_bytes());
        bytes[8..16].copy_from_slice(&IHAVEOPT.to_be_bytes());
        bytes[16..].copy_from_slice(&self.flags.to_be_bytes());
        bytes
    }

    /// Reads a greeting.
    ///
    /// # Errors
    /// When reading fails, or what comes is no newstyle server's greeting.
    pub async fn read(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Greeting> {
        let (magic, style) = (reader.read_u64().await?, reader.read_u64().await?);
        let flags = reader.read_u16().await?;
        if (magic, style) != (NBDMAGIC, IHAVEOPT) {
            return Err(Malformed("a greeting without the magic numbers of a newstyle server").into());
        }
        Ok(Greeting { flags })
    }
}

/// A whole option as it is sent.
pub fn option(option: u32, data: &[u8]) -> Vec<u8> {
    let header = OptionHeader { option, length: data.len() as u32 };
    [&header.encode()[..], data].concat()
}

impl OptionHeader {
    /// As it is sent.
    pub fn encode(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&IHAVEOPT.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.option.to_be_bytes());
        bytes[12..].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }

    /// Reads the header of an option.
    ///
    /// # Errors
    /// When reading fails, or what comes is no option.
    pub async fn read(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<OptionHeader> {
        if reader.read_u64().await? != IHAVEOPT {
            return Err(Malformed("an option without its magic number").into());
        }
        Ok(OptionHeader { option: reader.read_u32().await?, length: reader.read_u32().await? })
    }
}

/// A whole reply to an option as it is sent.
pub fn option_reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let header = OptionReplyHeader { option, kind, length: data.len() as u32 };
    [&header.encode()[..], data].concat()
}

impl OptionReplyHeader {
    /// As it is sent.
    pub fn encode(&self) -> [u8; 20] {
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&OPTION_REPLY_MAGIC.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.option.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.kind.to_be_bytes());
        bytes[16..].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }

    /// Reads the header of a reply to an option.
    ///
    /// # Errors
    /// When reading fails, or what comes is no such reply.
    pub async fn read(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<OptionReplyHeader> {
        if reader.read_u64().await? != OPTION_REPLY_MAGIC {
            return Err(Malformed("a reply to an option without its magic number").into());
        }
        Ok(OptionReplyHeader {
            option: reader.read_u32().await?,
            kind: reader.read_u32().await?,
            length: reader.read_u32().await?,
        })
    }
}

impl InfoRequest<'_> {
    /// As it is sent.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = string(self.export);
        bytes.extend((self.info_types.len() as u16).to_be_bytes());
        bytes.extend(self.info_types.iter().flat_map(|info| info.to_be_bytes()));
        bytes
    }

    /// Reads the data of an option.
    ///
    /// # Errors
    /// When they do not follow the protocol.
    pub fn decode(mut data: &[u8]) -> Result<InfoRequest<'_>, Malformed> {
        let export = take_string(&mut data)?;
        let count = u16::from_be_bytes(take(&mut data)?);
        // The bytes are at hand and few; the count itself is not trusted.
        let (pairs, rest) = data.as_chunks::<2>();
        if pairs.len() != usize::from(count) || !rest.is_empty() {
            return Err(Malformed("an option whose count is wrong"));
        }
        Ok(InfoRequest { export, info_types: pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect() })
    }
}

impl ContextRequest<'_> {
    /// As it is sent.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = string(self.export);
        bytes.extend((self.queries.len() as u32).to_be_bytes());
        bytes.extend(self.queries.iter().flat_map(|query| string(query)));
        bytes
    }

    /// Reads the data of an option.
    ///
    /// # Errors
    /// When they do not follow the protocol.
    pub fn decode(mut data: &[u8]) -> Result<ContextRequest<'_>, Malformed> {
        let export = take_string(&mut data)?;
        let count = u32::from_be_bytes(take(&mut data)?);
        let mut queries = Vec::new();
        while !data.is_empty() {
            queries.push(take_string(&mut data)?);
        }
        if queries.len() as u64 != u64::from(count) {
            return Err(Malformed("an option whose count is wrong"));
        }
        Ok(ContextRequest { export, queries })
    }
}

impl Info<'_> {
    /// As it is sent.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Info::Export { size_bytes, flags } => {
                [&INFO_EXPORT.to_be_bytes()[..], &size_bytes.to_be_bytes(), &flags.to_be_bytes()].concat()
            }
            Info::Name(name) => [&INFO_NAME.to_be_bytes()[..], name.as_bytes()].concat(),
            Info::BlockSize { min, preferred, max } => {
                let mut bytes = INFO_BLOCK_SIZE.to_be_bytes().to_vec();
                bytes.extend([min, preferred, max].into_iter().flat_map(|size| size.to_be_bytes()));
                bytes
            }
        }
    }

    /// Reads the data of a reply; `None` for information that is malformed or of another kind: a client passes over
    /// both.
    pub fn decode(mut data: &[u8]) -> Option<Info<'_>> {
        let data = &mut data;
        match u16::from_be_bytes(take(data).ok()?) {
            INFO_EXPORT => Some(Info::Export {
                size_bytes: u64::from_be_bytes(take(data).ok()?),
                flags: u16::from_be_bytes(take(data).ok()?),
            }),
            INFO_NAME => text(data).ok().map(Info::Name),
            INFO_BLOCK_SIZE => Some(Info::BlockSize {
                min: u32::from_be_bytes(take(data).ok()?),
                preferred: u32::from_be_bytes(take(data).ok()?),
                max: u32::from_be_bytes(take(data).ok()?),
            }),
            _ => None,
        }
    }
}

impl MetaContext {
    /// As it is sent.
    pub fn encode(&self) -> Vec<u8> {
        [&self.id.to_be_bytes()[..], self.name.as_bytes()].concat()
    }

    /// Reads the data of a reply.
    ///
    /// # Errors
    /// When they do not follow the protocol.
    pub fn decode(mut data: &[u8]) -> Result<MetaContext, Malformed> {
        Ok(MetaContext { id: u32::from_be_bytes(take(&mut data)?), name: text(data)?.to_owned() })
    }
}

/// A text with its length before it, as names are sent.
pub fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat()
}

fn take_string<'a>(data: &mut &'a [u8]) -> Result<&'a str, Malformed> {
    let length = u32::from_be_bytes(take(data)?) as usize;
    let split = data.split_at_checked(length).filter(|_| length <= STRING_BYTES_MAX);
    let (found, rest) = split.ok_or(Malformed("a string longer than its message"))?;
    *data = rest;
    text(found)
}

fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed("a string that is not UTF-8"))
}
