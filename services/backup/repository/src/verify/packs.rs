//! Reading packs whole.

use std::collections::HashMap;
use std::sync::Arc;

use futures::TryStreamExt;
use tokio::task::spawn_blocking;

use super::chunks::check_all;
use super::rolling::verified_times;
use super::{HELD, Problem, Verification, VerifyError};
use crate::Damage;
use crate::format::pack::{self, Directory, FOOTER_BYTES, Footer};
use crate::ids::PackId;
use crate::index::{IndexError, ListedPack, Location};
use crate::lease;
use crate::object_times::TimestampsById;
use crate::progress::raise;
use crate::restore::ReadError;
use crate::settings::PACK_BYTES_TARGET;
use crate::shared::Shared;
use crate::store::{StoreError, names};

impl Verification<'_> {
    /// Reads packs whole, and records the intact ones, also when the verification ends early.
    pub(super) async fn packs_recorded(
        &self,
        chosen: HashMap<PackId, ListedPack>,
        there: &HashMap<PackId, ListedPack>,
    ) -> Result<(), VerifyError> {
        self.progress.expect_bytes(chosen.values().map(|pack| pack.bytes).sum());
        let now = lease::store_clock(&self.shared.store).await?;
        let read = self.packs(chosen).await;
        let good: TimestampsById =
            self.good.lock().expect(HELD).iter().map(|pack| (*pack.as_bytes(), now)).collect();
        verified_times(&self.shared.store, &self.shared.keys())
            .add(&good, |name| there.contains_key(&PackId::from(*name)))
            .await
            .map_err(ReadError::Index)?;
        read
    }

    async fn packs(&self, listed: HashMap<PackId, ListedPack>) -> Result<(), VerifyError> {
        let in_flight = self.shared.settings.memory_bytes_max / (2 * PACK_BYTES_TARGET);
        futures::stream::iter(listed.into_iter().map(Ok))
            .try_for_each_concurrent(in_flight.clamp(1, 8), |(id, listed)| self.pack(id, listed))
            .await
    }

    /// Reads one pack whole.
    async fn pack(&self, id: PackId, listed: ListedPack) -> Result<(), VerifyError> {
        let name = names::pack(listed.kind, id).to_string();
        let object = match self.shared.store.get(&names::pack(listed.kind, id)).await {
            Ok(object) => object,
            // Deleted since it was listed: the check of the snapshots shows whether it is needed.
            Err(StoreError::NotFound { .. }) => {
                self.progress.done(listed.bytes);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        raise(&self.progress.read_bytes, object.len() as u64);
        let shared = Arc::clone(self.shared);
        let (found, damage) = spawn_blocking(move || {
            let directory = directory_in(&shared, id, listed, &object);
            let places = match &directory {
                Ok(directory) => located(directory),
                Err(_) => shared.index.read().expect(HELD).blobs_in(id)?,
            };
            let checked = check_all(&shared, &places, &object, 0);
            Ok::<_, IndexError>((checked, directory.err()))
        })
        .await
        .expect("checking a pack does not panic")
        .map_err(ReadError::Index)?;
        if damage.is_none() && found.iter().all(|(_, checked)| checked.is_ok()) {
            self.good.lock().expect(HELD).insert(id);
        }
        if let Some(damage) = damage {
            self.problem(Problem::Pack { name: name.clone(), damage });
        }
        let mut report = self.report.lock().expect(HELD);
        report.packs += 1;
        report.blobs += found.len() as u64;
        drop(report);
        for (blob, checked) in found {
            if let Err(damage) = checked {
                self.bad_blob(&name, blob, damage);
            }
        }
        self.progress.done(listed.bytes);
        Ok(())
    }
}

/// The directory at the end of a whole pack.
pub(super) fn directory_in(
    shared: &Shared,
    id: PackId,
    listed: ListedPack,
    object: &[u8],
) -> Result<Directory, Damage> {
    let short = Damage::Malformed { what: "pack", why: "it is shorter than a footer" };
    let footer = object.last_chunk::<FOOTER_BYTES>().ok_or(short)?;
    let footer = Footer::decode(id, listed.kind, object.len() as u64, footer)?;
    let range = footer.directory();
    pack::decrypt_directory(&shared.keys(), &footer, &object[range.start as usize..range.end as usize])
}

pub(super) fn located(directory: &Directory) -> Vec<Location> {
    let place = |(slot, offset, entry): (u32, u32, &pack::Entry)| Location {
        pack: directory.descriptor,
        slot,
        offset,
        entry: *entry,
    };
    directory.placed().map(place).collect()
}
