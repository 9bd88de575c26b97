//! A strict parser of the framing of a client's HTTP/1 byte stream.
//!
//! It promises that no two parsers can disagree about what it passes: where a head ends, how long a body is, where the
//! next request begins. What leaves room for a second reading is refused, so that no request is smuggled past a more
//! lenient parser.
//!
//! ```text
//!   bytes ──> FramingParser::check ──> so many pass, then ─┬─ ReadMore        the rest is incomplete
//!                                                          ├─ HoldForUpgrade  wait for the response to an upgrade
//!                                                          └─ Refuse          respond with 400 and the reason, and close
//!
//!   Head ──> Body(length) ──> Head          Head ──> ChunkSize ──> ChunkData ──> ... ──> Trailers ──> Head
//!     └────> UpgradePending ──> Head | Tunnel
//! ```
//!
//! It does not know sockets, timers, routes or what a request means; it keeps no bytes, only its state.
//! The lines of a head are checked in `head.rs`, the grammar of single fields in `field.rs`.

mod chunk;
mod field;
mod head;
#[cfg(test)]
mod properties;

use thiserror::Error;

use head::HeadReader;

/// How large a head may be. Larger ones are refused, even if valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// All bytes of the head, or of a trailer section, with its line ends.
    pub head_bytes_max: usize,
    /// Fields in the head, or in a trailer section.
    pub fields_max: usize,
    /// The request line without its line end.
    pub request_line_bytes_max: usize,
}

impl Default for HeadLimits {
    /// 32 KiB and 100 fields are enough for every browser's cookies, a request line of 16 KiB for every URL in use.
    fn default() -> Self {
        Self { head_bytes_max: 32 * 1024, fields_max: 100, request_line_bytes_max: 16 * 1024 }
    }
}

/// Why a byte stream was refused. Its text is shown on the error page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs)] // each variant is its own sentence
pub enum FramingViolation {
    #[error("the request line is not 'method target HTTP/1.x'")]
    RequestLine,
    #[error("the HTTP version is not supported")]
    Version,
    #[error("the method CONNECT is not supported")]
    ConnectMethod,
    #[error("the request line is too long")]
    RequestLineTooLong,
    #[error("the header block is too large")]
    HeadTooLarge,
    #[error("there are too many header fields")]
    TooManyFields,
    #[error("a line ends without CR LF")]
    BareLineEnd,
    #[error("the head contains a control character")]
    ControlCharacter,
    #[error("a header field is folded over several lines")]
    FoldedField,
    #[error("a header field has no valid name")]
    FieldName,
    #[error("exactly one Host field is required")]
    HostCount,
    #[error("Content-Length is not a number")]
    ContentLength,
    #[error("Content-Length is given twice with different values")]
    ContentLengthMismatch,
    #[error("Transfer-Encoding is not exactly 'chunked'")]
    TransferEncoding,
    #[error("Transfer-Encoding is not allowed in HTTP/1.0")]
    TransferEncodingInHttp10,
    #[error("Content-Length and Transfer-Encoding exclude each other")]
    LengthAndEncoding,
    #[error("the only supported expectation is 100-continue")]
    UnsupportedExpectation,
    #[error("a chunk size is not a hexadecimal number of at most 16 digits")]
    ChunkSize,
    #[error("a chunk does not end where its size says")]
    ChunkEnd,
    #[error("a trailer field would change the framing")]
    FramingInTrailer,
    #[error("the request head did not arrive in time")]
    HeadTimeout,
}

impl FramingViolation {
    /// The status code of the response. The connection is closed after it in every case.
    pub fn status(self) -> u16 {
        match self {
            Self::HeadTimeout => 408,
            Self::RequestLineTooLong => 414,
            Self::UnsupportedExpectation => 417,
            Self::HeadTooLarge | Self::TooManyFields => 431,
            Self::ConnectMethod => 501,
            Self::Version => 505,
            _ => 400,
        }
    }
}

/// What to do after the bytes that may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramingAction {
    /// The bytes left over are incomplete: keep them, read more, check again.
    ReadMore,
    /// An upgrade without a body was requested. Nothing more may pass until [`FramingParser::resume`] or [`FramingParser::tunnel`].
    HoldForUpgrade,
    /// The bytes left over are refused, and everything after them.
    Refuse(FramingViolation),
}

/// How many leading bytes may pass, how many heads ended among them, and what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckedPrefix {
    /// Leading bytes that may pass.
    pub passed_bytes: usize,
    /// Request heads that ended within them.
    pub complete_heads: u64,
    /// What follows after them.
    pub next: FramingAction,
}

/// The state of the parser within one client's stream.
#[derive(Debug)]
pub struct FramingParser {
    limits: HeadLimits,
    state: State,
}

#[derive(Debug)]
enum State {
    Head(HeadReader),
    Body { left: u64 },
    ChunkSize,
    ChunkData { left: u64 },
    ChunkEnd,
    Trailers(HeadReader),
    UpgradePending,
    Tunnel,
    Refused(FramingViolation),
}

/// One step: so many bytes may pass and lead to another state, or more bytes are needed first.
enum Step {
    Passed(usize, State),
    NeedMore,
}

impl FramingParser {
    /// A parser at the start of a connection.
    pub fn new(limits: HeadLimits) -> Self {
        Self { limits, state: State::Head(HeadReader::request()) }
    }

    /// Checks `pending`: every byte received and not yet passed, oldest first. Bytes that did not pass must be given
    /// again, followed by more, in the next call.
    pub fn check(&mut self, pending: &[u8]) -> CheckedPrefix {
        let mut passed = 0;
        let mut heads = 0;
        loop {
            let rest = &pending[passed..];
            if matches!(self.state, State::UpgradePending) {
                return CheckedPrefix {
                    passed_bytes: passed,
                    complete_heads: heads,
                    next: FramingAction::HoldForUpgrade,
                };
            }
            let was_in_head = matches!(self.state, State::Head(_));
            match self.step(rest) {
                Ok(Step::Passed(count, state)) => {
                    passed += count;
                    heads += u64::from(was_in_head);
                    self.state = state;
                }
                Ok(Step::NeedMore) => {
                    return CheckedPrefix {
                        passed_bytes: passed,
                        complete_heads: heads,
                        next: FramingAction::ReadMore,
                    };
                }
                Err(violation) => {
                    self.state = State::Refused(violation);
                    return CheckedPrefix {
                        passed_bytes: passed,
                        complete_heads: heads,
                        next: FramingAction::Refuse(violation),
                    };
                }
            }
        }
    }

    /// The upgrade was declined: what follows is the next request.
    pub fn resume(&mut self) {
        if matches!(self.state, State::UpgradePending) {
            self.state = State::Head(HeadReader::request());
        }
    }

    /// The upgrade was granted, or the protocol is HTTP/2: what follows is not HTTP/1 and is not checked.
    pub fn tunnel(&mut self) {
        self.state = State::Tunnel;
    }

    /// Whether the next byte belongs to a head.
    pub fn in_head(&self) -> bool {
        matches!(self.state, State::Head(_))
    }

    fn step(&mut self, rest: &[u8]) -> Result<Step, FramingViolation> {
        match &mut self.state {
            State::Head(reader) => {
                let Some(length) = reader.read(rest, &self.limits)? else {
                    return Ok(Step::NeedMore);
                };
                Ok(Step::Passed(length, reader.facts().body()?))
            }
            State::Trailers(reader) => {
                let Some(length) = reader.read(rest, &self.limits)? else {
                    return Ok(Step::NeedMore);
                };
                Ok(Step::Passed(length, State::Head(HeadReader::request())))
            }
            State::Body { left } => Ok(pass_counted(rest, *left, |left| {
                if left == 0 { State::Head(HeadReader::request()) } else { State::Body { left } }
            })),
            State::ChunkData { left } => Ok(pass_counted(rest, *left, |left| {
                if left == 0 { State::ChunkEnd } else { State::ChunkData { left } }
            })),
            State::ChunkSize => match chunk::size_line(rest)? {
                None => Ok(Step::NeedMore),
                Some((length, 0)) => Ok(Step::Passed(length, State::Trailers(HeadReader::trailers()))),
                Some((length, size)) => Ok(Step::Passed(length, State::ChunkData { left: size })),
            },
            State::ChunkEnd => match rest {
                [] | [b'\r'] => Ok(Step::NeedMore),
                [b'\r', b'\n', ..] => Ok(Step::Passed(2, State::ChunkSize)),
                _ => Err(FramingViolation::ChunkEnd),
            },
            State::Tunnel if rest.is_empty() => Ok(Step::NeedMore),
            State::Tunnel => Ok(Step::Passed(rest.len(), State::Tunnel)),
            State::UpgradePending => Ok(Step::NeedMore),
            State::Refused(violation) => Err(*violation),
        }
    }
}

fn pass_counted(rest: &[u8], left: u64, after: impl FnOnce(u64) -> State) -> Step {
    if rest.is_empty() {
        return Step::NeedMore;
    }
    let count = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
    Step::Passed(count, after(left - count as u64))
}
