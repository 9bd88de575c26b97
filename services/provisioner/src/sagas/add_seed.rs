//! Imports a cloud image as a seed.

use std::path::PathBuf;
use std::time::Duration;

use contract::provisioner::{AddSeed, Seed};
use operation::{Saga, declined_error, failure_error};
use provisioner_domain::SeedImageRecord;
use saga::{Outputs, Step, StepError};

use super::steps::{QUICK, disk_error};
use crate::ports::{ImportedSeedImage, SeedImageSource};
use crate::state::ServiceState;

/// A few gigabytes over a slow connection.
const IMPORT_MAX: Duration = Duration::from_secs(4 * 3600);
/// A source that is away for a moment.
const IMPORT_RETRY: Duration = Duration::from_secs(60);

type Context = super::Context<AddSeed>;

impl Saga<ServiceState> for AddSeed {
    fn steps() -> Vec<Step<Context>> {
        vec![
            Step::new("announce", QUICK, announce).undone_by(withdraw),
            Step::new("import", IMPORT_MAX, import).undone_by(remove).retrying_for(IMPORT_RETRY),
            // It needs no undo: that of the import removes the record, whatever it says by then.
            Step::new("store", QUICK, store),
        ]
    }
}

/// Where an image comes from: an absolute path or an http(s) URL.
pub(crate) fn source_of(from: &str) -> Option<SeedImageSource> {
    if ["http://", "https://"].iter().any(|scheme| from.starts_with(scheme)) {
        return Some(SeedImageSource::Url(from.to_owned()));
    }
    let path = PathBuf::from(from);
    path.is_absolute().then_some(SeedImageSource::File(path))
}

fn digest(context: &Context) -> String {
    context.command.sha256.to_ascii_lowercase()
}

/// Records that the seed is being imported; false where this very image has this very name already.
async fn announce(context: &Context, _: &Outputs) -> Result<bool, StepError> {
    let (name, by) = (context.command.name.clone(), context.id.clone());
    let announced = context.state.registry.announce_seed(name, digest(context), by);
    Ok(announced.await.map_err(declined_error)?.is_some())
}

async fn withdraw(context: &Context, _: &Outputs) -> Result<(), StepError> {
    let (name, by) = (context.command.name.clone(), context.id.clone());
    context.state.registry.withdraw_seed(name, by).await.map_err(declined_error)
}

async fn import(context: &Context, _: &Outputs) -> Result<ImportedSeedImage, StepError> {
    let from = &context.command.from;
    let source = source_of(from)
        .ok_or_else(|| StepError::Permanent(format!("{from:?} is neither an absolute path nor a URL")))?;
    let report = |done, total| {
        context.progress.set_done(done);
        context.progress.set_total(total);
    };
    let sha256 = digest(context);
    let imported = tokio::select! {
        imported = context.state.disks.import_seed(&source, &sha256, &report) => imported,
        () = context.cancel.cancelled() => {
            return Err(StepError::Permanent("cancelled while the image was copied".into()));
        }
    };
    imported.map_err(disk_error)
}

/// Removes the image, unless another seed or a VM needs it.
async fn remove(context: &Context, outputs: &Outputs) -> Result<(), StepError> {
    withdraw(context, outputs).await?;
    let (state, sha256) = (&context.state, digest(context));
    let inventory = state.registry.snapshot().await.map_err(failure_error)?;
    if inventory.needs_image(&sha256) {
        return Ok(());
    }
    state.disks.remove_seed(&sha256).await.map_err(disk_error)
}

async fn store(context: &Context, outputs: &Outputs) -> Result<Seed, StepError> {
    let imported: ImportedSeedImage = outputs.get("import")?;
    let seed = Seed {
        name: context.command.name.clone(),
        host: context.state.host.clone(),
        sha256: digest(context),
        virtual_size: imported.virtual_size,
        stored_size: imported.stored_size,
        added: chrono::Utc::now(),
    };
    if outputs.get::<bool>("announce")? {
        let record = SeedImageRecord::Imported { seed: seed.clone(), by: context.id.clone() };
        context.state.registry.store_seed(record).await.map_err(declined_error)?;
    }
    Ok(seed)
}
