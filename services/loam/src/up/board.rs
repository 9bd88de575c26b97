//! The board that a person sees: one calm line a process.
//!
//! On a terminal the lines stay in their places and change there; elsewhere a line is written when what it says has
//! changed. Whether a service is well it says itself, asked over the bus.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use bus::Bus;
use contract::Service;
use contract::operation::{CheckHealth, Health};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::sync::watch;

use super::keeper::{Phase, View};

/// How often services are asked how they are.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// A service may look at its own parts for three seconds before it answers.
const ASK_MAX: Duration = Duration::from_secs(5);

/// What every service last said of itself; silent ones are absent.
pub(super) type HealthTable = HashMap<Service, Health>;

/// Asks every service how it is, for ever.
pub(super) async fn ask_all(bus: Bus, tell: watch::Sender<HealthTable>) {
    loop {
        let asked = Service::FIVE.map(|service| {
            let bus = bus.clone();
            async move { (service, bus.call_at(service, &CheckHealth {}, ASK_MAX).await) }
        });
        let answers = futures::future::join_all(asked).await;
        let table =
            answers.into_iter().filter_map(|(service, answer)| Some((service, answer.ok()?))).collect();
        if tell.send(table).is_err() {
            return;
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// What stands beside a name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    state: String,
    detail: String,
}

/// What a process's line says.
fn line(view: &View, health: Option<&Health>, note: &str) -> Line {
    let since = view.since.with_timezone(&chrono::Local).format("%H:%M:%S");
    let again = match view.restarts {
        0 => String::new(),
        times => format!("  started again {times} times"),
    };
    match (&view.phase, health) {
        (Phase::Ended, _) => Line { state: "ended".into(), detail: String::new() },
        (Phase::Down(why), _) => {
            Line { state: "down".into(), detail: format!("since {since}{again}  {why}") }
        }
        (Phase::Up(_), None) => Line { state: "starting".into(), detail: format!("since {since}{again}") },
        (Phase::Up(_), Some(health)) => {
            let troubles = health.parts.iter().filter_map(|part| {
                part.trouble.as_ref().map(|trouble| format!("  {}: {trouble}", part.part))
            });
            let troubles: String = troubles.collect();
            let state = if troubles.is_empty() { "ready" } else { "unwell" };
            let Health { version, build, .. } = health;
            let detail = format!("{version}  build {build}  since {since}{again}{note}{troubles}");
            Line { state: state.into(), detail }
        }
    }
}

/// The lines on a terminal or in a log.
pub(super) struct Board {
    shown: Shown,
    last: HashMap<String, Line>,
    simulated: bool,
}

enum Shown {
    InPlace { screen: MultiProgress, bars: Vec<(String, ProgressBar)> },
    Plain,
}

impl Board {
    /// A board with a head line and a line for each name, in this order.
    pub(super) fn of(head: &str, names: &[String], simulated: bool) -> Board {
        say(head);
        if simulated {
            say("SIMULATED hypervisor: no machine really exists");
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
        Board { shown, last: HashMap::new(), simulated }
    }

    /// Shows a service as it is.
    pub(super) fn show(&mut self, service: Service, view: &View, health: Option<&Health>) {
        let pretended = self.simulated && service == Service::Provisioner;
        let note = if pretended { "  SIMULATED hypervisor" } else { "" };
        self.put(service.name(), line(view, health, note));
    }

    /// Shows a process that says nothing of itself on the bus; it is well when it runs.
    pub(super) fn show_plain(&mut self, name: &str, view: &View, detail: &str) {
        let mut line = line(view, None, "");
        if matches!(view.phase, Phase::Up(_)) {
            line.state = "ready".into();
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
            Shown::Plain => say(text.trim_end()),
        }
        self.last.insert(name.into(), line);
    }

    /// Says once that everything is ready: what a script waits for.
    pub(super) fn all_ready(&self) {
        const WORDS: &str = "all services are ready";
        match &self.shown {
            // Above the lines; a screen that cannot be written to has nobody who reads.
            Shown::InPlace { screen, .. } => drop(screen.println(WORDS)),
            Shown::Plain => say(WORDS),
        }
    }

    /// Leaves the lines as they are.
    pub(super) fn leave(self) {
        if let Shown::InPlace { bars, .. } = self.shown {
            for (_, bar) in bars {
                bar.abandon();
            }
        }
    }
}

/// Writes a line for the person. A reader who has gone away wanted no more.
pub(super) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "{text}").and_then(|()| out.flush()));
}

#[cfg(test)]
mod tests {
    use contract::operation::PartHealth;

    use super::*;

    fn view(phase: Phase) -> View {
        View { phase, since: chrono::Utc::now(), restarts: 2, executable: "/usr/bin/loam-backup".into() }
    }

    #[test]
    fn a_line_says_what_is_wrong() {
        let down = line(&view(Phase::Down("exit status: 1: settings: unknown field `x`".into())), None, "");
        assert_eq!(down.state, "down");
        assert!(down.detail.contains("unknown field `x`") && down.detail.contains("started again 2 times"));
        let part = PartHealth { part: "store".into(), trouble: Some("no answer within 3 s".into()) };
        let health = Health {
            service: Service::Backup,
            version: "0.1.0".into(),
            build: "a1b2".into(),
            instance: "1".into(),
            since: chrono::Utc::now(),
            parts: vec![part],
        };
        let unwell = line(&view(Phase::Up(7)), Some(&health), "");
        assert_eq!(unwell.state, "unwell");
        assert!(unwell.detail.ends_with("store: no answer within 3 s"), "{}", unwell.detail);
        assert_eq!(line(&view(Phase::Up(7)), None, "").state, "starting");
    }
}
