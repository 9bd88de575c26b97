//! What a command costs while the table of operations is empty, while it holds 10,000 that have ended, and while 490 run,
//! too: no command reads the whole table.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::Bus;
use contract::operation::ListOperations;
use contract::permissions::User;
use contract::provisioner::StartVm;
use contract::{HostName, OperationId, Realm, Service, VmName};
use futures::StreamExt;
use operation::{BeginError, Context, Engine, PendingCommand, Saga, Sagas, new_id};
use saga::{Outputs, Step, StepError};
use testkit::NatsServer;
use tokio::sync::watch;

const ENDED: usize = 10_000;
const RUNNING: usize = 490;
const ROUNDS: usize = 51;
const AT_ONCE: usize = 32;

/// Operations end while its value is true.
struct State(watch::Sender<bool>);

impl Saga<State> for StartVm {
    fn steps() -> Vec<Step<Context<State, StartVm>>> {
        vec![Step::new("wait", Duration::from_secs(3600), wait)]
    }
}

async fn wait(context: &Context<State, StartVm>, _: &Outputs) -> Result<(), StepError> {
    let ended = context.state.0.subscribe().wait_for(|may_end| *may_end).await.map(drop);
    ended.map_err(|_| StepError::Permanent("the benchmark ends".into()))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure())
}

async fn measure() -> Result<(), Box<dyn std::error::Error>> {
    let server = NatsServer::start();
    let connection = bus::nats::Connection {
        url: server.url(),
        nkey_file: None,
        ca_file: None,
        name: "bench".into(),
        user: User::Service(Service::Provisioner),
    };
    let transport = bus::nats::connect(&connection, Duration::from_secs(5)).await?;
    bus::nats::bootstrap(&transport, Service::Provisioner, 1).await?;
    let bus = Bus::new(Arc::new(transport), Realm::default());
    let state: Arc<State> = Arc::new(State(watch::Sender::new(true)));
    let sagas = Sagas::default().with::<StartVm>();
    let engine = sagas.open(bus, Service::Provisioner, HostName::new("h1")?, &state);

    report("an empty table", &engine).await?;
    begin_many(&engine, ENDED - 3 * ROUNDS).await?;
    ends(&engine).await?;
    report(&format!("{ENDED} ended"), &engine).await?;
    ends(&engine).await?;
    state.0.send_replace(false);
    begin_many(&engine, RUNNING - ROUNDS).await?;
    report(&format!("{ENDED} ended and {RUNNING} running"), &engine).await?;
    Ok(())
}

/// Begins operations one by one, and lists the newest.
async fn report(what: &str, engine: &Engine) -> Result<(), Box<dyn std::error::Error>> {
    let (mut begun, mut listed) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let started = Instant::now();
        engine.begin(pending()?).await?;
        begun.push(started.elapsed());
        let started = Instant::now();
        engine.list(&ListOperations { limit: Some(50), ..ListOperations::default() }).await?;
        listed.push(started.elapsed());
    }
    begun.sort();
    listed.sort();
    let (begun_worst, listed_worst) = (begun[ROUNDS - 1], listed[ROUNDS - 1]);
    println!("{what}: begin {:.2?} (worst {begun_worst:.2?})", begun[ROUNDS / 2]);
    println!("{what}: list the newest 50 {:.2?} (worst {listed_worst:.2?})", listed[ROUNDS / 2]);
    Ok(())
}

async fn begin_many(engine: &Engine, count: usize) -> Result<(), Box<dyn std::error::Error>> {
    let begun = futures::stream::iter(0..count)
        .map(|_| async {
            let pending = pending()?;
            loop {
                match engine.begin(pending.clone()).await {
                    Err(BeginError::TooMany(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
                    outcome => break outcome.map_err(Box::<dyn std::error::Error>::from),
                }
            }
        })
        .buffer_unordered(AT_ONCE);
    futures::pin_mut!(begun);
    while let Some(outcome) = begun.next().await {
        outcome?;
    }
    Ok(())
}

async fn ends(engine: &Engine) -> Result<(), Box<dyn std::error::Error>> {
    while !engine.unfinished::<StartVm>().await?.is_empty() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn pending() -> Result<PendingCommand<StartVm>, Box<dyn std::error::Error>> {
    let id: OperationId = new_id();
    Ok(PendingCommand::of_service(
        Service::Scheduler,
        id,
        StartVm { vm: VmName::new("web")?, operation_id: None },
    ))
}
