//! `loam upgrade` and `loam status`.

use std::path::PathBuf;

use clap::Subcommand;
use contract::Service;
use contract::health::{CheckHealth, Health};
use contract::upgrade::{ApplyRelease, ListServices, RollBackService, RunningService};
use serde::Serialize;

use super::args::DETACH;
use super::exit::{CliError, CliExitCode};
use super::output::{Text, cut, show, time, whole};
use super::session::Session;
use super::watch::begin;

#[derive(Debug, Subcommand)]
pub(super) enum UpgradeCommand {
    /// List the versions and builds of running services
    Status,
    /// Replace a service by a signed release
    Apply {
        /// Release directory on the upgrade service's host
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// Apply it also where its version is below the highest that was committed, for this reason
        #[arg(long, value_name = "REASON")]
        allow_downgrade: Option<String>,
        #[arg(long, help = DETACH)]
        detach: bool,
    },
    /// Replace a service by the build that it ran before
    Rollback {
        /// Service: provisioner, backup, proxy or scheduler
        service: Service,
        #[arg(long, help = DETACH)]
        detach: bool,
    },
}

pub(super) async fn run(session: &Session, command: UpgradeCommand) -> Result<(), CliError> {
    match command {
        UpgradeCommand::Status => {
            show(session.json, &session.request(ListServices {}).await?, |services, text| {
                running(services, text)
            })
        }
        UpgradeCommand::Apply { folder, allow_downgrade, detach } => {
            let folder = std::path::absolute(&folder).map_err(|error| {
                CliError::new(CliExitCode::Usage, format!("{}: {error}", folder.display()))
            })?;
            begin(session, ApplyRelease { folder, allow_downgrade, operation_id: None }, detach).await
        }
        UpgradeCommand::Rollback { service, detach } => {
            begin(session, RollBackService { service, operation_id: None }, detach).await
        }
    }
}

fn running(services: &[RunningService], text: &mut Text) {
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
    let head = [whole("SERVICE"), whole("VERSION"), whole("BUILD"), cut("HOST"), whole("SINCE")];
    text.table(head, rows.collect(), "no service answers");
}

/// A service's health, or why it is not known.
#[derive(Serialize)]
struct ServiceStatus {
    service: Service,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<Health>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// Asks every service for its health; ends with 1 where one is degraded or does not answer.
pub(super) async fn status(session: &Session) -> Result<(), CliError> {
    let mut found = Vec::new();
    for service in Service::ALL {
        found.push(match session.request_at(service, CheckHealth {}).await {
            Ok(health) => ServiceStatus { service, problem: problems(&health), health: Some(health) },
            Err(error) => ServiceStatus { service, health: None, problem: Some(error.message().into()) },
        });
    }
    show(session.json, &found, |found, text| {
        let rows = found.iter().map(|found| {
            let version = found.health.as_ref().map_or_else(|| "-".into(), |health| health.version.clone());
            let since = found.health.as_ref().map_or_else(|| "-".into(), |health| time(&health.since));
            let state = match (&found.health, &found.problem) {
                (None, _) => "unreachable",
                (Some(_), Some(_)) => "degraded",
                (Some(_), None) => "healthy",
            };
            [found.service.to_string(), version, since, state.into()]
        });
        text.table([whole("SERVICE"), whole("VERSION"), whole("SINCE"), whole("STATE")], rows.collect(), "");
        for found in found {
            if let Some(problem) = &found.problem {
                text.line(format_args!("{}: {problem}", found.service));
            }
            for notice in found.health.iter().flat_map(|health| &health.notices) {
                text.line(format_args!("{}: {notice}", found.service));
            }
        }
    })?;
    let degraded: Vec<&str> =
        found.iter().filter(|f| f.problem.is_some()).map(|f| f.service.name()).collect();
    if degraded.is_empty() {
        Ok(())
    } else {
        Err(CliError::already_shown(CliExitCode::Failed, format!("not healthy: {}", degraded.join(", "))))
    }
}

fn problems(health: &Health) -> Option<String> {
    let problems: Vec<String> = health
        .parts
        .iter()
        .filter_map(|part| part.problem.as_ref().map(|problem| format!("{}: {problem}", part.part)))
        .collect();
    (!problems.is_empty()).then(|| problems.join("; "))
}
