//! Every saga, through repetition, failure and crash at every step: it ends done, or as before.

use std::sync::Arc;

use bus::memory::MemoryTransport;
use contract::provisioner::{DiskSize, Vm, VmState};
use contract::{ByteCount, OperationId};
use operation::{Context, Work, new_id};
use provisioner::House;
use provisioner::ports::Power;
use provisioner::sagas::ServiceState;
use provisioner::sagas::add_seed::{AddSeedWork, SeedWish};
use provisioner::sagas::adopt_vm::{AdoptVmWork, Adoption};
use provisioner::sagas::create_vm::CreateVmWork;
use provisioner::sagas::remove_vm::RemoveVmWork;
use provisioner::sagas::start_vm::StartVmWork;
use provisioner::sagas::stop_vm::StopVmWork;
use saga::harness::check;
use saga::{Ending, Journal, Ledger, Lost, StepFuture, Trouble, drive};

use crate::support::{Simulated, bus_on, context, definition, house, limits, raw_image, seed_name, vm};

/// One folder for a whole rehearsal, a fresh state in it for every case.
struct Stage {
    folder: tempfile::TempDir,
    worlds: std::cell::Cell<u32>,
    image: (std::path::PathBuf, String),
}

/// A state with everything that is in it, for judging.
struct Set {
    house: House,
    simulated: Simulated,
}

impl Stage {
    fn new() -> Stage {
        let folder = tempfile::tempdir().expect("a folder");
        // Already as it is kept: converting it anew for every case would take most of the time.
        let image = folder.path().join("image.qcow2");
        let packed = std::process::Command::new("qemu-img")
            .args(["convert", "-f", "raw", "-O", "qcow2"])
            .args([&raw_image(folder.path()).0, &image])
            .status();
        assert!(packed.expect("qemu-img").success());
        let digest = chassis::sha256_of(&image).expect("hashed");
        let image = (image, digest);
        Stage { folder, worlds: Default::default(), image }
    }

    async fn set(&self) -> Set {
        let number = self.worlds.get();
        self.worlds.set(number + 1);
        let simulated = Simulated::open(&self.folder.path().join(number.to_string())).await;
        let bus = bus_on(&MemoryTransport::new());
        let house = house(&bus, simulated.ports.clone(), limits()).await;
        Set { house, simulated }
    }

    fn wish(&self) -> SeedWish {
        SeedWish { name: seed_name(), from: self.image.0.display().to_string(), sha256: self.image.1.clone() }
    }
}

/// A ledger for scenes before the play: nothing is kept, nothing fails.
struct Prologue;
impl Ledger for Prologue {
    async fn record(&mut self, _: &Journal) -> Result<(), Lost> {
        Ok(())
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

async fn play<W: Work<ServiceState = ServiceState>>(state: &Arc<ServiceState>, input: W::Input) {
    let ending = drive(&W::steps(), &context(state, input), &mut Journal::default(), &mut Prologue).await;
    assert_eq!(ending, Ok(Ending::Done));
}

/// Everything that can be left behind, in one value.
#[derive(Debug, PartialEq)]
struct Traces {
    vms: Vec<(String, VmState, Option<OperationId>)>,
    machines: Vec<(String, Power)>,
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
    let inventory = state.registry.look().await.expect("an answer");
    let views = inventory.vms().map(|vm| vm.view("simulated"));
    let vms: Vec<Vm> = views.collect();
    let machines = state.hypervisor.marked("loam").await.expect("an answer");
    let state =
        state.disks.folder("x").parent().and_then(|vms| vms.parent()).expect("a state folder").to_owned();
    Traces {
        vms: vms.into_iter().map(|vm| (vm.definition.name.to_string(), vm.state, vm.locked_by)).collect(),
        machines: machines.into_iter().map(|machine| (machine.mark.vm, machine.power)).collect(),
        folders: names(state.join("vms")),
        aside: names(state.join("aside")).len(),
        seeds: inventory.seeds().count(),
        seed_files: names(state.join("seeds")).len(),
    }
}

impl Traces {
    fn empty() -> Traces {
        Traces {
            vms: Vec::new(),
            machines: Vec::new(),
            folders: Vec::new(),
            aside: 0,
            seeds: 0,
            seed_files: 0,
        }
    }

    fn with_seed() -> Traces {
        Traces { seeds: 1, seed_files: 1, ..Traces::empty() }
    }

    fn with_web(state: VmState, power: Power) -> Traces {
        Traces {
            vms: vec![("web".into(), state, None)],
            machines: vec![("web".into(), power)],
            folders: vec!["web".into()],
            ..Traces::with_seed()
        }
    }
}

/// Rehearses a saga: `before` sets the scene, and the traces must be `undone` or `done` at the end.
async fn rehearsed<W: Work<ServiceState = ServiceState>>(
    input: impl AsyncFn(&Stage, &Arc<ServiceState>) -> W::Input,
    undone: Traces,
    done: Traces,
) where
    W::Input: Send + Sync,
{
    let stage = Stage::new();
    rehearse(
        &W::steps(),
        async || {
            let set = stage.set().await;
            let input = input(&stage, &set.house.state).await;
            let _ = set.simulated;
            context(&set.house.state, input)
        },
        async |here: &Context<ServiceState, W::Input>, ending| {
            let seen = traces(&here.state).await;
            let wanted = match ending {
                Ending::Done => &done,
                _ => &undone,
            };
            if seen == *wanted {
                // The next case has a state of its own; this one's guests need not burn on.
                for machine in here.state.hypervisor.marked("loam").await.expect("an answer") {
                    here.state.hypervisor.destroy(&machine.uuid).await.expect("put out");
                }
                Ok(())
            } else {
                Err(format!("after {ending:?}: {seen:?}, not {wanted:?}"))
            }
        },
    )
    .await;
}

#[actix::test]
async fn adding_a_seed() {
    rehearsed::<AddSeedWork>(async |stage, _| stage.wish(), Traces::empty(), Traces::with_seed()).await;
}

#[actix::test]
async fn creating_a_machine() {
    rehearsed::<CreateVmWork>(
        async |stage, state| {
            play::<AddSeedWork>(state, stage.wish()).await;
            definition("web")
        },
        Traces::with_seed(),
        Traces::with_web(VmState::Ready, Power::Running),
    )
    .await;
}

#[actix::test]
async fn stopping_a_machine() {
    rehearsed::<StopVmWork>(
        async |stage, state| {
            play::<AddSeedWork>(state, stage.wish()).await;
            play::<CreateVmWork>(state, definition("web")).await;
            vm("web")
        },
        Traces::with_web(VmState::Ready, Power::Running),
        Traces::with_web(VmState::Stopped, Power::Off),
    )
    .await;
}

#[actix::test]
async fn starting_a_machine() {
    rehearsed::<StartVmWork>(
        async |stage, state| {
            play::<AddSeedWork>(state, stage.wish()).await;
            play::<CreateVmWork>(state, definition("web")).await;
            play::<StopVmWork>(state, vm("web")).await;
            vm("web")
        },
        Traces::with_web(VmState::Stopped, Power::Off),
        Traces::with_web(VmState::Ready, Power::Running),
    )
    .await;
}

#[actix::test]
async fn removing_a_machine() {
    rehearsed::<RemoveVmWork>(
        async |stage, state| {
            play::<AddSeedWork>(state, stage.wish()).await;
            play::<CreateVmWork>(state, definition("web")).await;
            vm("web")
        },
        Traces::with_web(VmState::Ready, Power::Running),
        Traces {
            // Discarded by the reconciler, once the operation is done.
            aside: 1,
            ..Traces::with_seed()
        },
    )
    .await;
}

#[actix::test]
async fn adopting_a_machine() {
    let reserved_by = new_id();
    let reserved = |by: &OperationId| Traces {
        vms: vec![("web".into(), VmState::Creating, Some(by.clone()))],
        folders: vec!["web".into()],
        ..Traces::empty()
    };
    let by = reserved_by.clone();
    rehearsed::<AdoptVmWork>(
        async |_, state| {
            let disk = DiskSize { disk: "vda".parse().expect("a name"), size: ByteCount::mib(16) };
            crate::support::reserve(state, definition("web"), vec![disk], by.clone()).await;
            Adoption { vm: vm("web"), reserved_by: by.clone() }
        },
        reserved(&reserved_by),
        Traces { seeds: 0, seed_files: 0, ..Traces::with_web(VmState::Ready, Power::Running) },
    )
    .await;
}
