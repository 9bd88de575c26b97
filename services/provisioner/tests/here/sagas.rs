//! Every saga, through repetition, failure and crash at every step: it ends done, or as before.

use std::sync::Arc;

use bus::memory::MemoryTransport;
use contract::provisioner::*;
use contract::{ByteCount, OperationId};
use operation::{Context, Saga, new_id};
use provisioner::ServiceState;
use provisioner::ports::MarkedVm;
use provisioner_domain::{PowerState, VmTransition};
use saga::harness::check;
use saga::{FencedError, Journal, Runtime, SagaOutcome, StepError, StepFuture, drive};

use crate::support::{Simulated, bus_on, context, definition, limits, open_state, raw_image, seed_name, vm};

/// One folder for all cases of a saga, a service state of its own for each.
struct Fixture {
    folder: tempfile::TempDir,
    states: std::cell::Cell<u32>,
    image: (std::path::PathBuf, String),
}

impl Fixture {
    fn new() -> Fixture {
        let folder = tempfile::tempdir().expect("a folder");
        // Already in the format in which seeds are kept: converting it for every case would take most of the time.
        let image = folder.path().join("image.qcow2");
        let converted = std::process::Command::new("qemu-img")
            .args(["convert", "-f", "raw", "-O", "qcow2"])
            .args([&raw_image(folder.path()).0, &image])
            .status();
        assert!(converted.expect("qemu-img").success());
        let digest = chassis::sha256_of(&image).expect("hashed");
        let image = (image, digest);
        Fixture { folder, states: Default::default(), image }
    }

    async fn state(&self) -> (Arc<ServiceState>, Simulated) {
        let number = self.states.get();
        self.states.set(number + 1);
        let simulated = Simulated::open(&self.folder.path().join(number.to_string())).await;
        let bus = bus_on(&MemoryTransport::new());
        (open_state(&bus, simulated.ports.clone(), limits()).await, simulated)
    }

    fn add_seed(&self) -> AddSeed {
        AddSeed {
            name: seed_name(),
            from: self.image.0.display().to_string(),
            sha256: self.image.1.clone(),
            host: None,
            operation_id: None,
        }
    }
}

fn create() -> CreateVm {
    CreateVm { definition: definition("web"), host: None, overcommit: false, operation_id: None }
}

fn start() -> StartVm {
    StartVm { vm: vm("web"), operation_id: None }
}

fn stop() -> StopVm {
    StopVm { vm: vm("web"), operation_id: None }
}

/// For the sagas that prepare a case: nothing is kept, nothing fails.
struct NoRecord;
impl Runtime for NoRecord {
    async fn record(&mut self, _: &Journal) -> Result<(), FencedError> {
        Ok(())
    }
    async fn pause(&mut self, _: std::time::Duration) {}
    async fn within<'a>(
        &'a mut self,
        _: std::time::Duration,
        _: &'static str,
        work: StepFuture<'a>,
    ) -> Option<Result<serde_json::Value, StepError>> {
        Some(work.await)
    }
    fn is_cancelled(&self) -> bool {
        false
    }
}

async fn run<C: Saga<ServiceState>>(state: &Arc<ServiceState>, command: C) {
    let outcome = drive(&C::steps(), &context(state, command), &mut Journal::default(), &mut NoRecord).await;
    assert_eq!(outcome, Ok(SagaOutcome::Done));
}

/// Everything that can be left behind, in one value.
#[derive(Debug, PartialEq)]
struct Traces {
    vms: Vec<(String, VmState, Option<OperationId>)>,
    found: Vec<(String, PowerState, Option<String>)>,
    folders: Vec<String>,
    aside: usize,
    seeds: usize,
    seed_files: usize,
}

fn names(folder: std::path::PathBuf) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

async fn traces(state: &ServiceState) -> Traces {
    let inventory = state.registry.snapshot().await.expect("an answer");
    let found = state.hypervisor.marked(&state.realm).await.expect("an answer");
    let folder = state.disks.folder(&vm("x"));
    let folder = folder.parent().and_then(|vms| vms.parent()).expect("a state folder").to_owned();
    Traces {
        vms: inventory.vms().map(|vm| (vm.name().to_string(), vm.state(), vm.locked_by().cloned())).collect(),
        found: found.into_iter().map(seen).collect(),
        folders: names(folder.join("vms")),
        aside: names(folder.join("aside")).len(),
        seeds: inventory.seeds().count(),
        seed_files: names(folder.join("seeds")).len(),
    }
}

/// A VM at the hypervisor: its name, what it is doing, and the file of its first disk.
fn seen(found: MarkedVm) -> (String, PowerState, Option<String>) {
    let file = found.disks[0].path.as_ref().and_then(|path| path.file_name());
    (found.mark.vm.to_string(), found.power, file.map(|name| name.to_string_lossy().into_owned()))
}

impl Traces {
    fn empty() -> Traces {
        Traces { vms: Vec::new(), found: Vec::new(), folders: Vec::new(), aside: 0, seeds: 0, seed_files: 0 }
    }

    fn with_seed() -> Traces {
        Traces { seeds: 1, seed_files: 1, ..Traces::empty() }
    }

    fn with_web(state: VmState, power: PowerState) -> Traces {
        Traces {
            vms: vec![("web".into(), state, None)],
            found: vec![("web".into(), power, Some("vda.qcow2".into()))],
            folders: vec!["web".into()],
            ..Traces::with_seed()
        }
    }
}

/// Runs the harness: `prepare` makes the state before the saga and returns its command; at the end the traces must be
/// `undone` or `done`.
async fn checked<C: Saga<ServiceState>>(
    prepare: impl AsyncFn(&Fixture, &Arc<ServiceState>, &Simulated) -> C,
    undone: Traces,
    done: Traces,
) {
    let fixture = Fixture::new();
    check(
        &C::steps(),
        async || {
            let (state, simulated) = fixture.state().await;
            let command = prepare(&fixture, &state, &simulated).await;
            context(&state, command)
        },
        async |context: &Context<ServiceState, C>, outcome| {
            let state = &context.state;
            let seen = traces(state).await;
            let expected = match outcome {
                SagaOutcome::Done => &done,
                _ => &undone,
            };
            if seen != *expected {
                return Err(format!("after {outcome:?}: {seen:?}, not {expected:?}"));
            }
            // The next case has a state of its own; this one's guests need not run on.
            for found in state.hypervisor.marked(&state.realm).await.expect("an answer") {
                state.hypervisor.destroy(&found.uuid).await.expect("ended");
            }
            Ok(())
        },
    )
    .await;
}

/// The VM `web` as a saga finds it: its state, and what it is doing.
type Before = (VmState, PowerState);
const READY: Before = (VmState::Ready, PowerState::Running);
const PAUSED: Before = (VmState::Paused, PowerState::Paused(PauseReason::User));
const OFF: Before = (VmState::Stopped, PowerState::Off);

/// Runs the harness with a command about the VM `web`.
async fn checked_on<C: Saga<ServiceState>>(before: Before, command: C, done: Traces) {
    let (state, power) = before;
    let prepare = async |fixture: &Fixture, state: &Arc<ServiceState>, simulated: &Simulated| {
        run(state, fixture.add_seed()).await;
        run(state, create()).await;
        match power {
            PowerState::Off => run(state, stop()).await,
            PowerState::Paused(reason) => pause(state, simulated, reason).await,
            PowerState::Running | PowerState::Missing => {}
        }
        command.clone()
    };
    checked(prepare, Traces::with_web(state, power), done).await;
}

/// The VM is paused, and its record says so.
async fn pause(state: &Arc<ServiceState>, simulated: &Simulated, reason: PauseReason) {
    let record = state.registry.vm(&vm("web")).await.expect("it exists");
    simulated.hypervisor.pause(&record.identity.uuid, reason).expect("paused");
    let before = record.observed().expect("it exists");
    let now = provisioner_domain::ObservedVmState { power: PowerState::Paused(reason), ..before };
    let observe = VmTransition::RecordObservation { before, now };
    assert_ne!(state.registry.apply(&vm("web"), observe).await.expect("observed"), record);
}

#[actix::test]
async fn adding_a_seed() {
    let prepare = async |fixture: &Fixture, _: &Arc<ServiceState>, _: &Simulated| fixture.add_seed();
    checked(prepare, Traces::empty(), Traces::with_seed()).await;
}

#[actix::test]
async fn creating_a_vm() {
    checked(
        async |fixture: &Fixture, state: &Arc<ServiceState>, _: &Simulated| {
            run(state, fixture.add_seed()).await;
            create()
        },
        Traces::with_seed(),
        Traces::with_web(VmState::Ready, PowerState::Running),
    )
    .await;
}

#[actix::test]
async fn starting_a_vm() {
    checked_on(OFF, start(), Traces::with_web(VmState::Ready, PowerState::Running)).await;
}

#[actix::test]
async fn resuming_a_vm() {
    checked_on(PAUSED, start(), Traces::with_web(VmState::Ready, PowerState::Running)).await;
}

#[actix::test]
async fn stopping_a_vm() {
    checked_on(READY, stop(), Traces::with_web(VmState::Stopped, PowerState::Off)).await;
}

#[actix::test]
async fn stopping_a_paused_vm() {
    checked_on(PAUSED, stop(), Traces::with_web(VmState::Stopped, PowerState::Off)).await;
}

#[actix::test]
async fn removing_a_vm() {
    let remove = RemoveVm { vm: vm("web"), operation_id: None };
    // What is set aside is discarded by the reconciler, once the operation is done.
    checked_on(READY, remove, Traces { aside: 1, ..Traces::with_seed() }).await;
}

#[actix::test]
async fn removing_a_vm_whose_disk_others_replaced() {
    let before = Traces {
        found: vec![("web".into(), PowerState::Running, Some("vda.ext".into()))],
        ..Traces::with_web(VmState::Ready, PowerState::Running)
    };
    let prepare = async |fixture: &Fixture, state: &Arc<ServiceState>, simulated: &Simulated| {
        run(state, fixture.add_seed()).await;
        run(state, create()).await;
        let record = state.registry.vm(&vm("web")).await.expect("it exists");
        let overlay = state.disks.folder(record.name()).join("vda.ext");
        simulated.hypervisor.replace_disk(&record.identity.uuid, &overlay).expect("replaced");
        RemoveVm { vm: vm("web"), operation_id: None }
    };
    checked(prepare, before, Traces { aside: 1, ..Traces::with_seed() }).await;
}

#[actix::test]
async fn creating_a_reserved_vm() {
    let reserved_by = new_id();
    let reserved = Traces {
        vms: vec![("web".into(), VmState::Creating, Some(reserved_by.clone()))],
        folders: vec!["web".into()],
        ..Traces::empty()
    };
    checked(
        async |_: &Fixture, state: &Arc<ServiceState>, _: &Simulated| {
            let disk = DiskSize { disk: "vda".parse().expect("a name"), size: ByteCount::mib(16) };
            crate::support::reserve(state, definition("web"), vec![disk], reserved_by.clone()).await;
            CreateReservedVm { vm: vm("web"), reserved_by: reserved_by.clone(), operation_id: None }
        },
        reserved,
        Traces {
            found: vec![("web".into(), PowerState::Running, Some("vda.raw".into()))],
            seeds: 0,
            seed_files: 0,
            ..Traces::with_web(VmState::Ready, PowerState::Running)
        },
    )
    .await;
}
