//! Makes a seed of a cloud image.

use std::path::PathBuf;
use std::time::Duration;

use contract::SeedName;
use contract::provisioner::Seed;
use operation::{Context, Work};
use provisioner_domain::SeedRecord;
use saga::{Step, StepFuture, Trail, output};
use serde::{Deserialize, Serialize};

use super::{MOMENT, ServiceState, of_disks, of_failure, of_registry};
use crate::ports::{ImportedSeed, SeedSource};

/// The saga.
pub struct AddSeedWork;

/// What it is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedWish {
    /// Its name.
    pub name: SeedName,
    /// Where it comes from: an absolute path or a URL.
    pub from: String,
    /// What it must hash to, in lower case.
    pub sha256: String,
}

impl SeedWish {
    /// The source, if it is one.
    pub fn source(&self) -> Option<SeedSource> {
        let is_url = ["http://", "https://"].iter().any(|scheme| self.from.starts_with(scheme));
        if is_url {
            Some(SeedSource::Url(self.from.clone()))
        } else {
            let path = PathBuf::from(&self.from);
            path.is_absolute().then_some(SeedSource::File(path))
        }
    }
}

type Here = Context<ServiceState, SeedWish>;

/// A few gigabytes over a slow line.
const IMPORT_LIMIT: Duration = Duration::from_secs(4 * 3600);
/// A source that is away for a moment.
const IMPORT_PATIENCE: Duration = Duration::from_secs(60);

impl Work for AddSeedWork {
    const KIND: &'static str = "add_seed";
    type ServiceState = ServiceState;
    type Input = SeedWish;

    fn about(wish: &SeedWish) -> String {
        wish.name.to_string()
    }

    fn steps() -> Vec<Step<Here>> {
        vec![
            Step::new("expect", MOMENT, expect).undone_by(unexpect),
            Step::new("import", IMPORT_LIMIT, import).undone_by(remove).with_patience(IMPORT_PATIENCE),
            // The undo of the import drops the record, whatever it says by then.
            Step::new("keep", MOMENT, keep),
        ]
    }
}

/// Tells whether there is something to do: this very image may be here under this very name.
fn expect<'a>(here: &'a Here, _: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let wish = here.input.clone();
        let expected = here.state.registry.expect_seed(wish.name, wish.sha256, here.id.clone());
        output(&expected.await.map_err(of_registry)?.is_some())
    })
}

fn unexpect<'a>(here: &'a Here, _: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let dropped = here.state.registry.unexpect_seed(here.input.name.clone(), here.id.clone());
        dropped.await.map_err(of_registry)?;
        output(&())
    })
}

fn import<'a>(here: &'a Here, _: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let source = here
            .input
            .source()
            .ok_or_else(|| saga::Trouble::Final(format!("{:?} is not a source", here.input.from)))?;
        let told = |done, total| {
            here.progress.set_done(done);
            here.progress.set_total(total);
        };
        let imported = tokio::select! {
            imported = here.state.disks.import_seed(&source, &here.input.sha256, &told) => imported,
            () = here.cancel.cancelled() => return Err(saga::Trouble::Final("given up while it was fetched".into())),
        };
        output(&imported.map_err(of_disks)?)
    })
}

/// Removes the image, unless somebody needs it: another seed, or a machine.
fn remove<'a>(here: &'a Here, _: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let state = &here.state;
        let name = here.input.name.clone();
        let dropped = state.registry.unexpect_seed(name, here.id.clone());
        dropped.await.map_err(of_registry)?;
        let inventory = state.registry.look().await.map_err(of_failure)?;
        if !inventory.needs_image(&here.input.sha256) {
            let removed = state.disks.remove_seed(&here.input.sha256);
            removed.await.map_err(of_disks)?;
        }
        output(&())
    })
}

fn keep<'a>(here: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let imported: ImportedSeed = trail.of("import")?;
        let seed = Seed {
            name: here.input.name.clone(),
            sha256: here.input.sha256.clone(),
            virtual_size: imported.virtual_size,
            stored_size: imported.stored_size,
            added: chrono::Utc::now(),
        };
        if trail.of::<bool>("expect")? {
            let kept =
                here.state.registry.keep_seed(SeedRecord::Here { seed: seed.clone(), by: here.id.clone() });
            kept.await.map_err(of_registry)?;
        }
        output(&seed)
    })
}
