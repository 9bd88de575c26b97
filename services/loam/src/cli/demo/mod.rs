//! `loam demo`: everything from the first seed to a second VM restored from a backup, by requests over the bus, each step
//! with its time.
//!
//! ```text
//!   seed -> web (install script serves a page) -> page through the proxy -> backup
//!        -> page changed through the proxy -> a schedule's backup stores only what changed
//!        -> web2 from the first backup -> its page is as it was -> services listed -> all removed but the backups
//! ```
//!
//! What it makes is marked, and it removes nothing without its mark: a VM of yours with the name of one of its own stops
//! it. After a failure everything stays, so that a person can find out why; the next run removes it. Where VMs are
//! simulated it says so, and makes a disk image itself if it is given none.

mod backups;
mod cleanup;
mod guest;
mod http;
mod steps;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::exit::{CliError, CliExitCode};
use super::output::show;
use super::session::Session;
use crate::stdio;

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Image for the VM (qcow2 or raw); needed where VMs are real
    #[arg(long, value_name = "FILE")]
    seed: Option<PathBuf>,
    /// SHA-256 of the image, 64 hexadecimal digits (default: computed here)
    #[arg(long, value_name = "DIGEST", requires = "seed")]
    sha256: Option<String>,
}

/// The hypervisor of simulated VMs.
const SIMULATED: &str = "simulated";
/// A VM that is ready serves its page at once, or after its web server has started.
const PAGE_MAX: Duration = Duration::from_secs(60);
const BETWEEN: Duration = Duration::from_millis(500);

/// A step that was run.
#[derive(Clone, Debug, Serialize)]
struct StepDone {
    step: &'static str,
    took_ms: u128,
    facts: String,
}

/// The steps so far, shown one by one.
struct Steps<'a> {
    session: &'a Session,
    done: Vec<StepDone>,
}

impl Steps<'_> {
    /// Runs a step. Its errors carry its name.
    async fn run<T>(
        &mut self,
        step: &'static str,
        work: impl Future<Output = Result<(T, String), CliError>>,
    ) -> Result<T, CliError> {
        let begun = Instant::now();
        let (value, facts) = work.await.map_err(|error| {
            let message = format!("step {} ({step}): {}", self.done.len() + 1, error.message());
            CliError::new(error.exit(), message)
        })?;
        let took_ms = begun.elapsed().as_millis();
        if !self.session.json {
            let seconds = Duration::from_millis(took_ms as u64).as_secs_f32();
            stdio::line(format_args!("{:>2}. {step:<31} {seconds:>7.2} s   {facts}", self.done.len() + 1));
        }
        self.done.push(StepDone { step, took_ms, facts });
        Ok(value)
    }
}

/// Runs all steps.
pub(super) async fn run(session: &Session, args: DemoArgs) -> Result<(), CliError> {
    let begun = Instant::now();
    let mut steps = Steps { session, done: Vec::new() };
    steps::run(session, args, &mut steps).await?;
    let took_s = begun.elapsed().as_secs_f32();
    show(session.json, &steps.done, |done, text| {
        text.line(format_args!("the demo is done: {} steps in {took_s:.1} s", done.len()));
    })
}

/// A step whose outcome is not what was promised.
fn failed(message: impl Into<String>) -> CliError {
    CliError::new(CliExitCode::Failed, message)
}
