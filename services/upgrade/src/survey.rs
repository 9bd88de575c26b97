//! Who runs, and how each is: service discovery first, then each one found is asked.

use std::time::Duration;

use bus::{Bus, CallError, TransportError, Peer, Destination};
use contract::operation::{CheckHealth, Health, PartHealth};
use contract::upgrade::RunningService;
use contract::message::Nothing;
use contract::{HostName, Service, Timestamp};
use futures::future::join_all;

/// How long answers to discovery are collected; on one network they come within milliseconds.
const DISCOVERY: Duration = Duration::from_millis(500);
/// A service looks at all its parts before it answers, and gives each three seconds.
const HEALTH_MAX: Duration = Duration::from_secs(10);

/// Everybody found, ordered by service and host.
pub(crate) async fn running(bus: &Bus) -> Result<Vec<RunningService>, TransportError> {
    let peers = bus.discover(DISCOVERY).await?;
    let asked = peers.iter().filter_map(|peer| {
        // Anybody may offer a service on the bus; ours have names that we know.
        let service: Service = peer.name.parse().ok()?;
        Some(look_at(bus, service, peer))
    });
    let mut found = join_all(asked).await;
    found.sort_by(|one, other| {
        let order = |running: &RunningService| {
            (running.health.service, running.host.clone(), running.health.instance.clone())
        };
        order(one).cmp(&order(other))
    });
    Ok(found)
}

async fn look_at(bus: &Bus, service: Service, peer: &Peer) -> RunningService {
    let told = |key: &str| peer.metadata.get(key).cloned().unwrap_or_default();
    let host = told("host");
    let place = Place { service, host: HostName::new(host.clone()).ok() };
    let health = match health_at(bus, &place, HEALTH_MAX).await {
        Ok(health) => health,
        // It answered to discovery: what it said there, and that it does not answer now.
        Err(error) => Health {
            service,
            version: peer.version.clone(),
            build: told("build"),
            since: begun(&told("instance")),
            instance: told("instance"),
            parts: vec![PartHealth { part: "answer".into(), trouble: Some(error.to_string()) }],
        },
    };
    RunningService { health, host }
}

/// How the service at a place is: of the instance on that host where it can be asked there, else of any.
pub(crate) async fn health_at(
    bus: &Bus,
    place: &Place,
    deadline: Duration,
) -> Result<Health, CallError<NoRefusal>> {
    match bus.call_at(place.clone(), &CheckHealth {}, deadline).await {
        Err(CallError::Transport { cause: TransportError::NoResponder { .. }, .. }) if place.host.is_some() => {
            bus.call_at(place.service, &CheckHealth {}, deadline).await
        }
        answer => answer,
    }
}

/// An instance's name is a ULID and tells when it began.
fn begun(instance: &str) -> Timestamp {
    let milliseconds = ulid::Ulid::from_string(instance).map_or(0, |id| id.timestamp_ms());
    let milliseconds = i64::try_from(milliseconds).unwrap_or_default();
    Timestamp::from_timestamp_millis(milliseconds).unwrap_or_default()
}
