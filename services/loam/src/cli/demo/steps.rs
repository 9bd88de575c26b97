//! The steps in their order.

use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use contract::Service;
use contract::provisioner::{AddSeed, CreateVm, GetVm, Vm};
use contract::proxy::ListRoutes;
use contract::upgrade::ListServices;
use tokio::time::Instant;

use super::backups::{back_up, by_schedule, compare, restore};
use super::cleanup::{self, DemoNames};
use super::guest::{self, DOMAIN, GREETING, NOTE_PATH};
use super::http::{send, wait_for_page};
use super::{BETWEEN, DemoArgs, PAGE_MAX, SIMULATED, Steps, failed};
use crate::cli::exit::{CliError, CliExitCode};
use crate::cli::session::Session;
use crate::cli::vm;
use crate::cli::watch::outcome;

/// The image for simulated VMs: some of it does not compress, most of it is a hole.
const IMAGE_BYTES: u64 = 64 << 20;
const IMAGE_FULL_BYTES: usize = 8 << 20;
/// The text of a simulated VM's page.
const SIMULATED_GREETING: &str = "This VM is simulated";
/// The first step of creating a VM makes it known.
const KNOWN_MAX: Duration = Duration::from_secs(10);

pub(super) async fn run(session: &Session, args: DemoArgs, steps: &mut Steps<'_>) -> Result<(), CliError> {
    let names = DemoNames::fixed();
    let folder = tempfile::tempdir().map_err(|error| failed(format!("making a folder: {error}")))?;
    let given = args.seed.is_some();
    steps.run("earlier runs removed", leftovers(session, &names)).await?;
    steps.run("seed added", add_seed(session, &names, args, folder.path())).await?;
    let web = steps.run("web created", create(session, &names, given, folder.path())).await?;
    let proxy = steps.run("page served by the proxy", reach(session, &web)).await?;
    let first = steps.run("web backed up", back_up(session, &names)).await?;
    let note = format!("changed after backup {}", first.id);
    steps.run("page changed through the proxy", change(&proxy, &web, &note)).await?;
    steps.run("backed up by a schedule", by_schedule(session, &names, &first)).await?;
    let copy = steps.run("web2 restored from the backup", restore(session, &names, &first, &web)).await?;
    steps.run("web2's page is as it was", compare(session, &proxy, &copy, &note)).await?;
    steps.run("services listed", services(session)).await?;
    steps.run("everything removed again", clean_up(session, &names)).await
}

async fn leftovers(session: &Session, names: &DemoNames) -> Result<((), String), CliError> {
    let removed = cleanup::vms(session, names).await?;
    Ok(((), if removed.is_empty() { "there were none".into() } else { removed.join(", ") }))
}

async fn add_seed(
    session: &Session,
    names: &DemoNames,
    args: DemoArgs,
    folder: &Path,
) -> Result<((), String), CliError> {
    let image = match args.seed {
        Some(image) => std::path::absolute(&image).map_err(|error| at(&image, &error))?,
        None => random_image(folder)?,
    };
    let sha256 = match args.sha256 {
        Some(digest) => digest,
        None => digest_of(image.clone()).await?,
    };
    cleanup::seed(session, names, Some(&sha256)).await?;
    let from = image.display().to_string();
    let id = Some(operation::new_id());
    let command =
        AddSeed { name: names.seed.clone(), from: from.clone(), sha256, host: None, operation_id: id };
    let begun = session.request(command).await?;
    outcome(session, Service::Provisioner, begun.operation()).await?;
    Ok(((), from))
}

fn at(path: &Path, error: &std::io::Error) -> CliError {
    CliError::new(CliExitCode::Usage, format!("{}: {error}", path.display()))
}

async fn digest_of(image: PathBuf) -> Result<String, CliError> {
    let path = image.clone();
    let hashed = tokio::task::spawn_blocking(move || chassis::sha256_of(&path)).await;
    hashed.map_err(|error| failed(error.to_string()))?.map_err(|error| at(&image, &error))
}

/// A disk that no VM can boot from, though it says so; simulated VMs need not.
fn random_image(folder: &Path) -> Result<PathBuf, CliError> {
    let path = folder.join("random.raw");
    let mut bytes = vec![0; IMAGE_FULL_BYTES];
    rand::fill(&mut bytes[..]);
    let written = std::fs::File::create(&path).and_then(|mut file| {
        file.set_len(IMAGE_BYTES)?;
        // The signature of a boot sector, without which an image is no seed.
        file.seek(SeekFrom::Start(510))?;
        file.write_all(&[0x55, 0xaa])?;
        file.seek(SeekFrom::Start(IMAGE_BYTES / 2))?;
        file.write_all(&bytes)
    });
    written.map_err(|error| at(&path, &error))?;
    Ok(path)
}

async fn create(
    session: &Session,
    names: &DemoNames,
    given: bool,
    folder: &Path,
) -> Result<(Vm, String), CliError> {
    let file = guest::write(folder, names.web_vm.as_str(), names.seed.as_str())?;
    let definition = vm::read(&file)?;
    let begun = session
        .request(CreateVm {
            definition,
            host: None,
            overcommit: false,
            operation_id: Some(operation::new_id()),
        })
        .await?;
    let known = wait_until_known(session, names).await?;
    if known.hypervisor != SIMULATED && !given {
        let cancel = contract::operation::CancelOperation { id: begun.operation().clone() };
        session.request_at(Service::Provisioner, cancel).await?;
        let message = "VMs are real here: give an image that boots with --seed (deploy/build-seed makes one)";
        return Err(CliError::new(CliExitCode::Usage, message));
    }
    outcome(session, Service::Provisioner, begun.operation()).await?;
    let vm = session.request(GetVm { vm: names.web_vm.clone() }).await?;
    let facts = described(&vm);
    Ok((vm, facts))
}

/// The VM as soon as it is known, a moment after its operation has begun.
async fn wait_until_known(session: &Session, names: &DemoNames) -> Result<Vm, CliError> {
    let until = Instant::now() + KNOWN_MAX;
    loop {
        let vm = names.web_vm.clone();
        match session.request(GetVm { vm }).await {
            Err(error) if error.exit() == CliExitCode::Refused && Instant::now() < until => {
                tokio::time::sleep(BETWEEN).await;
            }
            answer => return answer,
        }
    }
}

/// The text of a VM's page.
pub(super) fn greeting(vm: &Vm) -> &'static str {
    if vm.hypervisor == SIMULATED { SIMULATED_GREETING } else { GREETING }
}

pub(super) fn described(vm: &Vm) -> String {
    let address = vm.address.map_or_else(|| "no address yet".into(), |address| address.to_string());
    let simulated = if vm.hypervisor == SIMULATED { "  SIMULATED" } else { "" };
    format!("{address}  {}  {}{simulated}", vm.mac, vm.uuid)
}

async fn reach(session: &Session, web: &Vm) -> Result<(String, String), CliError> {
    let routes = session.request(ListRoutes {}).await?;
    // A listener on every address listens on loopback, too.
    let address = routes.http_listener.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:");
    wait_for_page(&address, DOMAIN, greeting(web), PAGE_MAX).await.map_err(failed)?;
    let facts = format!("http://{address} with Host {DOMAIN}");
    Ok((address, facts))
}

/// A real VM appends what is posted to its page; a simulated VM gets the new page by PUT.
async fn change(proxy: &str, web: &Vm, note: &str) -> Result<((), String), CliError> {
    let (method, path) = if web.hypervisor == SIMULATED { ("PUT", "/") } else { ("POST", NOTE_PATH) };
    let answer = send(proxy, DOMAIN, method, path, note).await.map_err(failed)?;
    if !(200..300).contains(&answer.status) {
        return Err(failed(format!("{method} {path} was answered with {}", answer.status)));
    }
    wait_for_page(proxy, DOMAIN, note, PAGE_MAX).await.map_err(failed)?;
    Ok(((), note.into()))
}

async fn services(session: &Session) -> Result<((), String), CliError> {
    let running = session.request(ListServices {}).await?;
    for service in Service::FIVE {
        if !running.iter().any(|found| found.health.service == service) {
            return Err(failed(format!("{service} was not found")));
        }
    }
    let named = running.iter().map(|found| format!("{} {}", found.health.service, found.health.version));
    Ok(((), named.collect::<Vec<_>>().join(", ")))
}

async fn clean_up(session: &Session, names: &DemoNames) -> Result<((), String), CliError> {
    // A backup that the schedule began before it was removed locks the VM for a moment.
    let mut removed = cleanup::vms(session, names).await?;
    cleanup::seed(session, names, None).await?;
    removed.push(format!("seed {}; the backups stay", names.seed));
    Ok(((), removed.join(", ")))
}
