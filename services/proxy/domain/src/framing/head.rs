//! Parses a head or a trailer section line by line, as it arrives.
//!
//! Every line is checked once, when its end arrives, however slowly the bytes come; the fields that decide the framing
//! are collected on the way.

use memchr::memchr;

use super::field::{is_target, is_text, is_token, members, trim};
use super::{FramingViolation, HeadLimits, State};

/// Reads one head (request line and fields) or one trailer section (fields only).
#[derive(Debug)]
pub(super) struct HeadReader {
    part: Part,
    /// Offset of the first line that is not checked yet.
    line_start: usize,
    /// Offset up to which that line has no line end.
    searched: usize,
    fields: usize,
    facts: FramingFields,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    RequestLine { skipped_empty: bool },
    Fields,
    Trailers,
}

/// What the head says about framing.
#[derive(Debug, Default)]
pub(super) struct FramingFields {
    http_10: bool,
    hosts: usize,
    content_length: Option<u64>,
    chunked: bool,
    connection_upgrade: bool,
    upgrade: bool,
}

impl HeadReader {
    pub(super) fn request() -> Self {
        Self::at(Part::RequestLine { skipped_empty: false })
    }

    pub(super) fn trailers() -> Self {
        Self::at(Part::Trailers)
    }

    fn at(part: Part) -> Self {
        Self { part, line_start: 0, searched: 0, fields: 0, facts: FramingFields::default() }
    }

    pub(super) fn facts(&self) -> &FramingFields {
        &self.facts
    }

    /// Checks the lines that are complete. `Some(length)` once the section is complete.
    pub(super) fn read(
        &mut self,
        bytes: &[u8],
        limits: &HeadLimits,
    ) -> Result<Option<usize>, FramingViolation> {
        while let Some(found) = memchr(b'\n', &bytes[self.searched..]) {
            let end = self.searched + found;
            let with_cr = &bytes[self.line_start..end];
            self.line_start = end + 1;
            self.searched = self.line_start;
            if self.line_start > limits.head_bytes_max {
                return Err(self.too_large());
            }
            let [line @ .., b'\r'] = with_cr else {
                return Err(FramingViolation::BareLineEnd);
            };
            if self.line(line, limits)? {
                return Ok(Some(self.line_start));
            }
        }
        self.searched = bytes.len();
        let unfinished = bytes.len() - self.line_start;
        if matches!(self.part, Part::RequestLine { .. }) && unfinished > limits.request_line_bytes_max + 1 {
            return Err(FramingViolation::RequestLineTooLong);
        }
        if bytes.len() > limits.head_bytes_max {
            return Err(self.too_large());
        }
        Ok(None)
    }

    fn too_large(&self) -> FramingViolation {
        match self.part {
            Part::RequestLine { .. } => FramingViolation::RequestLineTooLong,
            Part::Fields | Part::Trailers => FramingViolation::HeadTooLarge,
        }
    }

    /// Checks one line without its CR LF; true when it was the last.
    fn line(&mut self, line: &[u8], limits: &HeadLimits) -> Result<bool, FramingViolation> {
        match self.part {
            // Old clients send one empty line after a body; every parser ignores it (RFC 9112, 2.2).
            Part::RequestLine { skipped_empty: false } if line.is_empty() => {
                self.part = Part::RequestLine { skipped_empty: true };
                Ok(false)
            }
            Part::RequestLine { .. } => {
                if line.len() > limits.request_line_bytes_max {
                    return Err(FramingViolation::RequestLineTooLong);
                }
                self.facts.http_10 = request_line(line)?;
                self.part = Part::Fields;
                Ok(false)
            }
            Part::Fields | Part::Trailers if line.is_empty() => Ok(true),
            Part::Fields => {
                let (name, value) = self.field(line, limits)?;
                self.facts.record(name, value)?;
                Ok(false)
            }
            Part::Trailers => {
                let (name, _) = self.field(line, limits)?;
                let frames =
                    [&b"content-length"[..], b"transfer-encoding", b"host", b"connection", b"upgrade"];
                if frames.iter().any(|framing| name.eq_ignore_ascii_case(framing)) {
                    return Err(FramingViolation::FramingInTrailer);
                }
                Ok(false)
            }
        }
    }

    fn field<'a>(
        &mut self,
        line: &'a [u8],
        limits: &HeadLimits,
    ) -> Result<(&'a [u8], &'a [u8]), FramingViolation> {
        self.fields += 1;
        if self.fields > limits.fields_max {
            return Err(FramingViolation::TooManyFields);
        }
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(FramingViolation::FoldedField);
        }
        let name_bytes = line.iter().take_while(|&&byte| is_token(byte)).count();
        if name_bytes == 0 || line.get(name_bytes) != Some(&b':') {
            return Err(FramingViolation::FieldName);
        }
        let value = &line[name_bytes + 1..];
        if !value.iter().all(|&byte| is_text(byte)) {
            return Err(FramingViolation::ControlCharacter);
        }
        Ok((&line[..name_bytes], trim(value)))
    }
}

/// Checks the request line; true for HTTP/1.0.
fn request_line(line: &[u8]) -> Result<bool, FramingViolation> {
    let mut parts = line.split(|&byte| byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(FramingViolation::RequestLine);
    };
    let valid = !method.is_empty()
        && method.iter().all(|&byte| is_token(byte))
        && !target.is_empty()
        && target.iter().all(|&byte| is_target(byte));
    if !valid {
        return Err(FramingViolation::RequestLine);
    }
    let http_10 = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(FramingViolation::Version);
        }
        _ => return Err(FramingViolation::RequestLine),
    };
    if method == b"CONNECT" {
        return Err(FramingViolation::ConnectMethod);
    }
    Ok(http_10)
}

impl FramingFields {
    fn record(&mut self, name: &[u8], value: &[u8]) -> Result<(), FramingViolation> {
        // The length alone tells most fields apart.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.hosts += 1,
            6 if name.eq_ignore_ascii_case(b"expect") && !value.eq_ignore_ascii_case(b"100-continue") => {
                return Err(FramingViolation::UnsupportedExpectation);
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
            10 if name.eq_ignore_ascii_case(b"connection") => {
                self.connection_upgrade |=
                    members(value).any(|option| option.eq_ignore_ascii_case(b"upgrade"));
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = content_length(value)?;
                if self.content_length.is_some_and(|earlier| earlier != length) {
                    return Err(FramingViolation::ContentLengthMismatch);
                }
                self.content_length = Some(length);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.http_10 {
                    return Err(FramingViolation::TransferEncodingInHttp10);
                }
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(FramingViolation::TransferEncoding);
                }
                self.chunked = true;
            }
            _ => {}
        }
        if self.chunked && self.content_length.is_some() {
            return Err(FramingViolation::LengthAndEncoding);
        }
        Ok(())
    }

    /// What comes after the head.
    pub(super) fn body(&self) -> Result<State, FramingViolation> {
        if self.hosts != 1 {
            return Err(FramingViolation::HostCount);
        }
        Ok(match self.content_length {
            _ if self.chunked => State::ChunkSize,
            Some(left) if left > 0 => State::Body { left },
            _ if self.upgrade && self.connection_upgrade && !self.http_10 => State::UpgradePending,
            _ => State::Head(HeadReader::request()),
        })
    }
}

fn content_length(value: &[u8]) -> Result<u64, FramingViolation> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(FramingViolation::ContentLength);
    }
    value
        .iter()
        .try_fold(0u64, |length, digit| length.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
        // Some parsers count in signed 64 bits.
        .filter(|&length| i64::try_from(length).is_ok())
        .ok_or(FramingViolation::ContentLength)
}
