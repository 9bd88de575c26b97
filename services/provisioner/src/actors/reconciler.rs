//! The reconciler: every ten seconds it compares what should be with what is, and does what the domain decides.
//!
//! It owns nothing but its memory of what it has said and tried. A round that the hypervisor does not answer is left
//! out; the next one looks at everything again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::fut::wrap_future;
use actix::{Actor, ActorFutureExt, AsyncContext, Context};
use bus::{Declined, TableError};
use contract::operation::OperationState;
use contract::message::Failure;
use contract::{OperationId, VmName};
use opentelemetry::KeyValue;
use operation::{Operations, fresh_id};
use provisioner_domain::reconcile::decide;
use provisioner_domain::{Decision, Fate, Inventory, Observed, ObservedPower, Phase, Seen, VmMove};

use crate::metrics;
use crate::ports::{DiskError, HypervisorError, Marked, Power};
use crate::sagas::World;
use crate::sagas::start_vm::StartVmWork;

/// A machine that went off by itself is started again after this long, then twice as long, up to the limit.
const START_AGAIN_FIRST: Duration = Duration::from_secs(10);
const START_AGAIN_MAX: Duration = Duration::from_secs(600);

/// Compares and mends.
pub struct Reconciler {
    world: Arc<World>,
    operations: Operations,
    memory: Option<Memory>,
}

/// What it has said and tried.
#[derive(Default)]
struct Memory {
    reported: HashSet<String>,
    restarts: HashMap<VmName, (Instant, Duration)>,
}

/// Why a round was left out.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error("the hypervisor: {0}")]
    Hypervisor(#[from] HypervisorError),
    #[error("the registry: {0}")]
    Registry(#[from] Failure),
    #[error("the table of operations: {0}")]
    Operations(#[from] TableError),
    #[error("the disks: {0}")]
    Disks(#[from] DiskError),
}

impl Reconciler {
    /// A reconciler; it begins when it is started.
    pub fn new(world: Arc<World>, operations: Operations) -> Reconciler {
        Reconciler { world, operations, memory: Some(Memory::default()) }
    }

    fn begin_round(&mut self, context: &mut Context<Self>) {
        let Some(mut memory) = self.memory.take() else {
            return;
        };
        let (world, operations) = (Arc::clone(&self.world), self.operations.clone());
        let work = async move {
            if let Err(unanswered) = round(&world, &operations, &mut memory).await {
                metrics::UNANSWERED_ROUNDS.add(1, &[]);
                tracing::warn!("nothing was reconciled this time: {unanswered}");
            }
            memory
        };
        context.spawn(wrap_future::<_, Self>(work).map(|memory, this, context| {
            this.memory = Some(memory);
            context.run_later(this.world.pace.reconcile_every, Self::begin_round);
        }));
    }
}

impl Actor for Reconciler {
    type Context = Context<Self>;
    fn started(&mut self, context: &mut Context<Self>) {
        self.begin_round(context);
    }
}

async fn round(world: &World, operations: &Operations, memory: &mut Memory) -> Result<(), Unanswered> {
    let inventory = world.registry.look().await?;
    let observed = observe(world, &inventory).await?;
    let fates = fates(operations, &inventory, &observed).await?;
    let fate = |id: &OperationId| fates.get(id).copied().unwrap_or(Fate::Unknown);
    for decision in decide(inventory.vms(), &observed, &fate) {
        carry_out(world, operations, memory, decision).await?;
    }
    give_up_seeds(world, operations, &inventory).await?;
    sweep(world, operations).await?;
    count(&inventory);
    Ok(())
}

/// Looks at every machine that carries our mark.
async fn observe(world: &World, inventory: &Inventory) -> Result<Vec<Observed>, Unanswered> {
    let mut observed = Vec::new();
    for marked in world.hypervisor.marked(&world.realm.to_string()).await? {
        let power = match marked.power {
            Power::Off => ObservedPower::Off,
            Power::Running => look_into(world, inventory, &marked).await?,
        };
        observed.push(Observed {
            uuid: marked.uuid,
            vm: marked.mark.vm,
            operation: marked.mark.operation,
            power,
        });
    }
    Ok(observed)
}

/// The address of a running machine that we know; and whether it answers, where that is news.
async fn look_into(
    world: &World,
    inventory: &Inventory,
    marked: &Marked,
) -> Result<ObservedPower, HypervisorError> {
    let record = inventory.vms().find(|record| record.identity.uuid == marked.uuid);
    let unknown = ObservedPower::Running { address: None, answers: false };
    let Some(record) = record else {
        return Ok(unknown);
    };
    let Phase::Living { seen, .. } = record.phase else {
        return Ok(unknown);
    };
    let address = calm(world.hypervisor.address(&marked.uuid, &record.identity.mac).await)?.flatten();
    let answers = match seen {
        Seen::Running { ready: true, .. } => true,
        _ => calm(world.hypervisor.agent_answers(&marked.uuid).await)?.unwrap_or(false),
    };
    Ok(ObservedPower::Running { address, answers })
}

/// One machine that went off between two questions does not spoil the round.
fn calm<T>(answer: Result<T, HypervisorError>) -> Result<Option<T>, HypervisorError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error @ HypervisorError::Unavailable(_)) => Err(error),
        Err(_) => Ok(None),
    }
}

async fn fates(
    operations: &Operations,
    inventory: &Inventory,
    observed: &[Observed],
) -> Result<BTreeMap<OperationId, Fate>, Unanswered> {
    let lockers = inventory.vms().filter_map(|record| record.locked_by().cloned());
    let known = |found: &&Observed| inventory.vms().any(|record| record.identity.uuid == found.uuid);
    let makers = observed
        .iter()
        .filter(|found| !known(found))
        .filter_map(|found| OperationId::new(found.operation.clone()).ok());
    let mut fates = BTreeMap::new();
    for id in lockers.chain(makers) {
        let fate = fate_of(operations, &id).await?;
        fates.insert(id, fate);
    }
    Ok(fates)
}

async fn fate_of(operations: &Operations, id: &OperationId) -> Result<Fate, TableError> {
    Ok(match operations.find(id).await?.map(|report| report.state) {
        None => Fate::Unknown,
        Some(OperationState::Running | OperationState::Undoing) => Fate::UnderWay,
        Some(OperationState::Done) => Fate::Done,
        Some(OperationState::Undone) => Fate::Undone,
        Some(OperationState::Stuck) => Fate::Stuck,
    })
}

async fn carry_out(
    world: &World,
    operations: &Operations,
    memory: &mut Memory,
    decision: Decision,
) -> Result<(), Unanswered> {
    match decision {
        Decision::See(vm, before, now) => {
            tracing::info!(%vm, ?before, ?now, "a machine changed by itself");
            change(world, &vm, VmMove::Saw(before, now)).await?;
        }
        Decision::Release(vm, by, seen) => {
            tracing::warn!(%vm, %by, "an operation ended and left a machine locked; freeing it");
            change(world, &vm, VmMove::Release(by, seen)).await?;
        }
        Decision::Start(vm) => start_again(operations, memory, vm).await,
        Decision::Clean(orphan) => {
            tracing::warn!(
                uuid = orphan.uuid,
                vm = orphan.vm,
                operation = orphan.operation,
                "removing what an undone operation left"
            );
            metrics::ORPHANS.add(1, &[KeyValue::new("what", "cleaned")]);
            world.hypervisor.destroy(&orphan.uuid).await?;
            world.hypervisor.undefine(&orphan.uuid).await?;
        }
        Decision::Report(stranger) => {
            if memory.reported.insert(stranger.uuid.clone()) {
                metrics::ORPHANS.add(1, &[KeyValue::new("what", "reported")]);
                tracing::error!(
                    uuid = stranger.uuid,
                    vm = stranger.vm,
                    operation = stranger.operation,
                    "the hypervisor has a machine with our mark that no record knows; it is left alone"
                );
            }
        }
    }
    Ok(())
}

async fn change(world: &World, vm: &VmName, this: VmMove) -> Result<(), Unanswered> {
    match world.registry.make(vm, this).await {
        // Gone or taken up by an operation since we looked.
        Ok(_) | Err(Declined::Refused(_)) => Ok(()),
        Err(Declined::Failed(failure)) => Err(failure.into()),
    }
}

/// Starts a machine that should run, patiently where it went off again and again.
async fn start_again(operations: &Operations, memory: &mut Memory, vm: VmName) {
    let now = Instant::now();
    let wait = match memory.restarts.get(&vm) {
        Some((last, wait)) if now < *last + *wait => return,
        // It stayed up for long: whatever was wrong has passed.
        Some((last, _)) if now > *last + START_AGAIN_MAX * 2 => START_AGAIN_FIRST,
        Some((_, wait)) => (*wait * 2).min(START_AGAIN_MAX),
        None => START_AGAIN_FIRST,
    };
    memory.restarts.insert(vm.clone(), (now, wait));
    tracing::info!(%vm, "it should run and is off; starting it");
    if let Err(error) = operations.begin::<StartVmWork>(fresh_id(), &vm).await {
        tracing::warn!(%vm, %error, "it could not be started");
    }
}

/// Frees the names of seeds whose operation has ended without bringing them.
async fn give_up_seeds(
    world: &World,
    operations: &Operations,
    inventory: &Inventory,
) -> Result<(), Unanswered> {
    for (name, by) in inventory.expected_seeds() {
        if matches!(fate_of(operations, by).await?, Fate::Undone | Fate::Stuck) {
            tracing::warn!(seed = %name, %by, "an operation ended without bringing a seed; freeing its name");
            match world.registry.unexpect_seed(name.clone(), by.clone()).await {
                Ok(()) | Err(Declined::Refused(_)) => {}
                Err(Declined::Failed(failure)) => return Err(failure.into()),
            }
        }
    }
    Ok(())
}

/// Discards what finished removals have set aside.
async fn sweep(world: &World, operations: &Operations) -> Result<(), Unanswered> {
    for name in world.disks.set_aside_by().await? {
        let Ok(id) = OperationId::new(name.clone()) else {
            continue;
        };
        if fate_of(operations, &id).await? == Fate::Done {
            world.disks.discard(&name).await?;
        }
    }
    Ok(())
}

fn count(inventory: &Inventory) {
    let mut states: BTreeMap<String, u64> = BTreeMap::new();
    for state in ["creating", "starting", "ready", "stopping", "stopped", "removing", "missing"] {
        states.insert(state.into(), 0);
    }
    for record in inventory.vms() {
        *states.entry(format!("{:?}", record.state()).to_lowercase()).or_default() += 1;
    }
    for (state, vms) in states {
        metrics::VMS.record(vms, &[KeyValue::new("state", state)]);
    }
}
