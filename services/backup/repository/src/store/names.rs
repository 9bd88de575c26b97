//! Every object name, built in one place.
//!
//! ```text
//!   config                   what kind of repository this is, written last by `init`
//!   keys/REPOSITORY/NUMBER   the key roster; the highest number counts
//!   data/AB/ABCD…            packs of disk chunks, 256 prefixes
//!   meta/AB/ABCD…            packs of recipes
//!   index/ID                 shards: which pack holds which blob
//!   snapshots/ID             one backup each; exists = the backup exists
//!   holds/ID                 the snapshot of that id must not be forgotten
//!   leases/ID/begun, beat, dead    a running backup, see lease.rs
//!   condemned/ID/packs, waits  packs to be deleted, and the leases that must end before
//!   quarantine/ID            packs that were found damaged; they are not read
//!   verified/ID              when packs were verified
//!   locked/ID                until when packs and snapshots are locked
//!   probe/ID                 what `init` tries the store out with; removed at once
//! ```
//!
//! REPOSITORY and packs are 16 bytes in lower-case hexadecimal, AB the first two digits of the pack's name, NUMBER has
//! eight decimal digits or more, ID is a ULID in lower case. Names have no leading slash.

use object_store::path::Path;
use ulid::Ulid;

use crate::format::pack::PackKind;
use crate::ids::{PackId, RepositoryId};

/// The folder of the leases.
pub(crate) const LEASES: &str = "leases";
/// The folder of the lists of packs that are to be deleted.
pub(crate) const CONDEMNED: &str = "condemned";
/// The folder of holds on snapshots.
pub(crate) const HOLDS: &str = "holds";
/// The folder of the times of verifications.
pub(crate) const VERIFIED: &str = "verified";
/// The folder of the times of locks.
pub(crate) const LOCKED: &str = "locked";
/// The folder of index shards.
pub(crate) const INDEX: &str = "index";
/// The folder of key rosters.
pub(crate) const KEYS: &str = "keys";
/// The folder of probe objects.
pub(crate) const PROBE: &str = "probe";
/// The folder of snapshots.
pub(crate) const SNAPSHOTS: &str = "snapshots";

/// Every folder of a repository.
pub(super) const FOLDERS: [&str; 12] =
    [KEYS, "data", "meta", INDEX, SNAPSHOTS, HOLDS, LEASES, CONDEMNED, QUARANTINE, VERIFIED, LOCKED, PROBE];

/// The objects without which a backup cannot be read; the rest can be rebuilt.
pub(super) fn essential() -> [Path; 5] {
    ["config", KEYS, "data", "meta", SNAPSHOTS].map(Path::from)
}

/// The object that makes a location a repository.
pub(crate) fn config() -> Path {
    Path::from("config")
}

/// A folder as a listing prefix.
pub(crate) fn folder(name: &str) -> Path {
    Path::from(name)
}

/// The rosters of a repository.
pub(crate) fn rosters(repository: RepositoryId) -> Path {
    Path::from(format!("{KEYS}/{repository}"))
}

/// One roster of a repository.
pub(crate) fn roster(repository: RepositoryId, number: u64) -> Path {
    Path::from(format!("{KEYS}/{repository}/{number:08}"))
}

/// The number in a name made by [`roster`]; `None` for any other name.
pub(crate) fn roster_number(path: &Path) -> Option<u64> {
    path.filename()?.parse().ok()
}

/// The object `folder/id`.
pub(crate) fn entry(folder: &str, id: Ulid) -> Path {
    Path::from(format!("{folder}/{}", id.to_string().to_lowercase()))
}

/// The id at the end of a name made by [`entry`]; `None` for any other name.
pub(crate) fn entry_id(path: &Path) -> Option<Ulid> {
    Ulid::from_string(path.filename()?).ok()
}

fn pack_folder(kind: PackKind) -> &'static str {
    match kind {
        PackKind::Data => "data",
        PackKind::Meta => "meta",
    }
}

/// The folder of the packs of a kind.
pub(crate) fn packs(kind: PackKind) -> Path {
    Path::from(pack_folder(kind))
}

/// The object of one pack.
pub(crate) fn pack(kind: PackKind, id: PackId) -> Path {
    let name = id.to_string();
    Path::from(format!("{}/{}/{name}", pack_folder(kind), &name[..2]))
}

/// The folder of packs that were found damaged.
pub(crate) const QUARANTINE: &str = "quarantine";

/// The object of a quarantined pack.
pub(crate) fn quarantined(id: PackId) -> Path {
    Path::from(format!("{QUARANTINE}/{id}"))
}

/// The pack id in a name made by [`pack`]; `None` for any other name.
pub(crate) fn pack_id(path: &Path) -> Option<PackId> {
    path.filename()?.parse().ok()
}
