//! A command at work: it can be cancelled, and shows its progress.

use std::sync::Arc;
use std::time::Duration;

use backup_repository::{Cancel, Progress, ProgressCounters};
use contract::ByteCount;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;

use super::errors;
use crate::cli::exit::{CliError, CliExitCode};

/// Often enough to be read as motion.
const DRAW_EVERY: Duration = Duration::from_millis(200);
// Shorter than most terminals are wide: the terminal's own ^C then stays on the line that is cleared.
const OF_UNKNOWN_LENGTH: &str = "{spinner} {msg} {elapsed}";
const OF_BYTES: &str = "{spinner} {msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}";

/// A command at work.
pub(super) struct CommandContext {
    /// Whether the result is for programs.
    pub json: bool,
    /// Cancelled by Ctrl-C or SIGTERM.
    pub cancel: Cancel,
}

impl CommandContext {
    /// Listens for signals. The first ends in order; the second at once.
    pub(super) fn begin(json: bool) -> Result<CommandContext, CliError> {
        let listen = |kind| signal(kind).map_err(|error| errors::while_doing("listening for signals", error));
        let (mut interrupt, mut terminate) =
            (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        let cancel = Cancel::new();
        let signalled = cancel.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if signalled.is_cancelled() {
                    std::process::exit(CliExitCode::Interrupted as i32);
                }
                signalled.cancel();
            }
        });
        Ok(CommandContext { json, cancel })
    }

    /// Awaits work that cannot be cancelled by itself, until the command is cancelled. It must be sound to drop it.
    pub(super) async fn unless_cancelled<T, E>(
        &self,
        doing: impl Future<Output = Result<T, E>>,
        failed: impl FnOnce(E) -> CliError,
    ) -> Result<T, CliError> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(CliError::new(CliExitCode::Interrupted, "interrupted").with_kind("interrupted")),
            done = doing => done.map_err(failed),
        }
    }

    /// The same for errors of the engine.
    pub(super) async fn wait<T, E: std::error::Error + 'static>(
        &self,
        doing: impl Future<Output = Result<T, E>>,
    ) -> Result<T, CliError> {
        self.unless_cancelled(doing, errors::of).await
    }
}

/// Shows a bar until the work is done; nothing where standard error is no terminal.
pub(super) async fn shown<T>(title: &str, progress: &Arc<Progress>, doing: impl Future<Output = T>) -> T {
    let bar = ProgressBar::new_spinner();
    let mut doing = std::pin::pin!(doing);
    let mut ticks = tokio::time::interval(DRAW_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            done = &mut doing => {
                bar.finish_and_clear();
                return done;
            }
            _ = ticks.tick() => draw(&bar, title, &progress.read()),
        }
    }
}

/// A bar for so many bytes, which its owner moves; nothing where standard error is no terminal.
pub(super) fn bar_of(title: &'static str, bytes: u64) -> ProgressBar {
    ProgressBar::new(bytes).with_style(style(OF_BYTES)).with_message(title)
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates above are well formed")
}

fn draw(bar: &ProgressBar, title: &str, reading: &ProgressCounters) {
    let amount = |what: &str, bytes: u64| match bytes {
        0 => String::new(),
        bytes => format!(", {} {what}", ByteCount(bytes)),
    };
    let mut message = format!("{title}{}", amount("stored", reading.stored_bytes));
    let template = if reading.total_bytes > 0 {
        bar.set_length(reading.total_bytes);
        bar.set_position(reading.done_bytes.min(reading.total_bytes));
        OF_BYTES
    } else {
        message.push_str(&amount("read", reading.read_bytes));
        OF_UNKNOWN_LENGTH
    };
    bar.set_style(style(template));
    bar.set_message(message);
    bar.tick();
}
