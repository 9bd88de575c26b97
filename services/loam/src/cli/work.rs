//! Work that lasts, watched until it ends: a bar for people, the last report for programs.

use std::time::Duration;

use contract::operation::{Begun, GetOperation, OperationChanged, OperationReport, OperationState};
use contract::{OperationId, Service};
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, MissedTickBehavior};

use super::args::Lasting;
use super::exit::{Exit, Trouble};
use super::output::show;
use super::session::{Session, of_call};

/// How often the operation is asked about, beside what is heard of it.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// One question about it.
const LOOK_MAX: Duration = Duration::from_secs(5);
/// How long its service may be away: longer than a restart takes.
const AWAY_MAX: Duration = Duration::from_secs(90);

/// Follows a command that was begun, or only says what it began.
pub(super) async fn follow(
    session: &Session,
    service: Service,
    begun: Begun,
    lasting: Lasting,
) -> Result<(), Trouble> {
    if lasting.detach {
        return show(session.json, &begun, |begun| println!("{}", begun.operation()));
    }
    watch(session, service, begun.operation()).await
}

/// Watches an operation until it ends, shows its report, and ends as it does.
pub(super) async fn watch(session: &Session, service: Service, id: &OperationId) -> Result<(), Trouble> {
    let report = outcome(session, service, id).await?;
    show(session.json, &report, |report| println!("{}", done_line(report)))
}

/// Watches an operation until it is done; anything else is trouble.
pub(super) async fn outcome(
    session: &Session,
    service: Service,
    id: &OperationId,
) -> Result<OperationReport, Trouble> {
    let report = tokio::select! {
        report = end_of(session, service, id) => report?,
        _ = tokio::signal::ctrl_c() => {
            let sentence = format!("operation {id} goes on; `loam op watch {id}` shows it, `loam op cancel {id}` undoes it");
            return Err(Trouble::new(Exit::Interrupted, sentence));
        }
    };
    let named = format!("{} {}", report.kind, report.about);
    let reason = report.reason.clone().unwrap_or_default();
    match report.state {
        OperationState::Done => Ok(report),
        OperationState::Stuck => Err(Trouble::new(Exit::Stuck, format!("{named}: stuck ({id}): {reason}"))),
        _ => Err(Trouble::new(Exit::Failed, format!("{named}: undone ({id}): {reason}"))),
    }
}

fn done_line(report: &OperationReport) -> String {
    let took = (report.moved - report.begun).num_milliseconds() as f64 / 1000.0;
    format!("{} {}: done in {took:.1} s", report.kind, report.about)
}

/// Moves are heard as events; now and then the service is asked, too, since an event can be missed.
async fn end_of(session: &Session, service: Service, id: &OperationId) -> Result<OperationReport, Trouble> {
    let bar = bar();
    let mut heard = Instant::now();
    let moves = session.bus.subscribe::<OperationChanged>().await;
    let mut moves = moves.map_err(|error| Trouble::new(Exit::Unreachable, error.to_string()))?;
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let report = tokio::select! {
            Some((OperationChanged(report), _)) = moves.next() => (report.id == *id).then_some(report),
            _ = looks.tick() => {
                match session.bus.call_at(service, &GetOperation { id: id.clone() }, LOOK_MAX).await {
                    Ok(report) => Some(report),
                    Err(error) if error.is_transient() && heard.elapsed() < AWAY_MAX => {
                        bar.set_message(format!("waiting: {error}"));
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
        heard = Instant::now();
        if report.state.is_final() {
            bar.finish_and_clear();
            return Ok(report);
        }
        draw(&bar, &report);
    }
}

/// Hidden where stderr is no terminal.
fn bar() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn draw(bar: &ProgressBar, report: &OperationReport) {
    const STEPS: &str = "{spinner} {msg}";
    const BYTES: &str = "{spinner} {msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    let undoing = if report.state == OperationState::Undoing { "undoing " } else { "" };
    let step = report.step.as_deref().unwrap_or("…");
    let message = format!(
        "{} {}: {undoing}{step} ({}/{})",
        report.kind, report.about, report.steps_done, report.steps_total
    );
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
