//! `loam op`.

use contract::operation::{CancelOperation, GetOperation, ListOperations, OperationReport};
use contract::{OperationId, Service};

use super::args;
use super::exit::{Exit, Trouble};
use super::output::{show, table, time};
use super::session::Session;
use super::work::watch;

/// The services that carry operations out.
const WORKERS: [Service; 3] = [Service::Provisioner, Service::Backup, Service::Upgrade];

pub(super) async fn run(session: &Session, command: args::Op) -> Result<(), Trouble> {
    match command {
        args::Op::List { unfinished, service } => {
            let mut reports = Vec::new();
            for worker in
                WORKERS.into_iter().filter(|worker| service.is_none_or(|service| service == *worker))
            {
                reports.extend(session.ask_at(worker, ListOperations { unfinished_only: unfinished }).await?);
            }
            reports.sort_by_key(|report| std::cmp::Reverse(report.begun));
            show(session.json, &reports, |reports| list(reports))
        }
        args::Op::Show { id } => {
            let (_, report) = find(session, &id).await?;
            show(session.json, &report, one)
        }
        args::Op::Watch { id } => {
            let (service, _) = find(session, &id).await?;
            watch(session, service, &id).await
        }
        args::Op::Cancel { id, lasting } => {
            let (service, _) = find(session, &id).await?;
            let report = session.ask_at(service, CancelOperation { id: id.clone() }).await?;
            if lasting.detach || report.state.is_final() {
                return show(session.json, &report, one);
            }
            match watch(session, service, &id).await {
                // Undone is what was asked for.
                Err(trouble) if trouble.exit() == Exit::Failed => {
                    let (_, report) = find(session, &id).await?;
                    show(session.json, &report, one)
                }
                ended => ended,
            }
        }
    }
}

/// Looks for an operation at each service that has some.
async fn find(session: &Session, id: &OperationId) -> Result<(Service, OperationReport), Trouble> {
    for service in WORKERS {
        match session.ask_at(service, GetOperation { id: id.clone() }).await {
            Ok(report) => return Ok((service, report)),
            Err(trouble) if trouble.exit() == Exit::Refused => {}
            Err(trouble) => return Err(trouble),
        }
    }
    Err(Trouble::new(Exit::Refused, format!("there is no operation {id}")))
}

fn word(report: &OperationReport) -> String {
    let state = serde_json::to_value(&report.state).ok();
    state.and_then(|value| value.as_str().map(str::to_string)).unwrap_or_default()
}

fn list(reports: &[OperationReport]) {
    let rows = reports.iter().map(|report| {
        let what = format!("{} {}", report.kind, report.about);
        let how = report.step.clone().or_else(|| report.reason.clone()).unwrap_or_default();
        [report.id.to_string(), report.service.to_string(), what, word(report), how, time(&report.begun)]
    });
    table(
        ["OPERATION", "SERVICE", "WHAT", "STATE", "STEP OR REASON", "BEGUN"],
        rows.collect(),
        "no operations",
    );
}

fn one(report: &OperationReport) {
    let line = |name: &str, value: String| println!("{name:<10} {value}");
    line("operation", report.id.to_string());
    line("service", report.service.to_string());
    line("what", format!("{} {}", report.kind, report.about));
    line("state", word(report));
    line("steps", format!("{} of {}", report.steps_done, report.steps_total));
    if let Some(step) = &report.step {
        line("step", step.clone());
    }
    if let Some(reason) = &report.reason {
        line("reason", reason.clone());
    }
    line("begun", time(&report.begun));
    line("moved", time(&report.moved));
    if let Some(trace) = &report.trace_id {
        line("trace", trace.clone());
    }
}
