//! Quarantine: damaged packs are moved aside, and their intact blobs are saved.
//!
//! ```text
//!   damaged pack ──good blobs──> new pack, index shard;   then the pack itself ──> quarantine/ID, where it is no pack
//! ```
//!
//! Lost blobs are then unknown to the index, so the next backup of a disk that still has them stores them again under the
//! same ids, and every snapshot that refers to them is whole again. As long as something is in quarantine, a backup checks
//! that everything its parent refers to exists before it reuses anything.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::spawn_blocking;
use tracing::{instrument, warn};

use super::packs::{directory_in, located};
use super::{HELD, Problem, VerifyReport};
use crate::damage::WriteOnly;
use crate::format::blob;
use crate::format::pack::{self, NewPackParams, PackWriter};
use crate::ids::{BlobId, PackId};
use crate::index::{self, IndexError, ListedPack, Location};
use crate::repository::Repository;
use crate::restore::ReadError;
use crate::shared::Shared;
use crate::store::{StoreError, names};

/// No more lost blobs are named than this; all are counted.
const LOST_NAMED_MAX: usize = 1000;

/// What a quarantine did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuarantineReport {
    /// Names under which the packs are now found.
    pub packs: Vec<String>,
    /// Blobs that were intact and are in new packs.
    pub blobs_saved: u64,
    /// Blobs that were not, and are in no other pack.
    pub blobs_lost: u64,
    /// The first of them, at most a thousand.
    pub lost_blob_ids: Vec<BlobId>,
}

impl Repository {
    /// Moves packs aside that a verification found damaged. Safe beside backups and collections; run again after a crash it
    /// continues.
    ///
    /// # Errors
    /// When this key is write-only or the store fails.
    #[instrument(name = "repository.quarantine", skip_all)]
    pub async fn quarantine(&self, found: &VerifyReport) -> Result<QuarantineReport, ReadError> {
        if !self.can_read() {
            return Err(ReadError::WriteOnly(WriteOnly));
        }
        let damaged = |problem: &Problem| match problem {
            Problem::Pack { name, .. } | Problem::Blob { pack: name, .. } => Some(name.clone()),
            Problem::Snapshot { .. } | Problem::Disk { .. } => None,
        };
        let mut names: Vec<_> = found.problems.iter().filter_map(damaged).collect();
        names.sort();
        names.dedup();
        self.refresh().await?;
        let listed = index::list_packs(&self.shared.store).await?;
        let mut report = QuarantineReport::default();
        let mut lost = Vec::new();
        for name in names {
            let pack = object_store::path::Path::from(name.as_str());
            let Some(id) = names::pack_id(&pack) else { continue };
            let Some(listed) = listed.get(&id) else { continue };
            self.quarantine_one(id, *listed, &mut report, &mut lost).await?;
        }
        self.refresh().await?;
        let index = self.shared.index.read().expect(HELD);
        for id in lost {
            if index.find(&id)?.is_none() {
                report.blobs_lost += 1;
                if report.lost_blob_ids.len() < LOST_NAMED_MAX {
                    report.lost_blob_ids.push(id);
                }
            }
        }
        Ok(report)
    }

    async fn quarantine_one(
        &self,
        id: PackId,
        listed: ListedPack,
        report: &mut QuarantineReport,
        lost: &mut Vec<BlobId>,
    ) -> Result<(), ReadError> {
        let Shared { store, cache, .. } = &*self.shared;
        let name = names::pack(listed.kind, id);
        let object = match store.get(&name).await {
            Ok(object) => object,
            // Deleted by a collection, or quarantined by another process.
            Err(StoreError::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let (shared, bytes) = (Arc::clone(&self.shared), object.clone());
        let salvaged = spawn_blocking(move || salvage(&shared, id, listed, &bytes));
        let Salvaged { pack, saved, bad } = salvaged.await.expect("decrypting blobs does not panic")?;
        if let Some((object, directory)) = pack {
            let head = directory.descriptor;
            store.put_locked(&names::pack(head.kind, head.id), Bytes::from(object)).await?;
            index::put_shard(None, store, &self.shared.keys(), cache, vec![directory]).await?;
        }
        let place = names::quarantined(id);
        store.put(&place, object).await?;
        store.delete(&name).await?;
        warn!(pack = %name, saved, lost = bad.len(), "a damaged pack is in quarantine");
        report.packs.push(place.to_string());
        report.blobs_saved += saved;
        lost.extend(bad);
        Ok(())
    }
}

struct Salvaged {
    pack: Option<(Vec<u8>, pack::Directory)>,
    saved: u64,
    bad: Vec<BlobId>,
}

/// Copies every blob that decrypts into a new pack. Where the directory is damaged, the index lists the blobs.
fn salvage(shared: &Shared, id: PackId, listed: ListedPack, object: &[u8]) -> Result<Salvaged, IndexError> {
    let keys = shared.keys();
    let places = match directory_in(shared, id, listed, object) {
        Ok(directory) => located(&directory),
        Err(_) => shared.index.read().expect(HELD).blobs_in(id)?,
    };
    let key = places.first().and_then(|place| place.pack.key(&keys).ok());
    let writer = PackWriter::new(&keys, listed.kind, &NewPackParams::generate(), object.len());
    let (Some(key), Ok(mut writer)) = (key, writer) else {
        return Ok(Salvaged {
            pack: None,
            saved: 0,
            bad: places.iter().map(|place| place.entry.id).collect(),
        });
    };
    let mut outcomes: HashMap<BlobId, bool> = HashMap::new();
    for Location { slot, offset, entry, .. } in &places {
        let at = *offset as usize;
        let mut encrypted = object.get(at..at + entry.encrypted_bytes as usize).unwrap_or_default().to_vec();
        let text = pack::decrypt_encoded(&key, id, *slot, entry, &mut encrypted).and_then(|text| {
            blob::decode(&keys, entry.kind, entry.id, entry.raw_bytes as usize, text)?;
            Ok(text.to_vec())
        });
        let is_good = text.is_ok();
        if let Ok(text) = text {
            writer.add(entry.kind, entry.id, entry.raw_bytes as usize, text);
        }
        outcomes.insert(entry.id, is_good);
    }
    let saved = outcomes.values().filter(|good| **good).count() as u64;
    let bad = outcomes.into_iter().filter(|(_, good)| !good).map(|(id, _)| id).collect();
    Ok(Salvaged { pack: (saved > 0).then(|| writer.finish()), saved, bad })
}
