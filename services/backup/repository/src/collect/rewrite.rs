//! Rewriting packs: needed blobs of sparse packs, and of condemned packs that are needed after all, go into new packs.
//!
//! A new pack holds copies; until the old one is condemned both count, and where both come to be condemned, by us
//! and by a concurrent collection, each finds the other's list before it deletes and keeps the blob. So no lease is
//! needed, and a crash in the middle leaves copies that the next collection deletes.
//!
//! A condemned pack turns out to be needed when a backup that relied on it before is sealed afterwards. No later backup
//! relies on it, and it would stay, waste included, as long as that snapshot; rewritten, it can be deleted.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use tokio::task::spawn_blocking;
use tracing::debug;

use super::marks::LiveBlobs;
use super::{CollectError, CollectReport, CollectSettings, HELD};
use crate::damage::Damage;
use crate::format::blob;
use crate::format::pack::{self, Directory, EMPTY_PACK_BYTES, NewPackParams, PackKind, PackWriter};
use crate::ids::{BlobId, PackId};
use crate::index::{self, ListedPack, Location};
use crate::progress::Progress;
use crate::rebuild::read_directory;
use crate::repository::Repository;
use crate::restore::plan::{self, PackRangeRead, WantedBlob};
use crate::restore::{ReadError, fetch};
use crate::settings::{PACK_BYTES_TARGET, READ_BYTES_MAX};
use crate::shared::Shared;
use crate::store::{StoreError, names};

/// A pack that is worth rewriting.
pub(super) struct SparsePack {
    id: PackId,
    listed: ListedPack,
    /// Bytes that will be copied.
    pub(super) live_bytes: u64,
}

/// New packs of one kind, as they fill.
struct Refill {
    kind: PackKind,
    open: Option<PackWriter>,
    stored: Vec<Directory>,
}

impl Repository {
    /// Rewrites packs, and returns those of which nothing is needed any more.
    pub(super) async fn rewrite(
        &self,
        sparse: Vec<SparsePack>,
        marks: &LiveBlobs,
        progress: &Progress,
        report: &mut CollectReport,
    ) -> Result<Vec<PackId>, CollectError> {
        progress.expect_bytes(sparse.iter().map(|pack| pack.live_bytes).sum());
        let Shared { store, cache, .. } = &*self.shared;
        let keys = self.shared.keys();
        let mut refills = PackKind::ALL.map(|kind| Refill { kind, open: None, stored: Vec::new() });
        let mut emptied = Vec::new();
        // Of a blob that is in condemned packs only, every copy is marked.
        let mut moved = HashSet::new();
        for pack in sparse {
            let refill = &mut refills[pack.listed.kind as usize];
            let outcome = self.move_live(marks, &pack, &mut moved, refill).await;
            progress.done(pack.live_bytes);
            match outcome {
                Ok(()) => {}
                // A concurrent collection was faster: what is needed is elsewhere by now.
                Err(error) if is_gone(&error) => continue,
                Err(error) => return Err(error),
            }
            report.bytes_rewritten += pack.live_bytes;
            debug!(pack = %pack.id, live_bytes = pack.live_bytes, "rewritten");
            report.packs_rewritten += 1;
            emptied.push(pack.id);
        }
        let mut stored = Vec::new();
        for mut refill in refills {
            refill.store(self).await?;
            stored.extend(refill.stored);
        }
        if !stored.is_empty() {
            index::put_shard(None, store, &keys, cache, stored).await?;
        }
        Ok(emptied)
    }

    /// Packs of which little is needed, that are condemned and needed, or that are encrypted with keys of an old epoch where
    /// the settings say so; those that free most for their cost come first, as far as the budget goes.
    pub(super) fn sparse(
        &self,
        frozen: &Repository,
        marks: &LiveBlobs,
        condemned: &HashSet<PackId>,
        packs: &HashMap<PackId, ListedPack>,
        settings: &CollectSettings,
    ) -> Vec<SparsePack> {
        let epoch = self.shared.keys().current().number;
        let can_read = self.can_read();
        let index = frozen.shared.index.read().expect(HELD);
        let mut sparse: Vec<_> = index
            .packs()
            .iter()
            .filter_map(|head| {
                let listed = *packs.get(&head.id)?;
                let live_bytes = marks.live_bytes(&head.id);
                // A small pack that is wholly needed would be no smaller if it were rewritten.
                let needed_bytes = live_bytes + EMPTY_PACK_BYTES as u64;
                let is_sparse = needed_bytes * 100 < listed.bytes * u64::from(settings.rewrite_below_percent);
                let is_old = settings.reencrypt_old_epochs && head.epoch < epoch;
                let may = can_read || head.kind == PackKind::Meta;
                let is_condemned = condemned.contains(&head.id);
                let wanted = live_bytes > 0 && may && (is_sparse || is_old || is_condemned);
                wanted.then_some(SparsePack { id: head.id, listed, live_bytes })
            })
            .collect();
        sparse.sort_by_key(|pack| (pack.live_bytes * 1000 / pack.listed.bytes.max(1), pack.id));
        let mut live_bytes = 0;
        let within = |pack: &&SparsePack| {
            live_bytes += pack.live_bytes;
            live_bytes <= settings.rewrite_bytes_max
        };
        let count = sparse.iter().take_while(within).count();
        sparse.truncate(count);
        sparse
    }

    /// Copies what is needed of a pack.
    async fn move_live(
        &self,
        marks: &LiveBlobs,
        pack: &SparsePack,
        moved: &mut HashSet<BlobId>,
        refill: &mut Refill,
    ) -> Result<(), CollectError> {
        for read in self.live_blobs(marks, pack, moved).await? {
            self.refill(refill, read).await?;
        }
        Ok(())
    }

    /// Reads of the blobs of a pack whose copy here is the one that is needed, and that were not moved before.
    async fn live_blobs(
        &self,
        marks: &LiveBlobs,
        pack: &SparsePack,
        moved: &mut HashSet<BlobId>,
    ) -> Result<Vec<PackRangeRead>, CollectError> {
        let directory = read_directory(&self.shared, pack.id, pack.listed).await?;
        let mut wanted = Vec::new();
        for (slot, offset, entry) in directory.placed() {
            if marks.is_marked(&pack.id, slot) && moved.insert(entry.id) {
                let location = Location { pack: directory.descriptor, slot, offset, entry: *entry };
                wanted.push(WantedBlob { location, positions: Vec::new() });
            }
        }
        Ok(plan::ranges(wanted))
    }

    /// Moves the blobs of one range into the pack that fills.
    async fn refill(&self, refill: &mut Refill, read: PackRangeRead) -> Result<(), CollectError> {
        let object = fetch::range(&self.shared, &read).await?;
        let keys = self.shared.keys();
        let (kind, open) = (refill.kind, refill.open.take());
        let moved = spawn_blocking(move || {
            let name = || names::pack(read.pack.kind, read.pack.id).to_string();
            let damaged = |damage| ReadError::of(damage, name);
            let key = read.pack.key(&keys).map_err(damaged)?;
            let mut writer = match open {
                Some(writer) => writer,
                None => {
                    let room = PACK_BYTES_TARGET + READ_BYTES_MAX as usize;
                    PackWriter::new(&keys, kind, &NewPackParams::generate(), room).map_err(damaged)?
                }
            };
            for WantedBlob { location: Location { slot, offset, entry, .. }, .. } in &read.blobs {
                let at = (u64::from(*offset) - read.range.start) as usize;
                let mut encrypted = object[at..at + entry.encrypted_bytes as usize].to_vec();
                let text = pack::decrypt_encoded(&key, read.pack.id, *slot, entry, &mut encrypted)
                    .map_err(damaged)?;
                // The copy must match its id, or the old pack stays.
                blob::decode(&keys, entry.kind, entry.id, entry.raw_bytes as usize, text).map_err(damaged)?;
                let text = text.to_vec();
                writer.add(entry.kind, entry.id, entry.raw_bytes as usize, text);
            }
            Ok::<_, ReadError>(writer)
        });
        let writer = moved.await.expect("moving blobs does not panic")?;
        let is_full = writer.len() >= PACK_BYTES_TARGET;
        refill.open = Some(writer);
        if is_full { refill.store(self).await } else { Ok(()) }
    }
}

/// Whether a pack was deleted since it was listed.
fn is_gone(error: &CollectError) -> bool {
    matches!(
        error,
        CollectError::Rewrite(
            ReadError::DamagedPack { source: Damage::Missing { .. }, .. }
                | ReadError::Store(StoreError::NotFound { .. })
        )
    )
}

impl Refill {
    /// Stores the open pack, however little is in it.
    async fn store(&mut self, repository: &Repository) -> Result<(), CollectError> {
        let Some(writer) = self.open.take() else {
            return Ok(());
        };
        let (object, directory) =
            spawn_blocking(move || writer.finish()).await.expect("finishing a pack does not panic");
        let name = names::pack(directory.descriptor.kind, directory.descriptor.id);
        let bytes = object.len() as u64;
        let store = &repository.shared.store;
        store.put_locked(&name, Bytes::from(object)).await?;
        // The old pack is deleted because of this one: check that it is stored.
        match store.head(&name).await {
            Ok(found) if found.bytes == bytes => {}
            _ => {
                let damage =
                    Damage::Malformed { what: "pack", why: "the store did not keep what was written" };
                return Err(ReadError::DamagedPack { pack: name.to_string(), source: damage }.into());
            }
        }
        self.stored.push(directory);
        Ok(())
    }
}
