//! Following recipes from their roots to the chunks, through what is remembered where that is enough.
//!
//! ```text
//!   roots ──> queue: places of pieces, by pack, youngest pack first
//!               │ a pack and all that is wanted of it
//!               ├── noted, and every place named there stands ─────────────> marks, and pieces back into the queue
//!               └── else: read, opened, each name looked up in the index ──> the same, and a note
//! ```
//!
//! Pieces are wanted by their place and not by their id: one bit for each, and what is wanted of a pack is read in few
//! ranges. A piece lies as a rule in the pack of what names it or in an older one, so that most packs come up once.
//! Whether a recipe fits its disk is not looked at here.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::copies::{Copies, Packs};
use super::marks::Marks;
use super::memory::{Learnt, Memory};
use super::notes::{Notes, Target};
use crate::damage::Damage;
use crate::format::pack::{Entry, PackKind};
use crate::format::recipe;
use crate::ids::{BlobId, BlobKind, PackId};
use crate::index::Location;
use crate::progress::Progress;
use crate::rebuild::read_directory;
use crate::restore::plan::{self, RangeRead, Wanted};
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

/// What is to be looked at, by pack.
#[derive(Default)]
struct Queue {
    pieces: BTreeMap<(Reverse<i64>, PackId), Vec<Piece>>,
}

/// Where pieces lie that were looked up before: a page names nearly all leaves that it named the day before. Emptied when
/// it is full.
struct LookedUp {
    places: HashMap<BlobId, Target>,
    places_max: usize,
}

/// What was found out up to now.
struct Found {
    marks: Marks,
    queue: Queue,
    learnt: Learnt,
    looked_up: LookedUp,
}

struct Trace {
    /// The repository with an index that nobody changes.
    shared: Arc<Shared>,
    packs: Arc<Packs>,
    memory: Arc<Memory>,
    found: Mutex<Found>,
    /// Ranges that are held in memory.
    ranges: Semaphore,
}

/// Marks everything that some recipes need. A pack of recipes counts as dealt with when something of it was followed;
/// the rest at the end, as nothing of it is needed.
pub(super) async fn trace(
    shared: &Arc<Shared>,
    packs: Arc<Packs>,
    memory: &Arc<Memory>,
    roots: Vec<BlobId>,
    progress: &Arc<Progress>,
) -> Result<(Marks, Learnt), ReadError> {
    let found = Found {
        marks: Marks::default(),
        queue: Queue::default(),
        learnt: Learnt::new(Arc::clone(memory)),
        looked_up: LookedUp { places: HashMap::new(), places_max: shared.settings.places_looked_up() },
    };
    let trace = Arc::new(Trace {
        shared: Arc::clone(shared),
        packs,
        memory: Arc::clone(memory),
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
    let trace = Arc::into_inner(trace).expect("nobody is under way any more");
    let Found { marks, learnt, .. } = trace.found.into_inner().expect(NO_PANIC);
    Ok((marks, learnt))
}

impl LookedUp {
    fn add(&mut self, id: BlobId, place: Target) {
        if self.places.len() >= self.places_max {
            self.places.clear();
        }
        self.places.insert(id, place);
    }
}

impl Queue {
    fn push(&mut self, packs: &Packs, pack: PackId, piece: Piece) {
        self.pieces.entry((Reverse(packs.written_unix_ms(&pack)), pack)).or_default().push(piece);
    }

    /// What is wanted of one pack.
    fn take(&mut self, packs: &Packs, pack: PackId) -> Vec<Piece> {
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

    /// Marks the copies of some blobs that must stay; there must be one of each. Returns where they lie, when all of them
    /// may be relied on.
    fn need_all(&self, ids: &[BlobId], are_pieces: bool) -> Result<Option<Vec<Target>>, ReadError> {
        let mut targets = Vec::with_capacity(ids.len());
        let mut unknown = ids.to_vec();
        if are_pieces {
            let looked_up = &self.found().looked_up.places;
            unknown.retain(|id| looked_up.get(id).map(|place| targets.push(*place)).is_none());
        }
        let index = self.shared.index.read().expect("nobody panics while holding the index");
        let copies = |id: BlobId| match self.packs.copies(&index, &id)? {
            Copies { places, .. } if places.is_empty() => Err(Damage::BlobMissing { id }.into()),
            copies => Ok((id, copies)),
        };
        let copies = unknown.into_iter().map(copies).collect::<Result<Vec<_>, ReadError>>()?;
        let found = &mut *self.found();
        for (id, copies) in &copies {
            self.need(found, copies);
            if let (true, [place]) = (copies.stand, &copies.places[..]) {
                let target = Target::from(place);
                targets.push(target);
                if are_pieces {
                    found.looked_up.add(*id, target);
                }
            }
        }
        // What lies in condemned packs only will soon lie elsewhere.
        Ok((targets.len() == ids.len()).then_some(targets))
    }

    /// Marks the copies of a blob. A piece of a recipe that was not marked before is to be followed.
    fn need(&self, found: &mut Found, copies: &Copies) {
        for (nth, place) in copies.places.iter().enumerate() {
            let Location { pack, slot, offset, entry } = *place;
            let is_new = found.marks.add(pack.id, slot, entry.sealed_bytes);
            if is_new && nth == 0 && pack.kind == PackKind::Meta {
                found.queue.push(&self.packs, pack.id, Piece { slot, found: Some((offset, entry)) });
            }
        }
    }

    /// Goes on from all pieces that are wanted of a pack. Returns its bytes, when it comes up for the first time.
    async fn follow(trace: &Arc<Trace>, pack: PackId, pieces: Vec<Piece>) -> Result<u64, ReadError> {
        let is_new = trace.found().learnt.meet(pack);
        let recalling = Arc::clone(trace);
        let unknown = spawn_blocking(move || recalling.recall(pack, pieces)).await.expect(NO_PANIC);
        if !unknown.is_empty() {
            let wanted = trace.locate(pack, unknown).await?;
            let reads = plan::ranges(wanted).into_iter().map(|read| Box::pin(Trace::read(trace, read)));
            futures::stream::iter(reads).buffer_unordered(PACKS_IN_FLIGHT).try_collect::<()>().await?;
        }
        Ok(trace.packs.find(&pack).filter(|_| is_new).map_or(0, |(_, listed)| listed.bytes))
    }

    /// Goes on from the pieces of a pack whose needs are noted, and returns the others.
    fn recall(&self, pack: PackId, mut pieces: Vec<Piece>) -> Vec<Piece> {
        let notes = self.memory.notes(&pack);
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

    /// Marks what is noted of a piece, if all of it stands.
    fn recall_one(&self, found: &mut Found, notes: &Notes, slot: u32) -> bool {
        let Some(targets) = notes.of(slot) else { return false };
        if !targets.clone().all(|target| self.packs.stands(&target.pack)) {
            return false;
        }
        for Target { pack, slot, sealed_bytes } in targets {
            let is_recipe = self.packs.find(&pack).is_some_and(|(head, _)| head.kind == PackKind::Meta);
            if found.marks.add(pack, slot, sealed_bytes) && is_recipe {
                found.queue.push(&self.packs, pack, Piece { slot, found: None });
            }
        }
        true
    }

    /// Where some pieces of a pack lie. Those that the index was not asked for are found in the pack's directory.
    async fn locate(&self, pack: PackId, pieces: Vec<Piece>) -> Result<Vec<Wanted>, ReadError> {
        let missing = || ReadError::Pack { pack: pack.to_string(), source: Damage::Missing { what: "pack" } };
        let (head, listed) = self.packs.find(&pack).ok_or_else(missing)?;
        let mut directory = HashMap::new();
        if pieces.iter().any(|piece| piece.found.is_none()) {
            let read = read_directory(&self.shared, pack, listed).await?;
            directory.extend(read.placed().map(|(slot, offset, entry)| (slot, (offset, *entry))));
        }
        let located = pieces.into_iter().map(|Piece { slot, found }| {
            let (offset, entry) = found.or_else(|| directory.get(&slot).copied()).ok_or_else(missing)?;
            Ok(Wanted { location: Location { pack: head, slot, offset, entry }, wanted_at: Vec::new() })
        });
        located.collect()
    }

    /// Reads pieces that lie beside each other, marks what they name and notes it.
    async fn read(trace: &Arc<Trace>, read: RangeRead) -> Result<(), ReadError> {
        let _held = trace.ranges.acquire().await.expect("it is never closed");
        let object = fetch::range(&trace.shared, &read).await?;
        let trace = Arc::clone(trace);
        spawn_blocking(move || trace.open(&read, &object)).await.expect(NO_PANIC)
    }

    fn open(&self, read: &RangeRead, object: &[u8]) -> Result<(), ReadError> {
        let mut notes = Notes::default();
        fetch::open_all(&self.shared.keys(), read, object, |blob, content| {
            let Location { slot, entry, .. } = blob.location;
            let ids = recipe::named(entry.kind, &content)?;
            if let Some(targets) = self.need_all(&ids, entry.kind != BlobKind::Leaf)? {
                notes.add(slot, targets.into_iter());
            }
            Ok::<_, ReadError>(())
        })?;
        self.found().learnt.add(read.pack.id, &notes);
        Ok(())
    }
}
