//! Decrypting and hashing chunks.

use std::sync::Arc;

use futures::TryStreamExt;
use tokio::task::spawn_blocking;

use super::{HELD, Verification, VerifyError, damage_of};
use crate::Damage;
use crate::format::pack::decrypt_blob;
use crate::ids::BlobId;
use crate::index::Location;
use crate::progress::raise;
use crate::restore::fetch;
use crate::restore::plan::{self, BlobPositions, PackRangeRead};
use crate::shared::Shared;
use crate::store::names;

impl Verification<'_> {
    /// Reads chunks and reports the bad ones.
    pub(super) async fn read_chunks(&self, places: &BlobPositions) -> Result<(), VerifyError> {
        let known = {
            let index = self.shared.index.read().expect(HELD);
            let mut known = BlobPositions::default();
            for (asked, at) in places {
                match asked.find(&index) {
                    Ok(_) => {
                        known.insert(*asked, at.clone());
                    }
                    // What the index lacks cannot be read; the caller reports it.
                    Err(error) => {
                        damage_of(error)?;
                    }
                }
            }
            known
        };
        let reads = plan::planned(self.shared, known).await?;
        let in_flight = self.shared.settings.ranges_in_flight();
        futures::stream::iter(reads.into_iter().map(Ok))
            .try_for_each_concurrent(in_flight, |read| self.read_range(read))
            .await
    }

    async fn read_range(&self, read: PackRangeRead) -> Result<(), VerifyError> {
        let name = names::pack(read.pack.kind, read.pack.id).to_string();
        let object = match fetch::range(self.shared, &read).await {
            Ok(object) => object,
            Err(error) => {
                let damage = damage_of(error)?;
                for blob in &read.blobs {
                    self.bad_blob(&name, blob.location.entry.id, damage.clone());
                }
                return Ok(());
            }
        };
        raise(&self.progress.read_bytes, object.len() as u64);
        let shared = Arc::clone(self.shared);
        let checked = spawn_blocking(move || {
            let places: Vec<_> = read.blobs.iter().map(|blob| blob.location).collect();
            check_all(&shared, &places, &object, read.range.start)
        })
        .await
        .expect("checking chunks does not panic");
        self.report.lock().expect(HELD).blobs += checked.len() as u64;
        for (id, checked) in checked {
            if let Err(damage) = checked {
                self.bad_blob(&name, id, damage);
            }
        }
        Ok(())
    }
}

/// Decrypts and hashes blobs of one pack, in bytes that begin at `start` of it.
pub(super) fn check_all(
    shared: &Shared,
    places: &[Location],
    bytes: &[u8],
    start: u64,
) -> Vec<(BlobId, Result<(), Damage>)> {
    let keys = shared.keys();
    let key = places.first().map(|place| place.pack.key(&keys));
    let check = |place: &Location| {
        let key =
            key.as_ref().expect("there is a place, so there is a key").as_ref().map_err(Clone::clone)?;
        let at = (u64::from(place.offset) - start) as usize;
        let end = at + place.entry.encrypted_bytes as usize;
        let cut_off = Damage::Malformed { what: "pack", why: "it ends before this blob does" };
        let mut encrypted = bytes.get(at..end).ok_or(cut_off)?.to_vec();
        decrypt_blob(&keys, key, place.pack.id, place.slot, &place.entry, &mut encrypted).map(drop)
    };
    places.iter().map(|place| (place.entry.id, check(place))).collect()
}
