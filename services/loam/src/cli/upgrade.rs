//! `loam upgrade` and `loam status`.

use contract::Service;
use contract::operation::{CheckHealth, Health};
use contract::upgrade::{ApplyRelease, ListServices, RunningService};
use serde::Serialize;

use super::args;
use super::exit::{Exit, Trouble};
use super::output::{show, table, time};
use super::session::Session;
use super::work::follow;

pub(super) async fn run(session: &Session, command: args::Upgrade) -> Result<(), Trouble> {
    match command {
        args::Upgrade::Status => {
            show(session.json, &session.ask(ListServices {}).await?, |services| running(services))
        }
        args::Upgrade::Apply { folder, lasting } => {
            let folder = std::path::absolute(&folder)
                .map_err(|error| Trouble::new(Exit::Usage, format!("{}: {error}", folder.display())))?;
            let begun = session.ask(ApplyRelease { folder, operation_id: None }).await?;
            follow(session, Service::Upgrade, begun, lasting).await
        }
    }
}

fn running(services: &[RunningService]) {
    let rows = services.iter().map(|running| {
        let health = &running.health;
        let since = time(&health.since);
        [
            health.service.to_string(),
            health.version.clone(),
            health.build.clone(),
            running.host.clone(),
            since,
        ]
    });
    table(["SERVICE", "VERSION", "BUILD", "HOST", "SINCE"], rows.collect(), "no service was found");
}

/// One service as it was found, or why it was not.
#[derive(Serialize)]
struct Found {
    service: Service,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<Health>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
}

/// Asks every service how it is; ends with 1 where one is not well.
pub(super) async fn status(session: &Session) -> Result<(), Trouble> {
    let mut found = Vec::new();
    for service in Service::ALL {
        found.push(match session.ask_at(service, CheckHealth {}).await {
            Ok(health) => Found { service, trouble: worst(&health), health: Some(health) },
            Err(trouble) => Found { service, health: None, trouble: Some(trouble.sentence().into()) },
        });
    }
    show(session.json, &found, |found| {
        let rows = found.iter().map(|found| {
            let version = found.health.as_ref().map_or_else(|| "-".into(), |health| health.version.clone());
            let since = found.health.as_ref().map_or_else(|| "-".into(), |health| time(&health.since));
            let how = found.trouble.clone().unwrap_or_else(|| "well".into());
            [found.service.to_string(), version, since, how]
        });
        table(["SERVICE", "VERSION", "SINCE", "HOW"], rows.collect(), "");
    })?;
    let ill: Vec<&str> = found.iter().filter(|f| f.trouble.is_some()).map(|f| f.service.name()).collect();
    if ill.is_empty() {
        Ok(())
    } else {
        Err(Trouble::told(Exit::Failed, format!("not well: {}", ill.join(", "))))
    }
}

fn worst(health: &Health) -> Option<String> {
    let troubles: Vec<String> = health
        .parts
        .iter()
        .filter_map(|part| part.trouble.as_ref().map(|trouble| format!("{}: {trouble}", part.part)))
        .collect();
    (!troubles.is_empty()).then(|| troubles.join("; "))
}
