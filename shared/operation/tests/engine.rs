//! Operations as a service uses them, on the memory bus.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bus::memory::MemoryTransport;
use bus::{Bus, Caller};
use contract::operation::{
    BegunOperation, ListOperations, OperationChanged, OperationPosition, OperationState,
};
use contract::provisioner::StartVm;
use contract::{HostName, OperationId, Realm, Service, VmName};
use futures::StreamExt;
use operation::{BeginError, Context, Engine, PendingCommand, Saga, Sagas, new_id};
use saga::{Outputs, Step, StepError};
use testkit::eventually;

#[derive(Default)]
struct State {
    prepared: AtomicUsize,
    undone: AtomicUsize,
    may_go_on: AtomicBool,
    hypervisor_is_away: AtomicBool,
    fails: AtomicBool,
}

impl Saga<State> for StartVm {
    fn steps() -> Vec<Step<Context<State, StartVm>>> {
        vec![
            Step::new("prepare", Duration::from_secs(5), prepare).undone_by(undo),
            Step::new("wait", Duration::from_secs(60), wait),
            Step::new("finish", Duration::from_secs(5), finish),
        ]
    }
}

async fn prepare(context: &Context<State, StartVm>, _: &Outputs) -> Result<usize, StepError> {
    context.state.prepared.store(1, Ordering::SeqCst);
    Ok(context.command.vm.as_str().len())
}
async fn undo(context: &Context<State, StartVm>, _: &Outputs) -> Result<(), StepError> {
    context.state.undone.fetch_add(1, Ordering::SeqCst);
    Ok(())
}
async fn wait(context: &Context<State, StartVm>, _: &Outputs) -> Result<(), StepError> {
    while !context.state.may_go_on.load(Ordering::SeqCst) {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(5)) => {}
            () = context.cancel.cancelled() => return Err(StepError::Permanent("cancelled".into())),
        }
    }
    Ok(())
}
async fn finish(context: &Context<State, StartVm>, outputs: &Outputs) -> Result<usize, StepError> {
    if context.state.hypervisor_is_away.load(Ordering::SeqCst) {
        return Err(StepError::Transient("the hypervisor does not answer".into()));
    }
    if context.state.fails.load(Ordering::SeqCst) {
        return Err(StepError::Permanent("it does not start".into()));
    }
    outputs.get("prepare")
}

fn start_vm(vm: &str) -> StartVm {
    StartVm { vm: VmName::new(vm).expect("a name"), operation_id: None }
}

fn pending(id: &OperationId, vm: &str) -> PendingCommand<StartVm> {
    PendingCommand::of_service(Service::Scheduler, id.clone(), start_vm(vm))
}

fn host(name: &str) -> HostName {
    HostName::new(name).expect("a name")
}

fn engine(transport: &MemoryTransport, state: &Arc<State>) -> (Bus, Engine) {
    engine_on("h1", transport, state)
}

fn engine_on(name: &str, transport: &MemoryTransport, state: &Arc<State>) -> (Bus, Engine) {
    let bus = Bus::new(Arc::new(transport.clone()), Realm::default());
    let engine =
        Sagas::default().with::<StartVm>().open(bus.clone(), Service::Provisioner, host(name), state);
    (bus, engine)
}

#[tokio::test]
async fn an_operation_is_resumed_on_its_own_host_only_and_says_who_asked_for_it() {
    let (transport, state) = (MemoryTransport::new(), Arc::new(State::default()));
    let id = new_id();
    let (_, first) = engine_on("h1", &transport, &state);
    let alice = Caller::Person { user: "UALICE".into(), name: Some("alice".into()) };
    let pending = PendingCommand { on_behalf_of: Some(alice.clone()), ..pending(&id, "web") };
    first.begin(pending).await.expect("begun");
    first.shut_down().await;
    let (_, other) = engine_on("h2", &transport, &state);
    assert_eq!(other.resume().await.expect("read"), 0, "another host's");
    let report = other.find(&id).await.expect("read").expect("every host shows all");
    assert_eq!((report.host.as_str(), &report.caller), ("h1", &Caller::Service(Service::Scheduler)));
    assert_eq!(report.asked_by(), &alice);
    let (_, again) = engine_on("h1", &transport, &state);
    assert_eq!(again.resume().await.expect("read"), 1);
    state.may_go_on.store(true, Ordering::SeqCst);
    ends(&again, &id, OperationState::Done).await;
}

async fn ends(engine: &Engine, id: &OperationId, state: OperationState) {
    eventually(&format!("{id} ends {state:?}"), async || {
        engine.find(id).await.expect("readable").is_some_and(|report| report.state == state)
    })
    .await;
}

#[tokio::test]
async fn an_operation_runs_to_its_end_and_publishes_its_changes() {
    let (transport, state) = (MemoryTransport::new(), Arc::new(State::default()));
    let (bus, engine) = engine(&transport, &state);
    let mut changes = bus.subscribe::<OperationChanged>().await.expect("subscribed");
    state.may_go_on.store(true, Ordering::SeqCst);
    let id = new_id();
    assert_eq!(engine.begin(pending(&id, "web")).await.expect("begun"), BegunOperation::Begun(id.clone()));
    ends(&engine, &id, OperationState::Done).await;
    let report = engine.find(&id).await.expect("readable").expect("there");
    assert_eq!((report.steps_done, report.steps_total, report.output), (3, 3, Some(serde_json::json!(3))));
    let mut last = None;
    while last != Some(OperationState::Done) {
        let (changed, _) = changes.next().await.expect("published");
        assert_eq!(changed.0.id, id);
        last = Some(changed.0.state);
    }
}

#[tokio::test]
async fn an_operation_says_why_it_goes_no_further_for_as_long_as_it_does_not() {
    let (transport, state) = (MemoryTransport::new(), Arc::new(State::default()));
    let (bus, engine) = engine(&transport, &state);
    let mut changes = bus.subscribe::<OperationChanged>().await.expect("subscribed");
    state.may_go_on.store(true, Ordering::SeqCst);
    state.hypervisor_is_away.store(true, Ordering::SeqCst);
    let id = new_id();
    engine.begin(pending(&id, "web")).await.expect("begun");
    let waiting = Some("the hypervisor does not answer");
    while changes.next().await.expect("published").0.0.waiting_for.as_deref() != waiting {}
    let report = engine.find(&id).await.expect("readable").expect("there");
    assert_eq!((report.step.as_deref(), report.waiting_for.as_deref()), (Some("finish"), waiting));
    state.hypervisor_is_away.store(false, Ordering::SeqCst);
    ends(&engine, &id, OperationState::Done).await;
    assert_eq!(engine.find(&id).await.expect("readable").expect("there").waiting_for, None);
}

#[tokio::test]
async fn the_same_command_twice_is_one_operation_and_another_command_is_refused_the_id() {
    let (transport, state) = (MemoryTransport::new(), Arc::new(State::default()));
    let (_, engine) = engine(&transport, &state);
    let id = new_id();
    engine.begin(pending(&id, "web")).await.expect("begun");
    let again = engine.begin(pending(&id, "web")).await.expect("known");
    assert_eq!(again, BegunOperation::AlreadyBegun(id.clone()));
    let other = engine.begin(pending(&id, "db")).await.expect_err("another command");
    assert!(matches!(other, BeginError::IdReused(_)));
}

#[tokio::test]
async fn an_operation_outlives_its_process() {
    let (transport, state) = (MemoryTransport::new(), Arc::new(State::default()));
    let id = new_id();
    {
        let (_, engine) = engine(&transport, &state);
        engine.begin(pending(&id, "web")).await.expect("begun");
        eventually("it waits", async || state.prepared.load(Ordering::SeqCst) == 1).await;
        engine.shut_down().await;
    }
    state.may_go_on.store(true, Ordering::SeqCst);
    let (_, engine) = engine(&transport, &state);
    assert_eq!(engine.resume().await.expect("readable"), 1);
    ends(&engine, &id, OperationState::Done).await;
    assert_eq!(state.undone.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn of_two_drivers_only_one_goes_on() {
    let (transport, state) = (MemoryTransport::new(), Arc::new(State::default()));
    let (_, first) = engine(&transport, &state);
    let id = new_id();
    first.begin(pending(&id, "web")).await.expect("begun");
    eventually("the first waits", async || state.prepared.load(Ordering::SeqCst) == 1).await;
    let (_, second) = engine(&transport, &state);
    second.resume().await.expect("readable");
    state.may_go_on.store(true, Ordering::SeqCst);
    ends(&second, &id, OperationState::Done).await;
    let report = second.find(&id).await.expect("readable").expect("there");
    assert_eq!(report.steps_done, 3, "each step is recorded once");
}

#[tokio::test]
async fn a_cancelled_operation_is_undone() {
    let (transport, state) = (MemoryTransport::new(), Arc::new(State::default()));
    let (bus, engine) = engine(&transport, &state);
    let mut server = bus.server(bus::ServiceInfo {
        service: Service::Provisioner,
        version: "0.1.0".into(),
        metadata: Default::default(),
    });
    engine.serve(&mut server);
    let _running = server.open().await.expect("opens");
    let id = new_id();
    engine.begin(pending(&id, "web")).await.expect("begun");
    let cancel = contract::operation::CancelOperation { id: id.clone() };
    bus.call_at(Service::Provisioner, &cancel, Duration::from_secs(5)).await.expect("understood");
    ends(&engine, &id, OperationState::Undone).await;
    let report = engine.find(&id).await.expect("readable").expect("there");
    assert_eq!(report.reason.as_deref(), Some("cancelled"));
}

#[tokio::test]
async fn a_failed_operation_is_undone_and_says_why() {
    let (transport, state) = (MemoryTransport::new(), Arc::new(State::default()));
    let (_, engine) = engine(&transport, &state);
    state.may_go_on.store(true, Ordering::SeqCst);
    state.fails.store(true, Ordering::SeqCst);
    let id = new_id();
    engine.begin(pending(&id, "web")).await.expect("begun");
    ends(&engine, &id, OperationState::Undone).await;
    let report = engine.find(&id).await.expect("readable").expect("there");
    assert_eq!(report.reason.as_deref(), Some("finish: it does not start"));
    assert_eq!(state.undone.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_bus_going_away_suspends_an_operation_and_nothing_more() {
    let (transport, state) = (MemoryTransport::new(), Arc::new(State::default()));
    let (_, engine) = engine(&transport, &state);
    let id = new_id();
    engine.begin(pending(&id, "web")).await.expect("begun");
    eventually("it waits", async || state.prepared.load(Ordering::SeqCst) == 1).await;
    transport.cut();
    state.may_go_on.store(true, Ordering::SeqCst);
    assert!(engine.find(&id).await.is_err());
    transport.mend();
    ends(&engine, &id, OperationState::Done).await;
}

#[tokio::test]
async fn an_operation_whose_beginning_was_written_while_the_bus_went_away_is_carried_out() {
    let (transport, state) = (MemoryTransport::new(), Arc::new(State::default()));
    let (_, engine) = engine(&transport, &state);
    state.may_go_on.store(true, Ordering::SeqCst);
    let id = new_id();
    transport.lose_answer_of(contract::bucket::OPERATIONS.name);
    engine.begin(pending(&id, "web")).await.expect_err("nobody knows whether it is begun");
    let again = engine.begin(pending(&id, "web")).await.expect("it is");
    assert_eq!(again, BegunOperation::AlreadyBegun(id.clone()));
    ends(&engine, &id, OperationState::Done).await;
    assert_eq!(state.prepared.load(Ordering::SeqCst), 1);
}

/// Ids of a list, and the operations in it.
async fn listed(engine: &Engine, query: ListOperations) -> Vec<OperationId> {
    engine.list(&query).await.expect("readable").into_iter().map(|report| report.id).collect()
}

#[tokio::test]
async fn operations_are_listed_in_pages_and_by_who_asked_for_them() {
    let (transport, state) = (MemoryTransport::new(), Arc::new(State::default()));
    let (_, engine) = engine(&transport, &state);
    let alice = Caller::Person { user: "UALICE".into(), name: Some("alice".into()) };
    let mut ids = Vec::new();
    for number in 1..=7_u128 {
        let id = OperationId::from_bits(number);
        let on_behalf_of = (number % 2 == 0).then(|| alice.clone());
        engine.begin(PendingCommand { on_behalf_of, ..pending(&id, "web") }).await.expect("begun");
        ids.insert(0, id);
    }
    let page = ListOperations { limit: Some(3), ..ListOperations::default() };
    let mut found = Vec::new();
    let mut before = None;
    loop {
        let reports = engine.list(&ListOperations { before, ..page.clone() }).await.expect("readable");
        assert!(reports.len() <= 3);
        let Some(last) = reports.last() else { break };
        before = Some(OperationPosition::from(last));
        found.extend(reports.into_iter().map(|report| report.id));
    }
    assert_eq!(found, ids);
    let evens: Vec<_> = ids.iter().skip(1).step_by(2).cloned().collect();
    for name in ["alice", "UALICE"] {
        assert_eq!(
            listed(&engine, ListOperations { by: Some(name.into()), ..Default::default() }).await,
            evens
        );
    }
    let by_service = ListOperations { by: Some("scheduler".into()), ..Default::default() };
    assert_eq!(listed(&engine, by_service).await, ids);
    assert!(
        listed(&engine, ListOperations { by: Some("bob".into()), ..Default::default() }).await.is_empty()
    );
    let prefix = Some(ids[0].to_string());
    assert_eq!(listed(&engine, ListOperations { id_prefix: prefix, ..Default::default() }).await, ids[..1]);
    let unfinished = ListOperations { unfinished_only: true, ..Default::default() };
    assert_eq!(listed(&engine, unfinished.clone()).await, ids);
    state.may_go_on.store(true, Ordering::SeqCst);
    eventually("all end", async || listed(&engine, unfinished.clone()).await.is_empty()).await;
    assert!(engine.unfinished::<StartVm>().await.expect("readable").is_empty());
}

#[tokio::test]
async fn what_another_host_does_is_listed_and_ended_operations_beyond_a_number_are_removed_by_their_own_host()
{
    let (transport, state) = (MemoryTransport::new(), Arc::new(State::default()));
    let ((_, first), (_, second)) =
        (engine_on("h1", &transport, &state), engine_on("h2", &transport, &state));
    state.may_go_on.store(true, Ordering::SeqCst);
    assert!(listed(&second, ListOperations::default()).await.is_empty());
    for number in 1..=5_u128 {
        let id = OperationId::from_bits(number);
        first.begin(pending(&id, "web")).await.expect("begun");
        ends(&first, &id, OperationState::Done).await;
    }
    assert_eq!(listed(&second, ListOperations::default()).await.len(), 5, "read by what changed");
    second.prune(2).await.expect("nothing to do");
    assert_eq!(listed(&first, ListOperations::default()).await.len(), 5);
    first.prune(2).await.expect("pruned");
    let newest: Vec<_> = [5, 4].map(OperationId::from_bits).into();
    assert_eq!(listed(&first, ListOperations::default()).await, newest);
    assert_eq!(listed(&second, ListOperations::default()).await, newest);
}

#[tokio::test]
async fn an_operation_under_way_outlives_the_loss_of_its_table_and_is_not_begun_again() {
    let (transport, state) = (MemoryTransport::new(), Arc::new(State::default()));
    let (bus, engine) = engine(&transport, &state);
    bus.check_table(&contract::bucket::OPERATIONS).await.expect("there");
    let id = new_id();
    engine.begin(pending(&id, "web")).await.expect("begun");
    eventually("it waits", async || state.prepared.load(Ordering::SeqCst) == 1).await;
    transport.lose_table(contract::bucket::OPERATIONS.name);
    engine.begin(pending(&id, "web")).await.expect_err("it is being carried out");
    bus.check_table(&contract::bucket::OPERATIONS).await.expect("there again");
    eventually("its row is written again", async || engine.find(&id).await.expect("readable").is_some())
        .await;
    let again = engine.begin(pending(&id, "web")).await.expect("known");
    assert_eq!(again, BegunOperation::AlreadyBegun(id.clone()));
    // And when nobody noticed the loss, its next record finds it out.
    transport.lose_table(contract::bucket::OPERATIONS.name);
    state.may_go_on.store(true, Ordering::SeqCst);
    ends(&engine, &id, OperationState::Done).await;
    assert_eq!(state.prepared.load(Ordering::SeqCst), 1);
}
