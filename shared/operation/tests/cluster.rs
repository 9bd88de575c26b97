//! A NATS cluster loses servers, its leader among them, while operations are begun; none that was accepted is lost.

use std::sync::Arc;
use std::time::Duration;

use bus::Bus;
use contract::operation::OperationState;
use contract::provisioner::StartVm;
use contract::{HostName, Realm, Service, VmName};
use operation::{Context, PendingCommand, Saga, Sagas, new_id};
use saga::{Outputs, Step, StepError};
use testkit::{NatsCluster, eventually_some};

struct State;

impl Saga<State> for StartVm {
    fn steps() -> Vec<Step<Context<State, StartVm>>> {
        ["one", "two", "three"].map(|name| Step::new(name, Duration::from_secs(5), step)).into()
    }
}

async fn step(context: &Context<State, StartVm>, _: &Outputs) -> Result<String, StepError> {
    tokio::time::sleep(Duration::from_millis(20)).await;
    Ok(context.command.vm.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_accepted_operation_is_lost_when_servers_of_the_cluster_are_killed_under_load() {
    const WAIT_MAX: Duration = Duration::from_secs(60);
    let mut cluster = NatsCluster::start();
    let connection = bus::nats::Connection {
        url: cluster.url(),
        nkey_file: None,
        ca_file: None,
        name: "cluster-test".into(),
        user: contract::permissions::User::Service(Service::Backup),
    };
    let transport = bus::nats::connect(&connection, WAIT_MAX).await.expect("a server answers");
    eventually_some("a leader is elected and makes the buckets", WAIT_MAX, async || {
        bus::nats::bootstrap(&transport, Service::Backup, cluster.size()).await.ok()
    })
    .await;
    let bus = Bus::new(Arc::new(transport), Realm::default());
    let host = HostName::new("h1").expect("a name");
    let engine = Sagas::default().with::<StartVm>().open(bus, Service::Backup, host, &Arc::new(State));

    let mut accepted = Vec::new();
    let mut number = 0;
    // Each server in turn dies and comes back, so the leader is among them, whoever it is.
    for victim in 0..cluster.size() {
        for round in 0..20 {
            if round == 5 {
                cluster.kill(victim);
            }
            number += 1;
            let vm = VmName::new(format!("vm-{number}")).expect("a name");
            let id = new_id();
            let command = StartVm { vm, operation_id: None };
            let pending = PendingCommand::of_service(Service::Scheduler, id.clone(), command);
            // A command whose answer was lost is given again with the same id, as every client may.
            let begun = eventually_some("the operation is accepted", WAIT_MAX, async || {
                engine.begin(pending.clone()).await.ok()
            })
            .await;
            assert_eq!(begun.operation(), &id);
            accepted.push(id);
        }
        cluster.revive(victim);
        eventually_some("the cluster is whole again", WAIT_MAX, async || {
            let vm = VmName::new("last").expect("a name");
            let command = StartVm { vm, operation_id: None };
            engine.begin(PendingCommand::of_service(Service::Scheduler, new_id(), command)).await.ok()
        })
        .await;
    }
    for id in accepted {
        eventually_some("every accepted operation is done", WAIT_MAX, async || {
            let report = engine.find(&id).await.ok()??;
            (report.state == OperationState::Done && report.output == Some(report.about.into())).then_some(())
        })
        .await;
    }
}
