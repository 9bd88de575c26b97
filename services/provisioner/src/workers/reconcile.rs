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
use operation::{Operations, new_id};
use provisioner_domain::reconcile::decide;
use provisioner_domain::{Decision, OperationOutcome, Inventory, Observed, ObservedPower, Phase, Observed, VmTransition};

use crate::metrics;
use crate::ports::{DiskError, HypervisorError, MarkedVm, Power};
use crate::sagas::ServiceState;
use crate::sagas::start_vm::StartVmWork;

/// A machine that went off by itself is started again after this long, then twice as long, up to the limit.
const START_AGAIN_FIRST: Duration = Duration::from_secs(10);
const START_AGAIN_MAX: Duration = Duration::from_secs(600);

/// Compares and mends.
pub struct Reconciler {
    state: Arc<ServiceState>,
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
    pub fn new(state: Arc<ServiceState>, operations: Operations) -> Reconciler {
        Reconciler { state, operations, memory: Some(Memory::default()) }
    }

    fn begin_round(&mut self, context: &mut Context<Self>) {
        let Some(mut memory) = self.memory.take() else {
            return;
        };
        let (state, operations) = (Arc::clone(&self.state), self.operations.clone());
        let work = async move {
            if let Err(unanswered) = round(&state, &operations, &mut memory).await {
                metrics::UNANSWERED_ROUNDS.add(1, &[]);
                tracing::warn!("nothing was reconciled this time: {unanswered}");
            }
            memory
        };
        context.spawn(wrap_future::<_, Self>(work).map(|memory, this, context| {
            this.memory = Some(memory);
            context.run_later(this.state.limits.reconcile_every, Self::begin_round);
        }));
    }
}

impl Actor for Reconciler {
    type Context = Context<Self>;
    fn started(&mut self, context: &mut Context<Self>) {
        self.begin_round(context);
    }
}

async fn round(state: &ServiceState, operations: &Operations, memory: &mut Memory) -> Result<(), Unanswered> {
    let inventory = state.registry.look().await?;
    let observed = observe(state, &inventory).await?;
    let outcomes = outcomes(operations, &inventory, &observed).await?;
    let outcome = |id: &OperationId| outcomes.get(id).copied().unwrap_or(OperationOutcome::Unknown);
    for decision in decide(inventory.vms(), &observed, &outcome) {
        carry_out(state, operations, memory, decision).await?;
    }
    give_up_seeds(state, operations, &inventory).await?;
    sweep(state, operations).await?;
    count(&inventory);
    Ok(())
}

/// Looks at every machine that carries our mark.
async fn observe(state: &ServiceState, inventory: &Inventory) -> Result<Vec<Observed>, Unanswered> {
    let mut observed = Vec::new();
    for marked in state.hypervisor.marked(&state.realm.to_string()).await? {
        let power = match marked.power {
            Power::Off => ObservedPower::Off,
            Power::Running => look_into(state, inventory, &marked).await?,
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
    state: &ServiceState,
    inventory: &Inventory,
    marked: &MarkedVm,
) -> Result<ObservedPower, HypervisorError> {
    let record = inventory.vms().find(|record| record.identity.uuid == marked.uuid);
    let unknown = ObservedPower::Running { address: None, answers: false };
    let Some(record) = record else {
        return Ok(unknown);
    };
    let Phase::Exists { seen, .. } = record.phase else {
        return Ok(unknown);
    };
    let address = calm(state.hypervisor.address(&marked.uuid, &record.identity.mac).await)?.flatten();
    let answers = match seen {
        Observed::Running { ready: true, .. } => true,
        _ => calm(state.hypervisor.agent_answers(&marked.uuid).await)?.unwrap_or(false),
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

async fn outcomes(
    operations: &Operations,
    inventory: &Inventory,
    observed: &[Observed],
) -> Result<BTreeMap<OperationId, OperationOutcome>, Unanswered> {
    let lockers = inventory.vms().filter_map(|record| record.locked_by().cloned());
    let known = |found: &&Observed| inventory.vms().any(|record| record.identity.uuid == found.uuid);
    let makers = observed
        .iter()
        .filter(|found| !known(found))
        .filter_map(|found| OperationId::new(found.operation.clone()).ok());
    let mut outcomes = BTreeMap::new();
    for id in lockers.chain(makers) {
        let outcome = outcome_of(operations, &id).await?;
        outcomes.insert(id, outcome);
    }
    Ok(outcomes)
}

async fn outcome_of(operations: &Operations, id: &OperationId) -> Result<OperationOutcome, TableError> {
    Ok(match operations.find(id).await?.map(|report| report.state) {
        None => OperationOutcome::Unknown,
        Some(OperationState::Running | OperationState::Undoing) => OperationOutcome::UnderWay,
        Some(OperationState::Done) => OperationOutcome::Done,
        Some(OperationState::Undone) => OperationOutcome::Undone,
        Some(OperationState::Stuck) => OperationOutcome::Stuck,
    })
}

async fn carry_out(
    state: &ServiceState,
    operations: &Operations,
    memory: &mut Memory,
    decision: Decision,
) -> Result<(), Unanswered> {
    match decision {
        Decision::See(vm, before, now) => {
            tracing::info!(%vm, ?before, ?now, "a machine changed by itself");
            change(state, &vm, VmTransition::Saw(before, now)).await?;
        }
        Decision::Release(vm, by, seen) => {
            tracing::warn!(%vm, %by, "an operation ended and left a machine locked; freeing it");
            change(state, &vm, VmTransition::Release(by, seen)).await?;
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
            state.hypervisor.destroy(&orphan.uuid).await?;
            state.hypervisor.undefine(&orphan.uuid).await?;
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

async fn change(state: &ServiceState, vm: &VmName, this: VmTransition) -> Result<(), Unanswered> {
    match state.registry.make(vm, this).await {
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
    if let Err(error) = operations.begin::<StartVmWork>(new_id(), &vm).await {
        tracing::warn!(%vm, %error, "it could not be started");
    }
}

/// Frees the names of seeds whose operation has ended without bringing them.
async fn give_up_seeds(
    state: &ServiceState,
    operations: &Operations,
    inventory: &Inventory,
) -> Result<(), Unanswered> {
    for (name, by) in inventory.expected_seeds() {
        if matches!(outcome_of(operations, by).await?, OperationOutcome::Undone | OperationOutcome::Stuck) {
            tracing::warn!(seed = %name, %by, "an operation ended without bringing a seed; freeing its name");
            match state.registry.unexpect_seed(name.clone(), by.clone()).await {
                Ok(()) | Err(Declined::Refused(_)) => {}
                Err(Declined::Failed(failure)) => return Err(failure.into()),
            }
        }
    }
    Ok(())
}

/// Discards what finished removals have set aside.
async fn sweep(state: &ServiceState, operations: &Operations) -> Result<(), Unanswered> {
    for name in state.disks.set_aside_by().await? {
        let Ok(id) = OperationId::new(name.clone()) else {
            continue;
        };
        if outcome_of(operations, &id).await? == OperationOutcome::Done {
            state.disks.discard(&name).await?;
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
