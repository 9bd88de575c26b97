//! Which requests are granted: each becomes one of a few commands, or a reason not to.

use backup_repository::nbd_wire::*;

use super::settings::REQUEST_BYTES_MAX;

/// What was agreed on in the handshake, as far as it decides which requests are granted.
#[derive(Clone, Copy, Debug)]
pub(super) struct NegotiatedExport {
    pub(super) size_bytes: u64,
    pub(super) writable: bool,
    pub(super) structured: bool,
    pub(super) base_allocation: bool,
}

/// A granted request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// `whole`: in one chunk.
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
    /// `one`: only the first extent.
    BlockStatus {
        one: bool,
    },
    /// The client ends the connection and wants no answer.
    Disconnect,
}

/// The request is answered with this error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestRejection {
    pub(super) errno: u32,
    pub(super) why: &'static str,
}

/// Checks a request against what was agreed on. What is granted lies within the disk.
pub(super) fn check(request: &Request, terms: &NegotiatedExport) -> Result<Command, RequestRejection> {
    let durable = request.flags & CMD_FLAG_FUA != 0;
    // The protocol lets the flag for durable writes stand on any request, and mean nothing on most.
    let (command, known_flags) = match request.command {
        CMD_READ => (Command::Read { whole: request.flags & CMD_FLAG_DF != 0 }, CMD_FLAG_DF),
        CMD_WRITE => (Command::Write { durable }, 0),
        CMD_WRITE_ZEROES => {
            let allocate = request.flags & CMD_FLAG_NO_HOLE != 0;
            (Command::WriteZeroes { durable, allocate }, CMD_FLAG_NO_HOLE)
        }
        CMD_TRIM => (Command::Trim { durable }, 0),
        CMD_FLUSH => return check_flush(request),
        CMD_CACHE => (Command::Cache, 0),
        CMD_BLOCK_STATUS => {
            (Command::BlockStatus { one: request.flags & CMD_FLAG_REQ_ONE != 0 }, CMD_FLAG_REQ_ONE)
        }
        CMD_DISC => return Ok(Command::Disconnect),
        _ => return refuse(EINVAL, "no such command"),
    };
    let writes =
        matches!(command, Command::Write { .. } | Command::WriteZeroes { .. } | Command::Trim { .. });
    if writes && !terms.writable {
        return refuse(EPERM, "the export is read-only");
    }
    if request.flags & !(known_flags | CMD_FLAG_FUA) != 0 {
        return refuse(EINVAL, "a flag that this command does not have");
    }
    let whole = matches!(command, Command::Read { whole: true });
    if whole && !terms.structured {
        return refuse(EINVAL, "one chunk is impossible without structured replies");
    }
    if matches!(command, Command::BlockStatus { .. }) {
        if !terms.base_allocation {
            return refuse(EINVAL, "no meta context was agreed on");
        }
        if request.length == 0 {
            return refuse(EINVAL, "the range is empty");
        }
    }
    if matches!(command, Command::Read { .. } | Command::Cache) && request.length > REQUEST_BYTES_MAX {
        return refuse(EINVAL, "more than 32 MiB at once");
    }
    match request.offset.checked_add(u64::from(request.length)) {
        Some(end) if end <= terms.size_bytes => Ok(command),
        _ if writes => refuse(ENOSPC, "the range ends beyond the disk"),
        _ => refuse(EINVAL, "the range ends beyond the disk"),
    }
}

fn check_flush(request: &Request) -> Result<Command, RequestRejection> {
    if request.offset != 0 || request.length != 0 || request.flags & !CMD_FLAG_FUA != 0 {
        return refuse(EINVAL, "a flush has no range");
    }
    Ok(Command::Flush)
}

fn refuse(errno: u32, why: &'static str) -> Result<Command, RequestRejection> {
    Err(RequestRejection { errno, why })
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
