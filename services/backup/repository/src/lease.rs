//! A backup under way announces itself, so that a collection waits for it.
//!
//! Promises: no pack is deleted while a lease is held that was there before the pack was condemned. No clocks of
//! different machines are compared: the store's own clock only says when a holder counts as dead, and a holder that
//! lives after all finds out.
//!
//! ```text
//!   leases/ID/begun   written first; removed by its holder at the end
//!   leases/ID/beat    written again and again while the backup runs
//!   leases/ID/dead    written by a collection that found the beat too old; from then on the lease is not held,
//!                     and what was copied under it is checked before it is relied on
//!   leases/ID/clock   written and removed at once, by who wants to know what time it is for the store
//! ```
//!
//! What all this is for is said in [`crate::collect`].

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use ulid::Ulid;

use crate::store::{Listed, Store, StoreError, names};

/// How often a holder shows that it is alive: many times within the silence after which it counts as dead.
const BEAT_EVERY: Duration = Duration::from_secs(60);
/// How long it is remembered that a holder was taken for dead: longer than any draft waits to be sealed.
const DEAD_KEPT: Duration = Duration::from_hours(30 * 24);

/// How often the store is asked for the time when its answer is swept away.
const CLOCK_LOOKS_MAX: usize = 5;

pub(crate) const BEGUN: &str = "begun";
pub(crate) const BEAT: &str = "beat";
pub(crate) const DEAD: &str = "dead";
pub(crate) const CLOCK: &str = "clock";

/// The name of a lease.
pub(crate) type LeaseId = Ulid;

/// How it stands with a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseState {
    /// Collections wait for it.
    Held,
    /// A collection took its holder for dead.
    Dead,
    /// It was ended.
    Ended,
}

/// A lease as the store lists it.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    begun: bool,
    dead_unix_ms: Option<i64>,
    /// When any part was last written, by the store's clock.
    alive_unix_ms: i64,
}

impl Seen {
    fn note(&mut self, part: &str, listed: &Listed) {
        match part {
            BEGUN => self.begun = true,
            DEAD => self.dead_unix_ms = Some(listed.written_unix_ms),
            _ => {}
        }
        self.alive_unix_ms = self.alive_unix_ms.max(listed.written_unix_ms);
    }

    fn state(&self) -> LeaseState {
        match (self.dead_unix_ms, self.begun) {
            (Some(_), _) => LeaseState::Dead,
            (None, true) => LeaseState::Held,
            (None, false) => LeaseState::Ended,
        }
    }
}

pub(crate) fn part(id: LeaseId, part: &str) -> Path {
    names::entry(names::LEASES, id).join(part)
}

/// Announces a piece of work. Must be done before anything is read that the work relies on.
pub(crate) async fn take(store: &Store) -> Result<LeaseId, StoreError> {
    let id = Ulid::generate();
    store.put(&part(id, BEGUN), Bytes::new()).await?;
    Ok(id)
}

/// Notes that what was copied under a lease must be checked before it is relied on.
pub(crate) async fn distrust(store: &Store, id: LeaseId) -> Result<(), StoreError> {
    store.put(&part(id, DEAD), Bytes::new()).await
}

/// Beats until the lease is found to be gone.
pub(crate) async fn keep(store: &Store, id: LeaseId) -> Result<(), StoreError> {
    loop {
        tokio::time::sleep(BEAT_EVERY).await;
        if beat(store, id).await? != LeaseState::Held {
            return Ok(());
        }
    }
}

/// Shows that the holder is alive, and tells how it stands with the lease.
pub(crate) async fn beat(store: &Store, id: LeaseId) -> Result<LeaseState, StoreError> {
    match state(store, id).await? {
        LeaseState::Held => {
            store.put(&part(id, BEAT), Bytes::new()).await?;
            state(store, id).await
        }
        gone => Ok(gone),
    }
}

/// How it stands with a lease.
pub(crate) async fn state(store: &Store, id: LeaseId) -> Result<LeaseState, StoreError> {
    let mut seen = Seen::default();
    for listed in store.list(&names::entry(names::LEASES, id)).await? {
        seen.note(listed.path.filename().unwrap_or_default(), &listed);
    }
    Ok(seen.state())
}

/// Ends a lease and forgets that its holder was ever taken for dead.
pub(crate) async fn end(store: &Store, id: LeaseId) -> Result<(), StoreError> {
    store.delete(&part(id, BEGUN)).await?;
    store.delete(&part(id, BEAT)).await?;
    store.delete(&part(id, DEAD)).await
}

/// Every lease that is held now.
pub(crate) async fn held(store: &Store) -> Result<Vec<LeaseId>, StoreError> {
    let leases = all(store).await?.into_iter();
    Ok(leases.filter(|(_, seen)| seen.state() == LeaseState::Held).map(|(id, _)| id).collect())
}

/// Takes those for dead that were silent for too long, and returns the leases that are held still.
pub(crate) async fn bury(
    store: &Store,
    now_unix_ms: i64,
    silence_max: Duration,
) -> Result<Vec<LeaseId>, StoreError> {
    let mut held = Vec::new();
    for (id, seen) in all(store).await? {
        let silent = seen.alive_unix_ms <= before(now_unix_ms, silence_max);
        match seen.state() {
            LeaseState::Held if silent => distrust(store, id).await?,
            LeaseState::Held => held.push(id),
            LeaseState::Dead
                if seen.dead_unix_ms.is_some_and(|dead| dead < before(now_unix_ms, DEAD_KEPT)) =>
            {
                end(store, id).await?;
            }
            LeaseState::Dead | LeaseState::Ended => {}
        }
    }
    Ok(held)
}

/// Removes what is left of leases that were not ended to the end, and clocks that nobody took away.
pub(crate) async fn sweep(store: &Store, now_unix_ms: i64, silence_max: Duration) -> Result<(), StoreError> {
    for (id, seen) in all(store).await? {
        if seen.state() == LeaseState::Ended && seen.alive_unix_ms <= before(now_unix_ms, silence_max) {
            end(store, id).await?;
            store.delete(&part(id, CLOCK)).await?;
        }
    }
    Ok(())
}

fn before(now_unix_ms: i64, age: Duration) -> i64 {
    now_unix_ms.saturating_sub(age.as_millis().try_into().unwrap_or(i64::MAX))
}

async fn all(store: &Store) -> Result<HashMap<LeaseId, Seen>, StoreError> {
    let mut leases: HashMap<LeaseId, Seen> = HashMap::new();
    for listed in store.list(&names::folder(names::LEASES)).await? {
        let mut parts = listed.path.parts().skip(1);
        let (Some(id), Some(part)) = (parts.next(), parts.next()) else {
            continue;
        };
        if let Ok(id) = Ulid::from_string(id.as_ref()) {
            leases.entry(id).or_default().note(part.as_ref(), &listed);
        }
    }
    Ok(leases)
}

/// What time it is, by the clock that dates the store's objects.
pub(crate) async fn store_clock(store: &Store) -> Result<i64, StoreError> {
    if store.is_dry() {
        return Ok(store.now().timestamp_millis());
    }
    let name = part(Ulid::generate(), CLOCK);
    let mut now = Err(StoreError::NotFound { name: name.to_string() });
    for _ in 0..CLOCK_LOOKS_MAX {
        store.put(&name, Bytes::new()).await?;
        now = store.look_up(&name).await.map(|clock| clock.written_unix_ms);
        // A collection beside us that gives nobody any time may have swept it away.
        if !matches!(now, Err(StoreError::NotFound { .. })) {
            break;
        }
    }
    store.delete(&name).await?;
    now
}
