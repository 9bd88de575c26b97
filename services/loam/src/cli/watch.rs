//! An operation, followed until it ends: a bar for people, the last report for programs.

use std::time::Duration;

use contract::message::MessageOwner;
use contract::operation::{GetOperation, OperationChanged, OperationReport, OperationState};
use contract::{DurableCommand, OperationId, Service};
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, MissedTickBehavior};

use super::exit::{CliError, CliExitCode};
use super::output::{printable, show};
use super::result;
use super::session::{Session, of_call};
use crate::stdio;

/// How often the operation is asked for, beside its events: one may be lost.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// One question about it.
const POLL_MAX: Duration = Duration::from_secs(5);
/// How long its service may be away: longer than a restart takes.
const AWAY_MAX: Duration = Duration::from_secs(90);

/// Sends a command that begins an operation, and follows the operation or prints only its id.
pub(super) async fn begin<C: DurableCommand>(
    session: &Session,
    command: C,
    detach: bool,
) -> Result<(), CliError> {
    let MessageOwner::One(service) = C::OWNER else { unreachable!("one service owns a durable command") };
    let begun = session.request(command).await?;
    if detach {
        return show(session.json, &begun, |begun, text| text.line(begun.operation()));
    }
    watch(session, service, begun.operation()).await
}

/// Follows an operation until it ends, shows its result, and ends as it does.
pub(super) async fn watch(session: &Session, service: Service, id: &OperationId) -> Result<(), CliError> {
    let report = outcome(session, service, id).await?;
    let result = if session.json { String::new() } else { result::of(session, &report).await };
    show(session.json, &report, |_, text| text.line(result))
}

/// Follows an operation until it is done; any other end is an error.
pub(super) async fn outcome(
    session: &Session,
    service: Service,
    id: &OperationId,
) -> Result<OperationReport, CliError> {
    let report = tokio::select! {
        report = end_of(session, service, id) => report?,
        _ = tokio::signal::ctrl_c() => {
            let message = format!("operation {id} goes on; `loam op watch {id}` follows it, `loam op cancel {id}` undoes it");
            return Err(CliError::new(CliExitCode::Interrupted, message));
        }
    };
    let reason = report.reason.clone().unwrap_or_default();
    let title = title(&report);
    match report.state {
        OperationState::Done => Ok(report),
        OperationState::Stuck => Err(CliError::new(
            CliExitCode::OperationStuck,
            format!("{title} is stuck: {reason} (operation {id})"),
        )),
        _ => Err(CliError::new(
            CliExitCode::Failed,
            format!("{title} failed and was undone: {reason} (operation {id})"),
        )),
    }
}

/// What an operation does, as people read it: `create vm web`.
pub(super) fn title(report: &OperationReport) -> String {
    format!("{} {}", report.kind.replace('_', " "), report.about)
}

/// Its events say how far it is; now and then its service is asked, too, since an event can be lost.
async fn end_of(session: &Session, service: Service, id: &OperationId) -> Result<OperationReport, CliError> {
    let bar = bar();
    let mut waiting_for = None;
    let mut known = Instant::now();
    let moves = session.bus.subscribe::<OperationChanged>().await;
    let mut moves = moves.map_err(|error| CliError::new(CliExitCode::Unreachable, error.to_string()))?;
    let mut polls = tokio::time::interval(POLL_EVERY);
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let report = tokio::select! {
            Some((OperationChanged(report), _)) = moves.next() => (report.id == *id).then_some(report),
            _ = polls.tick() => {
                match session.bus.call_at(service, &GetOperation { id: id.clone() }, POLL_MAX).await {
                    Ok(report) => Some(report),
                    Err(error) if error.is_transient() && known.elapsed() < AWAY_MAX => {
                        bar.set_message(format!("waiting for the {service} service: {error}"));
                        None
                    }
                    Err(error) => {
                        bar.finish_and_clear();
                        return Err(of_call(error));
                    }
                }
            }
        };
        let Some(report) = report else { continue };
        known = Instant::now();
        if report.state.is_final() {
            bar.finish_and_clear();
            return Ok(report);
        }
        if report.waiting_for != waiting_for {
            waiting_for.clone_from(&report.waiting_for);
            if let Some(waiting_for) = waiting_for.as_ref().filter(|_| bar.is_hidden()) {
                stdio::note(format_args!("{}: waiting: {}", title(&report), printable(waiting_for)));
            }
        }
        draw(&bar, &report);
    }
}

/// Hidden where standard error is no terminal.
fn bar() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn draw(bar: &ProgressBar, report: &OperationReport) {
    const STEPS: &str = "{spinner} {msg}";
    const BYTES: &str = "{spinner} {msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}";
    let undoing = if report.state == OperationState::Undoing { "undoing " } else { "" };
    let step = report.step.as_deref().unwrap_or("…").replace('_', " ");
    let waiting_for = report.waiting_for.as_ref().map(|reason| format!(", waiting: {}", printable(reason)));
    let (done, total) = (report.steps_done, report.steps_total);
    let message =
        format!("{}: {undoing}{step} ({done}/{total}){}", title(report), waiting_for.unwrap_or_default());
    let (template, progress) = match report.progress {
        Some(progress) if progress.total_bytes > 0 => (BYTES, Some(progress)),
        _ => (STEPS, None),
    };
    bar.set_style(ProgressStyle::with_template(template).expect("the templates above are well formed"));
    if let Some(progress) = progress {
        bar.set_length(progress.total_bytes);
        bar.set_position(progress.done_bytes);
    }
    bar.set_message(message);
}
