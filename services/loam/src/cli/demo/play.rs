//! The steps in their order.

use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use contract::Service;
use contract::provisioner::{AddSeed, CreateVm, GetVm, Vm};
use contract::proxy::ListRoutes;
use contract::upgrade::ListServices;
use tokio::time::Instant;

use super::guard::{back_up, by_schedule, compare, restore};
use super::guest::{self, DOMAIN, GREETING, NOTE_PATH};
use super::page::{until_it_says, visit};
use super::tidy::{self, Names};
use super::{BETWEEN, DemoArgs, PAGE_PATIENCE, SIMULATED, Steps, broken};
use crate::cli::exit::{Exit, Trouble};
use crate::cli::session::Session;
use crate::cli::vm;
use crate::cli::work::outcome;

/// The image for simulated machines: some of it does not compress, most of it is a hole.
const PRETENDED_BYTES: u64 = 64 << 20;
const PRETENDED_FULL_BYTES: usize = 8 << 20;
/// What the page of a machine that is only pretended says.
const SIMULATED_GREETING: &str = "This machine is simulated";
/// The first step of a machine's making writes it down.
const SIGHT_MAX: Duration = Duration::from_secs(10);

pub(super) async fn play(session: &Session, args: DemoArgs, steps: &mut Steps<'_>) -> Result<(), Trouble> {
    let names = Names::fixed();
    let folder = tempfile::tempdir().map_err(|error| broken(format!("making a folder: {error}")))?;
    let given = args.seed.is_some();
    steps.take("earlier runs removed", leftovers(session, &names)).await?;
    steps.take("seed added", add_seed(session, &names, args, folder.path())).await?;
    let web = steps.take("web grown", create(session, &names, given, folder.path())).await?;
    let proxy = steps.take("page reached by the proxy", reach(session, &web)).await?;
    let first = steps.take("web backed up", back_up(session, &names)).await?;
    let note = format!("changed after backup {}", first.id);
    steps.take("page changed by the proxy", change(&proxy, &web, &note)).await?;
    steps.take("backed up by a schedule", by_schedule(session, &names, &first)).await?;
    let copy = steps.take("web2 grown from the backup", restore(session, &names, &first, &web)).await?;
    steps.take("web2's page is as it was", compare(session, &proxy, &copy, &note)).await?;
    steps.take("services looked up", services(session)).await?;
    steps.take("everything removed again", tidy_up(session, &names)).await
}

async fn leftovers(session: &Session, names: &Names) -> Result<((), String), Trouble> {
    let removed = tidy::machines(session, names).await?;
    Ok(((), if removed.is_empty() { "there were none".into() } else { removed.join(", ") }))
}

async fn add_seed(
    session: &Session,
    names: &Names,
    args: DemoArgs,
    folder: &Path,
) -> Result<((), String), Trouble> {
    let image = match args.seed {
        Some(image) => std::path::absolute(&image).map_err(|error| at(&image, &error))?,
        None => pretended_image(folder)?,
    };
    let sha256 = match args.sha256 {
        Some(digest) => digest,
        None => digest_of(image.clone()).await?,
    };
    tidy::seed(session, names, Some(&sha256)).await?;
    let from = image.display().to_string();
    let id = Some(operation::fresh_id());
    let command = AddSeed { name: names.seed.clone(), from: from.clone(), sha256, operation_id: id };
    let begun = session.ask(command).await?;
    outcome(session, Service::Provisioner, begun.operation()).await?;
    Ok(((), from))
}

fn at(path: &Path, error: &std::io::Error) -> Trouble {
    Trouble::new(Exit::Usage, format!("{}: {error}", path.display()))
}

async fn digest_of(image: PathBuf) -> Result<String, Trouble> {
    let path = image.clone();
    let hashed = tokio::task::spawn_blocking(move || chassis::sha256_of(&path)).await;
    hashed.map_err(|error| broken(error.to_string()))?.map_err(|error| at(&image, &error))
}

/// A disk that no machine could boot from; where machines are simulated none has to.
fn pretended_image(folder: &Path) -> Result<PathBuf, Trouble> {
    let path = folder.join("pretended.raw");
    let mut bytes = vec![0; PRETENDED_FULL_BYTES];
    rand::fill(&mut bytes[..]);
    let written = std::fs::File::create(&path).and_then(|mut file| {
        file.set_len(PRETENDED_BYTES)?;
        file.seek(SeekFrom::Start(PRETENDED_BYTES / 2))?;
        file.write_all(&bytes)
    });
    written.map_err(|error| at(&path, &error))?;
    Ok(path)
}

async fn create(
    session: &Session,
    names: &Names,
    given: bool,
    folder: &Path,
) -> Result<(Vm, String), Trouble> {
    let file = guest::write(folder, names.web.as_str(), names.seed.as_str())?;
    let definition = vm::read(&file)?;
    let begun = session.ask(CreateVm { definition, operation_id: Some(operation::fresh_id()) }).await?;
    let known = first_sight(session, names).await?;
    if known.hypervisor != SIMULATED && !given {
        let cancel = contract::operation::CancelOperation { id: begun.operation().clone() };
        session.ask_at(Service::Provisioner, cancel).await?;
        let sentence =
            "machines are real here: name an image that boots with --seed (deploy/build-seed makes one)";
        return Err(Trouble::new(Exit::Usage, sentence));
    }
    outcome(session, Service::Provisioner, begun.operation()).await?;
    let vm = session.ask(GetVm { vm: names.web.clone() }).await?;
    let facts = described(&vm);
    Ok((vm, facts))
}

/// The machine as soon as it is known, which is a moment after its operation was begun.
async fn first_sight(session: &Session, names: &Names) -> Result<Vm, Trouble> {
    let until = Instant::now() + SIGHT_MAX;
    loop {
        let vm = names.web.clone();
        match session.ask(GetVm { vm }).await {
            Err(trouble) if trouble.exit() == Exit::Refused && Instant::now() < until => {
                tokio::time::sleep(BETWEEN).await;
            }
            answer => return answer,
        }
    }
}

/// What the page of a machine says from its first moment on.
pub(super) fn greeting(vm: &Vm) -> &'static str {
    if vm.hypervisor == SIMULATED { SIMULATED_GREETING } else { GREETING }
}

pub(super) fn described(vm: &Vm) -> String {
    let address = vm.address.as_deref().unwrap_or("no address yet");
    let pretended = if vm.hypervisor == SIMULATED { "  SIMULATED" } else { "" };
    format!("{address}  {}  {}{pretended}", vm.mac, vm.uuid)
}

async fn reach(session: &Session, web: &Vm) -> Result<(String, String), Trouble> {
    let routes = session.ask(ListRoutes {}).await?;
    // Who listens on every address listens on loopback, too.
    let address = routes.http_listener.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:");
    until_it_says(&address, DOMAIN, greeting(web), PAGE_PATIENCE).await.map_err(broken)?;
    let facts = format!("http://{address} with Host {DOMAIN}");
    Ok((address, facts))
}

/// A machine that runs changes its own disk when it is posted to; a simulated one is told what it would have changed.
async fn change(proxy: &str, web: &Vm, note: &str) -> Result<((), String), Trouble> {
    let (method, path) = if web.hypervisor == SIMULATED { ("PUT", "/") } else { ("POST", NOTE_PATH) };
    let answer = visit(proxy, DOMAIN, method, path, note).await.map_err(broken)?;
    if !(200..300).contains(&answer.status) {
        return Err(broken(format!("{method} {path} was answered with {}", answer.status)));
    }
    until_it_says(proxy, DOMAIN, note, PAGE_PATIENCE).await.map_err(broken)?;
    Ok(((), note.into()))
}

async fn services(session: &Session) -> Result<((), String), Trouble> {
    let running = session.ask(ListServices {}).await?;
    for service in Service::FIVE {
        if !running.iter().any(|found| found.health.service == service) {
            return Err(broken(format!("{service} was not found")));
        }
    }
    let named = running.iter().map(|found| format!("{} {}", found.health.service, found.health.version));
    Ok(((), named.collect::<Vec<_>>().join(", ")))
}

async fn tidy_up(session: &Session, names: &Names) -> Result<((), String), Trouble> {
    // A backup that the schedule began before it was removed holds the machine for a moment.
    let mut removed = tidy::machines(session, names).await?;
    tidy::seed(session, names, None).await?;
    removed.push(format!("seed {}; the backups stay", names.seed));
    Ok(((), removed.join(", ")))
}
