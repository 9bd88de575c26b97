//! Requests: 28 bytes from outside become one of a few things to do, or a reason not to.

use super::settings::REQUEST_BYTES_MAX;
use super::wire::*;

/// Magic, flags, command, cookie, offset and length.
pub(super) const HEADER_BYTES: usize = 28;

/// What a client asks for, not yet checked against any disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) flags: u16,
    pub(super) command: u16,
    pub(super) cookie: u64,
    pub(super) offset: u64,
    pub(super) length: u32,
}

/// The bytes are no request: where the next one would begin is not known any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRequest;

/// What has been agreed on that decides what may be asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) size_bytes: u64,
    pub(super) writable: bool,
    pub(super) structured: bool,
    pub(super) allocation: bool,
}

/// A request that makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// In one chunk, where asked.
    Read {
        whole: bool,
    },
    /// The data follow the header.
    Write {
        durable: bool,
    },
    WriteZeroes {
        durable: bool,
        allocate: bool,
    },
    Trim {
        durable: bool,
    },
    Flush,
    Cache,
    /// Only the first extent, where asked.
    BlockStatus {
        one: bool,
    },
    /// The client says goodbye and wants no answer.
    Disconnect,
}

/// The request is answered with this error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) errno: u32,
    pub(super) why: &'static str,
}

impl Request {
    pub(super) fn parse(header: &[u8; HEADER_BYTES]) -> Result<Request, NoRequest> {
        let (magic, rest) = take::<4>(header);
        let (flags, rest) = take::<2>(rest);
        let (command, rest) = take::<2>(rest);
        let (cookie, rest) = take::<8>(rest);
        let (offset, rest) = take::<8>(rest);
        let (length, _) = take::<4>(rest);
        if u32::from_be_bytes(magic) != REQUEST_MAGIC {
            return Err(NoRequest);
        }
        Ok(Request {
            flags: u16::from_be_bytes(flags),
            command: u16::from_be_bytes(command),
            cookie: u64::from_be_bytes(cookie),
            offset: u64::from_be_bytes(offset),
            length: u32::from_be_bytes(length),
        })
    }

    /// Bytes that follow the header, whether or not the request is granted.
    pub(super) fn payload_bytes(&self) -> u32 {
        if self.command == CMD_WRITE { self.length } else { 0 }
    }

    /// Checks a request against what was agreed on. What is granted lies within the disk.
    pub(super) fn check(&self, terms: &Terms) -> Result<Command, Refused> {
        let durable = self.flags & CMD_FLAG_FUA != 0;
        // The protocol lets the flag for durable writes stand on any request, and mean nothing on most.
        let (command, known_flags) = match self.command {
            CMD_READ => (Command::Read { whole: self.flags & CMD_FLAG_DF != 0 }, CMD_FLAG_DF),
            CMD_WRITE => (Command::Write { durable }, 0),
            CMD_WRITE_ZEROES => {
                let allocate = self.flags & CMD_FLAG_NO_HOLE != 0;
                (Command::WriteZeroes { durable, allocate }, CMD_FLAG_NO_HOLE)
            }
            CMD_TRIM => (Command::Trim { durable }, 0),
            CMD_FLUSH => return self.check_flush(),
            CMD_CACHE => (Command::Cache, 0),
            CMD_BLOCK_STATUS => {
                (Command::BlockStatus { one: self.flags & CMD_FLAG_REQ_ONE != 0 }, CMD_FLAG_REQ_ONE)
            }
            CMD_DISC => return Ok(Command::Disconnect),
            _ => return refuse(EINVAL, "no such command"),
        };
        let writes =
            matches!(command, Command::Write { .. } | Command::WriteZeroes { .. } | Command::Trim { .. });
        if writes && !terms.writable {
            return refuse(EPERM, "the export is read-only");
        }
        if self.flags & !(known_flags | CMD_FLAG_FUA) != 0 {
            return refuse(EINVAL, "a flag that this command does not have");
        }
        let whole = matches!(command, Command::Read { whole: true });
        if whole && !terms.structured {
            return refuse(EINVAL, "one chunk was asked for without structured replies");
        }
        if matches!(command, Command::BlockStatus { .. }) {
            if !terms.allocation {
                return refuse(EINVAL, "no meta context was agreed on");
            }
            if self.length == 0 {
                return refuse(EINVAL, "nothing was asked about");
            }
        }
        if matches!(command, Command::Read { .. } | Command::Cache) && self.length > REQUEST_BYTES_MAX {
            return refuse(EINVAL, "more than 32 MiB were asked for");
        }
        match self.offset.checked_add(u64::from(self.length)) {
            Some(end) if end <= terms.size_bytes => Ok(command),
            _ if writes => refuse(ENOSPC, "it lies beyond the end of the disk"),
            _ => refuse(EINVAL, "it lies beyond the end of the disk"),
        }
    }

    fn check_flush(&self) -> Result<Command, Refused> {
        if self.offset != 0 || self.length != 0 || self.flags & !CMD_FLAG_FUA != 0 {
            return refuse(EINVAL, "a flush names no place");
        }
        Ok(Command::Flush)
    }
}

fn refuse(errno: u32, why: &'static str) -> Result<Command, Refused> {
    Err(Refused { errno, why })
}

/// Splits off the first bytes, which are there: all lengths add up to the header's.
fn take<const N: usize>(bytes: &[u8]) -> ([u8; N], &[u8]) {
    let (field, rest) = bytes.split_first_chunk().expect("the fields add up to a header");
    (*field, rest)
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
