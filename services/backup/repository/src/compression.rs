//! How new blobs are compressed. The writer chooses; a reader needs no setting.
//!
//! ```text
//!   content ──zstd at a level──> shorter by 4 % or more?  yes: the frame    no: as it is
//!           ──none─────────────────────────────────────────────────────────> as it is
//! ```
//!
//! Ids are hashes of contents, not of stored bytes, so the level may change at any time: stored blobs stay as they are.

use std::cell::RefCell;
use std::fmt;
use std::str::FromStr;

use zstd::bulk::Compressor;

/// zstd's fastest standard level: compression limits the speed of a first backup, and higher levels gain little.
const LEVEL_DEFAULT: u8 = 1;
/// zstd calls levels above this "ultra": they want far more memory, for contents far larger than a blob.
const LEVEL_MAX: u8 = 19;
/// Compressed text must be shorter than the raw one by at least one part in this, else it does not pay.
const WORTH_ONE_PART_IN: usize = 25;

/// How new blobs are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all: for disks whose data is compressed or encrypted already.
    None,
    /// By zstd (RFC 8878).
    Zstd(ZstdLevel),
}

/// A level of zstd from 1, the fastest, to 19, the smallest. Measured on one core, with numbers that compress to two
/// thirds:
///
/// | level | a disk's chunk of 64 KiB | | a stream's of 4 MiB | | a worker's context |
/// | --- | --- | --- | --- | --- | --- |
/// | 1 | 0.3 ms | 42.8 kB | 6 ms | 2.79 MB | 0.6 MiB |
/// | 3 | 0.5 ms | 41.3 kB | 28 ms | 2.71 MB | 1.2 MiB |
/// | 9 | 1.9 ms | 40.8 kB | 137 ms | 2.54 MB | 10 MiB |
/// | 19 | 7.2 ms | 40.3 kB | 2.2 s | 2.48 MB | 50 MiB; for disks alone 5 MiB |
///
/// The contexts come on top of the memory that [`EngineSettings`](crate::EngineSettings) bounds, one for each worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ZstdLevel(u8);

/// The text names no compression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown compression {0:?}: use `none`, or a zstd level from 1 (fast) to {LEVEL_MAX} (small)")]
pub struct ParseCompressionError(String);

impl Default for ZstdLevel {
    fn default() -> ZstdLevel {
        ZstdLevel(LEVEL_DEFAULT)
    }
}

impl Default for Compression {
    /// zstd at its fastest level.
    fn default() -> Compression {
        Compression::Zstd(ZstdLevel::default())
    }
}

impl TryFrom<u8> for ZstdLevel {
    type Error = ParseCompressionError;

    fn try_from(level: u8) -> Result<ZstdLevel, ParseCompressionError> {
        match level {
            1..=LEVEL_MAX => Ok(ZstdLevel(level)),
            _ => Err(ParseCompressionError(level.to_string())),
        }
    }
}

impl FromStr for Compression {
    type Err = ParseCompressionError;

    /// `none`, or a level.
    fn from_str(text: &str) -> Result<Compression, ParseCompressionError> {
        if text == "none" {
            return Ok(Compression::None);
        }
        let level = text.parse().ok().and_then(|level: u8| ZstdLevel::try_from(level).ok());
        level.map(Compression::Zstd).ok_or_else(|| ParseCompressionError(text.to_owned()))
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Compression::None => f.write_str("none"),
            Compression::Zstd(ZstdLevel(level)) => level.fmt(f),
        }
    }
}

/// A worker's context, and the level it is set to.
struct Worker {
    compressor: Compressor<'static>,
    level: ZstdLevel,
}

thread_local! {
    /// Making a context costs more than compressing a chunk; each worker thread keeps one.
    static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
}

impl Compression {
    /// Compresses `content` into `frame`, which must have the size that [`bound`] says. How long the frame is; `None`
    /// where it does not pay.
    pub(crate) fn compress(self, content: &[u8], frame: &mut [u8]) -> Option<usize> {
        let Compression::Zstd(level) = self else { return None };
        let frame_bytes = WORKER.with_borrow_mut(|worker| {
            let worker = match worker {
                Some(worker) if worker.level == level => worker,
                other => other.insert(Worker::at(level)),
            };
            worker.compressor.compress_to_buffer(content, frame)
        });
        let frame_bytes = frame_bytes.expect("the buffer has the size that zstd asks for");
        (frame_bytes + content.len() / WORTH_ONE_PART_IN <= content.len()).then_some(frame_bytes)
    }

    /// The most bytes that compressing so many may take.
    pub(crate) fn bound(self, content_bytes: usize) -> usize {
        match self {
            Compression::None => content_bytes,
            Compression::Zstd(_) => zstd::zstd_safe::compress_bound(content_bytes),
        }
    }
}

impl Worker {
    fn at(level: ZstdLevel) -> Worker {
        let compressor = Compressor::new(level.0.into());
        Worker { compressor: compressor.expect("the level exists and a context fits in memory"), level }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_one_that_zstd_has_or_an_error_that_names_the_choice() {
        for text in ["none", "1", "19"] {
            assert_eq!(text.parse::<Compression>().expect("there is one").to_string(), text);
        }
        for text in ["", "0", "20", "-1", "257", "fast", "None"] {
            let error = text.parse::<Compression>().expect_err(text).to_string();
            assert!(error.contains("from 1 (fast) to 19 (small)"), "{error}");
        }
        assert_eq!(Compression::default().to_string(), "1");
    }

    #[test]
    fn one_thread_compresses_at_whatever_level_is_wanted_next() {
        let content: Vec<u8> = (0..20_000u32).flat_map(|n| (n * n % 1009).to_le_bytes()).collect();
        let bytes_at = |text: &str| {
            let compression: Compression = text.parse().expect("there is one");
            let mut frame = vec![0; compression.bound(content.len())];
            let bytes = compression.compress(&content, &mut frame)?;
            assert_eq!(zstd::bulk::decompress(&frame[..bytes], content.len()).expect("a frame"), content);
            Some(bytes)
        };
        let (fast, small) = (bytes_at("1").expect("it pays"), bytes_at("19").expect("it pays"));
        assert!(small < fast, "{small} {fast}");
        assert_eq!(bytes_at("none"), None);
        assert_eq!(bytes_at("1"), Some(fast));
    }
}
