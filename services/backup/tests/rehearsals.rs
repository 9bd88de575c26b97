//! Every saga bears repetition, failure and a crash at every step, over an honest fake provisioner and a real
//! repository in a folder.

mod support;

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

use backup::actors::{COPIES_MAX, READS_MAX, Trade};
use backup::sagas::{Restore, Start, Verify, World};
use backup_repository::Snapshot;
use bus::memory::MemoryTransport;
use bus::{Bus, RunningServer};
use contract::backup::{RestoreBackup, StartBackup, VerifyBackup};
use contract::{BackupId, BackupRef, OperationId, Realm};
use operation::{Context, Meter, Work};
use saga::{Ending, Entry, Journal, Ledger, Lost, StepFuture, Trouble, drive};
use support::*;

const IMAGE_BYTES: usize = 1024 * 1024;

/// What stands around a context: its provisioner and its folder.
struct Stage {
    provisioner: FakeProvisioner,
    folder: tempfile::TempDir,
    _desk: Serving,
}

/// The stage of the performance at hand; a rehearsal shows one after the other.
type AtHand = RefCell<Option<Stage>>;

async fn set<I>(at_hand: &AtHand, input: I) -> Context<World, I> {
    let folder = tempfile::tempdir().expect("a folder");
    let bus = Bus::new(Arc::new(MemoryTransport::new()), Realm::default());
    let (provisioner, desk) = FakeProvisioner::open(&bus, folder.path()).await;
    let image = folder.path().join("web.raw");
    raw_image(&image, 1, IMAGE_BYTES);
    provisioner.add_raw_vm(&vm("web"), &image);
    let world = backup::world(bus, host(), shelf(folder.path()), quick(), Arc::new(RawDoors));
    testkit::eventually("the store is open", async || world.library.repository().await.is_ok()).await;
    at_hand.replace(Some(Stage { provisioner, folder, _desk: desk }));
    Context {
        world: Arc::new(world),
        input,
        id: OperationId::from_bits(42),
        meter: Meter::default(),
        cancel: Default::default(),
    }
}

async fn snapshots(world: &World) -> Vec<Snapshot> {
    let repository = world.library.repository().await.expect("open");
    repository.snapshots().await.expect("listed")
}

/// Others find as many free places as there are: nobody kept one.
async fn places_are_free(world: &World) -> Result<(), String> {
    for (trade, count) in [(Trade::Copy, COPIES_MAX), (Trade::Read, READS_MAX)] {
        for other in 0..count as u128 {
            let id = OperationId::from_bits(1000 + other);
            let never = Default::default();
            tokio::time::timeout(DEADLINE, world.copyists.take(trade, &id, &never))
                .await
                .map_err(|_| format!("a place for {trade:?} was kept"))?
                .map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

/// Drives a saga in a straight line, or to its death when a step begins.
struct Straight {
    dies_at: Option<&'static str>,
}

impl Ledger for Straight {
    async fn record(&mut self, journal: &Journal) -> Result<(), Lost> {
        match (journal.entries.last(), self.dies_at) {
            (Some(Entry::Started(step)), Some(fatal)) if step == fatal => Err(Lost),
            _ => Ok(()),
        }
    }
    async fn pause(&mut self, _: std::time::Duration) {}
    async fn within<'a>(
        &'a mut self,
        _: std::time::Duration,
        _: &'static str,
        work: StepFuture<'a>,
    ) -> Option<Result<serde_json::Value, Trouble>> {
        Some(work.await)
    }
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Backs `web` up under an operation of its own.
async fn back_up(world: &Arc<World>) {
    let context = Context {
        world: Arc::clone(world),
        input: start(),
        id: OperationId::from_bits(7),
        meter: Meter::default(),
        cancel: Default::default(),
    };
    let ending =
        drive(&Start::steps(), &context, &mut Journal::default(), &mut Straight { dies_at: None }).await;
    assert_eq!(ending, Ok(Ending::Done));
}

fn start() -> StartBackup {
    StartBackup { vm: vm("web"), schedule: None, operation_id: None }
}

fn latest() -> BackupRef {
    "web@latest".parse().expect("a reference")
}

#[actix::test]
async fn a_backup_ends_sealed_once_or_as_before() {
    let at_hand = AtHand::default();
    saga::harness::check(
        &Start::steps(),
        async || set(&at_hand, start()).await,
        async |context, ending| {
            let sealed = snapshots(&context.world).await;
            let expected = BackupId::from(&context.id).to_string().to_lowercase();
            match (ending, &sealed[..]) {
                (Ending::Done, [one]) if one.id.to_string() == expected => {}
                (Ending::Undone(_), []) => {}
                other => return Err(format!("{other:?}")),
            }
            if at_hand.borrow().as_ref().is_none_or(|stage| !stage.provisioner.state().open.is_empty()) {
                return Err("doors stand open".into());
            }
            places_are_free(&context.world).await
        },
    )
    .await;
}

#[actix::test]
async fn a_restore_ends_with_a_machine_or_as_before() {
    let at_hand = AtHand::default();
    saga::harness::check(
        &Restore::steps(),
        async || {
            let restore = RestoreBackup { backup: latest(), as_vm: vm("web2"), operation_id: None };
            let context = set(&at_hand, restore).await;
            back_up(&context.world).await;
            context
        },
        async |context, ending| {
            at_hand.borrow().as_ref().ok_or("no stage")?.is_restored_or_as_before(ending)?;
            places_are_free(&context.world).await
        },
    )
    .await;
}

impl Stage {
    fn is_restored_or_as_before(&self, ending: &Ending) -> Result<(), String> {
        let image = self.folder.path().join("web2-vda.raw");
        let state = self.provisioner.state();
        if !state.reserved.is_empty() {
            return Err("the name is still reserved".into());
        }
        match (ending, state.vms.get(&vm("web2"))) {
            (Ending::Done, Some((definition, _))) if definition.name == vm("web2") => {
                let read = |path: &Path| std::fs::read(path).ok();
                let same =
                    read(&image).is_some() && read(&image) == read(&self.folder.path().join("web.raw"));
                same.then_some(()).ok_or("the restored image differs".into())
            }
            (Ending::Undone(_), None) if !image.exists() => Ok(()),
            other => Err(format!("{other:?}, image left: {}", image.exists())),
        }
    }
}

#[actix::test]
async fn a_verification_changes_nothing() {
    let at_hand = AtHand::default();
    saga::harness::check(
        &Verify::steps(),
        async || {
            let verify = VerifyBackup { backup: latest(), operation_id: None };
            let context = set(&at_hand, verify).await;
            back_up(&context.world).await;
            context
        },
        async |context, _| match snapshots(&context.world).await.len() {
            1 => places_are_free(&context.world).await,
            other => Err(format!("{other} snapshots")),
        },
    )
    .await;
}

#[actix::test]
async fn doors_lost_between_crash_and_resume_are_opened_anew_and_the_copy_begins_again() {
    let at_hand = AtHand::default();
    let context = set(&at_hand, start()).await;
    let mut journal = Journal::default();
    // A process that died when it began to copy, and doors that did not outlive it.
    let ended = drive(&Start::steps(), &context, &mut journal, &mut Straight { dies_at: Some("copy") }).await;
    assert_eq!(ended, Err(Lost));
    let provisioner = at_hand.borrow().as_ref().expect("set").provisioner.clone();
    provisioner.forget_doors();
    let ended = drive(&Start::steps(), &context, &mut journal, &mut Straight { dies_at: None }).await;
    assert_eq!(ended, Ok(Ending::Done));
    assert_eq!(provisioner.state().moments, 2);
    assert_eq!(snapshots(&context.world).await.len(), 1);
}
