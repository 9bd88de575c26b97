//! Operations as a service uses them, on the memory bus.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bus::Bus;
use bus::memory::MemoryTransport;
use contract::operation::{Begun, OperationChanged, OperationState};
use contract::{OperationId, Realm, Service};
use futures::StreamExt;
use operation::{Context, Operations, Work, fresh_id};
use saga::{Step, StepFuture, Trail, Trouble, output};
use testkit::eventually;

#[derive(Default)]
struct World {
    grown: AtomicUsize,
    cut: AtomicUsize,
    gate_open: AtomicBool,
    barren: AtomicBool,
}

struct Grow;

impl Work for Grow {
    const KIND: &'static str = "grow";
    type World = World;
    type Input = String;
    fn about(input: &String) -> String {
        input.clone()
    }
    fn steps() -> Vec<Step<Context<World, String>>> {
        vec![
            Step::new("plant", Duration::from_secs(5), plant).undone_by(cut),
            Step::new("wait", Duration::from_secs(60), wait),
            Step::new("harvest", Duration::from_secs(5), harvest),
        ]
    }
}

type Here = Context<World, String>;

fn plant<'a>(context: &'a Here, _: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        context.world.grown.store(1, Ordering::SeqCst);
        output(&context.input.len())
    })
}
fn cut<'a>(context: &'a Here, _: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        context.world.cut.fetch_add(1, Ordering::SeqCst);
        output(&())
    })
}
fn wait<'a>(context: &'a Here, _: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        while !context.world.gate_open.load(Ordering::SeqCst) {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
                () = context.cancel.cancelled() => return Err(Trouble::Final("given up".into())),
            }
        }
        output(&())
    })
}
fn harvest<'a>(context: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        if context.world.barren.load(Ordering::SeqCst) {
            return Err(Trouble::Final("nothing grew".into()));
        }
        output(&trail.of::<usize>("plant")?)
    })
}

fn office(carrier: &MemoryTransport, world: &Arc<World>) -> (Bus, Operations) {
    let bus = Bus::new(Arc::new(carrier.clone()), Realm::default());
    let operations = Operations::of(bus.clone(), Service::Provisioner).with::<Grow>(Arc::clone(world)).open();
    (bus, operations)
}

async fn ends(operations: &Operations, id: &OperationId, state: OperationState) {
    eventually(&format!("{id} ends {state:?}"), async || {
        operations.find(id).await.expect("readable").is_some_and(|report| report.state == state)
    })
    .await;
}

#[tokio::test]
async fn an_operation_runs_to_its_end_and_tells_its_moves() {
    let (carrier, world) = (MemoryTransport::new(), Arc::new(World::default()));
    let (bus, operations) = office(&carrier, &world);
    let mut moves = bus.listen::<OperationChanged>().await.expect("listening");
    world.gate_open.store(true, Ordering::SeqCst);
    let id = fresh_id();
    assert_eq!(
        operations.begin::<Grow>(id.clone(), &"oak".into()).await.expect("begun"),
        Begun::Begun(id.clone())
    );
    ends(&operations, &id, OperationState::Done).await;
    let report = operations.find(&id).await.expect("readable").expect("there");
    assert_eq!((report.steps_done, report.steps_total, report.output), (3, 3, Some(serde_json::json!(3))));
    let mut last = None;
    while last != Some(OperationState::Done) {
        let (moved, _) = moves.next().await.expect("told");
        assert_eq!(moved.0.id, id);
        last = Some(moved.0.state);
    }
}

#[tokio::test]
async fn the_same_command_twice_is_one_operation_and_another_command_is_refused_the_id() {
    let (carrier, world) = (MemoryTransport::new(), Arc::new(World::default()));
    let (_, operations) = office(&carrier, &world);
    let id = fresh_id();
    operations.begin::<Grow>(id.clone(), &"oak".into()).await.expect("begun");
    let again = operations.begin::<Grow>(id.clone(), &"oak".into()).await.expect("known");
    assert_eq!(again, Begun::AlreadyBegun(id.clone()));
    let other = operations.begin::<Grow>(id.clone(), &"elm".into()).await.expect_err("another command");
    assert!(matches!(other, operation::BeginError::IdReused(_)));
}

#[tokio::test]
async fn an_operation_outlives_its_process() {
    let (carrier, world) = (MemoryTransport::new(), Arc::new(World::default()));
    let id = fresh_id();
    {
        let (_, operations) = office(&carrier, &world);
        operations.begin::<Grow>(id.clone(), &"oak".into()).await.expect("begun");
        eventually("it waits", async || world.grown.load(Ordering::SeqCst) == 1).await;
        operations.leave().await;
    }
    world.gate_open.store(true, Ordering::SeqCst);
    let (_, operations) = office(&carrier, &world);
    assert_eq!(operations.resume().await.expect("readable"), 1);
    ends(&operations, &id, OperationState::Done).await;
    assert_eq!(world.cut.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn of_two_runners_only_one_goes_on() {
    let (carrier, world) = (MemoryTransport::new(), Arc::new(World::default()));
    let (_, first) = office(&carrier, &world);
    let id = fresh_id();
    first.begin::<Grow>(id.clone(), &"oak".into()).await.expect("begun");
    eventually("the first waits", async || world.grown.load(Ordering::SeqCst) == 1).await;
    let (_, second) = office(&carrier, &world);
    second.resume().await.expect("readable");
    world.gate_open.store(true, Ordering::SeqCst);
    ends(&second, &id, OperationState::Done).await;
    let report = second.find(&id).await.expect("readable").expect("there");
    assert_eq!(report.steps_done, 3, "each step is recorded once");
}

#[tokio::test]
async fn a_cancelled_operation_is_undone() {
    let (carrier, world) = (MemoryTransport::new(), Arc::new(World::default()));
    let (bus, operations) = office(&carrier, &world);
    let mut server = bus.server(bus::ServiceInfo {
        service: Service::Provisioner,
        version: "0.1.0".into(),
        metadata: Default::default(),
    });
    operations.serve(&mut server);
    let _desk = server.open().await.expect("opens");
    let id = fresh_id();
    operations.begin::<Grow>(id.clone(), &"oak".into()).await.expect("begun");
    let cancel = contract::operation::CancelOperation { id: id.clone() };
    bus.call_at(Service::Provisioner, &cancel, Duration::from_secs(5)).await.expect("understood");
    ends(&operations, &id, OperationState::Undone).await;
    let report = operations.find(&id).await.expect("readable").expect("there");
    assert_eq!(report.reason.as_deref(), Some("cancelled"));
}

#[tokio::test]
async fn a_failed_operation_is_undone_and_says_why() {
    let (carrier, world) = (MemoryTransport::new(), Arc::new(World::default()));
    let (_, operations) = office(&carrier, &world);
    world.gate_open.store(true, Ordering::SeqCst);
    world.barren.store(true, Ordering::SeqCst);
    let id = fresh_id();
    operations.begin::<Grow>(id.clone(), &"oak".into()).await.expect("begun");
    ends(&operations, &id, OperationState::Undone).await;
    let report = operations.find(&id).await.expect("readable").expect("there");
    assert_eq!(report.reason.as_deref(), Some("harvest: nothing grew"));
    assert_eq!(world.cut.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_bus_going_away_suspends_an_operation_and_nothing_more() {
    let (carrier, world) = (MemoryTransport::new(), Arc::new(World::default()));
    let (_, operations) = office(&carrier, &world);
    let id = fresh_id();
    operations.begin::<Grow>(id.clone(), &"oak".into()).await.expect("begun");
    eventually("it waits", async || world.grown.load(Ordering::SeqCst) == 1).await;
    carrier.cut();
    world.gate_open.store(true, Ordering::SeqCst);
    assert!(operations.find(&id).await.is_err());
    carrier.mend();
    ends(&operations, &id, OperationState::Done).await;
}

#[tokio::test]
async fn an_operation_whose_beginning_was_written_while_the_bus_went_away_is_carried_out() {
    let (carrier, world) = (MemoryTransport::new(), Arc::new(World::default()));
    let (_, operations) = office(&carrier, &world);
    world.gate_open.store(true, Ordering::SeqCst);
    let id = fresh_id();
    carrier.lose_answer_of(contract::bucket::OPERATIONS.name);
    operations.begin::<Grow>(id.clone(), &"oak".into()).await.expect_err("nobody knows whether it is begun");
    let again = operations.begin::<Grow>(id.clone(), &"oak".into()).await.expect("it is");
    assert_eq!(again, Begun::AlreadyBegun(id.clone()));
    ends(&operations, &id, OperationState::Done).await;
    assert_eq!(world.grown.load(Ordering::SeqCst), 1);
}
