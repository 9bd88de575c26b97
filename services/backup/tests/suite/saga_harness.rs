//! Every saga passes the harness, with a fake provisioner and a real repository in a folder: each step twice, failing,
//! and with a crash after each record.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::support::*;
use backup::ServiceState;
use backup::actors::{COPIES_MAX, MAINTENANCE_MAX, READS_MAX, SlotKind};
use backup_repository::Snapshot;
use bus::memory::MemoryTransport;
use bus::{Bus, RunningServer};
use chassis::Workers;
use contract::backup::*;
use contract::{BackupId, BackupRef, OperationId, Realm};
use operation::{Context, Saga};
use saga::{FencedError, Journal, JournalEntry, Runtime, SagaOutcome, StepError, StepFuture, drive};

const IMAGE_BYTES: usize = 1024 * 1024;

/// What a context needs around it: its provisioner, its folder and the worker that keeps the repository open.
struct Fixture {
    provisioner: FakeProvisioner,
    folder: tempfile::TempDir,
    _server: RunningServer,
    _workers: Workers,
}

/// The fixture of the run at hand; the harness makes one run after the other.
type AtHand = RefCell<Option<Fixture>>;

async fn context<C>(at_hand: &AtHand, command: C) -> Context<ServiceState, C> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let bus = Bus::new(Arc::new(MemoryTransport::new()), Realm::default());
    let (provisioner, server) = FakeProvisioner::open(&bus, folder.path()).await;
    let image = folder.path().join("web.raw");
    raw_image(&image, 1, IMAGE_BYTES);
    provisioner.add_raw_vm(&vm("web"), &image);
    let mut workers = Workers::default();
    let config = repository_config(folder.path());
    let state = ServiceState::open(bus, host(), config, Arc::new(RawExports), &mut workers);
    testkit::eventually("the repository is open", async || state.repository.repository().is_ok()).await;
    at_hand.replace(Some(Fixture { provisioner, folder, _server: server, _workers: workers }));
    new_context(&Arc::new(state), command, 42)
}

fn new_context<C>(state: &Arc<ServiceState>, command: C, id: u128) -> Context<ServiceState, C> {
    Context {
        state: Arc::clone(state),
        command,
        id: OperationId::from_bits(id),
        scripts: Default::default(),
        progress: Default::default(),
        cancel: Default::default(),
    }
}

async fn snapshots(state: &ServiceState) -> Vec<Snapshot> {
    let repository = state.repository.repository().expect("the repository is open");
    repository.snapshots().await.expect("the snapshots are listed")
}

/// Checks that others find as many free slots as there are: nobody kept one.
async fn check_slots_are_free(state: &ServiceState) -> Result<(), String> {
    let kinds =
        [(SlotKind::Copy, COPIES_MAX), (SlotKind::Read, READS_MAX), (SlotKind::Maintenance, MAINTENANCE_MAX)];
    for (kind, count) in kinds {
        for other in 0..count as u128 {
            let id = OperationId::from_bits(1000 + other);
            let never = Default::default();
            tokio::time::timeout(DEADLINE, state.transfer_slots.take(kind, &id, &never))
                .await
                .map_err(|_| format!("a slot for {kind:?} was kept"))?
                .map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

/// Drives a saga without failure, or until it crashes when a step begins.
struct Straight {
    crash_at: Option<&'static str>,
}

impl Runtime for Straight {
    async fn record(&mut self, journal: &Journal) -> Result<(), FencedError> {
        match (journal.entries.last(), self.crash_at) {
            (Some(JournalEntry::Started(step)), Some(fatal)) if step == fatal => Err(FencedError),
            _ => Ok(()),
        }
    }
    async fn pause(&mut self, _: Duration) {}
    async fn within<'a>(
        &'a mut self,
        _: Duration,
        _: &'static str,
        work: StepFuture<'a>,
    ) -> Option<Result<serde_json::Value, StepError>> {
        Some(work.await)
    }
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Backs `web` up under the operation of a number.
async fn back_up(state: &Arc<ServiceState>, id: u128) {
    let context = new_context(state, start(), id);
    let mut runtime = Straight { crash_at: None };
    let steps = StartBackup::steps();
    let outcome = drive(&steps, &context, &mut Journal::default(), &mut runtime).await;
    assert_eq!(outcome, Ok(SagaOutcome::Done));
}

fn start() -> StartBackup {
    StartBackup { vm: vm("web"), schedule: None, operation_id: None }
}

fn latest() -> BackupRef {
    "web@latest".parse().expect("a valid reference")
}

#[actix::test]
async fn a_backup_ends_sealed_once_or_as_before() {
    let at_hand = AtHand::default();
    saga::harness::check(
        &StartBackup::steps(),
        async || context(&at_hand, start()).await,
        async |context, outcome| {
            let sealed = snapshots(&context.state).await;
            let expected = BackupId::from(&context.id).to_string().to_lowercase();
            match (outcome, &sealed[..]) {
                (SagaOutcome::Done, [one]) if one.id.to_string() == expected => {}
                (SagaOutcome::Undone(_), []) => {}
                other => return Err(format!("{other:?}")),
            }
            if at_hand.borrow().as_ref().is_none_or(|fixture| !fixture.provisioner.state().open.is_empty()) {
                return Err("disk exports are open".into());
            }
            check_slots_are_free(&context.state).await
        },
    )
    .await;
}

#[actix::test]
async fn a_restore_ends_with_a_vm_or_as_before() {
    let at_hand = AtHand::default();
    saga::harness::check(
        &RestoreBackupAsVm::steps(),
        async || {
            let restore = RestoreBackupAsVm {
                backup: latest(),
                as_vm: vm("web2"),
                host: None,
                overcommit: false,
                operation_id: None,
            };
            let context = context(&at_hand, restore).await;
            back_up(&context.state, 7).await;
            context
        },
        async |context, outcome| {
            at_hand.borrow().as_ref().ok_or("no fixture")?.is_restored_or_as_before(outcome)?;
            check_slots_are_free(&context.state).await
        },
    )
    .await;
}

impl Fixture {
    fn is_restored_or_as_before(&self, outcome: &SagaOutcome) -> Result<(), String> {
        let image = self.folder.path().join("web2-vda.raw");
        let state = self.provisioner.state();
        if !state.reserved.is_empty() {
            return Err("the name is still reserved".into());
        }
        match (outcome, state.vms.get(&vm("web2"))) {
            (SagaOutcome::Done, Some((definition, _))) if definition.name == vm("web2") => {
                let read = |path: &Path| std::fs::read(path).ok();
                let same =
                    read(&image).is_some() && read(&image) == read(&self.folder.path().join("web.raw"));
                same.then_some(()).ok_or("the restored image differs".into())
            }
            (SagaOutcome::Undone(_), None) if !image.exists() => Ok(()),
            other => Err(format!("{other:?}, image left: {}", image.exists())),
        }
    }
}

#[actix::test]
async fn a_verification_of_a_backup_changes_nothing() {
    let at_hand = AtHand::default();
    saga::harness::check(
        &VerifyBackup::steps(),
        async || {
            let verify = VerifyBackup { backup: latest(), operation_id: None };
            let context = context(&at_hand, verify).await;
            back_up(&context.state, 7).await;
            context
        },
        async |context, _| match snapshots(&context.state).await.len() {
            1 => check_slots_are_free(&context.state).await,
            other => Err(format!("{other} snapshots")),
        },
    )
    .await;
}

#[actix::test]
async fn a_verification_of_the_repository_changes_nothing() {
    let at_hand = AtHand::default();
    saga::harness::check(
        &VerifyRepository::steps(),
        async || {
            let context = context(&at_hand, VerifyRepository::default()).await;
            back_up(&context.state, 7).await;
            context
        },
        async |context, _| match snapshots(&context.state).await.len() {
            1 => check_slots_are_free(&context.state).await,
            other => Err(format!("{other} snapshots")),
        },
    )
    .await;
}

#[actix::test]
async fn a_collection_leaves_every_backup_whole() {
    let at_hand = AtHand::default();
    saga::harness::check(
        &CollectRepository::steps(),
        async || {
            let context = context(&at_hand, CollectRepository::default()).await;
            back_up(&context.state, 7).await;
            let image = at_hand.borrow().as_ref().expect("a fixture").folder.path().join("web.raw");
            raw_image(&image, 2, IMAGE_BYTES);
            back_up(&context.state, 8).await;
            let repository = context.state.repository.repository().expect("the repository is open");
            let first = snapshots(&context.state).await.into_iter().min_by_key(|snapshot| snapshot.id);
            repository.forget(first.expect("two backups").id).await.expect("the first is forgotten");
            context
        },
        async |context, _| {
            let verify = new_context(&context.state, VerifyRepository::default(), 9);
            let steps = VerifyRepository::steps();
            let mut runtime = Straight { crash_at: None };
            match drive(&steps, &verify, &mut Journal::default(), &mut runtime).await {
                Ok(SagaOutcome::Done) => check_slots_are_free(&context.state).await,
                other => Err(format!("{other:?}")),
            }
        },
    )
    .await;
}

#[actix::test]
async fn a_retention_run_forgets_what_no_rule_keeps_and_nothing_else() {
    let at_hand = AtHand::default();
    saga::harness::check(
        &ApplyRetention::steps(),
        async || {
            let keep = RetentionRules { last: Some(1), ..RetentionRules::default() };
            let context = context(&at_hand, ApplyRetention { keep, vm: None, operation_id: None }).await;
            for id in 1..=5 {
                back_up(&context.state, id).await;
            }
            context
        },
        async |context, outcome| {
            let mut left: Vec<_> = snapshots(&context.state).await.iter().map(|one| one.id).collect();
            left.sort();
            let made: Vec<_> = (1..=5).map(|bits| BackupId::from(&OperationId::from_bits(bits))).collect();
            let newest: Vec<_> =
                made[2..].iter().map(|id| id.as_str().parse().expect("a snapshot id")).collect();
            let keeps_the_newest = newest.iter().all(|id| left.contains(id));
            match outcome {
                // The newest three are kept whatever the rules say.
                SagaOutcome::Done if left == newest => {}
                // Forgetting cannot be undone: what was forgotten before the failure is.
                SagaOutcome::Undone(_) if keeps_the_newest => {}
                other => return Err(format!("{other:?}: {left:?} are left")),
            }
            check_slots_are_free(&context.state).await
        },
    )
    .await;
}

#[actix::test]
async fn exports_lost_between_crash_and_resume_are_opened_anew_and_the_copy_begins_again() {
    let at_hand = AtHand::default();
    let context = context(&at_hand, start()).await;
    let mut journal = Journal::default();
    // A process that crashed when it began to copy, and exports that did not outlive it.
    let steps = StartBackup::steps();
    let outcome = drive(&steps, &context, &mut journal, &mut Straight { crash_at: Some("copy") }).await;
    assert_eq!(outcome, Err(FencedError));
    let provisioner = at_hand.borrow().as_ref().expect("a fixture").provisioner.clone();
    provisioner.lose_exports();
    let outcome = drive(&steps, &context, &mut journal, &mut Straight { crash_at: None }).await;
    assert_eq!(outcome, Ok(SagaOutcome::Done));
    assert_eq!(provisioner.state().moments.len(), 2);
    assert_eq!(snapshots(&context.state).await.len(), 1);
}

#[actix::test]
async fn exports_opened_anew_before_a_crash_give_the_backup_their_own_moment_and_consistency() {
    let at_hand = AtHand::default();
    let context = context(&at_hand, start()).await;
    let mut journal = Journal::default();
    let steps = StartBackup::steps();
    let outcome = drive(&steps, &context, &mut journal, &mut Straight { crash_at: Some("copy") }).await;
    assert_eq!(outcome, Err(FencedError));
    let provisioner = at_hand.borrow().as_ref().expect("a fixture").provisioner.clone();
    // The next process opened the disks anew, without the guest's agent, and died as well.
    provisioner.lose_exports();
    provisioner.state().agent_is_gone = true;
    let opened = context.state.provisioner.open_disks(&vm("web"), &context.id).await;
    opened.expect("the disks are opened");
    let outcome = drive(&steps, &context, &mut journal, &mut Straight { crash_at: None }).await;
    assert_eq!(outcome, Ok(SagaOutcome::Done));
    let [_, (_, opened_at, _)] = provisioner.state().moments[..] else { panic!("opened twice") };
    let [backup] = &snapshots(&context.state).await[..] else { panic!("one backup") };
    assert_eq!(i128::from(backup.contents.taken_at_unix_ms), i128::from(opened_at.timestamp_millis()));
    assert_eq!(backup.contents.consistency, backup_repository::Consistency::Crash);
}
