//! A NATS cluster loses servers, its leader among them, while operations are begun; none that was accepted is lost.

use std::sync::Arc;
use std::time::Duration;

use bus::Bus;
use contract::operation::OperationState;
use contract::{Realm, Service};
use operation::{Context, Operations, Work, fresh_id};
use saga::{Step, StepFuture, Trail, output};
use testkit::{NatsCluster, eventually_some};

struct Count;

impl Work for Count {
    const KIND: &'static str = "count";
    type World = ();
    type Input = u32;
    fn about(input: &u32) -> String {
        input.to_string()
    }
    fn steps() -> Vec<Step<Context<(), u32>>> {
        vec![
            Step::new("one", Duration::from_secs(5), step),
            Step::new("two", Duration::from_secs(5), step),
            Step::new("three", Duration::from_secs(5), step),
        ]
    }
}

fn step<'a>(context: &'a Context<(), u32>, _: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        output(&context.input)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn no_accepted_operation_is_lost_when_servers_of_the_cluster_are_killed_under_load() {
    const PATIENCE: Duration = Duration::from_secs(60);
    let mut cluster = NatsCluster::start();
    let connection = bus::nats::Connection {
        url: cluster.url(),
        nkey_file: None,
        name: "cluster-test".into(),
        inbox_prefix: contract::permissions::inbox_prefix(Service::Backup),
    };
    let carrier = bus::nats::connect(&connection, PATIENCE).await.expect("a server answers");
    eventually_some("a leader is elected and makes the buckets", PATIENCE, async || {
        bus::nats::bootstrap(&carrier, cluster.size()).await.ok()
    })
    .await;
    let bus = Bus::new(Arc::new(carrier), Realm::default());
    let operations = Operations::of(bus, Service::Backup).with::<Count>(Arc::new(())).open();

    let mut accepted = Vec::new();
    let mut number = 0;
    // Each server in turn dies and comes back, so the leader is among them, whoever it is.
    for victim in 0..cluster.size() {
        for round in 0..20 {
            if round == 5 {
                cluster.kill(victim);
            }
            number += 1;
            let id = fresh_id();
            // A command whose answer was lost is given again with the same id, as every client may.
            let begun = eventually_some("the operation is accepted", PATIENCE, async || {
                operations.begin::<Count>(id.clone(), &number).await.ok()
            })
            .await;
            assert_eq!(begun.operation(), &id);
            accepted.push(id);
        }
        cluster.revive(victim);
        eventually_some("the cluster is whole again", PATIENCE, async || {
            operations.begin::<Count>(fresh_id(), &0).await.ok()
        })
        .await;
    }
    for id in accepted {
        eventually_some("every accepted operation is done", PATIENCE, async || {
            let report = operations.find(&id).await.ok()??;
            (report.state == OperationState::Done
                && report.output == report.about.parse().ok().map(|n: u32| n.into()))
            .then_some(())
        })
        .await;
    }
}
