//! `loam op`.

use clap::Subcommand;
use clap_complete::{ArgValueCandidates, ArgValueCompleter};
use contract::operation::{
    CancelOperation, GetOperation, GetScriptOutput, ListOperations, OperationPosition, OperationReport,
    OperationState, ScriptOutput,
};
use contract::{OperationId, Service};

use super::args::DETACH;
use super::completion;
use super::exit::{CliError, CliExitCode};
use super::output::{Text, cut, extra, printable, short, short_length, show, time, whole};
use super::session::Session;
use super::watch::{title, watch};

/// The services that run operations.
pub(super) const WORKERS: [Service; 3] = Service::WITH_OPERATIONS;
/// An ambiguous prefix names so many of the ids that it may mean.
const CANDIDATES_SHOWN: usize = 5;
/// Operations that are listed unless the person wants more.
const LIMIT_DEFAULT: usize = 50;
/// Operations in one reply, as many as a service gives.
const PAGE: usize = 200;

#[derive(Debug, Subcommand)]
pub(super) enum OpCommand {
    /// List operations, newest first
    List {
        /// Only operations that have not ended
        #[arg(long)]
        unfinished: bool,
        /// Only operations of this service: provisioner, backup or upgrade
        #[arg(long, add = ArgValueCandidates::new(completion::workers))]
        service: Option<Service>,
        /// Only operations that this person or service asked for
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
        /// Only the newest N
        #[arg(short = 'n', long, value_name = "N", default_value_t = LIMIT_DEFAULT)]
        limit: usize,
    },
    /// Show one operation
    Show {
        /// Id of the operation, or its first characters
        #[arg(add = ArgValueCompleter::new(completion::operations))]
        id: String,
        /// Show what its scripts wrote instead; only the operator and whoever asked for it may
        #[arg(long)]
        output: bool,
    },
    /// Follow an operation until it ends
    Watch {
        /// Id of the operation, or its first characters
        #[arg(add = ArgValueCompleter::new(completion::operations))]
        id: String,
    },
    /// Cancel an operation and undo what it did
    Cancel {
        /// Id of the operation, or its first characters
        #[arg(add = ArgValueCompleter::new(completion::operations))]
        id: String,
        #[arg(long, help = DETACH)]
        detach: bool,
    },
}

pub(super) async fn run(session: &Session, command: OpCommand) -> Result<(), CliError> {
    match command {
        OpCommand::List { unfinished, service, by, limit } => {
            let query = ListOperations { unfinished_only: unfinished, by, ..ListOperations::default() };
            let services: Vec<_> = WORKERS
                .into_iter()
                .filter(|worker| service.is_none_or(|service| service == *worker))
                .collect();
            let reports = newest(session, &services, &query, limit).await?;
            let length = short_length(reports.iter().map(|report| report.id.as_str()));
            show(session.json, &reports, |reports, text| list(reports, length, text))
        }
        OpCommand::Show { id, output: false } => show(session.json, &find(session, &id).await?, one),
        OpCommand::Show { id, output: true } => {
            let OperationReport { service, id, .. } = find(session, &id).await?;
            show(
                session.json,
                &session.request_at(service, GetScriptOutput { id }).await?,
                |outputs, text| written(outputs, text),
            )
        }
        OpCommand::Watch { id } => {
            let report = find(session, &id).await?;
            watch(session, report.service, &report.id).await
        }
        OpCommand::Cancel { id, detach } => cancel(session, &id, detach).await,
    }
}

/// The newest operations of some services, newest first, read page by page.
async fn newest(
    session: &Session,
    services: &[Service],
    query: &ListOperations,
    limit: usize,
) -> Result<Vec<OperationReport>, CliError> {
    let mut reports: Vec<OperationReport> = Vec::new();
    for service in services {
        let (mut left, mut before) = (limit, None);
        while left > 0 {
            let page = left.min(PAGE);
            let query = ListOperations { limit: Some(page as u16), before, ..query.clone() };
            let found = session.request_at(*service, query).await?;
            before = found.last().map(OperationPosition::from);
            left = if found.len() < page { 0 } else { left - found.len() };
            reports.extend(found);
        }
    }
    reports.sort_by_key(|report| std::cmp::Reverse(report.started));
    reports.truncate(limit);
    Ok(reports)
}

async fn cancel(session: &Session, given: &str, detach: bool) -> Result<(), CliError> {
    let before = find(session, given).await?;
    let (service, id) = (before.service, before.id.clone());
    if before.state.is_final() {
        return ended_already(session, &before);
    }
    let report = session.request_at(service, CancelOperation { id: id.clone() }).await?;
    if detach {
        return show(session.json, &report, |report, text| {
            text.line(format_args!("{} ({}) is being undone", title(report), report.id));
        });
    }
    match watch(session, service, &id).await {
        // Undone is what was asked for.
        Err(error) if error.exit() == CliExitCode::Failed => {
            let report = get(session, service, &id).await?;
            show(session.json, &report, |report, text| {
                text.line(format_args!("{} ({}) was cancelled and undone", title(report), report.id));
            })
        }
        Ok(()) => Err(too_late(&get(session, service, &id).await?).after_answer()),
        stuck => stuck,
    }
}

/// Cancelling twice is cancelling once; what is done or stuck cannot be cancelled any more.
fn ended_already(session: &Session, report: &OperationReport) -> Result<(), CliError> {
    if report.state != OperationState::Undone {
        return Err(too_late(report));
    }
    show(session.json, report, |report, text| {
        text.line(format_args!("{} ({}) was undone already", title(report), report.id));
    })
}

fn too_late(report: &OperationReport) -> CliError {
    let message = format!(
        "{} ({}) ended at {} and is {}; nothing was cancelled",
        title(report),
        report.id,
        time(&report.updated),
        state(report)
    );
    CliError::new(CliExitCode::Refused, message)
}

async fn get(session: &Session, service: Service, id: &OperationId) -> Result<OperationReport, CliError> {
    session.request_at(service, GetOperation { id: id.clone() }).await
}

/// The operation with this id, or the only one whose id begins so.
async fn find(session: &Session, given: &str) -> Result<OperationReport, CliError> {
    let given = given.to_ascii_uppercase();
    let Ok(id) = given.parse::<OperationId>() else {
        let query = ListOperations { id_prefix: Some(given.clone()), ..ListOperations::default() };
        return only_one(newest(session, &WORKERS, &query, PAGE).await?, &given);
    };
    for service in WORKERS {
        match get(session, service, &id).await {
            Err(error) if error.exit() == CliExitCode::Refused => {}
            answer => return answer,
        }
    }
    Err(unknown(&given))
}

fn unknown(given: &str) -> CliError {
    CliError::new(
        CliExitCode::Refused,
        format!("there is no operation {given}; `loam op list` shows which there are"),
    )
    .with_kind("no_operation")
}

fn only_one(reports: Vec<OperationReport>, prefix: &str) -> Result<OperationReport, CliError> {
    if prefix.is_empty() {
        return Err(unknown(prefix));
    }
    let mut fitting: Vec<_> =
        reports.into_iter().filter(|report| report.id.as_str().starts_with(prefix)).collect();
    match fitting.len() {
        1 => Ok(fitting.remove(0)),
        0 => Err(unknown(prefix)),
        count => {
            let ids: Vec<_> =
                fitting.iter().take(CANDIDATES_SHOWN).map(|report| report.id.as_str()).collect();
            let more = if count > CANDIDATES_SHOWN { ", ..." } else { "" };
            let message = format!("{prefix} may be any of {count} operations: {}{more}", ids.join(", "));
            Err(CliError::new(CliExitCode::Usage, message))
        }
    }
}

fn state(report: &OperationReport) -> String {
    let state = serde_json::to_value(&report.state).ok();
    state.and_then(|value| value.as_str().map(str::to_string)).unwrap_or_default()
}

fn list(reports: &[OperationReport], length: usize, text: &mut Text) {
    let rows = reports.iter().map(|report| {
        let step = match (&report.step, &report.waiting_for) {
            (Some(step), Some(waiting_for)) => format!("{step}: {waiting_for}"),
            (Some(step), None) => step.clone(),
            (None, _) => report.reason.clone().unwrap_or_default(),
        };
        [
            short(report.id.as_str(), length),
            report.service.to_string(),
            title(report),
            state(report),
            report.asked_by().to_string(),
            report.host.to_string(),
            time(&report.started),
            step,
        ]
    });
    let head = [
        whole("ID"),
        extra(whole("SERVICE")),
        cut("OPERATION"),
        whole("STATE"),
        whole("BY"),
        extra(whole("HOST")),
        whole("BEGUN"),
        cut("STEP OR REASON"),
    ];
    text.table(head, rows.collect(), "no operations");
}

fn written(outputs: &[ScriptOutput], text: &mut Text) {
    if outputs.is_empty() {
        text.line("no output of scripts");
    }
    for ScriptOutput { script, output } in outputs {
        text.line(format_args!("{script}:"));
        output.lines().for_each(|line| text.line(format_args!("  {}", printable(line))));
    }
}

fn one(report: &OperationReport, text: &mut Text) {
    text.field("id", Some(&report.id));
    text.field("service", Some(report.service));
    text.field("operation", Some(title(report)));
    text.field("state", Some(state(report)));
    text.field("by", Some(&report.caller));
    text.field("for", report.on_behalf_of.as_ref());
    text.field("host", Some(&report.host));
    text.field("steps", Some(format_args!("{} of {}", report.steps_done, report.steps_total)));
    text.field("step", report.step.as_ref());
    text.field("waiting for", report.waiting_for.as_ref());
    text.field("reason", report.reason.as_ref());
    text.field("begun", Some(time(&report.started)));
    text.field("changed", Some(time(&report.updated)));
    text.field("trace", report.trace_id.as_ref());
}

#[cfg(test)]
mod tests {
    use contract::message::Caller;

    use super::*;

    fn report(id: &str) -> OperationReport {
        OperationReport {
            id: id.parse().expect("an id"),
            service: Service::Provisioner,
            host: contract::HostName::new("h1").expect("a name"),
            caller: Caller::Person { user: "UALICE".into(), name: Some("alice".into()) },
            on_behalf_of: None,
            kind: "create_vm".into(),
            about: "web".into(),
            state: OperationState::Done,
            step: None,
            steps_done: 3,
            steps_total: 3,
            progress: None,
            waiting_for: None,
            reason: None,
            output: None,
            started: chrono::Utc::now(),
            updated: chrono::Utc::now(),
            trace_id: None,
        }
    }

    #[test]
    fn a_prefix_names_an_operation_only_where_it_is_the_only_one() {
        let all = || vec![report("01KB0000000000000000000001"), report("01KB0000000000000000000002")];
        let found = only_one(all(), "01KB0000000000000000000002").expect("only one");
        assert_eq!(found.id.as_str(), "01KB0000000000000000000002");
        let ambiguous = only_one(all(), "01KB").expect_err("two");
        assert_eq!(ambiguous.exit(), CliExitCode::Usage);
        assert!(ambiguous.message().contains("any of 2 operations: 01KB"), "{}", ambiguous.message());
        assert_eq!(only_one(all(), "NOPE").expect_err("none").exit(), CliExitCode::Refused);
    }

    #[test]
    fn what_has_ended_cannot_be_cancelled_and_the_answer_says_how_it_ended() {
        let message = too_late(&report("01KB0000000000000000000001")).message().to_string();
        assert!(message.starts_with("create vm web (01KB0000000000000000000001) ended at"), "{message}");
        assert!(message.ends_with("is done; nothing was cancelled"), "{message}");
    }
}
