//! Which services run, and the health of each: service discovery first, then a request to each one found.

use std::time::Duration;

use bus::{Bus, CallError, Destination, DiscoveredService, TransportError};
use contract::health::{CheckHealth, Health, PartHealth};
use contract::message::{NeverRefused, with_causes};
use contract::upgrade::RunningService;
use contract::{HostName, Service, Timestamp};
use futures::future::join_all;

/// How long answers to discovery are collected; on one network they come within milliseconds.
const DISCOVERY: Duration = Duration::from_millis(500);
/// A service checks its parts before it answers, each for at most three seconds.
const HEALTH_MAX: Duration = Duration::from_secs(10);

/// Every service found, ordered by name and host.
pub(crate) async fn running_services(bus: &Bus) -> Result<Vec<RunningService>, TransportError> {
    let peers = bus.discover(DISCOVERY).await?;
    let checked = peers.iter().filter_map(|peer| {
        // Anybody may offer a service on the bus; ours have names that we know.
        let service: Service = peer.name.parse().ok()?;
        Some(check(bus, service, peer))
    });
    let mut found = join_all(checked).await;
    found.sort_by(|one, other| {
        let order = |running: &RunningService| {
            (running.health.service, running.host.clone(), running.health.instance.clone())
        };
        order(one).cmp(&order(other))
    });
    Ok(found)
}

async fn check(bus: &Bus, service: Service, peer: &DiscoveredService) -> RunningService {
    let announced = |key: &str| peer.metadata.get(key).cloned().unwrap_or_default();
    let host = announced("host");
    let destination = Destination { service, host: HostName::new(host.clone()).ok() };
    let health = match health_at(bus, &destination, HEALTH_MAX).await {
        Ok(health) => health,
        // It answered to discovery: what it announced there, and that it does not answer now.
        Err(error) => Health {
            service,
            version: peer.version.clone(),
            build: announced("build"),
            since: started(&announced("instance")),
            instance: announced("instance"),
            parts: vec![PartHealth { part: "answer".into(), problem: Some(with_causes(&error)) }],
            notices: Vec::new(),
        },
    };
    RunningService { health, host }
}

/// The health of a service: of the instance on that host where one answers there, else of any.
pub(crate) async fn health_at(
    bus: &Bus,
    destination: &Destination,
    deadline: Duration,
) -> Result<Health, CallError<NeverRefused>> {
    match bus.call_at(destination.clone(), &CheckHealth {}, deadline).await {
        Err(CallError::Transport { source: TransportError::NoResponder { .. }, .. })
            if destination.host.is_some() =>
        {
            bus.call_at(destination.service, &CheckHealth {}, deadline).await
        }
        answer => answer,
    }
}

/// An instance's name is a ULID, which holds when it started.
fn started(instance: &str) -> Timestamp {
    let milliseconds = ulid::Ulid::from_string(instance).map_or(0, |id| id.timestamp_ms());
    let milliseconds = i64::try_from(milliseconds).unwrap_or_default();
    Timestamp::from_timestamp_millis(milliseconds).unwrap_or_default()
}
