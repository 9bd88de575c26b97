//! Snapshots that were read before, in a local file: a snapshot never changes, so each is read once.
//!
//! ```text
//!   FOLDER/<repository id>/snapshots:   ( id 16 | length 4 | contents as in the snapshot | MAC 16 ) …
//! ```
//!
//! It can be thrown away. A record that is damaged, or that another process is just appending, ends the reading; what
//! follows is read from the store again and the file is written anew.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tracing::debug;
use ulid::Ulid;

use crate::format::bytes::Cursor;
use crate::format::packed;
use crate::format::snapshot::{Contents, Snapshot, SnapshotId};
use crate::keys::Keys;

const FILE: &str = "snapshots";
const MAC_BYTES: usize = 16;

/// What the file holds.
#[derive(Default)]
pub(super) struct Catalogue {
    pub(super) known: HashMap<SnapshotId, Contents>,
    /// Whether all of it could be read.
    pub(super) whole: bool,
}

fn path(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

fn mac(keys: &Keys, record: &[u8]) -> [u8; MAC_BYTES] {
    let mut hasher = blake3::Hasher::new_keyed(&keys.cache_key());
    hasher.update(b"snapshot").update(record);
    *hasher.finalize().as_bytes().first_chunk().expect("a hash is longer than its beginning")
}

fn encode(keys: &Keys, snapshot: &Snapshot, out: &mut Vec<u8>) {
    let start = out.len();
    let contents = packed::body(&snapshot.contents);
    out.extend_from_slice(&snapshot.id.ulid().to_bytes());
    out.extend_from_slice(&(contents.len() as u32).to_le_bytes());
    out.extend_from_slice(&contents);
    let mac = mac(keys, &out[start..]);
    out.extend_from_slice(&mac);
}

/// One record and what follows it.
fn decode<'a>(keys: &Keys, bytes: &'a [u8]) -> Option<(Snapshot, &'a [u8])> {
    let mut cursor = Cursor::new(bytes, "catalogue");
    let id = Ulid::from_bytes(cursor.array().ok()?);
    let length = cursor.u32().ok()? as usize;
    let contents_at = 16 + 4;
    let mac_at = contents_at + length;
    let found = bytes.get(mac_at..mac_at + MAC_BYTES)?;
    if mac(keys, &bytes[..mac_at]) != found {
        return None;
    }
    let contents = packed::decode(&bytes[contents_at..mac_at], "snapshot").ok()?;
    Some((Snapshot { id: id.into(), contents }, &bytes[mac_at + MAC_BYTES..]))
}

impl Catalogue {
    /// Reads the file, as far as it can be read.
    pub(super) fn load(folder: &Path, keys: &Keys) -> Catalogue {
        let Ok(bytes) = fs::read(path(folder)) else {
            return Catalogue { whole: true, ..Catalogue::default() };
        };
        let mut catalogue = Catalogue::default();
        let mut rest = bytes.as_slice();
        while let Some((snapshot, behind)) = decode(keys, rest) {
            catalogue.known.insert(snapshot.id, snapshot.contents);
            rest = behind;
        }
        catalogue.whole = rest.is_empty();
        catalogue
    }
}

/// Notes snapshots that were read from the store, in a file that had so many records and was whole or not. `all` is
/// everything there is now. A note that cannot be made costs only another reading.
pub(super) fn note(folder: &Path, keys: &Keys, had: usize, whole: bool, all: &[Snapshot], new: &[Snapshot]) {
    let stale = had + new.len() > 2 * all.len() + 16;
    let outcome = if whole && !stale { append(folder, keys, new) } else { write_anew(folder, keys, all) };
    if let Err(error) = outcome {
        debug!(%error, "the local list of snapshots could not be written");
    }
}

fn records(keys: &Keys, snapshots: &[Snapshot]) -> Vec<u8> {
    let mut out = Vec::new();
    snapshots.iter().for_each(|snapshot| encode(keys, snapshot, &mut out));
    out
}

fn append(folder: &Path, keys: &Keys, new: &[Snapshot]) -> std::io::Result<()> {
    if new.is_empty() {
        return Ok(());
    }
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path(folder))?;
    file.write_all(&records(keys, new))
}

fn write_anew(folder: &Path, keys: &Keys, all: &[Snapshot]) -> std::io::Result<()> {
    let beside = path(folder).with_extension(format!("{}.new", std::process::id()));
    let mut file: File =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(&records(keys, all))?;
    fs::rename(&beside, path(folder))
}
