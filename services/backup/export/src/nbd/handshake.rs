//! Agreeing with a client on an export and on what is spoken about it.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::connection::PeerError;
use super::export::{Export, find};
use super::option::{Contexts, Inquiry};
use super::settings::REQUEST_BYTES_MAX;
use super::wire::*;

/// An option's data are an export's name and a few short things.
const OPTION_BYTES_MAX: u32 = 64 * 1024;
/// A client that asks more often does not mean to choose. `nbdinfo --list` asks a handful of questions.
const OPTIONS_MAX: usize = 256;
/// The only context there is has this number.
pub(super) const ALLOCATION_ID: u32 = 1;
/// Reading less than this is possible and wasteful.
const PREFERRED_BYTES: u32 = 64 * 1024;

/// What a handshake came to.
#[derive(Debug)]
pub(super) struct Agreed {
    pub(super) export: Export,
    pub(super) structured: bool,
    /// `base:allocation` may be asked for.
    pub(super) allocation: bool,
}

/// Leads the handshake. `None` means the client went, as it may.
pub(super) async fn lead<R, W>(
    reader: &mut R,
    writer: &mut W,
    exports: &[Export],
) -> Result<Option<Agreed>, PeerError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut greeting = Vec::with_capacity(18);
    greeting.extend(NBDMAGIC.to_be_bytes());
    greeting.extend(IHAVEOPT.to_be_bytes());
    greeting.extend((FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES).to_be_bytes());
    send(writer, &greeting).await?;
    let Some(flags) = or_gone(reader.read_u32().await)? else { return Ok(None) };
    if flags & !u32::from(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES) != 0 {
        return Err(PeerError::Nonsense("it wants handshake flags that were not offered"));
    }
    let mut talk = Talk {
        writer,
        exports,
        no_zeroes: flags & u32::from(FLAG_NO_ZEROES) != 0,
        structured: false,
        context_of: None,
    };
    for _ in 0..OPTIONS_MAX {
        let Some(magic) = or_gone(reader.read_u64().await)? else { return Ok(None) };
        if magic != IHAVEOPT {
            return Err(PeerError::Nonsense("an option does not begin as options do"));
        }
        let option = reader.read_u32().await?;
        let length = reader.read_u32().await?;
        if length > OPTION_BYTES_MAX {
            return Err(PeerError::Nonsense("an option is longer than any option can be"));
        }
        let mut data = vec![0; length as usize];
        reader.read_exact(&mut data).await?;
        match talk.answer(option, &data).await? {
            Next::Option => {}
            Next::Transmission(agreed) => return Ok(Some(agreed)),
            Next::Goodbye => return Ok(None),
        }
    }
    Err(PeerError::Nonsense("it asks on and on and chooses no export"))
}

/// A client may go between two options without a word.
fn or_gone<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

async fn send<W: AsyncWrite + Unpin>(writer: &mut W, bytes: &[u8]) -> io::Result<()> {
    writer.write_all(bytes).await?;
    writer.flush().await
}

enum Next {
    Option,
    Transmission(Agreed),
    Goodbye,
}

struct Talk<'a, W> {
    writer: &'a mut W,
    exports: &'a [Export],
    no_zeroes: bool,
    structured: bool,
    /// The export for which the client set `base:allocation`: only there does it hold.
    context_of: Option<String>,
}

impl<W: AsyncWrite + Unpin> Talk<'_, W> {
    async fn answer(&mut self, option: u32, data: &[u8]) -> Result<Next, PeerError> {
        match option {
            OPT_EXPORT_NAME => return self.export_name(data).await,
            OPT_ABORT => {
                // The client need not wait for the answer.
                let _ = self.reply(option, REP_ACK, b"").await;
                return Ok(Next::Goodbye);
            }
            OPT_GO | OPT_INFO => return self.inquiry(option, data).await,
            OPT_LIST if data.is_empty() => {
                for export in self.exports {
                    let name = export.name().as_bytes();
                    let entry = [&(name.len() as u32).to_be_bytes()[..], name].concat();
                    self.reply(option, REP_SERVER, &entry).await?;
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
        let mut reply = Vec::with_capacity(20 + data.len());
        reply.extend(OPTION_REPLY_MAGIC.to_be_bytes());
        reply.extend(option.to_be_bytes());
        reply.extend(kind.to_be_bytes());
        reply.extend((data.len() as u32).to_be_bytes());
        reply.extend(data);
        send(self.writer, &reply).await
    }

    /// The old way to choose: no answer but the export's size, or the end of the connection.
    async fn export_name(&mut self, data: &[u8]) -> Result<Next, PeerError> {
        let name = std::str::from_utf8(data).map_err(|_| PeerError::NoSuchExport)?;
        let export = find(self.exports, name).ok_or(PeerError::NoSuchExport)?;
        let mut reply = Vec::with_capacity(134);
        reply.extend(export.size_bytes().to_be_bytes());
        reply.extend(export.transmission_flags().to_be_bytes());
        if !self.no_zeroes {
            reply.extend([0; 124]);
        }
        send(self.writer, &reply).await?;
        Ok(Next::Transmission(self.agreed(export)))
    }

    async fn inquiry(&mut self, option: u32, data: &[u8]) -> Result<Next, PeerError> {
        let Ok(inquiry) = Inquiry::parse(data) else {
            self.reply(option, REP_ERR_INVALID, b"the request cannot be understood").await?;
            return Ok(Next::Option);
        };
        let Some(export) = find(self.exports, inquiry.name) else {
            self.reply(option, REP_ERR_UNKNOWN, b"no such export").await?;
            return Ok(Next::Option);
        };
        let mut info = INFO_EXPORT.to_be_bytes().to_vec();
        info.extend(export.size_bytes().to_be_bytes());
        info.extend(export.transmission_flags().to_be_bytes());
        self.reply(option, REP_INFO, &info).await?;
        if inquiry.wanted.contains(&INFO_NAME) {
            let info = [&INFO_NAME.to_be_bytes()[..], export.name().as_bytes()].concat();
            self.reply(option, REP_INFO, &info).await?;
        }
        // Told unasked, too: any client may know that bytes need not be aligned.
        let mut info = INFO_BLOCK_SIZE.to_be_bytes().to_vec();
        for size in [1, PREFERRED_BYTES, REQUEST_BYTES_MAX] {
            info.extend(size.to_be_bytes());
        }
        self.reply(option, REP_INFO, &info).await?;
        self.reply(option, REP_ACK, b"").await?;
        match option {
            OPT_GO => Ok(Next::Transmission(self.agreed(export))),
            _ => Ok(Next::Option),
        }
    }

    async fn contexts(&mut self, option: u32, data: &[u8]) -> Result<(), PeerError> {
        let setting = option == OPT_SET_META_CONTEXT;
        if setting {
            self.context_of = None;
        }
        let Ok(asked) = Contexts::parse(data) else {
            self.reply(option, REP_ERR_INVALID, b"the request cannot be understood").await?;
            return Ok(());
        };
        if !self.structured {
            self.reply(option, REP_ERR_INVALID, b"ask for structured replies first").await?;
            return Ok(());
        }
        let Some(export) = find(self.exports, asked.name) else {
            self.reply(option, REP_ERR_UNKNOWN, b"no such export").await?;
            return Ok(());
        };
        let named = asked.queries.contains(&BASE_ALLOCATION);
        let listed = asked.queries.is_empty() || asked.queries.contains(&BASE_NAMESPACE);
        if named || (!setting && listed) {
            let id = if setting { ALLOCATION_ID } else { 0 };
            let context = [&id.to_be_bytes()[..], BASE_ALLOCATION.as_bytes()].concat();
            self.reply(option, REP_META_CONTEXT, &context).await?;
            if setting {
                self.context_of = Some(export.name().to_owned());
            }
        }
        self.reply(option, REP_ACK, b"").await?;
        Ok(())
    }

    fn agreed(&self, export: &Export) -> Agreed {
        Agreed {
            export: export.clone(),
            structured: self.structured,
            allocation: self.context_of.as_deref() == Some(export.name()),
        }
    }
}
