//! Replaces one service by a release that was received and verified.
//!
//! ```text
//!   stage    the executable in its place        undo: removed, unless something runs from it
//!   note     what runs now
//!   replace  the supervisor starts the new one  undo: it starts the one before, and that one answers
//!   prove    ready in time, well for its soak
//! ```

use std::path::PathBuf;
use std::time::Duration;

use bus::{Bus, CallError, TransportError, Destination};
use contract::supervisor::{ListProcesses, Process, ReplaceService, ReplaceServiceRefused, Replaced};
use contract::{HostName, Service};
use operation::{Context, Work};
use saga::{Step, StepFuture, Trail, Trouble, output};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use upgrade_domain::{Proof, Release, Seen, Verdict};

use crate::metrics::{Outcome, count};
use crate::shelf::{Shelf, ShelfError, build_of};
use crate::survey::health_at;

/// Copies and digests of tens of megabytes, on a slow disk.
const DISK_MAX: Duration = Duration::from_secs(120);
/// The supervisor answers from memory.
const LIST_MAX: Duration = Duration::from_secs(5);
/// The supervisor gives the old process fifteen seconds to end in order, and then ends it.
const REPLACE_MAX: Duration = Duration::from_secs(45);
/// A service looks at its parts before it answers.
const HEALTH_MAX: Duration = Duration::from_secs(10);
/// Between two looks at a service.
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);
/// One attempt at a step that waits for a service; its own patience ends earlier.
const WAIT_MAX: Duration = Duration::from_secs(3600);
/// How long a supervisor that does not answer is borne: it may be starting itself.
const SUPERVISOR_PATIENCE: Duration = Duration::from_secs(60);

/// What the steps need.
pub struct World {
    /// The bus.
    pub bus: Bus,
    /// Our host; only its services are replaced.
    pub host: HostName,
    /// Releases on disk.
    pub shelf: Shelf,
    /// How long a new build may take until it is well.
    pub ready_within: Duration,
    /// How long it must then stay well.
    pub soak: Duration,
}

/// The command: the folder that a release came from. The release itself was received under the operation's id.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Folder {
    /// The folder.
    pub folder: PathBuf,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The service.
    pub service: Service,
    /// Its version now.
    pub version: String,
    /// Its build now.
    pub build: String,
    /// Its build before, where that is known.
    pub build_before: Option<String>,
}

/// What ran when we began.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Before {
    service: Service,
    executable: PathBuf,
    /// Nothing where the executable is gone or cannot be read.
    build: Option<String>,
    answered: bool,
}

type Here = Context<World, Folder>;

/// Replaces one service by a release.
pub struct ApplyRelease;

impl Work for ApplyRelease {
    const KIND: &'static str = "apply_release";
    type World = World;
    type Input = Folder;

    fn about(input: &Folder) -> String {
        input.folder.display().to_string()
    }

    fn steps() -> Vec<Step<Here>> {
        vec![
            Step::new("stage", DISK_MAX, stage).undone_by(unstage),
            Step::new("note", DISK_MAX, note).with_patience(SUPERVISOR_PATIENCE),
            Step::new("replace", REPLACE_MAX, replace).undone_by(put_back).with_patience(SUPERVISOR_PATIENCE),
            Step::new("prove", WAIT_MAX, prove),
        ]
    }
}

fn stage<'a>(here: &'a Here, _: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let (shelf, id) = (here.world.shelf.clone(), here.id.clone());
        let place = on_disk(move || shelf.install(&id, &shelf.received(&id)?)).await?;
        output(&place)
    })
}

fn unstage<'a>(here: &'a Here, _: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        // Without a receipt we know of nothing that was staged.
        let Ok(release) = release(here).await else {
            return output(&());
        };
        let (shelf, place) = (here.world.shelf.clone(), here.world.shelf.place(&release));
        match processes(&here.world).await {
            Ok(processes) if processes.iter().any(|process| process.executable == place) => {}
            Ok(_) => on_disk(move || shelf.uninstall(&release)).await?,
            // It may run from there. A verified executable that nobody starts does no harm; the next upgrade that
            // succeeds removes it.
            Err(trouble) => tracing::warn!(%trouble, place = %place.display(), "a staged build is left"),
        }
        output(&())
    })
}

fn note<'a>(here: &'a Here, _: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let release = release(here).await?;
        let process = process(&here.world, release.service()).await?;
        let executable = process.executable.clone();
        let build = on_disk(move || build_of(&executable)).await.ok();
        let health = health_at(&here.world.bus, &here.world.place(release.service()), HEALTH_MAX).await;
        output(&Before {
            service: release.service(),
            executable: process.executable,
            build,
            answered: health.is_ok(),
        })
    })
}

fn replace<'a>(here: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let before: Before = trail.of("note")?;
        let executable: PathBuf = trail.of("stage")?;
        let replaced = start(&here.world, before.service, executable).await?;
        output(&replaced.before)
    })
}

fn put_back<'a>(here: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let before: Before = trail.of("note")?;
        let service = before.service;
        start(&here.world, service, before.executable.clone()).await?;
        if before.answered {
            answers(&here.world, service, before.build.as_deref()).await?;
        }
        count(Outcome::PutBack);
        tracing::warn!(%service, build = before.build, "the build before was put back");
        output(&())
    })
}

fn prove<'a>(here: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let release = release(here).await?;
        let before: Before = trail.of("note")?;
        let world = &here.world;
        let mut proof = Proof::of(release.build(), world.ready_within, world.soak);
        let started = Instant::now();
        loop {
            let seen = look(world, release.service()).await;
            let verdict = seen.map_or(Verdict::Wait, |seen| proof.see(started.elapsed(), &seen));
            match verdict {
                Verdict::Proven => break,
                Verdict::Failed(reason) => return Err(Trouble::Final(reason)),
                Verdict::Wait => {}
            }
            tokio::select! {
                () = tokio::time::sleep(BETWEEN_LOOKS) => {}
                () = here.cancel.cancelled() => return Err(Trouble::Final("given up".into())),
            }
        }
        let (shelf, service, place) = (world.shelf.clone(), release.service(), world.shelf.place(&release));
        let kept = before.executable.clone();
        if let Err(error) = on_disk(move || shelf.keep_only(service, &[&place, &kept])).await {
            tracing::warn!(%service, %error, "older builds stay on the disk");
        }
        count(Outcome::Applied);
        output(&Applied {
            service,
            version: release.version().into(),
            build: release.build().into(),
            build_before: before.build,
        })
    })
}

impl World {
    fn place(&self, service: Service) -> Place {
        Place { service, host: Some(self.host.clone()) }
    }
}

/// The release of this operation, verified once more.
async fn release(here: &Here) -> Result<Release, Trouble> {
    let (shelf, id) = (here.world.shelf.clone(), here.id.clone());
    on_disk(move || shelf.received(&id)).await
}

async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ShelfError> + Send + 'static,
) -> Result<T, Trouble> {
    let done = tokio::task::spawn_blocking(work).await.expect("shelf work does not panic");
    done.map_err(|error| Trouble::Final(error.to_string()))
}

/// The processes of our host.
async fn processes(world: &World) -> Result<Vec<Process>, Trouble> {
    let listed = world.bus.call_at(world.place(Service::Supervisor), &ListProcesses {}, LIST_MAX).await;
    listed.map_err(|error| trouble(&error, error.is_transient()))
}

async fn process(world: &World, service: Service) -> Result<Process, Trouble> {
    let found = processes(world).await?.into_iter().find(|process| process.service == service);
    found.ok_or_else(|| Trouble::Final(ReplaceServiceRefused::NotHere(service).to_string()))
}

/// Lets the supervisor start a service from an executable; calm where it runs from it already.
async fn start(world: &World, service: Service, executable: PathBuf) -> Result<Replaced, Trouble> {
    let order = ReplaceService { service, executable };
    let replaced = world.bus.call_at(world.place(Service::Supervisor), &order, REPLACE_MAX).await;
    replaced.map_err(|error| trouble(&error, error.is_transient()))
}

/// Waits until a build answers. That it is well is not asked: it may not have been so before.
async fn answers(world: &World, service: Service, build: Option<&str>) -> Result<(), Trouble> {
    let started = Instant::now();
    loop {
        let health = health_at(&world.bus, &world.place(service), HEALTH_MAX).await;
        match health {
            Ok(health) if build.is_none_or(|build| build == health.build) => return Ok(()),
            _ if started.elapsed() < world.ready_within => tokio::time::sleep(BETWEEN_LOOKS).await,
            Ok(health) => return Err(Trouble::Passing(format!("build {} answers still", health.build))),
            Err(error) => return Err(Trouble::Passing(error.to_string())),
        }
    }
}

/// What is seen of a service now; nothing while the bus itself is away, which is not the service's fault.
async fn look(world: &World, service: Service) -> Option<Seen> {
    let health = match health_at(&world.bus, &world.place(service), HEALTH_MAX).await {
        Ok(health) => Some(health),
        Err(CallError::Transport { cause: TransportError::Disconnected { .. }, .. }) => return None,
        Err(_) => None,
    };
    let restarts = process(world, service).await.ok().map(|process| process.restarts);
    Some(Seen { health, restarts })
}

fn trouble(error: &dyn std::fmt::Display, passing: bool) -> Trouble {
    if passing { Trouble::Passing(error.to_string()) } else { Trouble::Final(error.to_string()) }
}
