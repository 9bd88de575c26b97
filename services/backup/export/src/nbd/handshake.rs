//! Agreeing with a client on an export and on how replies about it look.

use std::io;

use backup_repository::nbd_wire::*;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::error::ConnectionError;
use super::export::{Export, find};
use super::reply::ALLOCATION_ID;
use super::settings::REQUEST_BYTES_MAX;

/// An option's data are an export's name and a few short things.
const OPTION_BYTES_MAX: u32 = 64 * 1024;
/// A client that sends more options does not mean to choose an export. `nbdinfo --list` sends a handful.
const OPTIONS_MAX: usize = 256;
/// Reading less than this is possible and wasteful.
const PREFERRED_BYTES: u32 = 64 * 1024;
/// What the oldest way to choose an export adds to its answer, unless the client declined.
const RESERVED_BYTES: usize = 124;

/// What a handshake came to.
#[derive(Debug)]
pub(super) struct HandshakeOutcome {
    pub(super) export: Export,
    pub(super) structured: bool,
    /// `base:allocation` may be requested.
    pub(super) base_allocation: bool,
}

/// Answers the client's options until it has chosen an export. `None` means that it ended the connection.
pub(super) async fn negotiate<R, W>(
    reader: &mut R,
    writer: &mut W,
    exports: &[Export],
) -> Result<Option<HandshakeOutcome>, ConnectionError>
where
    R: AsyncBufRead + Unpin,
    W: AsyncWrite + Unpin,
{
    send(writer, &Greeting { flags: FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES }.encode()).await?;
    if reader.fill_buf().await?.is_empty() {
        return Ok(None);
    }
    let flags = reader.read_u32().await?;
    if flags & !u32::from(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES) != 0 {
        return Err(ConnectionError::Protocol("it sets handshake flags that were not offered"));
    }
    let mut handshake = Handshake {
        writer,
        exports,
        no_zeroes: flags & u32::from(FLAG_NO_ZEROES) != 0,
        structured: false,
        context_of: None,
    };
    for _ in 0..OPTIONS_MAX {
        if reader.fill_buf().await?.is_empty() {
            return Ok(None);
        }
        let OptionHeader { option, length } = OptionHeader::read(reader).await?;
        if length > OPTION_BYTES_MAX {
            return Err(ConnectionError::Protocol("an option is longer than any option can be"));
        }
        let mut data = vec![0; length as usize];
        reader.read_exact(&mut data).await?;
        match handshake.answer(option, &data).await? {
            Next::Option => {}
            Next::Transmission(agreed) => return Ok(Some(agreed)),
            Next::End => return Ok(None),
        }
    }
    Err(ConnectionError::Protocol("it sends option after option and chooses no export"))
}

async fn send<W: AsyncWrite + Unpin>(writer: &mut W, bytes: &[u8]) -> io::Result<()> {
    writer.write_all(bytes).await?;
    writer.flush().await
}

enum Next {
    Option,
    Transmission(HandshakeOutcome),
    End,
}

struct Handshake<'a, W> {
    writer: &'a mut W,
    exports: &'a [Export],
    no_zeroes: bool,
    structured: bool,
    /// The export for which the client set `base:allocation`: only there does it hold.
    context_of: Option<String>,
}

impl<W: AsyncWrite + Unpin> Handshake<'_, W> {
    async fn answer(&mut self, option: u32, data: &[u8]) -> Result<Next, ConnectionError> {
        match option {
            OPT_EXPORT_NAME => return self.export_name(data).await,
            OPT_ABORT => {
                // The client need not wait for the answer.
                let _ = self.reply(option, REP_ACK, b"").await;
                return Ok(Next::End);
            }
            OPT_GO | OPT_INFO => return self.info(option, data).await,
            OPT_LIST if data.is_empty() => {
                for export in self.exports {
                    self.reply(option, REP_SERVER, &string(export.name())).await?;
                }
                self.reply(option, REP_ACK, b"").await?;
            }
            OPT_STRUCTURED_REPLY if data.is_empty() => {
                self.structured = true;
                self.reply(option, REP_ACK, b"").await?;
            }
            OPT_LIST | OPT_STRUCTURED_REPLY => {
                self.reply(option, REP_ERR_INVALID, b"this option has no data").await?;
            }
            OPT_LIST_META_CONTEXT | OPT_SET_META_CONTEXT => self.contexts(option, data).await?,
            _ => self.reply(option, REP_ERR_UNSUP, b"").await?,
        }
        Ok(Next::Option)
    }

    async fn reply(&mut self, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
        send(self.writer, &option_reply(option, kind, data)).await
    }

    /// The oldest way to choose: no answer but the export's size, or the end of the connection.
    async fn export_name(&mut self, data: &[u8]) -> Result<Next, ConnectionError> {
        let name = std::str::from_utf8(data).map_err(|_| ConnectionError::NoSuchExport)?;
        let export = find(self.exports, name).ok_or(ConnectionError::NoSuchExport)?;
        let mut reply = export.size_bytes().to_be_bytes().to_vec();
        reply.extend(export.transmission_flags().to_be_bytes());
        if !self.no_zeroes {
            reply.extend([0; RESERVED_BYTES]);
        }
        send(self.writer, &reply).await?;
        Ok(Next::Transmission(self.agreed(export)))
    }

    async fn info(&mut self, option: u32, data: &[u8]) -> Result<Next, ConnectionError> {
        let Ok(request) = InfoRequest::decode(data) else {
            self.reply(option, REP_ERR_INVALID, b"the data of this option are malformed").await?;
            return Ok(Next::Option);
        };
        let Some(export) = find(self.exports, request.export) else {
            self.reply(option, REP_ERR_UNKNOWN, b"no such export").await?;
            return Ok(Next::Option);
        };
        let (size_bytes, flags) = (export.size_bytes(), export.transmission_flags());
        self.reply(option, REP_INFO, &Info::Export { size_bytes, flags }.encode()).await?;
        if request.info_types.contains(&INFO_NAME) {
            self.reply(option, REP_INFO, &Info::Name(export.name()).encode()).await?;
        }
        // Sent unasked, too: any client may know that bytes need not be aligned.
        let sizes = Info::BlockSize { min: 1, preferred: PREFERRED_BYTES, max: REQUEST_BYTES_MAX };
        self.reply(option, REP_INFO, &sizes.encode()).await?;
        self.reply(option, REP_ACK, b"").await?;
        match option {
            OPT_GO => Ok(Next::Transmission(self.agreed(export))),
            _ => Ok(Next::Option),
        }
    }

    async fn contexts(&mut self, option: u32, data: &[u8]) -> Result<(), ConnectionError> {
        let setting = option == OPT_SET_META_CONTEXT;
        if setting {
            self.context_of = None;
        }
        let Ok(request) = ContextRequest::decode(data) else {
            self.reply(option, REP_ERR_INVALID, b"the data of this option are malformed").await?;
            return Ok(());
        };
        if !self.structured {
            self.reply(option, REP_ERR_INVALID, b"ask for structured replies first").await?;
            return Ok(());
        }
        let Some(export) = find(self.exports, request.export) else {
            self.reply(option, REP_ERR_UNKNOWN, b"no such export").await?;
            return Ok(());
        };
        let named = request.queries.contains(&BASE_ALLOCATION);
        let listed = request.queries.is_empty() || request.queries.contains(&BASE_NAMESPACE);
        if named || (!setting && listed) {
            let id = if setting { ALLOCATION_ID } else { 0 };
            let context = MetaContext { id, name: BASE_ALLOCATION.to_owned() };
            self.reply(option, REP_META_CONTEXT, &context.encode()).await?;
            if setting {
                self.context_of = Some(export.name().to_owned());
            }
        }
        self.reply(option, REP_ACK, b"").await?;
        Ok(())
    }

    fn agreed(&self, export: &Export) -> HandshakeOutcome {
        HandshakeOutcome {
            export: export.clone(),
            structured: self.structured,
            base_allocation: self.context_of.as_deref() == Some(export.name()),
        }
    }
}
