//! A running backup holds a lease, so that a collection waits for it.
//!
//! Promises: no pack is deleted while a lease is held that existed before the pack was condemned. No clocks of different
//! hosts are compared: leases expire by the store's own clock, and a holder whose lease expired finds out.
//!
//! ```text
//!   leases/ID/begun   written first; removed by its holder at the end
//!   leases/ID/beat    written every minute while the backup runs: the heartbeat
//!   leases/ID/dead    written by a collection that found the heartbeat too old; from then on the lease has expired,
//!                     and what was copied under it is checked before it is relied on
//!   leases/ID/clock   written and removed at once, to read the store's clock
//! ```
//!
//! Why this makes deletion safe: [`crate::collect`].

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use ulid::Ulid;

use crate::store::{ListedObject, Store, StoreError, names};

/// The interval of heartbeats: many within the time after which a lease expires.
const RENEW_EVERY: Duration = Duration::from_secs(60);
/// How long an expired lease is kept: longer than any draft waits to be sealed.
const EXPIRED_KEPT: Duration = Duration::from_hours(30 * 24);

/// Attempts at reading the store's clock when a collection removes the clock object.
const CLOCK_READS_MAX: usize = 5;

pub(crate) const BEGUN: &str = "begun";
pub(crate) const BEAT: &str = "beat";
pub(crate) const DEAD: &str = "dead";
pub(crate) const CLOCK: &str = "clock";

/// The id of a lease.
pub(crate) type LeaseId = Ulid;

/// The state of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseState {
    /// Collections wait for it.
    Held,
    /// A collection expired it: its holder showed no life for too long.
    Expired,
    /// It was ended.
    Ended,
}

/// The objects of a lease, as the store lists them.
#[derive(Clone, Copy, Debug, Default)]
struct Parts {
    begun: bool,
    expired_unix_ms: Option<i64>,
    /// When any of them was last written, by the store's clock.
    alive_unix_ms: i64,
}

impl Parts {
    fn note(&mut self, part: &str, listed: &ListedObject) {
        match part {
            BEGUN => self.begun = true,
            DEAD => self.expired_unix_ms = Some(listed.written_unix_ms),
            _ => {}
        }
        self.alive_unix_ms = self.alive_unix_ms.max(listed.written_unix_ms);
    }

    fn state(&self) -> LeaseState {
        match (self.expired_unix_ms, self.begun) {
            (Some(_), _) => LeaseState::Expired,
            (None, true) => LeaseState::Held,
            (None, false) => LeaseState::Ended,
        }
    }
}

pub(crate) fn part(id: LeaseId, part: &str) -> Path {
    names::entry(names::LEASES, id).join(part)
}

/// Acquires a lease. Must be done before anything is read that the work relies on.
pub(crate) async fn acquire(store: &Store) -> Result<LeaseId, StoreError> {
    let id = Ulid::generate();
    store.put(&part(id, BEGUN), Bytes::new()).await?;
    Ok(id)
}

/// Marks a lease as expired: what was copied under it must be checked before it is relied on.
pub(crate) async fn expire(store: &Store, id: LeaseId) -> Result<(), StoreError> {
    store.put(&part(id, DEAD), Bytes::new()).await
}

/// Renews until the lease is found to have expired or ended.
pub(crate) async fn keep_renewing(store: &Store, id: LeaseId) -> Result<(), StoreError> {
    loop {
        tokio::time::sleep(RENEW_EVERY).await;
        if renew(store, id).await? != LeaseState::Held {
            return Ok(());
        }
    }
}

/// Writes a heartbeat, and returns the state of the lease.
pub(crate) async fn renew(store: &Store, id: LeaseId) -> Result<LeaseState, StoreError> {
    match state(store, id).await? {
        LeaseState::Held => {
            store.put(&part(id, BEAT), Bytes::new()).await?;
            state(store, id).await
        }
        gone => Ok(gone),
    }
}

/// Reads the state of a lease.
pub(crate) async fn state(store: &Store, id: LeaseId) -> Result<LeaseState, StoreError> {
    let mut parts = Parts::default();
    for listed in store.list(&names::entry(names::LEASES, id)).await? {
        parts.note(listed.path.filename().unwrap_or_default(), &listed);
    }
    Ok(parts.state())
}

/// Ends a lease and removes its objects.
pub(crate) async fn end(store: &Store, id: LeaseId) -> Result<(), StoreError> {
    store.delete(&part(id, BEGUN)).await?;
    store.delete(&part(id, BEAT)).await?;
    store.delete(&part(id, DEAD)).await
}

/// Every lease that is held now.
pub(crate) async fn held(store: &Store) -> Result<Vec<LeaseId>, StoreError> {
    let leases = all(store).await?.into_iter();
    Ok(leases.filter(|(_, parts)| parts.state() == LeaseState::Held).map(|(id, _)| id).collect())
}

/// Expires leases without a heartbeat for too long, and returns those that are still held.
pub(crate) async fn expire_silent(
    store: &Store,
    now_unix_ms: i64,
    lease_timeout: Duration,
) -> Result<Vec<LeaseId>, StoreError> {
    let mut held = Vec::new();
    for (id, parts) in all(store).await? {
        let silent = parts.alive_unix_ms <= before(now_unix_ms, lease_timeout);
        match parts.state() {
            LeaseState::Held if silent => expire(store, id).await?,
            LeaseState::Held => held.push(id),
            LeaseState::Expired
                if parts.expired_unix_ms.is_some_and(|dead| dead < before(now_unix_ms, EXPIRED_KEPT)) =>
            {
                end(store, id).await?;
            }
            LeaseState::Expired | LeaseState::Ended => {}
        }
    }
    Ok(held)
}

/// Removes objects of leases whose end was interrupted, and clock objects that were left.
pub(crate) async fn sweep(
    store: &Store,
    now_unix_ms: i64,
    lease_timeout: Duration,
) -> Result<(), StoreError> {
    for (id, parts) in all(store).await? {
        if parts.state() == LeaseState::Ended && parts.alive_unix_ms <= before(now_unix_ms, lease_timeout) {
            end(store, id).await?;
            store.delete(&part(id, CLOCK)).await?;
        }
    }
    Ok(())
}

fn before(now_unix_ms: i64, age: Duration) -> i64 {
    now_unix_ms.saturating_sub(age.as_millis().try_into().unwrap_or(i64::MAX))
}

async fn all(store: &Store) -> Result<HashMap<LeaseId, Parts>, StoreError> {
    let mut leases: HashMap<LeaseId, Parts> = HashMap::new();
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

/// The time by the clock that dates the store's objects.
pub(crate) async fn store_clock(store: &Store) -> Result<i64, StoreError> {
    if store.is_dry_run() {
        return Ok(store.now().timestamp_millis());
    }
    let name = part(Ulid::generate(), CLOCK);
    let mut now = Err(StoreError::NotFound { name: name.to_string() });
    for _ in 0..CLOCK_READS_MAX {
        store.put(&name, Bytes::new()).await?;
        now = store.head(&name).await.map(|clock| clock.written_unix_ms);
        // A concurrent collection with a tiny timeout may have removed it.
        if !matches!(now, Err(StoreError::NotFound { .. })) {
            break;
        }
    }
    store.delete(&name).await?;
    now
}
