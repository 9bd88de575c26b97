//! Reading everything again and comparing it with its name.
//!
//! Promises: rot, truncation, swapped, missing and foreign packs are each found and named; nothing is changed; one
//! damaged thing does not hide the next.
//!
//! ```text
//!   everything:  each pack ─GET─> footer, directory, every blob opened and hashed ──> bad blobs
//!                each snapshot ──> recipe ──> every chunk known, and not bad?
//!   a snapshot:  recipe ──> its chunks by pack ──ranges──> opened and hashed
//! ```

mod report;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use futures::TryStreamExt;
use tokio::task::spawn_blocking;
use tracing::instrument;

use crate::format::blob::BlobId;
use crate::format::pack::{self, Directory, FOOTER_BYTES, PackId, open_blob};
use crate::format::recipe::{LEAVES_PER_PAGE, Piece};
use crate::format::snapshot::Snapshot;
use crate::index::{self, ListedPack, Location};
use crate::progress::{Progress, raise};
use crate::repository::{Repository, Shared};
use crate::restore::plan::{self, Places, RangeRead};
use crate::restore::{ReadError, fetch};
use crate::settings::PACK_BYTES_TARGET;
use crate::snapshots::SnapshotError;
use crate::store::{StoreError, names};
use crate::{Cancel, Damage};

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
        self.refresh().await.map_err(ReadError::Index)?;
        let verification =
            Verification { shared: &self.shared, progress, report: Mutex::default(), bad: Mutex::default() };
        match scope {
            VerifyScope::Snapshot(snapshot) => {
                progress.expect_bytes(snapshot.contents.disks.iter().map(|disk| disk.size_bytes).sum());
                verification.snapshot(snapshot, Chunks::Read).await?;
            }
            VerifyScope::Everything => {
                let listed = index::list_packs(&self.shared.store).await?;
                progress.expect_bytes(listed.values().map(|pack| pack.bytes).sum());
                verification.packs(listed).await?;
                for id in self.snapshot_ids().await? {
                    match self.snapshot(id).await {
                        Ok(snapshot) => verification.snapshot(&snapshot, Chunks::LookUp).await?,
                        Err(SnapshotError::Damaged { id, source: damage }) => {
                            verification.problem(Problem::Snapshot { id, damage });
                        }
                        Err(SnapshotError::Store(error)) => return Err(error.into()),
                        // Forgotten since it was listed.
                        Err(SnapshotError::Unknown { .. } | SnapshotError::Ambiguous { .. }) => {}
                    }
                }
            }
        }
        Ok(verification.report.into_inner().expect(HELD))
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
                Err(_) => shared.index.read().expect(HELD).blobs_in(id),
            };
            let checked: Vec<_> = places
                .into_iter()
                .map(|place| (place.entry.id, check(&shared, &place, &object, 0)))
                .collect();
            (checked, directory.err())
        })
        .await
        .expect("checking a pack does not panic");
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
            let damage = |at_byte, damage| Problem::Disk {
                snapshot: snapshot.id,
                disk: record.name.clone(),
                at_byte,
                damage,
            };
            let disk = match fetch::disk(self.shared, record).await {
                Ok(disk) => disk,
                Err(error) => {
                    self.problem(damage(0, damage_of(error)?));
                    continue;
                }
            };
            for page in 0..disk.pages.len() as u64 {
                let first = page * LEAVES_PER_PAGE as u64;
                let wanted = async {
                    let leaves = fetch::page(self.shared, &disk, page).await?;
                    fetch::leaves(self.shared, &disk, first, &leaves).await
                };
                let segments = match wanted.await {
                    Ok(segments) => segments,
                    Err(error) => {
                        self.problem(damage(disk.segment(first).start, damage_of(error)?));
                        continue;
                    }
                };
                let mut places = Places::default();
                for (range, pieces) in segments {
                    let mut at = range.start;
                    for piece in pieces {
                        if let Piece::Chunk { id, .. } = piece {
                            places.entry(id).or_default().push(at);
                        }
                        at += u64::from(piece.bytes());
                    }
                }
                if chunks == Chunks::Read {
                    self.read_chunks(&places).await?;
                }
                if let Some((at_byte, id)) = self.first_lost(&places) {
                    self.problem(damage(at_byte, Damage::BlobMissing { id }));
                }
            }
            if chunks == Chunks::Read {
                self.progress.done(record.size_bytes);
            }
        }
        self.report.lock().expect(HELD).snapshots += 1;
        Ok(())
    }

    /// The first place on the disk whose chunk is bad or unknown.
    fn first_lost(&self, places: &Places) -> Option<(u64, BlobId)> {
        let bad = self.bad.lock().expect(HELD);
        let index = self.shared.index.read().expect(HELD);
        let lost = places.iter().filter(|(id, _)| bad.contains(id) || !index.contains(id));
        lost.filter_map(|(id, at)| Some((*at.iter().min()?, *id))).min()
    }

    /// Reads chunks and notes the bad ones.
    async fn read_chunks(&self, places: &Places) -> Result<(), VerifyError> {
        let reads = {
            let index = self.shared.index.read().expect(HELD);
            let known = places.iter().filter(|(id, _)| index.contains(id));
            plan::by_pack(&index, known.map(|(id, at)| (*id, at.clone())).collect())
        };
        let reads = reads.map_err(ReadError::from)?;
        let in_flight = self.shared.settings.ranges_in_flight();
        futures::stream::iter(reads.into_iter().map(Ok))
            .try_for_each_concurrent(in_flight, |read| self.read_range(read))
            .await
    }

    async fn read_range(&self, read: RangeRead) -> Result<(), VerifyError> {
        let name = names::pack(read.kind, read.pack).to_string();
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
        let checked: Vec<_> = spawn_blocking(move || {
            let places = read.blobs.iter().map(|blob| blob.location);
            places.map(|place| (place.entry.id, check(&shared, &place, &object, read.range.start))).collect()
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
    let range = pack::directory_range(id, listed.kind, object.len() as u64, footer)?;
    let sealed = &object[range.start as usize..range.end as usize];
    pack::open_directory(&shared.keys, id, listed.kind, range.start, sealed)
}

fn located(directory: &Directory) -> Vec<Location> {
    let place = |(slot, offset, entry): (u32, u32, &pack::Entry)| Location {
        pack: directory.pack,
        slot,
        offset,
        entry: *entry,
    };
    directory.placed().map(place).collect()
}

/// Opens and hashes one blob in bytes that begin at `start` of its pack.
fn check(shared: &Shared, place: &Location, bytes: &[u8], start: u64) -> Result<(), Damage> {
    let at = (u64::from(place.offset) - start) as usize;
    let end = at + place.entry.sealed_bytes as usize;
    let cut_off = Damage::Malformed { what: "pack", why: "it ends before this blob does" };
    let mut sealed = bytes.get(at..end).ok_or(cut_off)?.to_vec();
    let key = shared.keys.pack(place.pack);
    open_blob(&shared.keys, &key, place.pack, place.slot, &place.entry, &mut sealed).map(drop)
}

/// Damage is to be reported, all else ends the verification.
fn damage_of(error: ReadError) -> Result<Damage, VerifyError> {
    match error {
        ReadError::Damaged(damage) | ReadError::Pack { source: damage, .. } => Ok(damage),
        error => Err(error.into()),
    }
}
