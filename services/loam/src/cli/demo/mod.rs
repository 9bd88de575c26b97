//! `loam demo`: the main job from the first seed to a second machine grown from a backup, said over the bus like
//! everything here, each step with its time.
//!
//! ```text
//!   seed -> web (install script serves a page) -> page through the proxy -> backup
//!        -> page changed through the proxy -> a schedule's backup stores only what changed
//!        -> web2 from the first backup -> its page is as it was -> who runs -> everything removed but the backups
//! ```
//!
//! What it makes is marked, and it removes nothing without its mark: a machine of yours that is called as its own
//! stops it. After a failure things stay as they are, to be looked at; the next run removes them. Where machines are
//! simulated it says so, and makes a disk image itself if it is given none.

mod guard;
mod guest;
mod page;
mod play;
mod tidy;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::exit::{Exit, Trouble};
use super::output::show;
use super::session::Session;

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// The image that the machine grows from (qcow2 or raw); needed where machines are real
    #[arg(long, value_name = "FILE")]
    seed: Option<PathBuf>,
    /// What the image must hash to, 64 hexadecimal digits; it is hashed here where absent
    #[arg(long, value_name = "DIGEST", requires = "seed")]
    sha256: Option<String>,
}

/// How machines that are only pretended call their hypervisor.
const SIMULATED: &str = "simulated";
/// A machine that is ready serves its page at once, or after its server's own start.
const PAGE_PATIENCE: Duration = Duration::from_secs(60);
const BETWEEN: Duration = Duration::from_millis(500);

/// A step that was taken.
#[derive(Clone, Debug, Serialize)]
struct Taken {
    step: &'static str,
    took_ms: u128,
    facts: String,
}

/// The steps so far, shown as they are taken.
struct Steps<'a> {
    session: &'a Session,
    taken: Vec<Taken>,
}

impl Steps<'_> {
    /// Takes a step. What goes wrong in it carries its name.
    async fn take<T>(
        &mut self,
        step: &'static str,
        work: impl Future<Output = Result<(T, String), Trouble>>,
    ) -> Result<T, Trouble> {
        let begun = Instant::now();
        let (value, facts) = work.await.map_err(|trouble| {
            let sentence = format!("step {} ({step}): {}", self.taken.len() + 1, trouble.sentence());
            Trouble::new(trouble.exit(), sentence)
        })?;
        let took_ms = begun.elapsed().as_millis();
        if !self.session.json {
            let seconds = Duration::from_millis(took_ms as u64).as_secs_f32();
            println!("{:>2}. {step:<28} {seconds:>7.2} s   {facts}", self.taken.len() + 1);
        }
        self.taken.push(Taken { step, took_ms, facts });
        Ok(value)
    }
}

/// Does the main job.
pub(super) async fn run(session: &Session, args: DemoArgs) -> Result<(), Trouble> {
    let begun = Instant::now();
    let mut steps = Steps { session, taken: Vec::new() };
    play::play(session, args, &mut steps).await?;
    let took_s = begun.elapsed().as_secs_f32();
    show(session.json, &steps.taken, |taken| {
        println!("the whole job is done: {} steps in {took_s:.1} s", taken.len());
    })
}

/// A step whose outcome is not what was promised.
fn broken(sentence: impl Into<String>) -> Trouble {
    Trouble::new(Exit::Failed, sentence)
}
