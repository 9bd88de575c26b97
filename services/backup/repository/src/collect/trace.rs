//! Following recipes from their roots to the chunks, through the cache where it is enough.
//!
//! ```text
//!   roots ──> queue: locations of pieces, by pack, youngest pack first
//!               │ a pack and all that is wanted of it
//!               ├── cached, and every pack named there is usable ────────────> marks, and pieces back into the queue
//!               └── else: read, decrypted, each id looked up in the index ──> the same, and a cache entry
//! ```
//!
//! A piece is a recipe blob. Pieces are queued by location, not by id: one bit for each, and what is needed of a pack is
//! read in few ranges. A piece is usually in the pack of what names it or in an older one, so that most packs come up
//! once. Whether a recipe fits its disk is not checked here.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::copies::{BlobCopies, PackStates};
use super::marks::LiveBlobs;
use super::needs::{OutgoingReferences, ReferencedBlob};
use super::needs_cache::{PackReferencesCache, PackReferencesCacheUpdate};
use crate::damage::Damage;
use crate::format::pack::{Entry, PackKind};
use crate::format::recipe;
use crate::ids::{BlobId, BlobKind, PackId};
use crate::index::Location;
use crate::progress::Progress;
use crate::rebuild::read_directory;
use crate::restore::plan::{self, PackRangeRead, WantedBlob};
use crate::restore::{ReadError, fetch};
use crate::shared::Shared;

/// Packs worked on at one time: small ones cost little but the wait for the store.
const PACKS_IN_FLIGHT: usize = 8;
const NO_PANIC: &str = "following recipes does not panic";

/// A piece of a recipe whose needs are to be marked.
struct Piece {
    slot: u32,
    /// Offset and entry, where the index was asked for it.
    found: Option<(u32, Entry)>,
}

/// What is to be followed, by pack.
#[derive(Default)]
struct Queue {
    pieces: BTreeMap<(Reverse<i64>, PackId), Vec<Piece>>,
}

/// Locations of pieces that were looked up before: a page names nearly all leaves that it named the day before. Emptied
/// when full.
struct LocationCache {
    places: HashMap<BlobId, ReferencedBlob>,
    places_max: usize,
}

/// What was found out up to now.
struct Found {
    marks: LiveBlobs,
    queue: Queue,
    new_needs: PackReferencesCacheUpdate,
    locations: LocationCache,
}

struct Trace {
    /// The repository with an index of its own.
    shared: Arc<Shared>,
    packs: Arc<PackStates>,
    needs_cache: Arc<PackReferencesCache>,
    found: Mutex<Found>,
    /// Bounds the ranges that are held in memory.
    ranges: Semaphore,
}

/// Marks everything that some recipes need. In progress, a pack of recipes counts as done when something of it was
/// followed; packs of which nothing is needed count at the end.
pub(super) async fn trace(
    shared: &Arc<Shared>,
    packs: Arc<PackStates>,
    needs_cache: &Arc<PackReferencesCache>,
    roots: Vec<BlobId>,
    progress: &Arc<Progress>,
) -> Result<(LiveBlobs, PackReferencesCacheUpdate), ReadError> {
    let found = Found {
        marks: LiveBlobs::default(),
        queue: Queue::default(),
        new_needs: PackReferencesCacheUpdate::new(Arc::clone(needs_cache)),
        locations: LocationCache { places: HashMap::new(), places_max: shared.settings.locations_cached() },
    };
    let trace = Arc::new(Trace {
        shared: Arc::clone(shared),
        packs,
        needs_cache: Arc::clone(needs_cache),
        found: Mutex::new(found),
        ranges: Semaphore::new(shared.settings.ranges_in_flight()),
    });
    let mut left_bytes = trace.packs.recipe_bytes();
    progress.expect_bytes(left_bytes);
    let beginning = Arc::clone(&trace);
    spawn_blocking(move || beginning.need_all(&roots, true).map(drop)).await.expect(NO_PANIC)?;
    let mut under_way = FuturesUnordered::new();
    loop {
        while under_way.len() < PACKS_IN_FLIGHT
            && let Some((pack, pieces)) = trace.next()
        {
            // Unboxed, the compiler cannot tell callers that collecting is `Send`.
            under_way.push(Box::pin(Trace::follow(&trace, pack, pieces)));
        }
        match under_way.next().await {
            Some(followed) => {
                let bytes = followed?;
                progress.done(bytes);
                left_bytes -= bytes;
            }
            None => break,
        }
    }
    progress.done(left_bytes);
    drop(under_way);
    let trace = Arc::into_inner(trace).expect("every task has ended");
    let Found { marks, new_needs, .. } = trace.found.into_inner().expect(NO_PANIC);
    Ok((marks, new_needs))
}

impl LocationCache {
    fn add(&mut self, id: BlobId, place: ReferencedBlob) {
        if self.places.len() >= self.places_max {
            self.places.clear();
        }
        self.places.insert(id, place);
    }
}

impl Queue {
    fn push(&mut self, packs: &PackStates, pack: PackId, piece: Piece) {
        self.pieces.entry((Reverse(packs.written_unix_ms(&pack)), pack)).or_default().push(piece);
    }

    /// What is wanted of one pack.
    fn take(&mut self, packs: &PackStates, pack: PackId) -> Vec<Piece> {
        self.pieces.remove(&(Reverse(packs.written_unix_ms(&pack)), pack)).unwrap_or_default()
    }
}

impl Trace {
    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().expect(NO_PANIC)
    }

    fn next(&self) -> Option<(PackId, Vec<Piece>)> {
        let ((_, pack), pieces) = self.found().queue.pieces.pop_first()?;
        Some((pack, pieces))
    }

    /// Marks the copies of some blobs that must stay; there must be one of each. Returns their locations, when all of them
    /// are usable.
    fn need_all(&self, ids: &[BlobId], are_pieces: bool) -> Result<Option<Vec<ReferencedBlob>>, ReadError> {
        let mut targets = Vec::with_capacity(ids.len());
        let mut unknown = ids.to_vec();
        if are_pieces {
            let locations = &self.found().locations.places;
            unknown.retain(|id| locations.get(id).map(|place| targets.push(*place)).is_none());
        }
        let index = self.shared.index.read().expect("no thread panics while holding the index");
        let copies = |id: BlobId| match self.packs.copies(&index, &id)? {
            BlobCopies { places, .. } if places.is_empty() => Err(Damage::BlobMissing { id }.into()),
            copies => Ok((id, copies)),
        };
        let copies = unknown.into_iter().map(copies).collect::<Result<Vec<_>, ReadError>>()?;
        let found = &mut *self.found();
        for (id, copies) in &copies {
            self.need(found, copies);
            if let (true, [place]) = (copies.first_copy_usable, &copies.places[..]) {
                let target = ReferencedBlob::from(place);
                targets.push(target);
                if are_pieces {
                    found.locations.add(*id, target);
                }
            }
        }
        // What is in condemned packs only will soon be rewritten.
        Ok((targets.len() == ids.len()).then_some(targets))
    }

    /// Marks the copies of a blob. A piece of a recipe that was not marked before is to be followed.
    fn need(&self, found: &mut Found, copies: &BlobCopies) {
        for (nth, place) in copies.places.iter().enumerate() {
            let Location { pack, slot, offset, entry } = *place;
            let is_new = found.marks.add(pack.id, slot, entry.encrypted_bytes);
            if is_new && nth == 0 && pack.kind == PackKind::Meta {
                found.queue.push(&self.packs, pack.id, Piece { slot, found: Some((offset, entry)) });
            }
        }
    }

    /// Follows all queued pieces of a pack. Returns its bytes at its first visit, else 0.
    async fn follow(trace: &Arc<Trace>, pack: PackId, pieces: Vec<Piece>) -> Result<u64, ReadError> {
        let is_new = trace.found().new_needs.visit(pack);
        let recalling = Arc::clone(trace);
        let unknown = spawn_blocking(move || recalling.recall(pack, pieces)).await.expect(NO_PANIC);
        if !unknown.is_empty() {
            let wanted = trace.locate(pack, unknown).await?;
            let reads = plan::ranges(wanted).into_iter().map(|read| Box::pin(Trace::read(trace, read)));
            futures::stream::iter(reads).buffer_unordered(PACKS_IN_FLIGHT).try_collect::<()>().await?;
        }
        Ok(trace.packs.find(&pack).filter(|_| is_new).map_or(0, |(_, listed)| listed.bytes))
    }

    /// Goes on from the pieces of a pack whose needs are cached, and returns the others.
    fn recall(&self, pack: PackId, mut pieces: Vec<Piece>) -> Vec<Piece> {
        let notes = self.needs_cache.notes(&pack);
        let mut unknown = Vec::new();
        let found = &mut *self.found();
        while !pieces.is_empty() {
            for piece in pieces {
                if !self.recall_one(found, &notes, piece.slot) {
                    unknown.push(piece);
                }
            }
            pieces = found.queue.take(&self.packs, pack);
        }
        unknown
    }

    /// Marks what is cached of a piece, if every pack of it is usable.
    fn recall_one(&self, found: &mut Found, notes: &OutgoingReferences, slot: u32) -> bool {
        let Some(targets) = notes.of(slot) else { return false };
        if !targets.clone().all(|target| self.packs.is_usable(&target.pack)) {
            return false;
        }
        for ReferencedBlob { pack, slot, encrypted_bytes } in targets {
            let is_recipe = self.packs.find(&pack).is_some_and(|(head, _)| head.kind == PackKind::Meta);
            if found.marks.add(pack, slot, encrypted_bytes) && is_recipe {
                found.queue.push(&self.packs, pack, Piece { slot, found: None });
            }
        }
        true
    }

    /// Where some pieces of a pack lie. Those that the index was not asked for are found in the pack's directory.
    async fn locate(&self, pack: PackId, pieces: Vec<Piece>) -> Result<Vec<WantedBlob>, ReadError> {
        let missing =
            || ReadError::DamagedPack { pack: pack.to_string(), source: Damage::Missing { what: "pack" } };
        let (head, listed) = self.packs.find(&pack).ok_or_else(missing)?;
        let mut directory = HashMap::new();
        if pieces.iter().any(|piece| piece.found.is_none()) {
            let read = read_directory(&self.shared, pack, listed).await?;
            directory.extend(read.placed().map(|(slot, offset, entry)| (slot, (offset, *entry))));
        }
        let located = pieces.into_iter().map(|Piece { slot, found }| {
            let (offset, entry) = found.or_else(|| directory.get(&slot).copied()).ok_or_else(missing)?;
            Ok(WantedBlob { location: Location { pack: head, slot, offset, entry }, positions: Vec::new() })
        });
        located.collect()
    }

    /// Reads neighbouring pieces, marks what they name and caches it.
    async fn read(trace: &Arc<Trace>, read: PackRangeRead) -> Result<(), ReadError> {
        let _held = trace.ranges.acquire().await.expect("it is never closed");
        let object = fetch::range(&trace.shared, &read).await?;
        let trace = Arc::clone(trace);
        spawn_blocking(move || trace.open(&read, &object)).await.expect(NO_PANIC)
    }

    fn open(&self, read: &PackRangeRead, object: &[u8]) -> Result<(), ReadError> {
        let mut notes = OutgoingReferences::default();
        fetch::open_all(&self.shared.keys(), read, object, |blob, content| {
            let Location { slot, entry, .. } = blob.location;
            let ids = recipe::named(entry.kind, &content)?;
            if let Some(targets) = self.need_all(&ids, entry.kind != BlobKind::RecipeLeaf)? {
                notes.add(slot, targets.into_iter());
            }
            Ok::<_, ReadError>(())
        })?;
        self.found().new_needs.add(read.pack.id, &notes);
        Ok(())
    }
}
