//! The handshake: protocol features and the export.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::super::SourceError;
use super::settings::{NbdAddress, NbdExportSettings};
use crate::nbd_wire::{
    BASE_ALLOCATION, ContextRequest, DIRTY_BITMAP_PREFIX, FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES, Greeting,
    INFO_BLOCK_SIZE, Info, InfoRequest, MetaContext, OPT_GO, OPT_SET_META_CONTEXT, OPT_STRUCTURED_REPLY,
    OptionReplyHeader, PAYLOAD_BYTES_MAX_DEFAULT, REP_ACK, REP_FLAG_ERROR, REP_INFO, REP_META_CONTEXT,
    option,
};

/// No answer to an option is longer: names are at most 4 KiB.
const OPTION_REPLY_BYTES_MAX: u32 = 64 * 1024;
/// No option gets more answers than this: one for each context or piece of information asked for, and some.
const OPTION_REPLIES_MAX: usize = 64;
/// A server whose smallest block is larger than this, or whose largest is smaller, does not keep to the protocol.
const BLOCK_BYTES_MIN_MOST: u32 = 64 * 1024;

pub(super) type Reader = Box<dyn AsyncRead + Send + Unpin>;
pub(super) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// The negotiated export.
#[derive(Clone, Debug)]
pub(super) struct Export {
    pub(super) size_bytes: u64,
    /// What the server is capable of: transmission flags `FLAG_…`.
    pub(super) flags: u16,
    /// Requests begin and end at multiples of this.
    pub(super) block_bytes_min: u32,
    /// No request carries more.
    pub(super) block_bytes_max: u32,
    /// The id of `base:allocation`, when the server reports holes.
    pub(super) base_allocation_context: Option<u32>,
    /// The id of the dirty bitmap, when one was asked for.
    pub(super) dirty_bitmap_context: Option<u32>,
}

/// The answer to one option.
enum OptionReply {
    Ack,
    Info(Vec<u8>),
    Context(MetaContext),
    Error { code: u32, message: String },
}

struct Handshake<'a> {
    settings: &'a NbdExportSettings,
    reader: Reader,
    writer: Writer,
}

/// What was negotiated, and the connection.
pub(super) type Agreed = (Export, Reader, Writer);

/// Connects and negotiates. The caller sets the deadline.
pub(super) async fn connect(settings: &NbdExportSettings) -> Result<Agreed, SourceError> {
    match &settings.address {
        NbdAddress::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(|e| io_error(settings, "connect to", e))?;
            let (reader, writer) = stream.into_split();
            negotiate(settings, Box::new(reader), Box::new(writer)).await
        }
        NbdAddress::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port))
                .await
                .map_err(|e| io_error(settings, "connect to", e))?;
            stream.set_nodelay(true).map_err(|e| io_error(settings, "set up the connection to", e))?;
            let (reader, writer) = stream.into_split();
            negotiate(settings, Box::new(reader), Box::new(writer)).await
        }
    }
}

/// Negotiates on a connection that was made before.
pub(super) async fn on_stream(
    settings: &NbdExportSettings,
    stream: std::os::unix::net::UnixStream,
) -> Result<Agreed, SourceError> {
    let stream = stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream));
    let stream = stream.map_err(|e| io_error(settings, "use the connection to", e))?;
    let (reader, writer) = stream.into_split();
    negotiate(settings, Box::new(reader), Box::new(writer)).await
}

async fn negotiate(
    settings: &NbdExportSettings,
    reader: Reader,
    writer: Writer,
) -> Result<Agreed, SourceError> {
    let reader = Box::new(tokio::io::BufReader::new(reader));
    let mut handshake = Handshake { settings, reader, writer };
    handshake.greet().await?;
    let structured = handshake.structured_replies().await?;
    let (mut base_context, mut dirty_context) = (None, None);
    if structured {
        (base_context, dirty_context) = handshake.contexts().await?;
    }
    if settings.dirty_bitmap.is_some() && dirty_context.is_none() {
        let bitmap = settings.dirty_bitmap.as_deref().unwrap_or_default();
        let why = format!("it has no bitmap {bitmap} on this export");
        return Err(handshake.refused("list changes", why));
    }
    let export = handshake.go().await?;
    Ok((
        Export { base_allocation_context: base_context, dirty_bitmap_context: dirty_context, ..export },
        handshake.reader,
        handshake.writer,
    ))
}

fn io_error(settings: &NbdExportSettings, attempt: &'static str, source: io::Error) -> SourceError {
    SourceError::Io { attempt, what: settings.to_string(), source }
}

impl Handshake<'_> {
    async fn greet(&mut self) -> Result<(), SourceError> {
        let Greeting { flags } = Greeting::read(&mut self.reader).await.map_err(|e| self.failed(e))?;
        if flags & FLAG_FIXED_NEWSTYLE == 0 {
            return Err(self.protocol("it does not greet as a fixed newstyle server"));
        }
        let flags = u32::from(flags & (FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES));
        self.writer.write_u32(flags).await.map_err(|e| self.failed(e))
    }

    async fn structured_replies(&mut self) -> Result<bool, SourceError> {
        self.ask(OPT_STRUCTURED_REPLY, &[]).await?;
        match self.reply(OPT_STRUCTURED_REPLY).await? {
            OptionReply::Ack => Ok(true),
            OptionReply::Error { .. } => Ok(false),
            _ => Err(self.protocol("it sent a reply to another option")),
        }
    }

    /// Asks for holes and, when wanted, the dirty bitmap.
    async fn contexts(&mut self) -> Result<(Option<u32>, Option<u32>), SourceError> {
        let dirty = self.settings.dirty_bitmap.as_ref().map(|name| format!("{DIRTY_BITMAP_PREFIX}{name}"));
        let queries = std::iter::once(BASE_ALLOCATION).chain(dirty.as_deref()).collect();
        let query = ContextRequest { export: &self.settings.export, queries }.encode();
        self.ask(OPT_SET_META_CONTEXT, &query).await?;
        let mut found = (None, None);
        for _ in 0..OPTION_REPLIES_MAX {
            match self.reply(OPT_SET_META_CONTEXT).await? {
                OptionReply::Ack => return Ok(found),
                OptionReply::Context(context) if context.name == BASE_ALLOCATION => {
                    found.0 = Some(context.id);
                }
                OptionReply::Context(context) if Some(&context.name) == dirty.as_ref() => {
                    found.1 = Some(context.id);
                }
                OptionReply::Error { .. } => return Ok((None, None)),
                _ => return Err(self.protocol("it offered a context that was not asked for")),
            }
        }
        Err(self.protocol("it does not stop offering contexts"))
    }

    /// Begins the transmission; returns what the server reports about the export.
    async fn go(&mut self) -> Result<Export, SourceError> {
        let query = InfoRequest { export: &self.settings.export, info_types: vec![INFO_BLOCK_SIZE] }.encode();
        self.ask(OPT_GO, &query).await?;
        let mut size_and_flags = None;
        let (mut block_bytes_min, mut block_bytes_max) = (1, PAYLOAD_BYTES_MAX_DEFAULT);
        for _ in 0..OPTION_REPLIES_MAX {
            match self.reply(OPT_GO).await? {
                OptionReply::Ack => {
                    let (size_bytes, flags) =
                        size_and_flags.ok_or_else(|| self.protocol("it did not report the size"))?;
                    if !(1..=BLOCK_BYTES_MIN_MOST).contains(&block_bytes_min)
                        || !block_bytes_min.is_power_of_two()
                        || block_bytes_max < BLOCK_BYTES_MIN_MOST
                    {
                        return Err(self.protocol("the sizes of its blocks are not valid"));
                    }
                    let (base_context, dirty_context) = (None, None);
                    return Ok(Export {
                        size_bytes,
                        flags,
                        block_bytes_min,
                        block_bytes_max,
                        base_allocation_context: base_context,
                        dirty_bitmap_context: dirty_context,
                    });
                }
                OptionReply::Info(info) => match Info::decode(&info) {
                    Some(Info::Export { size_bytes, flags }) => size_and_flags = Some((size_bytes, flags)),
                    Some(Info::BlockSize { min, preferred: _, max }) => {
                        (block_bytes_min, block_bytes_max) = (min, max);
                    }
                    Some(Info::Name(_)) | None => {}
                },
                OptionReply::Error { code, message } => {
                    let why = format!("{message} (error {:#x})", code & !REP_FLAG_ERROR);
                    return Err(self.refused("serve this export", why));
                }
                OptionReply::Context(_) => return Err(self.protocol("it sent a reply to another option")),
            }
        }
        Err(self.protocol("it does not stop sending information about the export"))
    }

    async fn ask(&mut self, number: u32, data: &[u8]) -> Result<(), SourceError> {
        self.writer.write_all(&option(number, data)).await.map_err(|e| self.failed(e))
    }

    async fn reply(&mut self, option: u32) -> Result<OptionReply, SourceError> {
        let header = OptionReplyHeader::read(&mut self.reader).await.map_err(|e| self.failed(e))?;
        if header.option != option || header.length > OPTION_REPLY_BYTES_MAX {
            return Err(self.protocol("its answer to an option makes no sense"));
        }
        let mut data = vec![0; header.length as usize];
        self.reader.read_exact(&mut data).await.map_err(|e| self.failed(e))?;
        Ok(match header.kind {
            REP_ACK => OptionReply::Ack,
            REP_INFO => OptionReply::Info(data),
            REP_META_CONTEXT => {
                OptionReply::Context(MetaContext::decode(&data).map_err(|e| self.failed(e.into()))?)
            }
            code if code & REP_FLAG_ERROR != 0 => {
                OptionReply::Error { code, message: String::from_utf8_lossy(&data).into() }
            }
            _ => return Err(self.protocol("it answered an option in an unknown way")),
        })
    }

    fn failed(&self, error: io::Error) -> SourceError {
        match error.kind() {
            io::ErrorKind::InvalidData => self.protocol(&error.to_string()),
            _ => io_error(self.settings, "agree with", error),
        }
    }

    fn protocol(&self, why: &str) -> SourceError {
        SourceError::Protocol { what: self.settings.to_string(), why: why.to_owned() }
    }

    fn refused(&self, attempt: &'static str, why: String) -> SourceError {
        SourceError::Refused { what: self.settings.to_string(), attempt, why }
    }
}
