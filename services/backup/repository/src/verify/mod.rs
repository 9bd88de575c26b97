//! Reading everything again and comparing it with its name.
//!
//! Promises: rot, truncation, swapped, missing and foreign packs are each found and named; nothing is changed; one
//! damaged thing does not hide the next.
//!
//! ```text
//!   everything:  each pack ─GET─> footer, directory, every blob opened and hashed ──> bad blobs
//!                each snapshot ──> recipe ──> every chunk known, and not bad?
//!   rolling:     as many packs as the budget allows, those first that were not read for longest; the rest next time
//!   a snapshot:  recipe ──> its chunks by pack ──ranges──> opened and hashed
//! ```

mod memory;
mod repair;
mod report;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::TryStreamExt;
use tokio::task::spawn_blocking;
use tracing::instrument;

use crate::format::blob::BlobId;
use crate::format::pack::{self, Directory, FOOTER_BYTES, Footer, PackId, open_blob};
use crate::format::recipe::{LEAVES_PER_PAGE, Piece};
use crate::format::snapshot::{DiskRecord, Shape, Snapshot, SnapshotId};
use crate::index::{self, IndexError, ListedPack, Location};
use crate::lease;
use crate::progress::{Progress, raise};
use crate::repository::{Repository, Shared};
use crate::restore::plan::{self, Asked, Places, RangeRead};
use crate::restore::{ReadError, fetch};
use crate::settings::PACK_BYTES_TARGET;
use crate::snapshots::SnapshotError;
use crate::store::{StoreError, names};
use crate::{Cancel, Damage, WriteOnly};

use self::memory::Memory;
pub use self::repair::QuarantineReport;
pub use self::report::{Problem, VerifyError, VerifyReport, VerifyScope};

/// How the chunks of a snapshot are checked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Chunks {
    /// By reading them.
    Read,
    /// By asking whether they were found bad before.
    LookUp,
}

/// One verification under way.
struct Verification<'a> {
    shared: &'a Arc<Shared>,
    progress: &'a Arc<Progress>,
    report: Mutex<VerifyReport>,
    /// Blobs that cannot be read where the index says they are.
    bad: Mutex<HashSet<BlobId>>,
    /// Packs that were read whole and are as they should be.
    good: Mutex<HashSet<PackId>>,
}

impl Repository {
    /// Reads again what is in scope and compares it with its ids.
    ///
    /// # Errors
    /// When the store fails or it is cancelled. Damage is no error but is in the report.
    #[instrument(name = "repository.verify", skip_all)]
    pub async fn verify(
        &self,
        scope: VerifyScope<'_>,
        progress: &Arc<Progress>,
        cancel: &Cancel,
    ) -> Result<VerifyReport, VerifyError> {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(VerifyError::Cancelled),
            report = self.verify_all(scope, progress) => report,
        }
    }

    async fn verify_all(
        &self,
        scope: VerifyScope<'_>,
        progress: &Arc<Progress>,
    ) -> Result<VerifyReport, VerifyError> {
        if !self.can_read() {
            return Err(ReadError::WriteOnly(WriteOnly).into());
        }
        self.refresh().await.map_err(ReadError::Index)?;
        let verification = Verification {
            shared: &self.shared,
            progress,
            report: Mutex::default(),
            bad: Mutex::default(),
            good: Mutex::default(),
        };
        match scope {
            VerifyScope::Snapshot(snapshot) => {
                progress.expect_bytes(snapshot.contents.disks.iter().map(|disk| disk.size_bytes).sum());
                verification.snapshot(snapshot, Chunks::Read).await?;
            }
            VerifyScope::Rolling { bytes_max, older_than } => {
                self.roll(&verification, bytes_max, older_than).await?;
            }
            VerifyScope::Everything => {
                let listed = index::list_packs(&self.shared.store).await?;
                verification.packs_remembered(listed.clone(), &listed).await?;
                for id in self.snapshot_ids().await? {
                    match self.snapshot(id).await {
                        Ok(snapshot) => verification.snapshot(&snapshot, Chunks::LookUp).await?,
                        Err(SnapshotError::Damaged { id, source: damage }) => {
                            verification.problem(Problem::Snapshot { id, damage });
                        }
                        Err(SnapshotError::Store(error)) => return Err(error.into()),
                        // Forgotten since it was listed.
                        Err(
                            SnapshotError::Unknown { .. }
                            | SnapshotError::Ambiguous { .. }
                            | SnapshotError::Held { .. },
                        ) => {}
                    }
                }
            }
        }
        Ok(verification.report.into_inner().expect(HELD))
    }

    /// The packs that were not read for longest, as many as the budget allows.
    async fn roll(
        &self,
        verification: &Verification<'_>,
        bytes_max: u64,
        older_than: Duration,
    ) -> Result<(), VerifyError> {
        let store = &self.shared.store;
        let memory = memory::recall(store, &self.shared.keys()).await.map_err(ReadError::Index)?;
        let now = lease::store_clock(store).await?;
        let limit = now.saturating_sub(older_than.as_millis().try_into().unwrap_or(i64::MAX));
        let listed = index::list_packs(store).await?;
        let mut due: Vec<_> = listed
            .iter()
            .map(|(id, pack)| (memory.get(id).copied(), *id, *pack))
            .filter(|(verified, ..)| verified.is_none_or(|verified| verified <= limit))
            .collect();
        due.sort_by_key(|(verified, id, _)| (*verified, *id));
        let mut left = bytes_max;
        let mut chosen = HashMap::new();
        for (_, id, pack) in &due {
            // A budget smaller than any pack still gets on, by one pack a time.
            if pack.bytes > left && !chosen.is_empty() {
                break;
            }
            left = left.saturating_sub(pack.bytes);
            chosen.insert(*id, *pack);
        }
        verification.report.lock().expect(HELD).packs_left = (due.len() - chosen.len()) as u64;
        verification.packs_remembered(chosen, &listed).await
    }
}

const HELD: &str = "nobody panics while holding the report";

impl Verification<'_> {
    fn problem(&self, problem: Problem) {
        self.report.lock().expect(HELD).add(problem);
    }

    fn bad_blob(&self, pack: &str, id: BlobId, damage: Damage) {
        self.bad.lock().expect(HELD).insert(id);
        self.problem(Problem::Blob { pack: pack.to_owned(), id, damage });
    }

    /// Reads packs whole, and notes those that are as they should be, also when the verification ends early.
    async fn packs_remembered(
        &self,
        chosen: HashMap<PackId, ListedPack>,
        there: &HashMap<PackId, ListedPack>,
    ) -> Result<(), VerifyError> {
        self.progress.expect_bytes(chosen.values().map(|pack| pack.bytes).sum());
        let now = lease::store_clock(&self.shared.store).await?;
        let read = self.packs(chosen).await;
        let good: Memory = self.good.lock().expect(HELD).iter().map(|pack| (*pack, now)).collect();
        memory::note(&self.shared.store, &self.shared.keys(), &good, |pack| there.contains_key(pack))
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
            // Deleted since it was listed: whether anybody needs it, the snapshots will tell.
            Err(StoreError::NotFound { .. }) => return Ok(()),
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

    /// Walks a snapshot.
    async fn snapshot(&self, snapshot: &Snapshot, chunks: Chunks) -> Result<(), VerifyError> {
        for record in &snapshot.contents.disks {
            match record.shape {
                Shape::Disk => self.disk(snapshot.id, record, chunks).await?,
                Shape::Stream => self.stream(snapshot.id, record, chunks).await?,
            }
            if chunks == Chunks::Read {
                self.progress.done(record.size_bytes);
            }
        }
        self.report.lock().expect(HELD).snapshots += 1;
        Ok(())
    }

    async fn disk(&self, id: SnapshotId, record: &DiskRecord, chunks: Chunks) -> Result<(), VerifyError> {
        let disk = match fetch::disk(self.shared, record).await {
            Ok(disk) => disk,
            Err(error) => return self.lost(id, record, 0, error),
        };
        for page in 0..disk.pages.len() as u64 {
            let first = page * LEAVES_PER_PAGE as u64;
            let wanted = async {
                let leaves = fetch::page(self.shared, &disk, page).await?;
                fetch::leaves(self.shared, &disk, first, &leaves).await
            };
            match wanted.await {
                Ok(segments) => {
                    let segments = segments.into_iter().map(|(range, pieces)| (range.start, pieces));
                    self.stretch(id, record, segments, chunks).await?;
                }
                Err(error) => self.lost(id, record, disk.segment(first).start, error)?,
            }
        }
        Ok(())
    }

    async fn stream(&self, id: SnapshotId, record: &DiskRecord, chunks: Chunks) -> Result<(), VerifyError> {
        let stream = match fetch::stream(self.shared, record).await {
            Ok(stream) => stream,
            Err(error) => return self.lost(id, record, 0, error),
        };
        let mut at = 0;
        for leaves in stream.leaves.chunks(LEAVES_PER_PAGE) {
            let start = at;
            let mut starts = Vec::with_capacity(leaves.len());
            for (bytes, _) in leaves {
                starts.push(at);
                at += bytes;
            }
            match fetch::stream_leaves(self.shared, leaves).await {
                Ok(pieces) => {
                    self.stretch(id, record, starts.into_iter().zip(pieces), chunks).await?;
                }
                Err(error) => self.lost(id, record, start, error)?,
            }
        }
        Ok(())
    }

    /// Checks the chunks of some leaves, each with the place where it begins.
    async fn stretch(
        &self,
        id: SnapshotId,
        record: &DiskRecord,
        leaves: impl Iterator<Item = (u64, Vec<Piece>)>,
        chunks: Chunks,
    ) -> Result<(), VerifyError> {
        let mut places = Places::default();
        for (mut at, pieces) in leaves {
            for piece in pieces {
                if let Piece::Chunk { id, bytes } = piece {
                    places.entry(Asked::chunk(id, bytes)).or_default().push(at);
                }
                at += u64::from(piece.bytes());
            }
        }
        if chunks == Chunks::Read {
            self.read_chunks(&places).await?;
        }
        match self.first_lost(&places)? {
            Some((at, damage)) => self.lost(id, record, at, damage.into()),
            None => Ok(()),
        }
    }

    /// Notes that a disk or stream cannot be read whole; what is not damage ends the verification.
    fn lost(
        &self,
        snapshot: SnapshotId,
        record: &DiskRecord,
        at_byte: u64,
        error: ReadError,
    ) -> Result<(), VerifyError> {
        let (disk, damage) = (record.name.clone(), damage_of(error)?);
        self.problem(Problem::Disk { snapshot, disk, at_byte, damage });
        Ok(())
    }

    /// The first place on the disk whose chunk is bad, unknown or of another length.
    fn first_lost(&self, places: &Places) -> Result<Option<(u64, Damage)>, VerifyError> {
        let bad = self.bad.lock().expect(HELD);
        let index = self.shared.index.read().expect(HELD);
        let mut first = None;
        for (asked, at) in places {
            let here = (at.iter().min().copied().unwrap_or(0), *asked);
            if first.as_ref().is_some_and(|(first, _)| *first < here) {
                continue;
            }
            match asked.find(&index) {
                Ok(_) if !bad.contains(&asked.id) => {}
                Ok(_) => first = Some((here, Damage::BlobMissing { id: asked.id })),
                Err(error) => first = Some((here, damage_of(error)?)),
            }
        }
        Ok(first.map(|((at, _), damage)| (at, damage)))
    }

    /// Reads chunks and notes the bad ones.
    async fn read_chunks(&self, places: &Places) -> Result<(), VerifyError> {
        let known = {
            let index = self.shared.index.read().expect(HELD);
            let mut known = Places::default();
            for (asked, at) in places {
                match asked.find(&index) {
                    Ok(_) => {
                        known.insert(*asked, at.clone());
                    }
                    // What is not to be found cannot be read; the caller tells of it.
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

    async fn read_range(&self, read: RangeRead) -> Result<(), VerifyError> {
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

/// The directory at the end of a whole pack.
fn directory_in(shared: &Shared, id: PackId, listed: ListedPack, object: &[u8]) -> Result<Directory, Damage> {
    let short = Damage::Malformed { what: "pack", why: "it is shorter than a footer" };
    let footer = object.last_chunk::<FOOTER_BYTES>().ok_or(short)?;
    let footer = Footer::decode(id, listed.kind, object.len() as u64, footer)?;
    let range = footer.directory();
    pack::open_directory(&shared.keys(), &footer, &object[range.start as usize..range.end as usize])
}

fn located(directory: &Directory) -> Vec<Location> {
    let place = |(slot, offset, entry): (u32, u32, &pack::Entry)| Location {
        pack: directory.head,
        slot,
        offset,
        entry: *entry,
    };
    directory.placed().map(place).collect()
}

/// Opens and hashes blobs of one pack, in bytes that begin at `start` of it.
fn check_all(
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
        let end = at + place.entry.sealed_bytes as usize;
        let cut_off = Damage::Malformed { what: "pack", why: "it ends before this blob does" };
        let mut sealed = bytes.get(at..end).ok_or(cut_off)?.to_vec();
        open_blob(&keys, key, place.pack.id, place.slot, &place.entry, &mut sealed).map(drop)
    };
    places.iter().map(|place| (place.entry.id, check(place))).collect()
}

/// Damage is to be reported, all else ends the verification.
fn damage_of(error: ReadError) -> Result<Damage, VerifyError> {
    match error {
        ReadError::Damaged(damage) | ReadError::Pack { source: damage, .. } => Ok(damage),
        error => Err(error.into()),
    }
}
