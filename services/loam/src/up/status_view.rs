//! The status that a person sees while `loam up` runs: one line for each process.
//!
//! On a terminal the lines are updated in place; elsewhere a line is written when it changes. Services report their own
//! health over the bus.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::Duration;

use bus::{Bus, Destination};
use chrono::TimeDelta;
use contract::health::{CheckHealth, Health};
use contract::{HostName, Service, Timestamp};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::sync::watch;

use super::keeper::{ProcessState, ProcessStatus};
use crate::stdio;

/// How often services are asked for their health.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// A service may check its own parts for three seconds before it answers.
const ASK_MAX: Duration = Duration::from_secs(5);

/// How long a start may take before what is still missing counts as a fault.
const START_MAX: TimeDelta = TimeDelta::seconds(60);

/// The health of every service that answered.
pub(super) type HealthTable = HashMap<Service, Health>;

/// Asks every service of this host for its health, for ever.
pub(super) async fn poll_health(
    bus: Bus,
    host: HostName,
    services: Vec<Service>,
    sender: watch::Sender<HealthTable>,
) {
    loop {
        let asked = services.iter().map(|&service| {
            let (bus, here) = (bus.clone(), Destination { service, host: Some(host.clone()) });
            async move { (service, bus.call_at(here, &CheckHealth {}, ASK_MAX).await) }
        });
        let answers = futures::future::join_all(asked).await;
        let table =
            answers.into_iter().filter_map(|(service, answer)| Some((service, answer.ok()?))).collect();
        if sender.send(table).is_err() {
            return;
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// What is shown beside a name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    state: String,
    detail: String,
}

/// The line of a process. One that is `starting` has not been healthy since its start: what it still lacks is no fault yet.
fn line(status: &ProcessStatus, health: Option<&Health>, note: &str, starting: bool) -> Line {
    let since = status.since.with_timezone(&chrono::Local).format("%H:%M:%S");
    let again = match status.restarts {
        0 => String::new(),
        times => format!("  restarted {times} times"),
    };
    match (&status.state, health) {
        (ProcessState::Stopped, _) => Line { state: "ended".into(), detail: String::new() },
        (ProcessState::Down(why), _) => {
            Line { state: "down".into(), detail: format!("since {since}{again}  {why}") }
        }
        (ProcessState::Up(_), None) => {
            Line { state: "starting".into(), detail: format!("since {since}{again}") }
        }
        (ProcessState::Up(_), Some(health)) => {
            let problems = health.parts.iter().filter_map(|part| {
                part.problem.as_ref().map(|problem| format!("  {}: {problem}", part.part))
            });
            let problems: String = problems.collect();
            let state = match problems.is_empty() {
                true => "healthy",
                false if starting => "starting",
                false => "degraded",
            };
            let Health { version, build, .. } = health;
            let notices: String = health.notices.iter().map(|notice| format!("  {notice}")).collect();
            let detail = format!("{version}  build {build}  since {since}{again}{note}{problems}{notices}");
            Line { state: state.into(), detail }
        }
    }
}

/// The lines, on a terminal or in a log.
pub(super) struct StatusView {
    shown: Shown,
    last: HashMap<String, Line>,
    /// The start of each service since which it has been healthy.
    healthy_since_start: HashMap<Service, Timestamp>,
    simulated: bool,
}

enum Shown {
    InPlace { screen: MultiProgress, bars: Vec<(String, ProgressBar)> },
    Plain,
}

impl StatusView {
    /// A head line, and a line for each name, in this order.
    pub(super) fn of(head: &str, names: &[String], simulated: bool) -> StatusView {
        stdio::line(head);
        if simulated {
            stdio::line("SIMULATED hypervisor: no VM really exists");
        }
        let shown = if std::io::stdout().is_terminal() {
            let screen = MultiProgress::with_draw_target(indicatif::ProgressDrawTarget::stdout());
            let style = ProgressStyle::with_template("{msg}").expect("a fixed template that is right");
            let bars = names.iter().map(|name| {
                let bar = screen.add(ProgressBar::no_length().with_style(style.clone()));
                bar.set_message(format!("{name:<12} not started yet"));
                (name.clone(), bar)
            });
            let bars = bars.collect();
            Shown::InPlace { screen, bars }
        } else {
            Shown::Plain
        };
        StatusView { shown, last: HashMap::new(), healthy_since_start: HashMap::new(), simulated }
    }

    /// Shows the state of a service, and what the supervisor itself has to say of it.
    pub(super) fn show(
        &mut self,
        service: Service,
        status: &ProcessStatus,
        health: Option<&Health>,
        notice: Option<String>,
    ) {
        let simulated = self.simulated && service == Service::Provisioner;
        let note = if simulated { "  SIMULATED hypervisor" } else { "" };
        let starting = self.is_starting(service, status, health);
        let mut line = line(status, health, note, starting);
        line.detail.extend(notice.map(|notice| format!("  {notice}")));
        self.put(service.name(), line);
    }

    /// Whether a service has not been healthy since its last start, a short while ago.
    fn is_starting(&mut self, service: Service, status: &ProcessStatus, health: Option<&Health>) -> bool {
        if health.is_some_and(Health::is_healthy) {
            self.healthy_since_start.insert(service, status.since);
        }
        let was_healthy = self.healthy_since_start.get(&service) == Some(&status.since);
        !was_healthy && chrono::Utc::now() - status.since < START_MAX
    }

    /// Shows a process that is not asked for its health; it is healthy while it runs.
    pub(super) fn show_plain(&mut self, name: &str, status: &ProcessStatus, detail: &str) {
        let mut line = line(status, None, "", false);
        if matches!(status.state, ProcessState::Up(_)) {
            line.state = "healthy".into();
            line.detail = format!("{detail}  {}", line.detail);
        }
        self.put(name, line);
    }

    fn put(&mut self, name: &str, line: Line) {
        if self.last.get(name) == Some(&line) {
            return;
        }
        let text = format!("{name:<12} {:<9} {}", line.state, line.detail);
        match &self.shown {
            Shown::InPlace { bars, .. } => {
                if let Some((_, bar)) = bars.iter().find(|(known, _)| known == name) {
                    bar.set_message(text);
                    bar.tick();
                }
            }
            Shown::Plain => stdio::line(text.trim_end()),
        }
        self.last.insert(name.into(), line);
    }

    /// Shows that all services are ready: what a script waits for.
    pub(super) fn all_ready(&self) {
        const TEXT: &str = "all services are ready";
        match &self.shown {
            // Above the lines; a terminal that cannot be written to has no reader.
            Shown::InPlace { screen, .. } => drop(screen.println(TEXT)),
            Shown::Plain => stdio::line(TEXT),
        }
    }

    /// Leaves the lines on the terminal.
    pub(super) fn leave(self) {
        if let Shown::InPlace { bars, .. } = self.shown {
            for (_, bar) in bars {
                bar.abandon();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use contract::health::PartHealth;

    use super::*;

    fn status(phase: ProcessState) -> ProcessStatus {
        ProcessStatus {
            state: phase,
            since: chrono::Utc::now(),
            restarts: 2,
            executable: "/usr/bin/loam-backup".into(),
        }
    }

    #[test]
    fn a_line_says_what_is_wrong() {
        let down = line(
            &status(ProcessState::Down("exit status: 1: settings: unknown field `x`".into())),
            None,
            "",
            false,
        );
        assert_eq!(down.state, "down");
        assert!(down.detail.contains("unknown field `x`") && down.detail.contains("restarted 2 times"));
        let part = PartHealth { part: "store".into(), problem: Some("no answer within 3 s".into()) };
        let health = Health {
            service: Service::Backup,
            version: "0.1.0".into(),
            build: "a1b2".into(),
            instance: "1".into(),
            since: chrono::Utc::now(),
            parts: vec![part],
            notices: vec!["VMs are emulated".into()],
        };
        let degraded = line(&status(ProcessState::Up(7)), Some(&health), "", false);
        assert_eq!(degraded.state, "degraded");
        assert!(
            degraded.detail.ends_with("store: no answer within 3 s  VMs are emulated"),
            "{}",
            degraded.detail
        );
        assert_eq!(line(&status(ProcessState::Up(7)), None, "", false).state, "starting");

        let mut view = StatusView {
            shown: Shown::Plain,
            last: HashMap::new(),
            healthy_since_start: HashMap::new(),
            simulated: false,
        };
        let mut shown = |status: &ProcessStatus, health: &Health| {
            view.show(Service::Backup, status, Some(health), None);
            view.last["backup"].state.clone()
        };
        let (now, healthy) = (status(ProcessState::Up(7)), Health { parts: Vec::new(), ..health.clone() });
        assert_eq!(shown(&now, &health), "starting", "it has just started");
        let long_ago = ProcessStatus { since: now.since - START_MAX, ..now.clone() };
        assert_eq!(shown(&long_ago, &health), "degraded", "it has had its time");
        assert_eq!(shown(&now, &healthy), "healthy");
        assert_eq!(shown(&now, &health), "degraded", "it was healthy since its start");
        let restarted = ProcessStatus { since: now.since + TimeDelta::milliseconds(1), ..now };
        assert_eq!(shown(&restarted, &health), "starting");
    }
}
