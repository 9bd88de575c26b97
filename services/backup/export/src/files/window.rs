//! A part of a disk as something a blocking reader can read, with what was read lately kept in memory.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use backup_repository::DiskSource;
use bytes::Bytes;
use tokio::runtime::Handle;

/// The disk is read in blocks of this size at multiples of it.
const BLOCK_BYTES: u64 = 64 * 1024;
/// Kept blocks: 16 MiB.
const BLOCKS_KEPT_MAX: usize = 256;
/// Where blocks are asked for one after the other, so many are read at once: a distant store is slow with small reads.
const AHEAD_BLOCKS: u64 = 16;
/// Reading the metadata of a whole and sound file system stays below this; a damaged one may refer to itself.
pub(super) const METADATA_BYTES_MAX: u64 = 2 << 30;

/// Read by one thread at a time, which may block.
pub(super) struct Window {
    disk: Arc<dyn DiskSource>,
    runtime: Handle,
    range: Range<u64>,
    kept: HashMap<u64, (Bytes, u64)>,
    turn: u64,
    last_missed: Option<u64>,
    allowance_bytes: u64,
}

impl Window {
    /// A window on a range of the disk. To be made on a thread of a tokio runtime, and read on a blocking one.
    pub(super) fn new(disk: &Arc<dyn DiskSource>, range: Range<u64>) -> Window {
        let range = range.start.min(disk.size_bytes())..range.end.min(disk.size_bytes());
        Window {
            disk: Arc::clone(disk),
            runtime: Handle::current(),
            range,
            kept: HashMap::new(),
            turn: 0,
            last_missed: None,
            allowance_bytes: METADATA_BYTES_MAX,
        }
    }

    /// The same disk, seen through a smaller window.
    pub(super) fn narrowed(self, range: Range<u64>) -> Window {
        Window { range, ..self }
    }

    /// How much may be read through it from now on.
    pub(super) fn allow(mut self, bytes: u64) -> Window {
        self.allowance_bytes = bytes;
        self
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Fills the buffer from `offset` of the window on.
    pub(super) fn read_exact_at(&mut self, offset: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        let length = buffer.len() as u64;
        if offset.checked_add(length).is_none_or(|end| end > self.size_bytes()) {
            let why = format!("{length} bytes at {offset} lie beyond the end");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
        }
        self.allowance_bytes = self.allowance_bytes.checked_sub(length).ok_or_else(|| {
            io::Error::other("reading its metadata takes more bytes than any sound file system has")
        })?;
        let mut at = self.range.start + offset;
        while !buffer.is_empty() {
            let block = self.block(at / BLOCK_BYTES)?;
            let from = (at % BLOCK_BYTES) as usize;
            let here = buffer.len().min(block.len() - from);
            let (part, rest) = buffer.split_at_mut(here);
            part.copy_from_slice(&block[from..from + here]);
            buffer = rest;
            at += here as u64;
        }
        Ok(())
    }

    /// The first bytes, up to `length` or the end.
    pub(super) fn head(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut head = vec![0; self.size_bytes().min(length as u64) as usize];
        self.read_exact_at(0, &mut head)?;
        Ok(head)
    }

    fn block(&mut self, number: u64) -> io::Result<Bytes> {
        self.turn += 1;
        if let Some((block, used)) = self.kept.get_mut(&number) {
            *used = self.turn;
            return Ok(block.clone());
        }
        let follows = self.last_missed.is_some_and(|last| last + 1 == number);
        let blocks = if follows { AHEAD_BLOCKS } else { 1 };
        let start = number * BLOCK_BYTES;
        let end = self.disk.size_bytes().min(start + blocks * BLOCK_BYTES);
        let length = (end - start) as usize;
        let bytes = self.runtime.block_on(self.disk.read_at(start, length)).map_err(io::Error::other)?;
        if bytes.len() != length {
            return Err(io::Error::other(format!("a read of {length} bytes gave {}", bytes.len())));
        }
        self.last_missed = Some((end - 1) / BLOCK_BYTES);
        for at in (0..length).step_by(BLOCK_BYTES as usize) {
            let block = bytes.slice(at..length.min(at + BLOCK_BYTES as usize));
            self.keep(number + at as u64 / BLOCK_BYTES, block);
        }
        Ok(bytes.slice(..length.min(BLOCK_BYTES as usize)))
    }

    fn keep(&mut self, number: u64, block: Bytes) {
        if self.kept.len() >= BLOCKS_KEPT_MAX {
            let oldest = self.kept.iter().min_by_key(|(_, (_, used))| *used).map(|(number, _)| *number);
            if let Some(oldest) = oldest {
                self.kept.remove(&oldest);
            }
        }
        self.kept.insert(number, (block, self.turn));
    }
}
