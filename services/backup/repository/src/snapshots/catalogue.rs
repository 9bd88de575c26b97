//! A local cache of snapshots: a snapshot never changes, so each is read from the store once.
//!
//! ```text
//!   FOLDER/<repository id>/snapshots:   ( id 16 | length 1 | version | length 4 | contents | MAC 16 ) …
//!
//!   version    the object's entity tag when it was listed; empty where it was not asked for
//!   contents   as in the snapshot
//! ```
//!
//! An id can come twice, when a backup was removed and another sealed under its id: callers that rely on contents compare
//! versions. Of two records of one id the later one is valid.
//!
//! It can be deleted. A record that is damaged, or that another process is just appending, ends the reading; what follows
//! is read from the store again and the file is rewritten.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tracing::debug;
use ulid::Ulid;

use crate::format::packed;
use crate::format::snapshot::{Snapshot, SnapshotId};
use crate::keys::Keys;
use crate::store::Version;

const FILE: &str = "snapshots";
const MAC_BYTES: usize = 16;

/// A snapshot that was read, and the version of its object, where it was asked for.
#[derive(Clone)]
pub(super) struct CachedSnapshot {
    pub(super) snapshot: Snapshot,
    pub(super) version: Option<Version>,
}

/// The content of the file.
#[derive(Default)]
pub(super) struct SnapshotCache {
    pub(super) snapshots: HashMap<SnapshotId, CachedSnapshot>,
    /// How many records there are.
    pub(super) record_count: usize,
    /// Whether all of it could be read.
    pub(super) fully_read: bool,
}

fn path(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

fn mac(keys: &Keys, record: &[u8]) -> [u8; MAC_BYTES] {
    let mut hasher = blake3::Hasher::new_keyed(&keys.cache_key());
    hasher.update(b"snapshot").update(record);
    *hasher.finalize().as_bytes().first_chunk().expect("a hash is longer than its beginning")
}

fn encode(keys: &Keys, CachedSnapshot { snapshot, version }: &CachedSnapshot, out: &mut Vec<u8>) {
    let start = out.len();
    let contents = packed::body(&snapshot.contents);
    // A version that is too long is as none.
    let version = version.as_deref().filter(|version| version.len() <= usize::from(u8::MAX)).unwrap_or("");
    out.extend_from_slice(&snapshot.id.ulid().to_bytes());
    out.push(version.len() as u8);
    out.extend_from_slice(version.as_bytes());
    out.extend_from_slice(&(contents.len() as u32).to_le_bytes());
    out.extend_from_slice(&contents);
    let mac = mac(keys, &out[start..]);
    out.extend_from_slice(&mac);
}

/// One record and what follows it.
fn decode<'a>(keys: &Keys, bytes: &'a [u8]) -> Option<(CachedSnapshot, &'a [u8])> {
    let (id, rest) = bytes.split_first_chunk()?;
    let (length, rest) = rest.split_first()?;
    let (version, rest) = rest.split_at_checked(usize::from(*length))?;
    let (length, rest) = rest.split_first_chunk()?;
    let (contents, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let record = &bytes[..bytes.len() - rest.len()];
    let (found, rest) = rest.split_first_chunk()?;
    if mac(keys, record) != *found {
        return None;
    }
    let id = Ulid::from_bytes(*id).into();
    let version = String::from_utf8(version.to_vec()).ok().filter(|version| !version.is_empty());
    let contents = packed::decode(contents, "snapshot").ok()?;
    Some((CachedSnapshot { snapshot: Snapshot { id, contents }, version }, rest))
}

impl SnapshotCache {
    /// Reads the file, as far as it can be read.
    pub(super) fn load(folder: &Path, keys: &Keys) -> SnapshotCache {
        let Ok(bytes) = fs::read(path(folder)) else {
            return SnapshotCache { fully_read: true, ..SnapshotCache::default() };
        };
        let mut catalogue = SnapshotCache::default();
        let mut rest = bytes.as_slice();
        while let Some((known, behind)) = decode(keys, rest) {
            catalogue.snapshots.insert(known.snapshot.id, known);
            catalogue.record_count += 1;
            rest = behind;
        }
        catalogue.fully_read = rest.is_empty();
        catalogue
    }
}

/// Adds snapshots that were read from the store to a file with `had` records, which was whole or not. `all` is everything
/// there is now. A failure to write costs only another reading.
pub(super) fn note(
    folder: &Path,
    keys: &Keys,
    had: usize,
    whole: bool,
    all: &[CachedSnapshot],
    new: &[CachedSnapshot],
) {
    let stale = had + new.len() > 2 * all.len() + 16;
    let outcome = if whole && !stale { append(folder, keys, new) } else { write_anew(folder, keys, all) };
    if let Err(error) = outcome {
        debug!(%error, "the local cache of snapshots could not be written");
    }
}

fn records(keys: &Keys, snapshots: &[CachedSnapshot]) -> Vec<u8> {
    let mut out = Vec::new();
    snapshots.iter().for_each(|snapshot| encode(keys, snapshot, &mut out));
    out
}

fn append(folder: &Path, keys: &Keys, new: &[CachedSnapshot]) -> std::io::Result<()> {
    if new.is_empty() {
        return Ok(());
    }
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path(folder))?;
    file.write_all(&records(keys, new))
}

fn write_anew(folder: &Path, keys: &Keys, all: &[CachedSnapshot]) -> std::io::Result<()> {
    let beside = path(folder).with_extension(format!("{}.new", std::process::id()));
    let mut file: File =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(&records(keys, all))?;
    fs::rename(&beside, path(folder))
}
